//! Which data a command reads, and how.

use crate::cli::{Context, Outcome};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use std::path::PathBuf;
use votive_data::{FORMATS, Format, PairChoice, Records, TextRecords, TextSource, TrainOn};

/// The arguments that say what is read.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// Files, a folder of shards, or a dataset_info.json.
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
    format: Option<&'static Format>,
    /// The pairs to make of a list of completions with scores.
    #[arg(long, value_name = "WHICH", default_value = "best_worst", value_parser = pairs())]
    pairs: PairChoice,
}

fn format() -> impl TypedValueParser<Value = &'static Format> {
    let value = |format: &'static Format| PossibleValue::new(format.name).help(format.origin);
    PossibleValuesParser::new(FORMATS.iter().map(value))
        .try_map(|name| Format::find(&name).ok_or("no such format"))
}

fn pairs() -> impl TypedValueParser<Value = PairChoice> {
    PossibleValuesParser::new(PairChoice::NAMES.map(|(_, name)| name)).try_map(|name| {
        let found = PairChoice::NAMES.into_iter().find(|(_, known)| *known == name);
        found.map(|(choice, _)| choice).ok_or("no such choice")
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
    pub(super) fn read(&self, ctx: &Context) -> Outcome<TextRecords> {
        let source = TextSource {
            paths: self.data.clone(),
            name: self.name.clone(),
            split: self.split.clone(),
            format: self.format,
            pairs: self.pairs,
        };
        let records = source.read()?;
        match &records {
            TextRecords::Pairs(records) => remark(records, "pairs", ctx),
            TextRecords::Unpaired(records) => remark(records, "completions with labels", ctx),
        }
        Ok(records)
    }
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
