//! A request for a chat completion. What would change the answer is used or refused by name, never passed over.

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};
use votive_critic::{Part, Picture, Role, Sampling, Talk, Turn};

use super::error::ApiError;

/// Tokens of an answer where a request does not say.
const MAX_TOKENS: usize = 1024;

/// Most log-probabilities of a token's place, as in OpenAI's interface.
const TOP_LOGPROBS: usize = 20;

/// Fields that are about the account of whoever asks, or say how something may be done that is not done at all.
const WITHOUT_EFFECT: &[&str] = &[
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
];

/// What is asked.
#[derive(Debug)]
pub(super) struct ChatRequest {
    pub(super) model: String,
    pub(super) talk: Talk,
    pub(super) sampling: Sampling,
    /// How many likely tokens are told for each place, if log-probabilities are.
    pub(super) likeliest: Option<usize>,
    pub(super) is_streamed: bool,
    /// Whether a stream ends with what it cost.
    pub(super) has_usage: bool,
}

#[derive(Deserialize)]
struct Fields {
    model: String,
    messages: Vec<Value>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    seed: Option<i64>,
    n: Option<u64>,
    logprobs: Option<bool>,
    top_logprobs: Option<u64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

impl ChatRequest {
    /// # Errors
    /// If it is no such request, or asks for what cannot be done.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let fields: Fields = serde_json::from_slice(body).map_err(|error| {
            ApiError::new(StatusCode::BAD_REQUEST, format!("The body is no request: {error}."))
        })?;
        for (name, value) in &fields.rest {
            if !WITHOUT_EFFECT.contains(&name.as_str()) && !is_nothing(name, value) {
                return Err(ApiError::unsupported(name));
            }
        }
        let mut turns = Vec::with_capacity(fields.messages.len());
        for (n, message) in fields.messages.iter().enumerate() {
            turns.push(turn(message, &format!("messages[{n}]"))?);
        }
        if turns.is_empty() {
            return Err(ApiError::field("messages", "`messages` has no message."));
        }
        Ok(Self {
            sampling: fields.sampling()?,
            likeliest: fields.likeliest()?,
            talk: Talk { turns, next: Role::Assistant },
            is_streamed: fields.stream.unwrap_or(false),
            has_usage: fields.stream_options.is_some_and(|options| options.include_usage),
            model: fields.model,
        })
    }
}

impl Fields {
    fn sampling(&self) -> Result<Sampling, ApiError> {
        let temperature = self.temperature.unwrap_or(1.0);
        if !(0.0..=2.0).contains(&temperature) {
            return Err(ApiError::field(
                "temperature",
                format!("`temperature` is {temperature}, expected 0 to 2."),
            ));
        }
        let top_p = self.top_p.unwrap_or(1.0);
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(ApiError::field(
                "top_p",
                format!("`top_p` is {top_p}, expected more than 0 and at most 1."),
            ));
        }
        let max_tokens = match (self.max_completion_tokens, self.max_tokens) {
            (Some(0), _) => {
                return Err(ApiError::field("max_completion_tokens", "`max_completion_tokens` is 0."));
            }
            (None, Some(0)) => return Err(ApiError::field("max_tokens", "`max_tokens` is 0.")),
            (Some(n), _) | (None, Some(n)) => usize::try_from(n).unwrap_or(usize::MAX),
            (None, None) => MAX_TOKENS,
        };
        if let Some(n) = self.n.filter(|n| *n != 1) {
            return Err(ApiError::field(
                "n",
                format!("`n` is {n}; ask {n} times, with seeds of your own, instead."),
            ));
        }
        let seed = match self.seed {
            Some(seed) => seed as u64,
            None => random()?,
        };
        Ok(Sampling { temperature, top_p, max_tokens, seed })
    }

    fn likeliest(&self) -> Result<Option<usize>, ApiError> {
        match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (true, top) => {
                let top = top.unwrap_or(0);
                let top = usize::try_from(top).ok().filter(|top| *top <= TOP_LOGPROBS);
                let wrong =
                    || ApiError::field("top_logprobs", format!("`top_logprobs` goes up to {TOP_LOGPROBS}."));
                top.map(Some).ok_or_else(wrong)
            }
            (false, None | Some(0)) => Ok(None),
            (false, Some(_)) => Err(ApiError::field("top_logprobs", "`top_logprobs` needs `logprobs`.")),
        }
    }
}

