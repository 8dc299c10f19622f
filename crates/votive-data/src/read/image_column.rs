//! Images that are embedded in Parquet files: which columns hold them, and their bytes one by one.
//!
//! A column of images is bytes without an encoding, or a struct with such a column `bytes`, as the `Image` feature of
//! `datasets` is stored, or a list of such structs. Their bytes are never read with the rows: a pass over the rows of Pick-a-Pic's 335 GB reads the
//! captions and labels alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{ConvertedType, Repetition, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::Result as ParquetResult;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::{Type, TypePtr};

use super::parquet::guarded;
use crate::record::EmbeddedImage;

const BYTES: &str = "bytes";

/// The columns of a file that hold images.
pub(super) struct ImageColumns {
    file: Arc<Path>,
    schema: Type,
    /// Name of the column, and the path of its bytes.
    columns: Vec<(String, Arc<str>)>,
}

impl ImageColumns {
    /// Those among `names` that hold bytes.
    pub(super) fn of(file: &Path, schema: &Type, names: &[&str]) -> Self {
        let named = schema.get_fields().iter().filter(|field| names.contains(&field.name()));
        let columns = named.filter_map(|field| Some((field.name().to_owned(), path_of_bytes(field)?.into())));
        Self { file: file.into(), schema: schema.clone(), columns: columns.collect() }
    }

    /// The schema without the bytes; none if that is the whole schema, or if nothing else is there.
    pub(super) fn others(&self) -> ParquetResult<Option<Type>> {
        if self.columns.is_empty() {
            return Ok(None);
        }
        let mut fields = Vec::new();
        for field in self.schema.get_fields() {
            match self.columns.iter().find(|(name, _)| name == field.name()) {
                None => fields.push(Arc::clone(field)),
                Some(_) => fields.extend(without_bytes(field)?),
            }
        }
        let is_empty = fields.is_empty();
        let schema = Type::group_type_builder(self.schema.name()).with_fields(fields).build()?;
        Ok((!is_empty).then_some(schema))
    }

    /// The images of a row of a row group, by column.
    pub(super) fn of_row(&self, group: usize, row: usize) -> BTreeMap<String, EmbeddedImage> {
        let place = |column: &Arc<str>| EmbeddedImage {
            file: Arc::clone(&self.file),
            group,
            row,
            column: Arc::clone(column),
            index: 0,
            or_file: None,
        };
        self.columns.iter().map(|(name, column)| (name.clone(), place(column))).collect()
    }
}

/// Where the bytes of a column of images stand.
fn path_of_bytes(field: &Type) -> Option<String> {
    if is_bytes(field) {
        return Some(field.name().to_owned());
    }
    if field.is_primitive() || is_repeated(field) {
        return None;
    }
    let item = item_of(field);
    let is_inner = |inner: &TypePtr| inner.name() == BYTES && is_bytes(inner);
    let holds_bytes = |item: &Type| item.is_group() && item.get_fields().iter().any(is_inner);
    match item {
        Some((list, item)) if holds_bytes(item) => {
            Some(format!("{}.{}.{}.{BYTES}", field.name(), list.name(), item.name()))
        }
        _ => holds_bytes(field).then(|| format!("{}.{BYTES}", field.name())),
    }
}

/// The repeated group of a list and what it repeats, if the column is a list of three levels.
fn item_of(field: &Type) -> Option<(&TypePtr, &TypePtr)> {
    if field.get_basic_info().converted_type() != ConvertedType::LIST {
        return None;
    }
    match field.get_fields() {
        [list] if list.is_group() && is_repeated(list) => match list.get_fields() {
            [item] => Some((list, item)),
            _ => None,
        },
        _ => None,
    }
}

fn is_repeated(field: &Type) -> bool {
    let info = field.get_basic_info();
    info.has_repetition() && info.repetition() == Repetition::REPEATED
}

fn is_bytes(field: &Type) -> bool {
    field.is_primitive()
        && !is_repeated(field)
        && field.get_physical_type() == Physical::BYTE_ARRAY
        && field.get_basic_info().converted_type() == ConvertedType::NONE
        && field.get_basic_info().logical_type_ref().is_none()
}

/// What stands beside the bytes of a column of images; nothing if nothing does.
fn without_bytes(field: &Type) -> ParquetResult<Option<TypePtr>> {
    if field.is_primitive() {
        return Ok(None);
    }
    let others = match item_of(field) {
        None => field.get_fields().iter().filter(|inner| inner.name() != BYTES).cloned().collect(),
        Some((list, item)) => match without_bytes(item)? {
            None => Vec::new(),
            Some(item) => vec![Arc::new(with_fields(list, vec![item])?)],
        },
    };
    if others.is_empty() {
        return Ok(None);
    }
    Ok(Some(Arc::new(with_fields(field, others)?)))
}

