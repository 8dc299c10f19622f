//! A local server: pages on which people compare pairs blind, read what critics said and watch runs, and an OpenAI-compatible
//! endpoint through which other programs ask speakers.
//!
//! ```text
//! request ─▶ gate (Host, Origin, token) ─▶ page ─▶ desk ─▶ Store (votive-critic)     a person is a judge: `person:NAME`
//!                              │         └▶ runs ─▶ run directories (votive-gallery)
//!                              └▶ openai ─▶ voice ─▶ Speaker (votive-critic)
//! ```
//! It listens on 127.0.0.1 alone, knows whoever has the token that it printed, opens no path that a request names, and its
//! pages run no script but the program's own. An answer that was acknowledged is on disk.
//!
//! # Examples
//! ```no_run
//! use votive_serve::{Options, Server};
//!
//! let store = votive_critic::Store::open("pairs.sqlite".as_ref())?;
//! let server = Server::bind(Options { store: Some(store), ..Options::default() })?;
//! let page = server.url(); // to be opened in a browser
//! server.run(|| false)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariant: no model, no trainer, no objective and no data set; speakers and a store are given.

mod agreement;
mod answer;
mod desk;
mod error;
mod gate;
mod openai;
mod page;
mod problem;
mod queue;
mod runs;
mod secret;
mod server;
mod tally;

pub use error::ServeError;
pub use server::{Options, Server};
