//! `votive data convert`: a data set in another layout.

use super::image_convert;
use super::source::{Found, Source};
use crate::cli::{Context, Failure, Outcome};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Value, json};
use std::path::PathBuf;
use votive_data::{TextLayout, TextRecords, convert, write_jsonl};

/// Write a data set in another layout
///
/// The file holds the pairs that were made, weight and margin included, one JSON object a line. A record that the layout
/// cannot say is refused with its row. Of images, those that are embedded in Parquet are written to a folder beside the
/// file, each once, and pairs that cannot be used are left out and counted.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// The layout to write.
    #[arg(long, value_name = "LAYOUT", value_parser = layout())]
    to: Layout,
    /// The file to write.
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
}

/// What can be written.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Text(TextLayout),
    Images,
}

/// The layout of image pairs.
const IMAGES: &str = "image-pairs";

fn layout() -> impl TypedValueParser<Value = Layout> {
    let names = TextLayout::NAMES.into_iter().map(|(_, name)| name).chain([IMAGES]);
    PossibleValuesParser::new(names).try_map(|name| {
        let found = TextLayout::NAMES.into_iter().find(|(_, known)| *known == name);
        let text = found.map(|(layout, _)| Layout::Text(layout));
        text.or((name == IMAGES).then_some(Layout::Images)).ok_or("no such layout")
    })
}

pub(super) fn run(args: &Args, ctx: &Context) -> Outcome {
    match (args.source.read(ctx)?, args.to) {
        (Found::Text(records), Layout::Text(layout)) => convert_text(args, &records, layout, ctx),
        (Found::Images(records), Layout::Images) => image_convert::convert(records, &args.out, ctx),
        (Found::Text(_), Layout::Images) => {
            Err(Failure::usage("--to: texts cannot be written as pairs of images"))
        }
        (Found::Images(_), Layout::Text(layout)) => {
            let layout = layout.name();
            Err(Failure::usage(format!("--to: images cannot be written as {layout}; use --to {IMAGES}")))
        }
    }
}

fn convert_text(args: &Args, records: &TextRecords, layout: TextLayout, ctx: &Context) -> Outcome {
    let rows = convert(records, layout)?;
    write_jsonl(&args.out, &rows)?;
    let refused = match records {
        TextRecords::Pairs(records) => records.refused.len(),
        TextRecords::Unpaired(records) => records.refused.len(),
    };
    let entry = dataset_info(args, records, layout);
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
fn dataset_info(args: &Args, records: &TextRecords, layout: TextLayout) -> Option<Value> {
    let (formatting, mut columns) = match layout {
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
