//! What goes wrong, in OpenAI's shape.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};
use votive_critic::Silence;

use super::Voice;

/// A request that is not answered, and why.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    /// A field of the request makes no sense.
    pub(super) fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        let code = Some("invalid_value");
        Self { param: Some(param.into()), code, ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    /// A field that would change the answer is not known here.
    pub(super) fn unsupported(param: &str) -> Self {
        let message = format!("Unsupported parameter: `{param}` would change the answer, and cannot here.");
        Self { code: Some("unsupported_parameter"), ..Self::field(param, message) }
    }

    pub(super) fn no_model(name: &str, voices: &BTreeMap<String, Voice>) -> Self {
        let known: Vec<&str> = voices.keys().map(String::as_str).collect();
        let message = format!("The model `{name}` does not exist; there are: {}.", known.join(", "));
        let param = Some("model".to_owned());
        Self { param, code: Some("model_not_found"), ..Self::new(StatusCode::NOT_FOUND, message) }
    }

    /// The body of the answer.
    pub(super) fn body(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        let Self { message, param, code, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }
}

impl From<Silence> for ApiError {
    fn from(silence: Silence) -> Self {
        match silence {
            Silence::Unreadable(why) => Self::field("messages", why),
            Silence::NoAnswer(why) => Self::new(StatusCode::SERVICE_UNAVAILABLE, why),
            Silence::Fatal(error) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body())).into_response()
    }
}

/// The answer to a request that is not let in, or goes nowhere.
pub(crate) fn refused(status: StatusCode, message: &str) -> Response {
    let code = match status {
        StatusCode::UNAUTHORIZED => Some("invalid_api_key"),
        _ => None,
    };
    ApiError { code, ..ApiError::new(status, message) }.into_response()
}
