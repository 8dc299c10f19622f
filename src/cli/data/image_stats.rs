//! `votive data stats` for images.

use super::source::screen;
use super::stats::{duplicates, histogram};
use crate::cli::{Context, Outcome};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;
use votive_data::{ClipTokenizer, DataReport, ImagePair, ImageStats, Records};

/// Sizes that are listed one by one; the others are counted together.
const SIZES: usize = 12;

/// The numbers of a data set.
#[derive(Debug, Serialize)]
struct Stats {
    /// What captions are measured in: `tokens` or `characters`.
    unit: &'static str,
    #[serde(flatten)]
    images: ImageStats,
    report: DataReport,
}

pub(super) fn stats(records: Records<ImagePair>, model: Option<&Path>, ctx: &Context) -> Outcome {
    let tokenizer = model.map(|model| ClipTokenizer::load(&model.join("tokenizer"))).transpose()?;
    let (pairs, report) = screen(records, ctx)?;
    let images = ImageStats::of(&pairs, tokenizer.as_ref())?;
    let unit = if tokenizer.is_some() { "tokens" } else { "characters" };
    let stats = Stats { unit, images, report };
    if ctx.output.wants_json() {
        return ctx.output.json(&stats);
    }
    ctx.output.line(stats.text().trim_end())
}

impl Stats {
    fn text(&self) -> String {
        let ImageStats { aspect, margin, weight, captions, captions_cut, captions_empty, .. } = &self.images;
        let mut text = format!("{}\n", self.report);
        text += &histogram(&format!("caption, {}", self.unit), captions);
        for (what, count) in [("captions that are cut", captions_cut), ("empty captions", captions_empty)] {
            if *count > 0 {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{what}: {count}");
            }
        }
        text += &self.sizes();
        text += &histogram("width over height", aspect);
        text += &histogram("margin", margin);
        text += &histogram("weight", weight);
        if let Some(share) = self.images.first_chosen {
            let _ =
                writeln!(text, "\nthe first image of a row is chosen in {:.1} % of the pairs", 100.0 * share);
        }
        text + &self.models() + &duplicates(&self.images.duplicates, "prompt and images that came before")
    }

    /// The commonest sizes.
    fn sizes(&self) -> String {
        let mut sizes: Vec<_> = self.images.sizes.iter().collect();
        sizes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let mut text = format!("\nimages of {} sizes\n", sizes.len());
        for (size, count) in sizes.iter().take(SIZES) {
            let _ = writeln!(text, "  {size:>11} {count}");
        }
        let others: usize = sizes.iter().skip(SIZES).map(|(_, count)| **count).sum();
        if others > 0 {
            let _ = writeln!(text, "  {:>11} {others}", "others");
        }
        text
    }

    fn models(&self) -> String {
        if self.images.models.is_empty() {
            return String::new();
        }
        let width = self.images.models.keys().map(|name| name.chars().count()).max().unwrap_or(0);
        let mut text = "\nmodels, by how often their image was preferred to another model's\n".to_owned();
        for (name, wins) in &self.images.models {
            let share = wins.share().map_or_else(String::new, |share| format!(", {:.1} %", 100.0 * share));
            let alone =
                if wins.alone > 0 { format!(", {} against itself", wins.alone) } else { String::new() };
            let _ = writeln!(text, "  {name:<width$} {} of {}{share}{alone}", wins.won, wins.won + wins.lost);
        }
        text
    }
}
