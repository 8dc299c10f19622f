//! Answers in OpenAI's shape, piece by piece as server-sent events.

use std::convert::Infallible;

use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};

use super::answer::{broken, finish_reason, id, token, usage};
use super::error::ApiError;
use super::now;
use super::request::ChatRequest;
use super::voice::{Event, Heard};

/// A stream that has begun.
struct Stream {
    heard: Heard,
    /// What was heard already.
    first: Option<Event>,
    /// What every event says alike.
    frame: Value,
    has_usage: bool,
    is_over: bool,
}

/// The answer as a stream. What goes wrong before its first piece is an error like any other.
pub(super) async fn answer(asked: ChatRequest, mut heard: Heard) -> Result<Response, ApiError> {
    let first = match heard.recv().await {
        Some(Event::Silence(silence)) => return Err(silence.into()),
        None => return Err(broken()),
        first => first,
    };
    let mut frame = json!({
        "id": id()?,
        "object": "chat.completion.chunk",
        "created": now(),
        "model": asked.model,
        "system_fingerprint": null,
    });
    if asked.has_usage {
        frame["usage"] = Value::Null;
    }
    let opening = json!({ "role": "assistant", "content": "" });
    let opening = chunk(&frame, opening, None, None);
    let stream = Stream { heard, first, frame, has_usage: asked.has_usage, is_over: false };
    let rest = stream::unfold(stream, |mut stream| async move {
        let events = stream.next().await?;
        Some((stream::iter(events.into_iter().map(Ok::<_, Infallible>)), stream))
    });
    let opening = stream::iter([Ok(opening)]);
    let events = futures_util::StreamExt::chain(opening, futures_util::StreamExt::flatten(rest));
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

impl Stream {
    /// The events of what is heard next; none after the last.
    async fn next(&mut self) -> Option<Vec<Sent>> {
        if self.is_over {
            return None;
        }
        let event = match self.first.take() {
            Some(event) => Some(event),
            None => self.heard.recv().await,
        };
        let failed = |error: ApiError| vec![data(&error.body())];
        let last = match event {
            Some(Event::Piece(piece)) => {
                let logprobs = token(&piece).map(|token| json!({ "content": [token], "refusal": null }));
                return Some(vec![chunk(&self.frame, json!({ "content": piece.words }), logprobs, None)]);
            }
            Some(Event::End(said)) => {
                let mut events =
                    vec![chunk(&self.frame, json!({}), None, Some(finish_reason(said.is_finished)))];
                if self.has_usage {
                    let mut frame = self.frame.clone();
                    frame["choices"] = json!([]);
                    frame["usage"] = usage(said.cost);
                    events.push(data(&frame));
                }
                events.push(Sent::default().data("[DONE]"));
                events
            }
            Some(Event::Silence(silence)) => failed(silence.into()),
            None => failed(broken()),
        };
        self.is_over = true;
        Some(last)
    }
}

fn chunk(frame: &Value, delta: Value, logprobs: Option<Value>, finish_reason: Option<&str>) -> Sent {
    let mut chunk = frame.clone();
    let choice = json!({ "index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason });
    chunk["choices"] = json!([choice]);
    data(&chunk)
}

/// JSON on one line, as an event.
fn data(value: &Value) -> Sent {
    Sent::default().data(value.to_string())
}