/// 64 bits that nobody has chosen.
pub(super) fn random() -> Result<u64, ApiError> {
    getrandom::u64().map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// Whether a field that is not known says what would be so without it.
fn is_nothing(name: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) if name == "response_format" => {
            values.get("type") == Some(&Value::from("text"))
        }
        Value::Object(values) => values.is_empty(),
        Value::String(text) => {
            matches!((name, text.as_str()), ("tool_choice" | "function_call", "none" | "auto"))
        }
        Value::Bool(true) => false,
    }
}

/// A message as a turn; `place` is its name in errors.
fn turn(message: &Value, place: &str) -> Result<Turn, ApiError> {
    let at = |field: &str, message: &str| ApiError::field(format!("{place}.{field}"), message);
    let role = match message.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        _ => return Err(at("role", "A role is \"system\", \"developer\", \"user\" or \"assistant\".")),
    };
    for field in ["tool_calls", "function_call", "audio"] {
        if message.get(field).is_some_and(|value| !is_nothing(field, value)) {
            return Err(at(field, "Only words and images can be part of a message."));
        }
    }
    let parts = match message.get("content") {
        Some(Value::String(text)) => vec![Part::Text(text.clone())],
        Some(Value::Array(parts)) if !parts.is_empty() => {
            let read = |(n, value)| part(value, &format!("{place}.content[{n}]"));
            parts.iter().enumerate().map(read).collect::<Result<_, _>>()?
        }
        _ => return Err(at("content", "The content is a string, or a list of parts.")),
    };
    Ok(Turn { role, parts })
}

fn part(part: &Value, place: &str) -> Result<Part, ApiError> {
    let text = |field: &str| part.get(field).and_then(Value::as_str);
    match text("type") {
        Some("text") => {
            let words = text("text").ok_or_else(|| {
                ApiError::field(format!("{place}.text"), "A part of type \"text\" has a `text`.")
            })?;
            Ok(Part::Text(words.to_owned()))
        }
        Some("image_url") => {
            let url = part.get("image_url").and_then(|image| image.get("url")).and_then(Value::as_str);
            let place = format!("{place}.image_url.url");
            let url = url.ok_or_else(|| {
                ApiError::field(place.as_str(), "A part of type \"image_url\" has a `url` in `image_url`.")
            })?;
            image(url, &place).map(Part::Image)
        }
        _ => Err(ApiError::field(format!("{place}.type"), "A part is of type \"text\" or \"image_url\".")),
    }
}

