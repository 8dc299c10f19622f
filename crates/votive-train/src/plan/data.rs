//! What a recipe says of the rows.

use super::{CurriculumPlan, DataPlan, ImagePlan, Modality, Prefer, TokenWeightRule, optional_path};
use crate::error::Result;
use crate::recipe::{Resolver, Setting};
use std::path::Path;
use votive_data::{
    AugmentationPolicy, Crop, FORMATS, FaultyRows, Format, IMAGE_FORMATS, ImageDataSource, ImageFormat,
    LongRows, PairChoice, PairWeights, RowPolicy, TextSource, Ties, TrainOn, Traversal,
};

pub(super) fn data(r: &mut Resolver, modality: Modality) -> DataPlan {
    let mut source = TextSource::default();
    let mut rows = RowPolicy::default();
    let images = (modality == Modality::Image).then(|| images(r));
    if images.is_none() {
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
    let (traversal, curriculum) = order(r);
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
    let token_weights = if images.is_none() { token_weights(r) } else { TokenWeightRule::default() };
    let degrees = if images.is_none() { degrees(r) } else { DEGREES };
    DataPlan { source, images, rows, prefer, traversal, curriculum, eval_fraction, token_weights, degrees }
}

/// Degrees of copies if the recipe says nothing.
pub(super) const DEGREES: usize = 4;
/// Degrees of copies at most: a completion has no more key phrases.
const MOST_DEGREES: u64 = 1000;

fn degrees(r: &mut Resolver) -> usize {
    let doc = "In how many degrees key phrases are taken out of copies of the chosen completions, none of them among these, for \
               objectives that read it (a guess).";
    let found = r.whole("data.degrees", 2, Some(DEGREES as u64), doc).unwrap_or(DEGREES as u64);
    if found > MOST_DEGREES {
        r.mistake("data.degrees", &format!("must be at most {MOST_DEGREES}"));
    }
    found.min(MOST_DEGREES) as usize
}

fn token_weights(r: &mut Resolver) -> TokenWeightRule {
    let rule = r.choice(
        "data.token_weights",
        &["activations", "differing_lines", "after_last"],
        "activations",
        "How much single tokens count, for objectives that read it: the reference's `activations`; the rejected completion's \
         `differing_lines` and all of the chosen one; or what stands `after_last` mark.",
    );
    match rule.as_str() {
        "differing_lines" => TokenWeightRule::DifferingLines,
        "after_last" => {
            let doc = "The mark behind whose last place tokens count (`after_last`).";
            TokenWeightRule::AfterLast(r.string("data.marker", None, doc).unwrap_or_default())
        }
        _ => TokenWeightRule::Activations,
    }
}

fn order(r: &mut Resolver) -> (Traversal, Option<CurriculumPlan>) {
    let order = r.choice(
        "data.order",
        &["shuffled", "sequential", "curriculum"],
        "shuffled",
        "Order of the rows in an epoch; a curriculum lets in the pairs with the largest margins first (Curriculum-DPO).",
    );
    match order.as_str() {
        "sequential" => (Traversal::Sequential, None),
        "curriculum" => {
            let groups = "Groups of equal size, from the largest margins to the smallest (`curriculum`).";
            let every = "Steps until another group joins (`curriculum`).";
            let groups = r.whole("data.curriculum_groups", 1, Some(5), groups).unwrap_or(5);
            let every = r.whole("data.curriculum_every", 1, Some(500), every).unwrap_or(500);
            let groups = usize::try_from(groups).unwrap_or(usize::MAX);
            (Traversal::Shuffled, Some(CurriculumPlan { groups, every }))
        }
        _ => (Traversal::Shuffled, None),
    }
}

/// The keys that depend on the values of others, for the reference documentation.
pub(super) fn keys(modality: Modality) -> Result<Vec<Setting>> {
    let chosen = "[data]\norder = \"curriculum\"\ntoken_weights = \"after_last\"\n";
    let mut r = Resolver::parse(Path::new("reference"), chosen, &[])?;
    order(&mut r);
    if modality == Modality::Text {
        token_weights(&mut r);
    }
    // What was given is not what is looked for.
    Ok(r.settings().iter().filter(|setting| !setting.given).cloned().collect())
}

/// Which files of text are read, and how.
fn text_source(r: &mut Resolver, source: &mut TextSource) {
    let paths = r.paths(
        "data.path",
        "File or folder of the rows, a list of shards, or a dataset_info.json of LLaMA-Factory.",
    );
    source.paths = r.require("data.path", paths).unwrap_or_default();
    source.name = r.string("data.name", None, "The data set meant in a dataset_info.json.");
    source.split = split(r);
    source.format = Format::find(&format(r, FORMATS.iter().map(|format| format.name)));
    source.pairs = r.named(
        "data.pairs",
        &PairChoice::NAMES,
        PairChoice::default(),
        "The pairs to make of a list with scores.",
    );
}

fn split(r: &mut Resolver) -> Option<String> {
    r.string("data.split", None, "The split meant in a folder of several.")
}

fn format(r: &mut Resolver, names: impl Iterator<Item = &'static str>) -> String {
    let names: Vec<&str> = std::iter::once("auto").chain(names).collect();
    let doc = "Layout of the columns (docs/formats.md); recognized by them if \"auto\".";
    r.choice("data.format", &names, "auto", doc)
}

/// Which image pairs are read, and what is done to their images.
fn images(r: &mut Resolver) -> ImagePlan {
    let source = image_source(r);
    let flip = r.flag(
        "data.flip",
        false,
        "Whether both images of a pair are mirrored in half of the steps; wrong where captions tell left from right.",
    );
    let crop = r.named(
        "data.crop",
        &Crop::NAMES,
        Crop::default(),
        "Where images are cut: in the middle, or at every step somewhere else, both of a pair at the same place. Random \
         crops go through the autoencoder at every step.",
    );
    let buckets = r.flag(
        "data.buckets",
        false,
        "Whether images keep about their shape: each pair is cut to the nearest of several sizes of about \
         `diffusion.resolution`² pixels, and a batch is of one size. If not, all are cut to a square.",
    );
    let cache = optional_path(
        r,
        "data.cache",
        "Folder in which encoded images and prompts are kept for other runs and read from when they are needed, \
         instead of being encoded at every start and kept in memory.",
    );
    ImagePlan { source, augmentation: AugmentationPolicy { flip, crop }, buckets, cache }
}

fn image_source(r: &mut Resolver) -> ImageDataSource {
    let paths = r.paths(
        "data.path",
        "File or folder of the rows, a list of shards, or a folder with the folders `chosen` and `rejected`.",
    );
    let paths = r.require("data.path", paths).unwrap_or_default();
    let split = split(r);
    let format = ImageFormat::find(&format(r, IMAGE_FORMATS.iter().map(|format| format.name)));
    let pairs = r.named(
        "data.pairs",
        &PairChoice::NAMES,
        PairChoice::default(),
        "The pairs to make of a list of images with scores.",
    );
    let ties = r.named(
        "data.ties",
        &Ties::NAMES,
        Ties::default(),
        "What becomes of two images of which neither is preferred: left out and counted, or kept with the first one as \
         chosen.",
    );
    let weights = r.named(
        "data.weights",
        &PairWeights::NAMES,
        PairWeights::default(),
        "What a pair's loss is multiplied by: the column `weight` if there is one, or one over \
         `num_example_per_prompt`, so that every prompt counts the same.",
    );
    let images = optional_path(
        r,
        "data.images",
        "Folder below which paths of images lie; if not given, that of the file of rows.",
    );
    ImageDataSource { paths, split, format, pairs, ties, weights, images }
}
