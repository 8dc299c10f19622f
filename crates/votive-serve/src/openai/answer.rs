//! Answers in OpenAI's shape, whole.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};
use votive_critic::{Chance, Cost, Piece};

use super::error::ApiError;
use super::now;
use super::request::{ChatRequest, random};
use super::voice::{Event, Heard};

/// The least log-probability that is written: JSON has no infinity, and this is what OpenAI's server says.
const LEAST: f64 = -9999.0;

/// The answer once all of it is there.
pub(super) async fn whole(asked: ChatRequest, mut heard: Heard) -> Result<Response, ApiError> {
    let mut tokens = Vec::new();
    let said = loop {
        match heard.recv().await {
            Some(Event::Piece(piece)) => tokens.extend(token(&piece)),
            Some(Event::End(said)) => break said,
            Some(Event::Silence(silence)) => return Err(silence.into()),
            None => return Err(broken()),
        }
    };
    let logprobs = asked.likeliest.map(|_| json!({ "content": tokens, "refusal": null }));
    let answer = json!({
        "id": id()?,
        "object": "chat.completion",
        "created": now(),
        "model": asked.model,
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": said.words, "refusal": null },
            "logprobs": logprobs,
            "finish_reason": finish_reason(said.is_finished),
        }],
        "usage": usage(said.cost),
        "system_fingerprint": null,
    });
    Ok(Json(answer).into_response())
}

/// A speaker that has ended without a word.
pub(super) fn broken() -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "The model has broken off; this is a defect of votive.")
}

/// A name for an answer.
pub(super) fn id() -> Result<String, ApiError> {
    Ok(format!("chatcmpl-{:016x}", random()?))
}

pub(super) fn finish_reason(is_finished: bool) -> &'static str {
    if is_finished { "stop" } else { "length" }
}

pub(super) fn usage(cost: Cost) -> Value {
    json!({
        "prompt_tokens": cost.input_tokens,
        "completion_tokens": cost.output_tokens,
        "total_tokens": cost.input_tokens + cost.output_tokens,
    })
}

/// A piece with its log-probability, if that was asked for.
pub(super) fn token(piece: &Piece) -> Option<Value> {
    let Chance { log_prob, likeliest } = piece.chance.as_ref()?;
    let one = |token: &str, log_prob: f64| json!({ "token": token, "logprob": log_prob.max(LEAST), "bytes": token.as_bytes() });
    let mut value = one(&piece.words, *log_prob);
    let top: Vec<Value> = likeliest.iter().map(|(token, log_prob)| one(token, *log_prob)).collect();
    value["top_logprobs"] = Value::Array(top);
    Some(value)
}
