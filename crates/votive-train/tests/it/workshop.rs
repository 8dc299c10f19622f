//! Recipes and data in folders that vanish with the test.

use crate::fixture;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use votive_objective::{MethodSpec, Needs};
use votive_tensor::random::{Draws, Stream};
use votive_train::{Plan, RunDirectory};

/// A folder with a recipe.
pub(crate) struct Workshop {
    folder: tempfile::TempDir,
}

/// What to set for an adapter in the place of full fine-tuning.
pub(crate) const LORA: &str = "adapter.lora.rank=2";

/// What to set for a step whose rows go through the network at once: two, as many as a recipe of images has.
pub(crate) const WHOLE: &str = "train.batch_size=2";

impl Workshop {
    /// Writes `recipe`.
    pub(crate) fn new(recipe: &str) -> Self {
        let workshop = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(workshop.path("recipe.toml"), recipe).unwrap();
        workshop
    }

    /// Full fine-tuning of a tiny language model on 20 pairs, six steps of four: the last one reaches into the
    /// second epoch.
    pub(crate) fn text() -> Self {
        let workshop = Self::text_on(Path::new("pairs.jsonl"));
        let mut rows = String::new();
        for (index, line) in
            fs::read_to_string(fixture("text_steps/prefs.jsonl")).unwrap().lines().enumerate()
        {
            let mut pair: serde_json::Value = serde_json::from_str(line).unwrap();
            pair["margin"] = (0.25 * (index % 4 + 1) as f64).into();
            writeln!(rows, "{pair}").unwrap();
        }
        fs::write(workshop.path("pairs.jsonl"), rows).unwrap();
        workshop
    }

    /// The same on labelled single completions, made of the pairs in turn.
    pub(crate) fn unpaired_text() -> Self {
        let pairs = fs::read_to_string(fixture("text_steps/prefs.jsonl")).unwrap();
        let mut rows = String::new();
        for (index, line) in pairs.lines().enumerate() {
            let pair: serde_json::Value = serde_json::from_str(line).unwrap();
            let label = index % 3 == 0;
            let completion = &pair[if label { "chosen" } else { "rejected" }];
            writeln!(
                rows,
                r#"{{"prompt": {}, "completion": {completion}, "label": {label}}}"#,
                pair["prompt"]
            )
            .unwrap();
        }
        let workshop = Self::text_on(Path::new("unpaired.jsonl"));
        fs::write(workshop.path("unpaired.jsonl"), rows).unwrap();
        workshop
    }

    /// Full fine-tuning of a tiny model that sees images, on six conversations, six steps of two.
    pub(crate) fn shown_images() -> Self {
        let workshop = Self::new("");
        workshop.write_recipe(&fixture("llava/llama"), &fixture("llava_steps/prefs.jsonl"), 2);
        workshop
    }

    /// The same of a tiny model that sees images in their own sizes.
    pub(crate) fn shown_sizes() -> Self {
        let workshop = Self::new("");
        workshop.write_recipe(&fixture("qwen3_vl/new"), &fixture("llava_steps/prefs.jsonl"), 2);
        workshop
    }

    /// The same on lists of two, three or four answers with scores, some of which are equal.
    pub(crate) fn lists() -> Self {
        Self::text_rows("lists.jsonl", |index, pair, others| {
            let answers = [&pair["chosen"], &pair["rejected"], &others[0], &others[1]];
            let scores = [0.75, 0.25, 1.5, 0.25];
            let n = 2 + index % 3;
            serde_json::json!({"prompt": pair["prompt"], "completions": answers[..n], "scores": scores[..n]})
        })
    }

    /// The same on pairs with a gold completion, one of the two sides, or another row's answer.
    pub(crate) fn gold(which: &str) -> Self {
        Self::text_rows("gold.jsonl", |_, pair, others| {
            let mut row = pair.clone();
            row["reference"] = if which == "other" { others[0].clone() } else { pair[which].clone() };
            row
        })
    }

    /// The same on pairs whose sides were judged.
    pub(crate) fn judged() -> Self {
        Self::text_rows("judged.jsonl", |index, pair, _| {
            let mut row = pair.clone();
            (row["score_chosen"], row["score_rejected"]) = (0.5.into(), (-0.1 * (index % 4) as f64).into());
            row
        })
    }

