//! What the worlds promise, tested from outside.
#![allow(clippy::unwrap_used)]

mod image;
mod text;