/// The image of a data URI; nothing that lies elsewhere is ever opened or fetched.
fn image(url: &str, place: &str) -> Result<Picture, ApiError> {
    let wrong = |message: String| ApiError::field(place, message);
    let data = url.strip_prefix("data:").and_then(|rest| rest.split_once(','));
    let Some((media, data)) = data else {
        return Err(wrong("An image is sent as a data URI: data:image/png;base64,…".to_owned()));
    };
    if !media.ends_with(";base64") {
        return Err(wrong("The data of an image is base64.".to_owned()));
    }
    let bytes =
        STANDARD.decode(data.trim()).map_err(|error| wrong(format!("The data is no base64: {error}.")))?;
    Picture::new(bytes, place).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(more: &Value) -> Result<ChatRequest, Value> {
        let mut request = json!({ "model": "m", "messages": [{ "role": "user", "content": "hello" }] });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ChatRequest::parse(request.to_string().as_bytes()).map_err(|error| error.body()["error"].clone())
    }

    #[test]
    fn what_is_not_said_is_as_in_the_interface() {
        let asked =
            parse(&json!({ "user": "me", "stop": null, "presence_penalty": 0.0, "tools": [] })).unwrap();
        let sampling =
            Sampling { temperature: 1.0, top_p: 1.0, max_tokens: MAX_TOKENS, seed: asked.sampling.seed };
        assert_eq!((asked.sampling, asked.likeliest, asked.is_streamed), (sampling, None, false));
        assert_ne!(asked.sampling.seed, parse(&json!({})).unwrap().sampling.seed);
        let asked = parse(&json!({
            "seed": -1, "max_tokens": 3, "max_completion_tokens": 7, "temperature": 0, "logprobs": true, "top_logprobs": 5,
            "response_format": { "type": "text" }
        }))
        .unwrap();
        let sampling = Sampling { temperature: 0.0, top_p: 1.0, max_tokens: 7, seed: u64::MAX };
        assert_eq!((asked.sampling, asked.likeliest), (sampling, Some(5)));
    }

    #[test]
    fn messages_are_strings_or_parts() {
        let picture = Picture::of_pixels(&image::RgbImage::new(2, 2)).unwrap();
        let url = format!("data:image/png;base64,{}", STANDARD.encode(picture.bytes()));
        let asked = parse(&json!({ "messages": [
            { "role": "developer", "content": "be brief" },
            { "role": "user", "content": [
                { "type": "text", "text": "what is it?" },
                { "type": "image_url", "image_url": { "url": url, "detail": "low" } }
            ] },
            { "role": "assistant", "content": "dark", "tool_calls": null }
        ] }))
        .unwrap();
        let turn = |role, parts| Turn { role, parts };
        assert_eq!(
            asked.talk.turns,
            [
                turn(Role::System, vec![Part::Text("be brief".into())]),
                turn(Role::User, vec![Part::Text("what is it?".into()), Part::Image(picture)]),
                turn(Role::Assistant, vec![Part::Text("dark".into())]),
            ]
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let part = |part: Value| json!({ "messages": [{ "role": "user", "content": [part] }] });
        let url = |url: &str| part(json!({ "type": "image_url", "image_url": { "url": url } }));
        for (more, param) in [
            (json!({ "stop": "x" }), "stop"),
            (json!({ "tools": [{}] }), "tools"),
            (json!({ "response_format": { "type": "json_object" } }), "response_format"),
            (json!({ "frequency_penalty": 0.5 }), "frequency_penalty"),
            (json!({ "best_of": 2 }), "best_of"),
            (json!({ "n": 2 }), "n"),
            (json!({ "temperature": -0.1 }), "temperature"),
            (json!({ "top_p": 0 }), "top_p"),
            (json!({ "max_tokens": 0 }), "max_tokens"),
            (json!({ "top_logprobs": 2 }), "top_logprobs"),
            (json!({ "logprobs": true, "top_logprobs": 21 }), "top_logprobs"),
            (json!({ "messages": [] }), "messages"),
            (json!({ "messages": [{ "role": "tool", "content": "x" }] }), "messages[0].role"),
            (json!({ "messages": [{ "role": "user" }] }), "messages[0].content"),
            (part(json!({ "type": "text" })), "messages[0].content[0].text"),
            (part(json!({ "type": "file" })), "messages[0].content[0].type"),
            (url("http://127.0.0.1/a.png"), "messages[0].content[0].image_url.url"),
            (url("file:///etc/passwd"), "messages[0].content[0].image_url.url"),
            (url("data:image/png;base64,!"), "messages[0].content[0].image_url.url"),
            (url("data:image/png,x"), "messages[0].content[0].image_url.url"),
            (url("data:image/png;base64,aGVsbG8="), "messages[0].content[0].image_url.url"),
        ] {
            let error = parse(&more).unwrap_err();
            assert_eq!(error["param"], param, "{error}");
        }
        assert!(ChatRequest::parse(b"{").is_err() && ChatRequest::parse(b"[]").is_err());
    }
}
