//! What pages are made with: style, script and icon, which are part of the program, and images, which are part of the store.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::desk::Desk;
use crate::problem::Problem;

const STYLE: &str = include_str!("../../assets/serve.css");
const SCRIPT: &str = include_str!("../../assets/compare.js");
const ICON: &str = include_str!("../../assets/icon.svg");

/// A hash always names the same bytes.
const FOREVER: &str = "private, max-age=31536000, immutable";

/// The gallery's style and what is added to it.
pub(super) async fn style() -> Response {
    let style = format!("{}\n{STYLE}", votive_gallery::STYLE);
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], style).into_response()
}

pub(super) async fn script() -> Response {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT).into_response()
}

pub(super) async fn icon() -> Response {
    ([(header::CONTENT_TYPE, "image/svg+xml")], ICON).into_response()
}

/// A stored image, by its hash: whatever else a path says is not in the store.
pub(super) async fn image(
    State(desk): State<Arc<Desk>>,
    Path(sha256): Path<String>,
) -> Result<Response, Problem> {
    let found = desk.work(move |store, _| Ok(store.image(&sha256)?)).await?;
    let picture = found.ok_or_else(|| Problem::missing("There is no such image."))?;
    let headers = [(header::CONTENT_TYPE, picture.media_type().as_str()), (header::CACHE_CONTROL, FOREVER)];
    Ok((headers, picture.bytes().to_vec()).into_response())
}
