//! The Python that chat templates take for granted: `tojson` as `json.dumps`, string methods, printed constants.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};
use serde_json::Value as Json;

pub(super) fn install(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(call_method);
    environment.set_formatter(print);
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", to_json);
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()))
}

/// Two methods that the compatibility layer lacks, then the layer.
fn call_method(state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), method, args.first().and_then(Value::as_str)) {
        (Some(text), "removeprefix", Some(prefix)) => {
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        (Some(text), "removesuffix", Some(suffix)) => {
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// `{{ none }}` and `{{ true }}` print as they do in Python; nothing is escaped.
fn print(output: &mut Output, _state: &State, value: &Value) -> Result<(), Error> {
    let written = match value.kind() {
        ValueKind::Undefined => Ok(()),
        ValueKind::None => output.write_str("None"),
        ValueKind::Bool => output.write_str(if value.is_true() { "True" } else { "False" }),
        _ => write!(output, "{value}"),
    };
    written.map_err(|error| Error::new(ErrorKind::WriteFailure, "output").with_source(error))
}

/// `json.dumps(value, ensure_ascii=False)` with the options that transformers' filter has.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent = options.get::<Option<usize>>("indent")?;
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let mut style = JsonStyle {
        indent,
        // json.dumps drops the space after the comma where it breaks the line.
        comma: if indent.is_some() { "," } else { ", " }.to_owned(),
        colon: ": ".to_owned(),
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    if let Some([comma, colon]) = separators.as_deref() {
        (style.comma, style.colon) = (comma.clone(), colon.clone());
    }
    options.assert_all_used()?;
    let json = serde_json::to_value(value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, "tojson").with_source(error))?;
    let mut text = String::new();
    style.write(&json, 0, &mut text);
    Ok(Value::from(text))
}

struct JsonStyle {
    indent: Option<usize>,
    comma: String,
    colon: String,
    ensure_ascii: bool,
    sort_keys: bool,
}

impl JsonStyle {
    fn write(&self, json: &Json, depth: usize, text: &mut String) {
        match json {
            Json::Array(items) if !items.is_empty() => {
                self.enclose('[', ']', items, depth, text, |item, text| self.write(item, depth + 1, text));
            }
            Json::Object(fields) if !fields.is_empty() => {
                let mut fields: Vec<_> = fields.iter().collect();
                if self.sort_keys {
                    fields.sort_by_key(|(name, _)| *name);
                }
                self.enclose('{', '}', &fields, depth, text, |(name, value), text| {
                    self.write_string(name, text);
                    text.push_str(&self.colon);
                    self.write(value, depth + 1, text);
                });
            }
            Json::String(string) => self.write_string(string, text),
            other => text.push_str(&other.to_string()),
        }
    }

    fn enclose<T>(
        &self,
        open: char,
        close: char,
        items: &[T],
        depth: usize,
        text: &mut String,
        write: impl Fn(&T, &mut String),
    ) {
        text.push(open);
        for (idx, item) in items.iter().enumerate() {
            if idx > 0 {
                text.push_str(&self.comma);
            }
            self.break_line(depth + 1, text);
            write(item, text);
        }
        self.break_line(depth, text);
        text.push(close);
    }

    fn break_line(&self, depth: usize, text: &mut String) {
        if let Some(indent) = self.indent {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn write_string(&self, string: &str, text: &mut String) {
        let quoted = Json::from(string).to_string();
        if !self.ensure_ascii {
            return text.push_str(&quoted);
        }
        for c in quoted.chars() {
            if c.is_ascii() {
                text.push(c);
            } else {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
            }
        }
    }
}
