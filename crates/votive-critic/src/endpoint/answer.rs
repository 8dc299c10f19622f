//! What a server answers.

use serde_json::Value;

/// Longest message of a server's error that is passed on, characters.
const LONGEST_MESSAGE: usize = 300;

/// An answer of a server, as far as it is of use.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) words: String,
    pub(super) is_finished: bool,
    /// Tokens that could have come first, with their log-probabilities.
    pub(super) alternatives: Option<Vec<(String, f64)>>,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
}

impl Answer {
    /// Reads a chat completion.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let choice = value.pointer("/choices/0").ok_or("it has no choices")?;
        let words = match choice.pointer("/message/content") {
            Some(Value::String(words)) => words.clone(),
            // A refusal, or nothing but a tool's call or thoughts.
            Some(Value::Null) | None => String::new(),
            Some(other) => return Err(format!("its content is {other}")),
        };
        let alternative =
            |token: &Value| Some((token.get("token")?.as_str()?.to_owned(), token.get("logprob")?.as_f64()?));
        let tokens = choice.pointer("/logprobs/content/0/top_logprobs").and_then(Value::as_array);
        let count = |field: &str| value.pointer(field).and_then(Value::as_u64).unwrap_or(0);
        Ok(Self {
            words,
            is_finished: choice.get("finish_reason").and_then(Value::as_str) != Some("length"),
            alternatives: tokens.map(|tokens| tokens.iter().filter_map(alternative).collect()),
            input_tokens: count("/usage/prompt_tokens"),
            output_tokens: count("/usage/completion_tokens"),
        })
    }
}

/// What a server says is wrong, in one line.
pub(super) fn error_message(text: &str) -> String {
    let value: Option<Value> = serde_json::from_str(text).ok();
    let fields = ["/error/message", "/message", "/detail", "/error"];
    let said = value
        .iter()
        .flat_map(|value| fields.iter().filter_map(|field| value.pointer(field)?.as_str()))
        .next();
    let line = said.unwrap_or(text).split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.is_empty() => "no message".to_owned(),
        None => line,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_completion_is_read() {
        let text = r#"{"choices":[{"message":{"role":"assistant","content":"A"},"finish_reason":"length",
            "logprobs":{"content":[{"token":"A","logprob":-0.1,"top_logprobs":[{"token":"A","logprob":-0.1},{"token":"B"}]}]}}],
            "usage":{"prompt_tokens":7,"completion_tokens":1}}"#;
        let answer = Answer::parse(text).unwrap();
        assert_eq!((answer.words.as_str(), answer.is_finished), ("A", false));
        assert_eq!(answer.alternatives, Some(vec![("A".to_owned(), -0.1)]));
        assert_eq!((answer.input_tokens, answer.output_tokens), (7, 1));
    }

    #[test]
    fn what_is_no_completion_is_said_to_be_none() {
        for text in
            ["", "{}", "[]", "{\"choices\":[]}", "{\"choices\":[{\"message\":{\"content\":7}}]}", "<html>"]
        {
            assert!(Answer::parse(text).is_err(), "{text}");
        }
        let refused = Answer::parse("{\"choices\":[{\"message\":{\"content\":null}}]}").unwrap();
        assert!(refused.words.is_empty() && refused.alternatives.is_none());
    }

    #[test]
    fn errors_are_told_in_one_short_line() {
        assert_eq!(error_message("{\"error\":{\"message\":\"too\\nlong\"}}"), "too long");
        assert_eq!(error_message("{\"detail\":\"x\"}"), "x");
        assert_eq!(error_message(""), "no message");
        assert!(error_message(&"é".repeat(1000)).chars().count() == LONGEST_MESSAGE + 1);
    }
}
