//! The server as browsers and programs meet it: over HTTP, on a free port.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod answers;
mod browser;
mod endpoint;
mod gate;
mod hostile;
mod killed;
mod running;
mod runs;
