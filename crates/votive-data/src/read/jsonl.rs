//! JSON lines: one object a line, UTF-8; blank lines are skipped but counted, so that a row number is a line number.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::{Map, Value};

use super::row::{Position, Row};
use super::table::Visit;
use crate::error::{DataError, Result};

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Visits the rows of a file; returns the number of its last line, counted on from `before`.
pub(super) fn visit(file: &Path, before: usize, visit: &mut Visit) -> Result<usize> {
    let reader = BufReader::new(File::open(file).map_err(DataError::read(file))?);
    let mut lines = 0;
    for line in reader.split(b'\n') {
        let line = line.map_err(DataError::read(file))?;
        lines += 1;
        if let Some(columns) = parse(file, lines, &line)? {
            visit(Row::new(Position { file, in_file: lines, before }, columns))?;
        }
    }
    Ok(before + lines)
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
