//! The store on the way from and to requests. It is read and written on threads of their own, one at a time.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use votive_critic::Store;

use crate::problem::Problem;
use crate::queue::Queue;

/// The store and the order in which people are shown what is in it.
pub(crate) struct Desk {
    store: Option<Mutex<Store>>,
    queue: Queue,
}

impl Desk {
    pub(crate) fn new(store: Option<Store>, queue: Queue) -> Self {
        Self { store: store.map(Mutex::new), queue }
    }

    /// Does something with the store.
    pub(crate) async fn work<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&mut Store, Queue) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let run = move || {
            let store = self.store.as_ref().ok_or_else(|| {
                Problem::missing("Nothing is to be judged here: `votive serve --store FILE` names a store.")
            })?;
            // A thread that has panicked has left no transaction behind: SQLite rolls back what was not committed.
            work(&mut store.lock().unwrap_or_else(PoisonError::into_inner), self.queue)
        };
        let broken = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "This is a defect of votive.");
        tokio::task::spawn_blocking(run).await.map_err(broken)?
    }
}
