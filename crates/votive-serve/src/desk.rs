//! What is served to people, on the way from and to requests: the store, one request at a time, and the folders of runs. Files are
//! read and written on threads of their own.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use votive_critic::Store;

use crate::problem::Problem;
use crate::queue::Queue;
use crate::runs::Runs;

/// The store and the order in which people are shown what is in it; and runs.
pub(crate) struct Desk {
    store: Option<Mutex<Store>>,
    queue: Queue,
    runs: Option<Runs>,
}

impl Desk {
    pub(crate) fn new(store: Option<Store>, queue: Queue, runs: Option<Runs>) -> Self {
        Self { store: store.map(Mutex::new), queue, runs }
    }

    /// Whether people can do nothing here but watch runs.
    pub(crate) fn only_watches(&self) -> bool {
        self.store.is_none() && self.runs.is_some()
    }

    /// Does something with the store.
    pub(crate) async fn work<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&mut Store, Queue) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        aside(move || {
            let store = self.store.as_ref().ok_or_else(|| {
                Problem::missing("Nothing is to be judged here: `votive serve --store FILE` names a store.")
            })?;
            // A thread that has panicked has left no transaction behind: SQLite rolls back what was not committed.
            work(&mut store.lock().unwrap_or_else(PoisonError::into_inner), self.queue)
        })
        .await
    }

    /// Looks at the runs.
    pub(crate) async fn watch<T: Send + 'static>(
        self: Arc<Self>,
        look: impl FnOnce(&Runs) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        aside(move || {
            let runs = self.runs.as_ref().ok_or_else(|| {
                Problem::missing(
                    "No runs are watched here: `votive serve --runs DIR` names a folder of them.",
                )
            })?;
            look(runs)
        })
        .await
    }
}

/// Does something that waits for files, on a thread where it keeps nobody waiting.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let broken = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "This is a defect of votive.");
    tokio::task::spawn_blocking(work).await.map_err(broken)?
}
