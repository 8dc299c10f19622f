//! What stands in an answer: objects, marks, lines and labels. Nothing here guesses: what could be read in two ways is an error
//! or nothing.

use crate::judgment::Winner;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// All JSON objects of a text that are not inside another one, in order.
///
/// # Errors
/// If one of them names a field twice.
pub(super) fn objects(words: &str) -> Result<Vec<Map<String, Value>>, String> {
    let mut objects = Vec::new();
    let mut rest = words;
    while let Some(at) = rest.find('{') {
        rest = &rest[at..];
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Strict>();
        match stream.next() {
            Some(Ok(Strict { value, repeated })) => {
                if let Some(name) = repeated {
                    return Err(format!("an object names \"{name}\" twice"));
                }
                if let Value::Object(object) = value {
                    objects.push(object);
                }
                rest = &rest[stream.byte_offset().max(1)..];
            }
            _ => rest = &rest[1..],
        }
    }
    Ok(objects)
}

/// The values of any of these fields, in any object of a text, whatever the case of their names.
///
/// # Errors
/// As [`objects`].
pub(super) fn fields(words: &str, names: &[&str]) -> Result<Vec<Value>, String> {
    let is_named = |field: &str| names.iter().any(|name| field.trim().eq_ignore_ascii_case(name));
    let all = objects(words)?.into_iter().flatten();
    Ok(all.filter(|(field, _)| is_named(field)).map(|(_, value)| value).collect())
}

/// What stands in double square brackets.
pub(super) fn marked(words: &str) -> impl Iterator<Item = &str> {
    words.split("[[").skip(1).filter_map(|after| Some(after.split_once("]]")?.0.trim()))
}

/// What follows `Name:` at the beginning of a line, stars and hashes of Markdown aside. Objects' lines are no such lines.
pub(super) fn lines_after<'a>(words: &'a str, names: &[&str]) -> impl Iterator<Item = &'a str> {
    words.lines().filter_map(move |line| {
        let (name, rest) = plain(line).split_once(':')?;
        names
            .iter()
            .any(|known| plain(name).eq_ignore_ascii_case(known))
            .then(|| plain(rest))
            // A mark is read as a mark.
            .filter(|rest| !rest.is_empty() && !rest.starts_with("[["))
    })
}

/// What follows `name:` anywhere, to the end of its line, marks aside.
pub(super) fn mentions<'a>(words: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let mark = format!("{name}:");
    words.lines().filter_map(move |line| {
        // Letters of ASCII keep their place.
        let at = line.to_ascii_lowercase().find(&mark)?;
        Some(plain(&line[at + mark.len()..])).filter(|rest| !rest.is_empty() && !rest.starts_with("[["))
    })
}

/// A text without Markdown's emphasis, headings and quotes around it.
fn plain(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || "*_#>`".contains(c))
}

/// Whom a label names.
pub(super) fn label_of(text: &str) -> Option<Winner> {
    let mut text = plain(text).trim_end_matches('.');
    for [open, close] in [['"', '"'], ['\'', '\''], ['(', ')'], ['[', ']']] {
        text = text.strip_prefix(open).and_then(|inside| inside.strip_suffix(close)).unwrap_or(text);
    }
    let text = text.to_lowercase();
    let words = ["answer", "response", "image", "picture", "candidate", "option", "assistant", "the"];
    let label: Vec<&str> = text.split_whitespace().filter(|word| !words.contains(word)).collect();
    match label[..] {
        ["a" | "1" | "first" | "left"] | ["first", "one"] => Some(Winner::First),
        ["b" | "2" | "second" | "right"] | ["second", "one"] => Some(Winner::Second),
        ["c" | "tie" | "equal" | "neither" | "draw" | "same" | "both"] => Some(Winner::Tie),
        _ => None,
    }
}

/// Whom a value names.
pub(super) fn label_of_value(value: &Value) -> Option<Winner> {
    match value {
        Value::String(text) => label_of(text),
        Value::Number(number) => match number.as_u64()? {
            0 => Some(Winner::Tie),
            1 => Some(Winner::First),
            2 => Some(Winner::Second),
            _ => None,
        },
        _ => None,
    }
}

/// A number, alone or as `7/10` of a scale that ends at `high`.
pub(super) fn number_of(text: &str, high: f64) -> Option<f64> {
    let text = plain(text).trim_end_matches('.');
    let number = match text.split_once('/') {
        Some((number, whole)) => (whole.trim().parse::<f64>().ok()? == high).then_some(number.trim())?,
        None => text,
    };
    // `inf`, `nan` and `1e3` are numbers to Rust, and no grades.
    let is_plain = number.chars().all(|c| c.is_ascii_digit() || "+-.".contains(c));
    is_plain.then(|| number.parse().ok()).flatten()
}

/// The number that a value is.
pub(super) fn number_of_value(value: &Value, high: f64) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => number_of(text, high),
        _ => None,
    }
}

/// A JSON value, and a field that one of its objects has twice: JSON leaves open which one counts.
struct Strict {
    value: Value,
    repeated: Option<String>,
}

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

fn scalar<E>(value: Value) -> Result<Strict, E> {
    Ok(Strict { value, repeated: None })
}

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
        scalar(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
        scalar(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
        scalar(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
        scalar(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
        scalar(value.into())
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        scalar(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Strict, A::Error> {
        let (mut array, mut repeated) = (Vec::new(), None);
        while let Some(item) = items.next_element::<Strict>()? {
            repeated = repeated.or(item.repeated);
            array.push(item.value);
        }
        Ok(Strict { value: array.into(), repeated })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Strict, A::Error> {
        let (mut object, mut repeated) = (Map::new(), None);
        while let Some((name, item)) = entries.next_entry::<String, Strict>()? {
            repeated = repeated.or(item.repeated);
            if object.insert(name.clone(), item.value).is_some() {
                repeated = Some(name);
            }
        }
        Ok(Strict { value: object.into(), repeated })
    }
}
