//! `votive data show`: records as they were read, as they are tokenized, and what is wrong with them.

use super::image_show;
use super::segments;
use super::source::{Found, Source, train_on};
use crate::cli::text_model::load_tokenizer;
use crate::cli::{Context, Failure, Outcome};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use votive_data::{
    Completion, Examination, LongRows, Message, PairText, PreferencePair, Records, RowNumbers, RowPolicy,
    TextRecords, TextTokenizer, TrainOn, UnpairedExample,
};

/// Show records, with a model also their tokens and what would be trained wrongly
///
/// With colour the prompt is dim, trained tokens are green and tokens that are cut red; without, trained tokens stand
/// in [brackets] and cut ones in {braces}. Behind the tokens it says in words what is wrong: a missing, doubled or
/// untrained end of text, a system prompt that the template adds, a truncated completion, a prompt that is tokenized
/// differently alone than within the whole. Of images it says size, file, model and place in the row; with --out they are
/// drawn, chosen left and rejected right.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// The model whose tokenizer and chat template are used.
    #[arg(long, value_name = "DIR")]
    pub(super) model: Option<PathBuf>,
    /// Show what was made of this row, counted from 1.
    #[arg(long, value_name = "N", conflicts_with = "rows")]
    pub(super) row: Option<NonZeroUsize>,
    /// Show the first records, so many.
    #[arg(long, value_name = "K", default_value = "3")]
    pub(super) rows: NonZeroUsize,
    /// Images: draw them side by side in this file.
    #[arg(long, value_name = "FILE.png")]
    pub(super) out: Option<PathBuf>,
    /// Tokens that fit into the context.
    #[arg(long, value_name = "N", requires = "model")]
    max_length: Option<NonZeroUsize>,
    /// Which turns of a completion are trained.
    #[arg(long, value_name = "WHAT", default_value = "completion", value_parser = train_on())]
    train_on: TrainOn,
}

pub(super) fn run(args: &Args, ctx: &Context) -> Outcome {
    let records = match args.source.read(ctx)? {
        Found::Text(records) => records,
        Found::Images(records) if args.max_length.is_none() => return image_show::show(args, &records, ctx),
        Found::Images(_) => {
            return Err(Failure::usage("--max-length: captions have the length of their model"));
        }
    };
    if args.out.is_some() {
        return Err(Failure::usage("--out: only images are drawn, and these are texts"));
    }
    let tokenizer = args.model.as_deref().map(load_tokenizer).transpose()?;
    let colour = std::io::stdout().is_terminal() && !ctx.output.wants_json();
    let viewer = Viewer { args, tokenizer, colour, ctx };
    if viewer.tokenizer.is_some() && !ctx.output.wants_json() {
        ctx.output.note(segments::legend(colour));
    }
    match &records {
        TextRecords::Pairs(records) => viewer.show_all(records),
        TextRecords::Unpaired(records) => viewer.show_all(records),
    }
}

/// A record of either kind.
trait Shown {
    fn row(&self) -> usize;
    fn numbers(&self) -> RowNumbers;
    /// Its parts with their names.
    fn parts(&self) -> Vec<(&'static str, Part<'_>)>;
    fn label(&self) -> Option<bool>;
    fn examine(&self, tokenizer: &TextTokenizer, policy: RowPolicy) -> votive_data::Result<Examination>;
}

/// A part of a record.
enum Part<'a> {
    Text(&'a str),
    Turns(&'a [Message]),
}

impl Shown for PreferencePair {
    fn row(&self) -> usize {
        self.row
    }

    fn numbers(&self) -> RowNumbers {
        self.numbers
    }

    fn parts(&self) -> Vec<(&'static str, Part<'_>)> {
        match &self.text {
            PairText::Plain { prompt, chosen, rejected } => {
                vec![
                    ("prompt", Part::Text(prompt)),
                    ("chosen", Part::Text(chosen)),
                    ("rejected", Part::Text(rejected)),
                ]
            }
            PairText::Implicit { chosen, rejected } => {
                vec![("chosen", Part::Text(chosen)), ("rejected", Part::Text(rejected))]
            }
            PairText::Chat { prompt, chosen, rejected, .. } => vec![
                ("prompt", Part::Turns(prompt)),
                ("chosen", Part::Turns(chosen)),
                ("rejected", Part::Turns(rejected)),
            ],
            PairText::TwoPrompts { chosen, rejected } => {
                let sides = [("prompt of chosen", chosen), ("prompt of rejected", rejected)];
                let prompts = sides.map(|(name, side)| match side {
                    Completion::Plain { prompt, .. } => (name, Part::Text(prompt)),
                    Completion::Chat { prompt, .. } => (name, Part::Turns(prompt)),
                });
                let completion = match chosen {
                    Completion::Plain { completion, .. } => Part::Text(completion),
                    Completion::Chat { completion, .. } => Part::Turns(completion),
                };
                prompts.into_iter().chain([("completion", completion)]).collect()
            }
        }
    }

    fn label(&self) -> Option<bool> {
        None
    }

    fn examine(&self, tokenizer: &TextTokenizer, policy: RowPolicy) -> votive_data::Result<Examination> {
        tokenizer.examine_pair(self, policy)
    }
}

impl Shown for UnpairedExample {
    fn row(&self) -> usize {
        self.row
    }

    fn numbers(&self) -> RowNumbers {
        self.numbers
    }

    fn parts(&self) -> Vec<(&'static str, Part<'_>)> {
        match &self.text {
            Completion::Plain { prompt, completion } => {
                vec![("prompt", Part::Text(prompt)), ("completion", Part::Text(completion))]
            }
            Completion::Chat { prompt, completion, .. } => {
                vec![("prompt", Part::Turns(prompt)), ("completion", Part::Turns(completion))]
            }
        }
    }

    fn label(&self) -> Option<bool> {
        Some(self.label)
    }

    fn examine(&self, tokenizer: &TextTokenizer, policy: RowPolicy) -> votive_data::Result<Examination> {
        tokenizer.examine_unpaired(self, policy)
    }
}

/// How records are shown.
struct Viewer<'a> {
    args: &'a Args,
    tokenizer: Option<TextTokenizer>,
    colour: bool,
    ctx: &'a Context,
}

