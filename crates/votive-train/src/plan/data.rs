//! What a recipe says of the rows.

use super::{DataPlan, Modality, Prefer, path};
use crate::recipe::Resolver;
use votive_data::{
    FORMATS, FaultyRows, Format, LongRows, PairChoice, RowPolicy, TextSource, TrainOn, Traversal,
};

pub(super) fn data(r: &mut Resolver, modality: Modality) -> DataPlan {
    let mut source = TextSource::default();
    let mut rows = RowPolicy::default();
    if modality == Modality::Image {
        source.paths = vec![path(r, "data.path", "File or folder of the rows.")];
    } else {
        text_source(r, &mut source);
        let trained = r.choice(
            "data.train_on",
            &["completion", "assistant"],
            "completion",
            "What is trained of a completion of several turns: all of it, as in TRL, or the assistant's turns.",
        );
        rows.train_on = if trained == "assistant" { TrainOn::Assistant } else { TrainOn::Completion };
        let long = r.choice(
            "data.long_rows",
            &["error", "drop", "truncate"],
            "error",
            "What happens to rows that are too long.",
        );
        rows.long_rows = match long.as_str() {
            "drop" => LongRows::Drop,
            "truncate" => LongRows::Truncate,
            _ => LongRows::Error,
        };
        let most =
            r.whole("data.max_length", 0, Some(0), "Longest row in tokens; 0 for the model's own limit.");
        rows.max_length = most.filter(|most| *most > 0).map(|most| most as usize);
    }
    let faulty = r.choice(
        "data.faulty_rows",
        &["error", "drop"],
        "error",
        "What happens to rows that cannot be trained on.",
    );
    rows.faulty_rows = if faulty == "drop" { FaultyRows::Drop } else { FaultyRows::Error };
    let prefer = r.named(
        "data.prefer",
        &[(Prefer::Chosen, "chosen"), (Prefer::Rejected, "rejected")],
        Prefer::Chosen,
        "Which side of the data is preferred: \"rejected\" trains the network that guidance leads away from \
         (Diffusion-NPO).",
    );
    let order =
        r.choice("data.order", &["shuffled", "sequential"], "shuffled", "Order of the rows in an epoch.");
    let traversal = if order == "sequential" { Traversal::Sequential } else { Traversal::Shuffled };
    let eval_fraction = r
        .float(
            "data.eval_fraction",
            0.0,
            Some(0.0),
            "Share of the prompts that is held out for evaluation, picked by their hash; 0 for none.",
        )
        .unwrap_or(0.0);
    if eval_fraction >= 1.0 {
        r.mistake("data.eval_fraction", "must be below 1, or nothing is left to train on");
    }
    DataPlan { source, rows, prefer, traversal, eval_fraction }
}

/// Which files of text are read, and how.
fn text_source(r: &mut Resolver, source: &mut TextSource) {
    let paths = r.paths(
        "data.path",
        "File or folder of the rows, a list of shards, or a dataset_info.json of LLaMA-Factory.",
    );
    source.paths = r.require("data.path", paths).unwrap_or_default();
    source.name = r.string("data.name", None, "The data set meant in a dataset_info.json.");
    source.split = r.string("data.split", None, "The split meant in a folder of several.");
    let names: Vec<&str> = std::iter::once("auto").chain(FORMATS.iter().map(|format| format.name)).collect();
    let format = r.choice(
        "data.format",
        &names,
        "auto",
        "Layout of the columns (docs/formats.md); recognized by them if \"auto\".",
    );
    source.format = Format::find(&format);
    source.pairs = r.named(
        "data.pairs",
        &PairChoice::NAMES,
        PairChoice::default(),
        "The pairs to make of a list with scores.",
    );
}
