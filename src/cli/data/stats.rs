//! `votive data stats`: a data set in numbers.

use super::image_stats;
use super::source::{Found, Source, train_on};
use crate::cli::text_model::load_tokenizer;
use crate::cli::{Context, Failure, Outcome};
use serde::Serialize;
use std::fmt::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use votive_data::{
    DataReport, Distribution, Duplicates, FaultyRows, Lengths, LongRows, Records, RowList, RowNumbers,
    RowPolicy, TextRecords, TextTokenizer, TrainOn,
};

/// Count what a data set holds: rows, reasons for leaving rows out, lengths, margins, duplicates
///
/// Lengths are in tokens with a model and in characters without. Rows that could not be trained on are counted by
/// reason; only a tokenizer finds all of them. Every image is decoded, so that those that are damaged are found; captions
/// are then in tokens of CLIP.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// The model whose tokenizer and chat template are used.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Tokens that fit into the context; longer rows count as left out.
    #[arg(long, value_name = "N", requires = "model")]
    max_length: Option<NonZeroUsize>,
    /// Which turns of a completion are trained.
    #[arg(long, value_name = "WHAT", default_value = "completion", value_parser = train_on())]
    train_on: TrainOn,
}

/// The numbers of a data set.
#[derive(Debug, Serialize)]
struct Stats {
    /// `tokens` or `characters`.
    unit: &'static str,
    lengths: Lengths,
    margin: Distribution,
    weight: Distribution,
    duplicates: Duplicates,
    report: DataReport,
}

/// Widest bar of a histogram.
const WIDEST: usize = 40;

pub(super) fn run(args: &Args, ctx: &Context) -> Outcome {
    let records = match args.source.read(ctx)? {
        Found::Text(records) => records,
        Found::Images(records) if args.max_length.is_none() => {
            return image_stats::stats(records, args.model.as_deref(), ctx);
        }
        Found::Images(_) => {
            return Err(Failure::usage("--max-length: captions have the length of their model"));
        }
    };
    let tokenizer = args.model.as_deref().map(load_tokenizer).transpose()?;
    let stats = args.stats(&records, tokenizer.as_ref())?;
    if ctx.output.wants_json() {
        return ctx.output.json(&stats);
    }
    ctx.output.line(stats.text().trim_end())
}

impl Args {
    fn stats(&self, records: &TextRecords, tokenizer: Option<&TextTokenizer>) -> Outcome<Stats> {
        let policy = RowPolicy {
            max_length: self.max_length.map(NonZeroUsize::get),
            long_rows: LongRows::Drop,
            faulty_rows: FaultyRows::Drop,
            train_on: self.train_on,
        };
        let unit = if tokenizer.is_some() { "tokens" } else { "characters" };
        let (lengths, report) = match (records, tokenizer) {
            (TextRecords::Pairs(records), Some(tokenizer)) => {
                let (pairs, report) = tokenizer.tokenize_pairs(records, policy)?;
                (Lengths::of_tokenized_pairs(&pairs), report)
            }
            (TextRecords::Unpaired(records), Some(tokenizer)) => {
                let (examples, report) = tokenizer.tokenize_unpaired(records, policy)?;
                (Lengths::of_tokenized_unpaired(&examples), report)
            }
            (TextRecords::Pairs(records), None) => {
                (Lengths::of_text_pairs(&records.rows), DataReport::untokenized(records)?)
            }
            (TextRecords::Unpaired(records), None) => {
                (Lengths::of_text_unpaired(&records.rows), DataReport::untokenized(records)?)
            }
        };
        let (margin, weight, duplicates) = match records {
            TextRecords::Pairs(records) => {
                let [margin, weight] = numbers(records, |pair| pair.numbers);
                (margin, weight, Duplicates::among_pairs(&records.rows))
            }
            TextRecords::Unpaired(records) => {
                let [margin, weight] = numbers(records, |one| one.numbers);
                (margin, weight, Duplicates::among_unpaired(&records.rows))
            }
        };
        Ok(Stats { unit, lengths, margin, weight, duplicates, report })
    }
}

fn numbers<T>(records: &Records<T>, of: impl Fn(&T) -> RowNumbers) -> [Distribution; 2] {
    let column = |pick: fn(RowNumbers) -> Option<f64>| {
        Distribution::of_numbers(&records.rows.iter().filter_map(|one| pick(of(one))).collect::<Vec<_>>())
    };
    [column(|numbers| numbers.margin), column(|numbers| numbers.weight)]
}

impl Stats {
    fn text(&self) -> String {
        let mut text = format!("{}\n", self.report);
        let Lengths { prompt, chosen, rejected, chosen_longer, equally_long } = &self.lengths;
        for (name, lengths) in [("prompt", prompt), ("chosen", chosen), ("rejected", rejected)] {
            text += &histogram(&format!("{name}, {}", self.unit), lengths);
        }
        if let (Some(longer), Some(equal)) = (chosen_longer, equally_long) {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "\nchosen is longer in {:.1} % of the pairs, equally long in {:.1} %",
                100.0 * longer,
                100.0 * equal
            );
        }
        text += &histogram("margin", &self.margin);
        text += &histogram("weight", &self.weight);
        text + &duplicates(&self.duplicates, "prompt and completions that came before")
    }
}

/// Duplicates in words, of which `same` says what a repeated record is; nothing if there are none.
pub(super) fn duplicates(found: &Duplicates, same: &str) -> String {
    let Duplicates { prompts, records, contradictions } = found;
    let said = [
        ("a prompt that came before", prompts),
        (same, records),
        ("the opposite of what came before", contradictions),
    ];
    let mut text = String::new();
    for (what, RowList { count, .. }) in said.iter().filter(|(_, rows)| rows.count > 0) {
        let _ = write!(text, "\n{what}: {count}");
    }
    text
}

/// A distribution as bars, with its quantiles above; nothing if there are no numbers.
pub(super) fn histogram(name: &str, found: &Distribution) -> String {
    let Distribution { count, min, mean, p50, p90, p99, max, bins } = found;
    if *count == 0 {
        return String::new();
    }
    let mut text = format!(
        "\n{name}: {count} from {} to {}, mean {}, half at most {}, 90 % {}, 99 % {}\n",
        short(*min),
        short(*max),
        short(*mean),
        short(*p50),
        short(*p90),
        short(*p99)
    );
    let most = bins.iter().map(|bin| bin.count).max().unwrap_or(1).max(1);
    let ranges: Vec<String> =
        bins.iter().map(|bin| format!("{} to {}", short(bin.from), short(bin.to))).collect();
    let width = ranges.iter().map(String::len).max().unwrap_or(0);
    for (bin, range) in bins.iter().zip(&ranges) {
        let bar = "█".repeat((bin.count * WIDEST).div_ceil(most));
        let _ = writeln!(text, "  {range:>width$} {bar} {}", bin.count);
    }
    text
}

/// A number with as many digits as are worth reading.
fn short(number: f64) -> String {
    if number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.2}") }
}
