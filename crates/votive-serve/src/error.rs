//! Why a server does not start or ends.

/// Every failure of this crate that is not an answer to a request.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port cannot be had.
    #[error("127.0.0.1:{port}: {source}")]
    Bind {
        /// The port that was asked for.
        port: u16,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The operating system gives no random numbers for the token.
    #[error("no random numbers for a token: {0}")]
    Random(getrandom::Error),
    /// The server cannot go on.
    #[error("the server has ended: {0}")]
    Ended(std::io::Error),
    /// Two speakers have one name.
    #[error("two models are called {0}")]
    SameName(String),
}
