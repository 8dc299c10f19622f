//! The server itself: a socket of this machine, the gate before everything, pages and endpoint behind it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware;
use votive_critic::{Speaker, Store};

use crate::desk::Desk;
use crate::error::ServeError;
use crate::gate::{self, Gate};
use crate::openai::{self, Voice};
use crate::page;
use crate::queue::Queue;
use crate::runs::Runs;

/// How often a running server looks whether it should end.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// How long requests that are being answered may take after that.
const GRACE: Duration = Duration::from_secs(5);

/// What is served.
pub struct Options {
    /// The port; 0 for one that is free.
    pub port: u16,
    /// What people judge.
    pub store: Option<Store>,
    /// Key of the draws of orders, sides and repetitions.
    pub seed: u64,
    /// Share of the pairs that people are shown a second time, 0 to 1.
    pub repeats: f64,
    /// Folders of runs and galleries that people watch; each may be one itself.
    pub runs: Vec<PathBuf>,
    /// Speakers whom programs may ask, by name.
    pub speakers: Vec<(String, Arc<dyn Speaker>)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { port: 0, store: None, seed: 0, repeats: 0.1, runs: Vec::new(), speakers: Vec::new() }
    }
}

/// A server that has its port and waits to be run.
pub struct Server {
    listener: TcpListener,
    port: u16,
    gate: Gate,
    desk: Desk,
    voices: BTreeMap<String, Voice>,
}

impl Server {
    /// Takes the port, on 127.0.0.1 and nowhere else.
    ///
    /// # Errors
    /// If the port cannot be had, there are no random numbers, or two speakers have one name.
    pub fn bind(options: Options) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Bind { port: options.port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let gate = Gate::new(port).map_err(ServeError::Random)?;
        let mut voices = BTreeMap::new();
        for (name, speaker) in options.speakers {
            if voices.insert(name.clone(), Voice::new(speaker)).is_some() {
                return Err(ServeError::SameName(name));
            }
        }
        let queue = Queue { seed: options.seed, repeats: options.repeats };
        let runs = (!options.runs.is_empty()).then(|| Runs::new(options.runs));
        Ok(Self { listener, port, gate, desk: Desk::new(options.store, queue, runs), voices })
    }

    /// The address that a person opens; its token lets a browser in.
    #[must_use]
    pub fn url(&self) -> String {
        self.gate.url()
    }

    /// The address of the endpoint for programs.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// The key that lets programs in.
    #[must_use]
    pub fn token(&self) -> &str {
        self.gate.token()
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Answers requests until `is_over` says so; then what is being answered is given some seconds.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn run(self, is_over: impl Fn() -> bool + Send + 'static) -> Result<(), ServeError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Ended)?;
        let ended = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener)?;
            let router = page::router(Arc::new(self.desk))
                .merge(openai::router(Arc::new(self.voices)))
                .layer(middleware::from_fn_with_state(Arc::new(self.gate), gate::guard));
            let (over, mut is_told) = tokio::sync::watch::channel(false);
            let wait = async move {
                while !is_over() {
                    tokio::time::sleep(HEARTBEAT).await;
                }
                let _ = over.send(true);
            };
            let serve = axum::serve(listener, router).with_graceful_shutdown(wait);
            let late = async move {
                let _ = is_told.wait_for(|is_over| *is_over).await;
                tokio::time::sleep(GRACE).await;
            };
            tokio::select! {
                ended = serve => ended,
                () = late => Ok(()),
            }
        });
        // A speaker that still speaks is not waited for.
        runtime.shutdown_background();
        ended.map_err(ServeError::Ended)
    }
}
