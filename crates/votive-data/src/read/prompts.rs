//! Prompts without pictures: the column `prompt` (or `caption`) of a table, or the lines of a text file.

use super::records::Records;
use super::{extension, table};
use crate::error::{DataError, Result};
use crate::record::CaptionRow;
use crate::report::DataReport;
use std::fs;
use std::path::Path;

const WHAT: &str = "prompts";
const COLUMN: &str = "a row of prompts has the column `prompt` or `caption`";

/// Reads prompts. Empty lines of a text file are passed over; rows are numbered by lines.
///
/// # Errors
/// If the file cannot be read, a row has no prompt, or there is none.
pub fn read_captions(path: &Path) -> Result<(Vec<CaptionRow>, DataReport)> {
    let records = records(path)?;
    let mut report = DataReport::of(&records);
    report.rows_kept = records.rows.len();
    report.require_rows()?;
    Ok((records.rows, report))
}

fn records(path: &Path) -> Result<Records<CaptionRow>> {
    if extension(path).as_deref() == Some("txt") {
        let text = fs::read_to_string(path).map_err(DataError::read(path))?;
        let lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty());
        let rows = lines.map(|(row, line)| CaptionRow { row, prompt: line.to_owned() }).collect();
        return Ok(Records::new(path, rows));
    }
    let mut records = Records::new(path, Vec::new());
    table::visit_rows(path, WHAT, 0, &mut |mut row| {
        let column = if row.has("prompt") { "prompt" } else { "caption" };
        let prompt = row.string(column, COLUMN)?;
        records.rows.push(CaptionRow { row: row.number, prompt });
        for name in row.unread_columns() {
            *records.ignored_columns.entry(name).or_default() += 1;
        }
        Ok(())
    })?;
    records.rows_read = records.rows.len();
    Ok(records)
}
