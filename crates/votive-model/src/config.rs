//! Reading a `config.json` field by field, so that every field that changes the result is either used or refused.

use crate::error::{ModelError, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Largest size that is believed; the product of two still fits into 64 bits.
const MOST: u64 = u32::MAX as u64;

fn whole_number() -> String {
    format!("a whole number up to {MOST}")
}

fn size(value: &Value) -> Option<usize> {
    value.as_u64().filter(|n| *n <= MOST).and_then(|n| usize::try_from(n).ok())
}

/// A JSON object with the path that it came from, for error messages.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    /// Where in the file the object lies, with a dot behind it; empty for the whole file.
    within: String,
    value: Value,
}

impl ConfigFile {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// If the file is missing, is not JSON, or is not an object.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ModelError::File { path: path.into(), source })?;
        let value =
            serde_json::from_str(&text).map_err(|source| ModelError::Json { path: path.into(), source })?;
        let file = Self { path: path.into(), within: String::new(), value };
        if !file.value.is_object() {
            return Err(file.wrong("(whole file)", "a JSON object", &file.value));
        }
        Ok(file)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole object.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// A field that is there and not null.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.value.get(field).filter(|value| !value.is_null())
    }

    /// A nested object, as a file of its own.
    #[must_use]
    pub fn object(&self, field: &str) -> Option<Self> {
        let value = self.get(field).filter(|value| value.is_object())?;
        Some(self.below(field, value.clone()))
    }

    /// A nested object of which every field has its default.
    #[must_use]
    pub fn empty_object(&self, field: &str) -> Self {
        self.below(field, Value::Object(serde_json::Map::new()))
    }

    /// The same object with values for fields that are absent; null is a value.
    #[must_use]
    pub(crate) fn with_defaults<T: Into<Value>>(
        mut self,
        defaults: impl IntoIterator<Item = (&'static str, T)>,
    ) -> Self {
        if let Value::Object(fields) = &mut self.value {
            for (field, value) in defaults {
                fields.entry(field).or_insert_with(|| value.into());
            }
        }
        self
    }

    /// The same with other values of some fields.
    #[must_use]
    pub fn with(&self, fields: &[(&str, Value)]) -> Self {
        let mut value = self.value.clone();
        for (field, other) in fields {
            value[*field] = other.clone();
        }
        Self { value, ..self.clone() }
    }

    /// The same without a field.
    #[must_use]
    pub fn without(&self, field: &str) -> Self {
        let mut value = self.value.clone();
        if let Some(object) = value.as_object_mut() {
            object.remove(field);
        }
        Self { value, ..self.clone() }
    }

    fn below(&self, field: &str, value: Value) -> Self {
        Self { path: self.path.clone(), within: format!("{}{field}.", self.within), value }
    }

    fn wrong(&self, field: &str, expected: &str, found: &Value) -> ModelError {
        let found = if found.is_null() { "nothing".to_owned() } else { found.to_string() };
        let field = format!("{}{field}", self.within);
        ModelError::Field { path: self.path.clone(), field, expected: expected.into(), found }
    }

    fn parse<T>(&self, field: &str, expected: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.wrong(field, expected, value)),
        }
    }

    /// A whole number, or none if the field is absent or null.
    ///
    /// # Errors
    /// If the field has another type, or is larger than any size of a network.
    pub fn maybe_usize(&self, field: &str) -> Result<Option<usize>> {
        self.parse(field, &whole_number(), size)
    }

    /// A whole number.
    ///
    /// # Errors
    /// If the field is missing or has another type.
    pub fn usize(&self, field: &str) -> Result<usize> {
        self.maybe_usize(field)?.ok_or_else(|| self.wrong(field, &whole_number(), &Value::Null))
    }

    /// A number, or none if the field is absent or null.
    ///
    /// # Errors
    /// If the field has another type.
    pub fn maybe_f64(&self, field: &str) -> Result<Option<f64>> {
        self.parse(field, "a number", Value::as_f64)
    }

    /// `true` or `false`, with a default for an absent field.
    ///
    /// # Errors
    /// If the field has another type.
    pub fn bool_or(&self, field: &str, default: bool) -> Result<bool> {
        Ok(self.parse(field, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A string, or none if the field is absent or null.
    ///
    /// # Errors
    /// If the field has another type.
    pub fn maybe_str(&self, field: &str) -> Result<Option<String>> {
        self.parse(field, "a string", |v| v.as_str().map(str::to_owned))
    }

    /// A list of strings.
    ///
    /// # Errors
    /// If the field is missing or is something else.
    pub fn strings(&self, field: &str) -> Result<Vec<String>> {
        let read = |v: &Value| v.as_array()?.iter().map(|s| s.as_str().map(str::to_owned)).collect();
        self.parse(field, "a list of strings", read)?
            .ok_or_else(|| self.wrong(field, "a list of strings", &Value::Null))
    }

    /// A list of whole numbers, or none if the field is absent or null.
    ///
    /// # Errors
    /// If the field is something else.
    pub fn maybe_usizes(&self, field: &str) -> Result<Option<Vec<usize>>> {
        let read = |v: &Value| v.as_array()?.iter().map(size).collect();
        self.parse(field, "a list of whole numbers", read)
    }

    /// A whole number for each of `n` levels: one number for all, or a list of that length.
    ///
    /// # Errors
    /// If the field is there but neither.
    pub fn per_level(&self, field: &str, n: usize) -> Result<Option<Vec<usize>>> {
        let read = |v: &Value| match v.as_array() {
            Some(list) if list.len() == n => list.iter().map(size).collect(),
            Some(_) => None,
            None => size(v).map(|x| vec![x; n]),
        };
        self.parse(field, &format!("{}, or a list of {n} of them", whole_number()), read)
    }

    /// Refuses every value of `field` but those in `supported` (and its absence).
    ///
    /// # Errors
    /// If the field has another value.
    pub fn only(&self, field: &str, supported: &[Value]) -> Result<()> {
        match self.get(field) {
            Some(value) if !supported.contains(value) => {
                let supported = supported.iter().map(Value::to_string).collect::<Vec<_>>();
                let supported = if supported.is_empty() {
                    "leave it out, or null".to_owned()
                } else {
                    format!("supported: {}", supported.join(", "))
                };
                Err(self.unsupported(field, &supported))
            }
            _ => Ok(()),
        }
    }

    /// The error that says that a field's value is not implemented.
    #[must_use]
    pub fn unsupported(&self, field: &str, supported: &str) -> ModelError {
        ModelError::Unsupported {
            path: self.path.clone(),
            field: format!("{}{field}", self.within),
            value: self.value.get(field).unwrap_or(&Value::Null).to_string(),
            supported: supported.to_owned(),
        }
    }
}
