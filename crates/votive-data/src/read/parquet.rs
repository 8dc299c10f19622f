//! Parquet files: one row group is decoded at a time, row after row.
//!
//! Lists become JSON lists, structs objects, maps objects if their keys are strings. Null fields of a struct are
//! absent, since writers give every struct of a list the fields of all of them. Bytes without an encoding are text if
//! they are UTF-8. Columns of images are passed by: a row says where their bytes lie (`image_column`).

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::basic::{ConvertedType, Repetition};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row as ParquetRow};
use parquet::schema::types::Type;
use serde_json::{Map, Number, Value};

use super::image_column::ImageColumns;
use super::row::{Position, Row};
use super::table::Visit;
use crate::error::{DataError, Result};

/// Visits the rows of a file; returns the number of its last row, counted on from `before`. Columns that are called as
/// one of `images` and hold bytes are not read.
pub(super) fn visit(file: &Path, before: usize, images: &[&str], visit: &mut Visit) -> Result<usize> {
    let opened = File::open(file).map_err(DataError::read(file))?;
    let damaged = |rows: usize, message: String| DataError::Parquet { file: file.to_owned(), rows, message };
    let reader = guarded(|| SerializedFileReader::new(opened)).map_err(|message| damaged(0, message))?;
    check_schema(reader.metadata().file_metadata().schema()).map_err(|message| damaged(0, message))?;
    let images = ImageColumns::of(file, reader.metadata().file_metadata().schema(), images);
    let projection = images.others().map_err(|error| damaged(0, error.to_string()))?;
    let mut rows = 0;
    for index in 0..reader.num_row_groups() {
        let group = guarded(|| reader.get_row_group(index)).map_err(|message| damaged(rows, message))?;
        let iterator = guarded(|| RowIter::from_row_group(projection.clone(), &*group));
        let mut iterator = iterator.map_err(|message| damaged(rows, message))?;
        let before_group = rows;
        let expected = rows + usize::try_from(group.metadata().num_rows()).unwrap_or(0);
        while let Some(row) =
            guarded(|| iterator.next().transpose()).map_err(|message| damaged(rows, message))?
        {
            rows += 1;
            let row = interpret(Position { file, in_file: rows, before }, row);
            visit(row.with_embedded_images(images.of_row(index, rows - 1 - before_group)))?;
        }
        if rows != expected {
            return Err(damaged(rows, format!("{expected} rows were announced")));
        }
    }
    Ok(before + rows)
}

thread_local! {
    /// Whether this thread is in [`guarded`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread would be caught and told as an error of a file, so that nobody need hear of it.
#[must_use]
pub fn catches_panics() -> bool {
    GUARDED.get()
}

/// The decoder's answer. It checks less than it should and panics on some damaged files, so a panic is an answer too.
pub(super) fn guarded<T>(decode: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T, String> {
    GUARDED.set(true);
    let answer = catch_unwind(AssertUnwindSafe(decode));
    GUARDED.set(false);
    match answer {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(ParquetError::General(message) | ParquetError::EOF(message))) => Err(message),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the pages do not fit the schema".to_owned()),
    }
}

/// Refuses a schema whose lists and maps are not built as the format says, on which the decoder would panic.
fn check_schema(field: &Type) -> Result<(), String> {
    if field.is_primitive() {
        return Ok(());
    }
    let fields = field.get_fields();
    let wrong = || format!("the column `{}` is not built as a list or map is", field.name());
    let repeated = |field: &Type| {
        let info = field.get_basic_info();
        info.has_repetition() && info.repetition() == Repetition::REPEATED
    };
    match field.get_basic_info().converted_type() {
        ConvertedType::LIST if fields.len() != 1 || !repeated(&fields[0]) => return Err(wrong()),
        ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE
            if fields.len() != 1
                || !repeated(&fields[0])
                || fields[0].is_primitive()
                || !(1..=2).contains(&fields[0].get_fields().len()) =>
        {
            return Err(wrong());
        }
        _ if fields.is_empty() => return Err(wrong()),
        _ => {}
    }
    fields.iter().try_for_each(|field| check_schema(field))
}

fn interpret(position: Position, row: ParquetRow) -> Row {
    let mut binary = BTreeSet::new();
    let mut columns = Map::new();
    for (name, field) in row.into_columns() {
        let mut is_text = true;
        columns.insert(name.clone(), value_of(&field, &mut is_text));
        if !is_text {
            columns.insert(name.clone(), Value::Null);
            binary.insert(name);
        }
    }
    Row::new(position, columns).with_binary_columns(binary)
}

/// A field as JSON; `is_text` becomes false if there are bytes in it that are no text.
fn value_of(field: &Field, is_text: &mut bool) -> Value {
    match field {
        Field::Bool(value) => (*value).into(),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) | Field::Date(value) | Field::TimeMillis(value) => (*value).into(),
        Field::Long(value)
        | Field::TimeMicros(value)
        | Field::TimestampMillis(value)
        | Field::TimestampMicros(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float16(value) => number(f64::from(*value)),
        Field::Float(value) => number(f64::from(*value)),
        Field::Double(value) => number(*value),
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => bytes.as_utf8().map_or_else(
            |_| {
                *is_text = false;
                Value::Null
            },
            Value::from,
        ),
        Field::Group(row) => {
            let fields = row.get_column_iter().filter(|(_, field)| !matches!(field, Field::Null));
            Value::Object(fields.map(|(name, field)| (name.clone(), value_of(field, is_text))).collect())
        }
        Field::ListInternal(list) => list.elements().iter().map(|field| value_of(field, is_text)).collect(),
        Field::MapInternal(map) => {
            let key = |field: &Field| match field {
                Field::Str(text) => text.clone(),
                other => value_of(other, &mut true).to_string(),
            };
            Value::Object(
                map.entries().iter().map(|(name, field)| (key(name), value_of(field, is_text))).collect(),
            )
        }
        // Decimals hold nothing that a preference needs.
        Field::Null | Field::Decimal(_) => Value::Null,
    }
}

/// A number that JSON can hold; one that is not finite is none.
fn number(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}
