//! Chat templates: the Jinja program that comes with a model and turns a conversation into its training format.
//!
//! Source: the environment that transformers 5.23 builds in `utils/chat_template_utils.py`, whose functions, filters
//! and whitespace rules a template may rely on. A template comes from the hub like any other file, so it runs with a
//! bounded number of instructions and a bounded output.
//!
//! Departures: `strftime_now` exists only if a time was given ([`ChatTemplate::with_time`]), so that the same data are
//! the same tokens tomorrow; templates that test for it fall back to the date they were written with.

mod python;
mod time;

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};

use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use serde_json::{Map, Value};

use crate::error::{DataError, Result};
use crate::record::{ChatOptions, Message};
pub use time::UtcTime;

const NAME: &str = "chat_template";
/// Instructions a template may execute for one conversation; long ones need some thousands.
const FUEL: u64 = 20_000_000;
/// Bytes a template may write for one conversation.
const MAX_OUTPUT: usize = 16 << 20;
/// Names under which a message's reasoning is found in the wild; the first is the one that templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    origin: PathBuf,
}

impl ChatTemplate {
    /// Compiles a template; `origin` is the file it stands in, for messages.
    ///
    /// # Errors
    /// If the source is no Jinja, with the line.
    pub fn compile(source: &str, origin: &Path) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        python::install(&mut environment);
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|error| describe(&error, origin))?;
        Ok(Self { environment, source: source.to_owned(), origin: origin.to_owned() })
    }

    /// The template as it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Lets the template read the time: `strftime_now(format)` then formats `time`.
    #[must_use]
    pub fn with_time(mut self, time: UtcTime) -> Self {
        self.environment.add_function("strftime_now", move |format: &str| {
            time.format(format).map_err(|message| minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        self
    }

    /// Renders a conversation.
    ///
    /// With `add_generation_prompt` the text ends where the assistant's turn begins. `special_tokens` are the
    /// variables `bos_token`, `eos_token`, … of the template.
    ///
    /// # Errors
    /// If the template refuses the conversation (`raise_exception`) or fails, with the line of the template.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        options: &ChatOptions,
        special_tokens: &Map<String, Value>,
    ) -> Result<String> {
        let messages: Vec<_> = messages.iter().map(normalize).collect();
        let fixed = context! { messages, add_generation_prompt, tools => options.tools, documents => () };
        // Later contexts win in transformers' order: special tokens, then the row's own variables.
        let variables = context! {
            ..minijinja::Value::from_serialize(&options.variables),
            ..minijinja::Value::from_serialize(special_tokens)
        };
        let mut output = Bounded(Vec::new());
        self.environment
            .get_template(NAME)
            .and_then(|template| {
                template.render_captured_to(context! { ..fixed, ..variables }, &mut output).map(|_| ())
            })
            .map_err(|error| describe(&error, &self.origin))?;
        String::from_utf8(output.0).map_err(|error| self.failed(error.to_string()))
    }

    fn failed(&self, message: String) -> DataError {
        DataError::Template { origin: self.origin.clone(), line: 1, message }
    }
}

/// What transformers does to a message before the template sees it: fields that are null are absent, and reasoning is
/// found under the name that templates read.
fn normalize(message: &Message) -> Map<String, Value> {
    let mut fields = message.0.clone();
    fields.retain(|_, value| !value.is_null());
    if let Some(reasoning) = REASONING.iter().find_map(|name| fields.get(*name)).cloned() {
        fields.entry("thinking").or_insert_with(|| reasoning.clone());
        fields.insert("reasoning_content".to_owned(), reasoning);
    }
    fields
}

/// Replaces `{% generation %}` … `{% endgeneration %}`, which mark the assistant's text for transformers and render
/// as their body, by a condition that always holds, so that their whitespace control keeps its meaning.
fn without_generation_tags(source: &str) -> String {
    let mut output = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(end) = rest[start..].find("%}").map(|end| start + end + 2) else { break };
        let tag = &rest[start..end];
        output.push_str(&rest[..start]);
        match tag[2..tag.len() - 2].trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => output.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => output.push_str(&tag.replace("endgeneration", "endif")),
            _ => output.push_str(tag),
        }
        rest = &rest[end..];
    }
    output + rest
}

/// The template's failure with its line and the chain of causes.
fn describe(error: &minijinja::Error, origin: &Path) -> DataError {
    let mut message = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => format!("the template runs for more than {FUEL} instructions"),
        // What the template itself says needs no introduction.
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    if message.contains("strftime_now") {
        message.push_str("; the template reads the time, and none was given");
    }
    DataError::Template { origin: origin.to_owned(), line: error.line().unwrap_or(1), message }
}

/// A buffer that refuses to grow beyond [`MAX_OUTPUT`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other(format!("the template writes more than {MAX_OUTPUT} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