impl Viewer<'_> {
    fn show_all<T: Shown>(&self, records: &Records<T>) -> Outcome {
        let Some(row) = self.args.row.map(NonZeroUsize::get) else {
            return records
                .rows
                .iter()
                .take(self.args.rows.get())
                .try_for_each(|one| self.show(records, one));
        };
        let found: Vec<&T> = records.rows.iter().filter(|one| one.row() == row).collect();
        let refused: Vec<_> = records.refused.iter().filter(|refused| refused.row == row).collect();
        if found.is_empty() && refused.is_empty() {
            let message = format!("--row {row}: there is no such row; {} were read", records.rows_read);
            return Err(Failure::usage(message));
        }
        found.into_iter().try_for_each(|one| self.show(records, one))?;
        for refused in refused {
            let text = format!("row {row} gives no record: {}{}", refused.problem, refused.detail);
            if self.ctx.output.wants_json() {
                self.ctx.output.json(&json!({"row": row, "problem": refused.problem, "text": text}))?;
            } else {
                self.ctx.output.line(text)?;
            }
        }
        Ok(())
    }

    fn show<T: Shown>(&self, records: &Records<T>, one: &T) -> Outcome {
        let policy = RowPolicy {
            max_length: self.args.max_length.map(NonZeroUsize::get),
            long_rows: LongRows::Truncate,
            train_on: self.args.train_on,
            ..RowPolicy::default()
        };
        let (file, in_file) = records.place(one.row());
        let examined = self.tokenizer.as_ref().map(|tokenizer| one.examine(tokenizer, policy));
        let examination = examined.transpose().map_err(|error| error.in_row(file, in_file))?;
        if self.ctx.output.wants_json() {
            let mut value = as_json(one, examination.as_ref());
            value["file"] = json!(file);
            value["row_in_file"] = json!(in_file);
            return self.ctx.output.json(&value);
        }
        self.ctx.output.line(heading(one, &format!("{}:{in_file}", file.display())))?;
        for (name, part) in one.parts() {
            self.ctx.output.line(described(name, &part))?;
        }
        examination.map_or(Ok(()), |examination| self.tokens(&examination))?;
        self.ctx.output.line("")
    }

    fn tokens(&self, examination: &Examination) -> Outcome {
        let Some(tokenizer) = &self.tokenizer else { return Ok(()) };
        for completion in &examination.completions {
            let untrained: usize = completion.untrained.iter().map(std::ops::Range::len).sum();
            let (prompt, all) = (examination.prompt_ids.len(), completion.ids.len());
            let others = if untrained > 0 { format!(", {untrained} of others") } else { String::new() };
            let cut = if completion.cut > 0 { format!(", {} cut", completion.cut) } else { String::new() };
            let side = completion.side;
            self.ctx
                .output
                .line(format!("  {side}: {prompt} prompt + {all} completion tokens{others}{cut}"))?;
            let line = segments::line(tokenizer, examination, completion, self.colour)?;
            self.ctx.output.line(format!("    {line}"))?;
        }
        if let Some(problem) = examination.problem {
            let detail = &examination.detail;
            self.ctx.output.line(format!("  ! not trained on: {problem}{detail}; {}", problem.advice()))?;
        }
        examination.lints.iter().try_for_each(|lint| self.ctx.output.line(format!("  ! {lint}")))
    }
}

fn heading(one: &impl Shown, place: &str) -> String {
    let label = one.label().map(|label| format!(", label {label}"));
    let numbers = one.numbers().named(one.label().is_none()).into_iter();
    let said: String =
        label.into_iter().chain(numbers.map(|(name, number)| format!(", {name} {number}"))).collect();
    format!("row {} ({place}){said}", one.row())
}

fn described(name: &str, part: &Part) -> String {
    match part {
        Part::Text(text) => format!("  {name}: {text:?}"),
        Part::Turns(turns) => {
            let said = turns.iter().map(|turn| {
                let content =
                    turn.content().map_or_else(|| json!(turn).to_string(), |text| format!("{text:?}"));
                format!("\n    {}: {content}", turn.role())
            });
            format!("  {name}{}", said.collect::<String>())
        }
    }
}

fn as_json(one: &impl Shown, examination: Option<&Examination>) -> Value {
    // The first two are always said.
    let mut value = json!({"row": one.row(), "weight": null, "margin": null});
    for (name, number) in one.numbers().named(one.label().is_none()) {
        value[name] = json!(number);
    }
    for (name, part) in one.parts() {
        value[name] = match part {
            Part::Text(text) => json!(text),
            Part::Turns(turns) => json!(turns),
        };
    }
    if let Some(label) = one.label() {
        value["label"] = json!(label);
    }
    if let Some(examination) = examination {
        value["tokens"] = json!(examination);
        value["lints"] = examination.lints.iter().map(ToString::to_string).collect();
    }
    value
}