/// A group with other fields.
fn with_fields(group: &Type, fields: Vec<TypePtr>) -> ParquetResult<Type> {
    let about = group.get_basic_info();
    Type::group_type_builder(group.name())
        .with_repetition(about.repetition())
        .with_converted_type(about.converted_type())
        .with_logical_type(about.logical_type_ref().cloned())
        .with_fields(fields)
        .build()
}

/// Reads embedded images. Images in the order of their file cost one pass over it: a column of a row group is read on
/// from where the last image ended, and only an image before that begins it again.
#[derive(Default)]
pub(crate) struct EmbeddedImages {
    opened: Option<(Arc<Path>, SerializedFileReader<File>)>,
    /// By column: the row group, the row that comes next, and the reader.
    cursors: BTreeMap<Arc<str>, Cursor>,
}

struct Cursor {
    group: usize,
    next: usize,
    /// Definition level of a value that is there.
    defined: i16,
    /// The row that was read last, and its images.
    last: Option<(usize, Vec<Option<ByteArray>>)>,
    reader: ColumnReaderImpl<ByteArrayType>,
}

impl EmbeddedImages {
    /// The bytes of an image; nothing if the row has none.
    pub(crate) fn read(&mut self, image: &EmbeddedImage) -> Result<Option<ByteArray>, String> {
        let is_open = self.opened.as_ref().is_some_and(|(file, _)| *file == image.file);
        if !is_open {
            self.cursors.clear();
            let opened = File::open(&image.file).map_err(|error| error.to_string())?;
            let reader = guarded(|| SerializedFileReader::new(opened))?;
            self.opened = Some((Arc::clone(&image.file), reader));
        }
        let goes_on = |cursor: &Cursor| {
            cursor.group == image.group && (cursor.next <= image.row || cursor.has(image.row))
        };
        if !self.cursors.get(&image.column).is_some_and(goes_on) {
            let cursor = self.cursor(image)?;
            self.cursors.insert(Arc::clone(&image.column), cursor);
        }
        let read = match self.cursors.get_mut(&image.column) {
            Some(cursor) => cursor.read(image.row, image.index),
            None => Err("no such column".to_owned()),
        };
        // After a failure nobody knows where the reader stands.
        read.inspect_err(|_| {
            self.cursors.remove(&image.column);
        })
    }

    fn cursor(&self, image: &EmbeddedImage) -> Result<Cursor, String> {
        let Some((_, file)) = &self.opened else { return Err("no file is open".to_owned()) };
        if image.group >= file.num_row_groups() {
            return Err(format!("there is no row group {}", image.group));
        }
        let columns = file.metadata().file_metadata().schema_descr().columns();
        let leaf = columns.iter().position(|column| column.path().string() == *image.column);
        let leaf = leaf.ok_or_else(|| format!("there is no column `{}`", image.column))?;
        let defined = columns[leaf].max_def_level();
        let reader = guarded(|| file.get_row_group(image.group)?.get_column_reader(leaf))?;
        match reader {
            ColumnReader::ByteArrayColumnReader(reader) => {
                Ok(Cursor { group: image.group, next: 0, defined, last: None, reader })
            }
            _ => Err(format!("the column `{}` does not hold bytes", image.column)),
        }
    }
}

impl Cursor {
    /// Whether the row is the one that was read last.
    fn has(&self, row: usize) -> bool {
        self.last.as_ref().is_some_and(|(last, _)| *last == row)
    }

    /// The image at a place of a row's list.
    fn read(&mut self, row: usize, index: usize) -> Result<Option<ByteArray>, String> {
        if !self.has(row) {
            self.last = Some((row, self.read_row(row)?));
        }
        Ok(self.last.as_ref().and_then(|(_, images)| images.get(index)?.clone()))
    }

    fn read_row(&mut self, row: usize) -> Result<Vec<Option<ByteArray>>, String> {
        let (ahead, mut levels, mut values) = (row - self.next, Vec::new(), Vec::new());
        let mut starts = Vec::new();
        let skipped = guarded(|| self.reader.skip_records(ahead))?;
        let (found, ..) =
            guarded(|| self.reader.read_records(1, Some(&mut levels), Some(&mut starts), &mut values))?;
        if skipped != ahead || found != 1 {
            return Err(format!("the column ends before row {} of its row group", row + 1));
        }
        self.next = row + 1;
        if self.defined == 0 {
            return Ok(values.into_iter().map(Some).collect());
        }
        let mut values = values.into_iter();
        Ok(levels.iter().map(|level| if *level == self.defined { values.next() } else { None }).collect())
    }
}
