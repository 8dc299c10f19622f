//! `votive data convert`: a data set in another layout.

use super::source::Source;
use crate::cli::{Context, Outcome};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Value, json};
use std::path::PathBuf;
use votive_data::{TextLayout, TextRecords, convert, write_jsonl};

/// Write a data set in another layout
///
/// The file holds the pairs that were made, weight and margin included, one JSON object a line. A record that the layout
/// cannot say is refused with its row.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// The layout to write.
    #[arg(long, value_name = "LAYOUT", value_parser = layout())]
    to: TextLayout,
    /// The file to write.
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
}

fn layout() -> impl TypedValueParser<Value = TextLayout> {
    PossibleValuesParser::new(TextLayout::NAMES.map(|(_, name)| name)).try_map(|name| {
        let found = TextLayout::NAMES.into_iter().find(|(_, known)| *known == name);
        found.map(|(layout, _)| layout).ok_or("no such layout")
    })
}

pub(super) fn run(args: &Args, ctx: &Context) -> Outcome {
    let records = args.source.read(ctx)?;
    let rows = convert(&records, args.to)?;
    write_jsonl(&args.out, &rows)?;
    let refused = match &records {
        TextRecords::Pairs(records) => records.refused.len(),
        TextRecords::Unpaired(records) => records.refused.len(),
    };
    let entry = dataset_info(args, &records);
    if ctx.output.wants_json() {
        return ctx
            .output
            .json(&json!({"out": args.out, "rows": rows.len(), "refused": refused, "dataset_info": entry}));
    }
    if let Some(entry) = entry {
        ctx.output.note(format!("for LLaMA-Factory, add to dataset_info.json: {entry}"));
    }
    let without =
        if refused > 0 { format!("; {refused} without a preference left out") } else { String::new() };
    ctx.output.line(format!("{} rows written to {}{without}", rows.len(), args.out.display()))
}

/// The entry under which LLaMA-Factory finds the file.
fn dataset_info(args: &Args, records: &TextRecords) -> Option<Value> {
    let (formatting, mut columns) = match args.to {
        TextLayout::Sharegpt => ("sharegpt", json!({"messages": "conversations"})),
        TextLayout::Alpaca => {
            ("alpaca", json!({"prompt": "instruction", "query": "input", "history": "history"}))
        }
        _ => return None,
    };
    let is_ranking = matches!(records, TextRecords::Pairs(_));
    if is_ranking {
        columns["chosen"] = "chosen".into();
        columns["rejected"] = "rejected".into();
    } else {
        columns["kto_tag"] = "kto_tag".into();
    }
    columns["system"] = "system".into();
    columns["tools"] = "tools".into();
    let name = args.out.file_stem()?.to_string_lossy().into_owned();
    let entry = json!({"file_name": args.out.file_name()?.to_string_lossy(), "formatting": formatting, "ranking": is_ranking, "columns": columns});
    Some(json!({name: entry}))
}
