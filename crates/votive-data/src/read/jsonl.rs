//! JSON lines: one object a line, UTF-8; blank lines are skipped but counted, so that a row number is a line number.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value};

use super::row::Row;
use crate::error::{DataError, Result};

const BYTE_ORDER_MARK: &str = "\u{feff}";

pub(super) fn read(file: &Path) -> Result<Vec<Row>> {
    let reader = BufReader::new(File::open(file).map_err(DataError::read(file))?);
    let mut rows = Vec::new();
    for (line_idx, line) in reader.split(b'\n').enumerate() {
        let line = line.map_err(DataError::read(file))?;
        if let Some(columns) = parse(file, line_idx + 1, &line)? {
            rows.push(Row::new(file, line_idx + 1, columns));
        }
    }
    Ok(rows)
}

/// The object in a line, or nothing if the line is blank.
fn parse(file: &Path, row: usize, line: &[u8]) -> Result<Option<Map<String, Value>>> {
    let wrong =
        |column: usize, message: String| DataError::Json { file: file.to_owned(), row, column, message };
    let text = std::str::from_utf8(line)
        .map_err(|error| wrong(error.valid_up_to() + 1, "the line is not valid UTF-8".to_owned()))?;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).trim_end();
    if text.trim_start().is_empty() {
        return Ok(None);
    }
    serde_json::from_str(text).map(Some).map_err(|error| {
        // The parser sees a single line and says so; the position that helps is in `row` and `column`.
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        // The start of a value of the wrong type has no column.
        wrong(error.column().max(1), message)
    })
}
