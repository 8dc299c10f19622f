//! Speakers as programs know them: the chat completions of OpenAI's interface, with images, streams and log-probabilities.

mod answer;
mod error;
mod request;
mod stream;
mod voice;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{any, get, post};
use serde_json::{Value, json};

pub(crate) use error::refused;
pub(crate) use voice::Voice;

use error::ApiError;
use request::ChatRequest;

/// Bytes of a request, at most; images are part of it.
const REQUEST_BYTES: usize = 64 << 20;

/// Speakers by name.
pub(crate) type Voices = Arc<BTreeMap<String, Voice>>;

/// Everything below `/v1`.
pub(crate) fn router(voices: Voices) -> Router {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/", any(nowhere))
        .route("/v1/{*rest}", any(nowhere))
        .method_not_allowed_fallback(nowhere)
        .layer(DefaultBodyLimit::max(REQUEST_BYTES))
        .with_state(voices)
}

async fn nowhere() -> Response {
    refused(StatusCode::NOT_FOUND, "There are GET /v1/models and POST /v1/chat/completions.")
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn described(name: &str, voice: &Voice) -> Value {
    json!({ "id": name, "object": "model", "created": voice.since(), "owned_by": "votive" })
}

async fn models(State(voices): State<Voices>) -> Response {
    let data: Vec<Value> = voices.iter().map(|(name, voice)| described(name, voice)).collect();
    Json(json!({ "object": "list", "data": data })).into_response()
}

async fn model(State(voices): State<Voices>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let voice = voices.get(&name).ok_or_else(|| ApiError::no_model(&name, &voices))?;
    Ok(Json(described(&name, voice)).into_response())
}

async fn chat(
    State(voices): State<Voices>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = body.map_err(|rejection| ApiError::new(rejection.status(), rejection.body_text()))?;
    let asked = ChatRequest::parse(&body)?;
    let voice = voices.get(&asked.model).ok_or_else(|| ApiError::no_model(&asked.model, &voices))?;
    let heard = voice.hear(&asked)?;
    if asked.is_streamed { stream::answer(asked, heard).await } else { answer::whole(asked, heard).await }
}