    /// Rows made of the pairs, each with its place and with chosen answers of others.
    fn text_rows(
        name: &str,
        row: impl Fn(usize, &serde_json::Value, [serde_json::Value; 2]) -> serde_json::Value,
    ) -> Self {
        let text = fs::read_to_string(fixture("text_steps/prefs.jsonl")).unwrap();
        let pairs: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let other = |index: usize| pairs[index % pairs.len()]["chosen"].clone();
        let rows = pairs
            .iter()
            .enumerate()
            .map(|(i, pair)| format!("{}\n", row(i, pair, [other(i + 1), other(i + 2)])));
        let workshop = Self::text_on(Path::new(name));
        fs::write(workshop.path(name), rows.collect::<String>()).unwrap();
        workshop
    }

    fn text_on(data: &Path) -> Self {
        let workshop = Self::new("");
        workshop.write_recipe(&fixture("text/llama"), &workshop.path(data), 4);
        workshop
    }

    /// Full fine-tuning of a tiny Stable Diffusion model on five pairs of random pictures, six steps of two.
    pub(crate) fn image() -> Self {
        Self::image_of(|_| (32, 32))
    }

    /// The same on pictures of four shapes; those of a pair have one shape.
    pub(crate) fn shapes() -> Self {
        Self::image_of(|row| [(32, 32), (64, 32), (24, 48), (40, 44), (90, 41)][row])
    }

    fn image_of(size: impl Fn(usize) -> (u32, u32)) -> Self {
        let workshop = Self::new("");
        let mut rows = String::new();
        for row in 0..5 {
            let (width, height) = size(row);
            for (side, name) in ["chosen", "rejected"].into_iter().enumerate() {
                let mut draws = Draws::new(1, Stream::World, side as u64, row as u64);
                let pixels = (0..width * height * 3).map(|_| draws.below(256) as u8).collect();
                let picture = image::RgbImage::from_raw(width, height, pixels).unwrap();
                picture.save(workshop.path(format!("{name}{row}.png"))).unwrap();
            }
            writeln!(
                rows,
                r#"{{"prompt": "picture number {row}", "chosen": "chosen{row}.png", "rejected": "rejected{row}.png", "margin": {}}}"#,
                0.5 + row as f64
            )
            .unwrap();
        }
        fs::write(workshop.path("pairs.jsonl"), rows).unwrap();
        workshop.write_recipe(&fixture("diffusion/sd1"), &workshop.path("pairs.jsonl"), 2);
        workshop
    }

    fn write_recipe(&self, model: &Path, data: &Path, batch_size: usize) {
        let recipe = format!(
            "[model]\npath = {model:?}\n[data]\npath = {data:?}\n[objective.dpo]\n[optimizer]\nlr = 1e-3\n\
             weight_decay = 0.01\nschedule = \"linear\"\nwarmup_steps = 1\n\
             [train]\nsteps = 6\nbatch_size = {batch_size}\nmicro_batch_size = 2\nseed = 11\nsave_every = 3\n"
        );
        fs::write(self.path("recipe.toml"), recipe).unwrap();
    }

    /// Replaces a part of the recipe.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        replace_in(&self.path("recipe.toml"), from, to);
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The plan of the recipe with `key=value` overrides.
    pub(crate) fn plan(&self, overrides: &[&str]) -> Plan {
        let overrides: Vec<String> = overrides.iter().map(|entry| (*entry).to_owned()).collect();
        Plan::read(&self.path("recipe.toml"), &overrides).unwrap()
    }

    /// A new run's directory in the folder.
    pub(crate) fn directory(&self, name: &str, plan: &Plan) -> RunDirectory {
        RunDirectory::create(&self.path(name), plan).unwrap()
    }
}

/// Replaces a part of a text file, which must be there.
#[track_caller]
pub(crate) fn replace_in(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from:?} is not in\n{text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

/// Whether the rows of the workshops have what a method reads.
pub(crate) fn has_what_is_read(spec: &MethodSpec) -> bool {
    let of_other_rows = [
        Needs::BASE,
        Needs::GOLD,
        // Rows have no part in it: the model is another one.
        Needs::REWARDS,
        Needs::SCORES,
        Needs::TOKEN_WEIGHTS,
        Needs::UNCERTAINTIES,
        Needs::VALUES,
    ];
    of_other_rows.into_iter().all(|need| !spec.needs.contains(need))
}
