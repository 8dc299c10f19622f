//! JSON files: a list of objects, as LLaMA-Factory keeps its data sets, or JSON lines under that ending.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::jsonl;
use super::row::{Position, Row};
use super::table::Visit;
use crate::error::{DataError, Result};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Visits the rows of a file; returns the number of its last row, counted on from `before`.
pub(super) fn visit(file: &Path, before: usize, visit: &mut Visit) -> Result<usize> {
    let mut reader = BufReader::new(File::open(file).map_err(DataError::read(file))?);
    if !starts_a_list(&mut reader).map_err(DataError::read(file))? {
        return jsonl::visit(file, before, visit);
    }
    let mut failure = None;
    let mut parser = serde_json::Deserializer::from_reader(reader);
    let mut rows = 0;
    let list = List { file, before, rows: &mut rows, visit, failure: &mut failure };
    let parsed = list.deserialize(&mut parser).and_then(|()| parser.end());
    match (failure, parsed) {
        (Some(error), _) => Err(error),
        (None, Ok(())) => Ok(before + rows),
        (None, Err(error)) => Err(DataError::Settings {
            file: file.to_owned(),
            message: format!("after row {rows}: not a JSON list of objects: {error}"),
        }),
    }
}

/// Passes a byte order mark and says whether the first character that is not white space opens a list.
fn starts_a_list(reader: &mut impl BufRead) -> std::io::Result<bool> {
    if reader.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
        reader.consume(BYTE_ORDER_MARK.len());
    }
    let start = reader.fill_buf()?;
    Ok(start.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'['))
}

/// Hands on each object of the list as soon as it is parsed.
struct List<'a, 'v> {
    file: &'a Path,
    before: usize,
    rows: &'a mut usize,
    visit: &'a mut Visit<'v>,
    /// Why `visit` refused a row; the parser can only carry words.
    failure: &'a mut Option<DataError>,
}

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(columns) = list.next_element::<Map<String, Value>>()? {
            *self.rows += 1;
            let position = Position { file: self.file, in_file: *self.rows, before: self.before };
            if let Err(error) = (self.visit)(Row::new(position, columns)) {
                *self.failure = Some(error);
                return Err(serde::de::Error::custom("the row was refused"));
            }
        }
        Ok(())
    }
}
