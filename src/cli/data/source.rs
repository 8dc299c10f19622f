//! Which data a command reads, and how.

use crate::cli::{Context, Failure, Outcome};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use std::path::PathBuf;
use votive_data::{
    DataError, FORMATS, FaultyRows, Format, IMAGE_FORMATS, ImageDataSource, ImageFormat, ImageLimits,
    ImagePair, PairChoice, PairWeights, Records, ScreenedPair, TextRecords, TextSource, Ties, TrainOn,
    holds_images, screen_image_pairs,
};

/// The arguments that say what is read.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// Files, a folder of shards or of the folders chosen and rejected, or a dataset_info.json.
    #[arg(value_name = "DATA", required = true)]
    data: Vec<PathBuf>,
    /// The data set meant in a dataset_info.json.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The split meant in a folder of several, such as train.
    #[arg(long, value_name = "SPLIT")]
    split: Option<String>,
    /// The layout of the columns [default: the one they show].
    #[arg(long, value_name = "FORMAT", value_parser = format())]
    format: Option<AnyFormat>,
    /// The pairs to make of a list of completions or images with scores.
    #[arg(long, value_name = "WHICH", default_value = "best_worst", value_parser = named(&PairChoice::NAMES))]
    pairs: PairChoice,
    /// Images: what becomes of pairs without a preference.
    #[arg(long, value_name = "WHAT", default_value = "drop", value_parser = named(&Ties::NAMES))]
    ties: Ties,
    /// Images: weigh pairs by the column `weight`, or by one over `num_example_per_prompt`.
    #[arg(long, value_name = "BY", default_value = "column", value_parser = named(&PairWeights::NAMES))]
    weights: PairWeights,
    /// Images: the folder below which paths of images lie [default: that of the table].
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
}

/// A layout of texts or of images.
#[derive(Clone, Copy, Debug)]
enum AnyFormat {
    Text(&'static Format),
    Images(&'static ImageFormat),
}

/// What was read.
pub(super) enum Found {
    Text(TextRecords),
    Images(Records<ImagePair>),
}

fn format() -> impl TypedValueParser<Value = AnyFormat> {
    let texts = FORMATS.iter().map(|format| PossibleValue::new(format.name).help(format.origin));
    let images = IMAGE_FORMATS.iter().map(|format| PossibleValue::new(format.name).help(format.origin));
    PossibleValuesParser::new(texts.chain(images)).try_map(|name| {
        let text = Format::find(&name).map(AnyFormat::Text);
        text.or_else(|| ImageFormat::find(&name).map(AnyFormat::Images)).ok_or("no such format")
    })
}

/// Parses one of a few values by its name.
fn named<T: Copy + Send + Sync + 'static, const N: usize>(
    names: &'static [(T, &'static str); N],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names.iter().map(|(_, name)| *name)).try_map(|name| {
        let found = names.iter().find(|(_, known)| *known == name);
        found.map(|(value, _)| *value).ok_or("no such choice")
    })
}

/// Parses the names of what is trained.
pub(super) fn train_on() -> impl TypedValueParser<Value = TrainOn> {
    PossibleValuesParser::new(["completion", "assistant"]).map(|name| match name.as_str() {
        "assistant" => TrainOn::Assistant,
        _ => TrainOn::Completion,
    })
}

impl Source {
    /// Reads the records, and says on stderr what was read and what was not.
    pub(super) fn read(&self, ctx: &Context) -> Outcome<Found> {
        let is_of_images = match self.format {
            Some(format) => matches!(format, AnyFormat::Images(_)),
            None => self.name.is_none() && holds_images(&self.data, self.split.as_deref()),
        };
        if is_of_images {
            let records = self.image_source()?.read()?;
            remark(&records, "pairs of images", ctx);
            return Ok(Found::Images(records));
        }
        let records = self.text_source().read().map_err(name_all_formats)?;
        match &records {
            TextRecords::Pairs(records) => remark(records, "pairs", ctx),
            TextRecords::Unpaired(records) => remark(records, "completions with labels", ctx),
        }
        Ok(Found::Text(records))
    }

    fn text_source(&self) -> TextSource {
        let format = match self.format {
            Some(AnyFormat::Text(format)) => Some(format),
            _ => None,
        };
        TextSource {
            paths: self.data.clone(),
            name: self.name.clone(),
            split: self.split.clone(),
            format,
            pairs: self.pairs,
        }
    }

    fn image_source(&self) -> Outcome<ImageDataSource> {
        if self.name.is_some() {
            return Err(Failure::usage(
                "--name: a dataset_info.json lists texts, but --format is one of images",
            ));
        }
        let format = match self.format {
            Some(AnyFormat::Images(format)) => Some(format),
            _ => None,
        };
        Ok(ImageDataSource {
            paths: self.data.clone(),
            split: self.split.clone(),
            format,
            pairs: self.pairs,
            ties: self.ties,
            weights: self.weights,
            images: self.images.clone(),
        })
    }
}

/// Columns of no layout of texts are of none of images either, or they would have been read as such.
fn name_all_formats(error: DataError) -> DataError {
    match error {
        DataError::UnknownColumns { file, row, columns, known } => {
            let images = IMAGE_FORMATS.iter().map(|format| format.name).collect::<Vec<_>>().join(", ");
            DataError::UnknownColumns { file, row, columns, known: format!("{known}; of images: {images}") }
        }
        other => other,
    }
}

/// Looks at every image; pairs that cannot be used are counted in the report.
pub(super) fn screen(
    records: Records<ImagePair>,
    ctx: &Context,
) -> Outcome<(Vec<ScreenedPair>, votive_data::DataReport)> {
    let progress = ctx.output.progress("decoding", "pairs", records.rows.len() as u64);
    let limits = ImageLimits::default();
    let found = screen_image_pairs(records, FaultyRows::Drop, &limits, |done, _| progress.set(done as u64))?;
    progress.finish();
    Ok(found)
}

fn remark<T>(records: &Records<T>, what: &str, ctx: &Context) {
    let (file, format) = (records.file.display(), records.format.unwrap_or("nothing"));
    let (read, made) = (records.rows_read, records.rows.len());
    ctx.output.note(format!("{file}: {read} rows read as {format}: {made} {what}"));
    if !records.ignored_columns.is_empty() {
        let columns = records.ignored_columns.iter().map(|(name, rows)| format!("{name} ({rows})"));
        ctx.output.note(format!("  columns not read: {}", columns.collect::<Vec<_>>().join(", ")));
    }
}
