//! From graded samples to a modality's part of the report.

use super::super::{Failure, Outcome};
use std::path::Path;
use votive_eval::{Outcome as Graded, by_category};
use votive_gallery::{
    CategoryScore, Direction, Entry, Metric, ModalityReport, Part, Side, TrainingPoint, Verdict,
};
use votive_train::run_directory::METRICS_FILE;

/// Prompts whose samples are shown in the gallery; all of them count in the scores.
const SHOWN: usize = 96;

/// What a prompt's sample is in the gallery: a text, or an image's path.
pub(super) type Content<'a> = dyn Fn(usize, bool) -> Side + 'a;

/// Compares base and aligned samples of the same prompts and seeds.
pub(super) fn compare(
    prompts: &[String],
    (base, aligned): (&[Graded], &[Graded]),
    first_seed: u64,
    bootstrap_seed: u64,
    content: &Content,
) -> ModalityReport {
    let rows = by_category(base, aligned, bootstrap_seed);
    let mut report = ModalityReport { n_prompts: prompts.len(), ..ModalityReport::default() };
    for (name, gain) in rows {
        if name.is_empty() {
            (report.base, report.aligned, report.gain) = (gain.base, gain.aligned, gain.gain);
            (report.gain_low, report.gain_high) = (gain.gain_low, gain.gain_high);
            continue;
        }
        if gain.gain_low <= 0.0 {
            report.not_improved.push(format!(
                "{name}: {:.1} % -> {:.1} % of {}, interval [{:+.1}, {:+.1}] includes no gain",
                gain.base, gain.aligned, gain.n, gain.gain_low, gain.gain_high
            ));
        }
        report.categories.push(CategoryScore {
            name,
            n: gain.n,
            base: gain.base,
            aligned: gain.aligned,
            gain: gain.gain,
            gain_low: gain.gain_low,
            gain_high: gain.gain_high,
        });
    }
    report
        .metrics
        .push(metric("parts met, %", base, aligned, Direction::Higher, |one| Some(100.0 * one.part)));
    if base.iter().any(|one| one.ugliness.is_some()) {
        let ugliness = metric("ugliness, 0 to 1", base, aligned, Direction::Lower, |one| one.ugliness);
        if ugliness.aligned >= ugliness.base {
            let (before, after) = (ugliness.base, ugliness.aligned);
            report.not_improved.push(format!("ugliness: {before:.3} -> {after:.3}, lower is better"));
        }
        report.metrics.push(ugliness);
    }
    for (i, prompt) in prompts.iter().enumerate().take(SHOWN) {
        let side = |is_aligned: bool, graded: &Graded| Side {
            exact: graded.exact,
            parts: graded.parts.iter().map(|(name, met)| Part { name: name.clone(), met: *met }).collect(),
            score: graded.part,
            ..content(i, is_aligned)
        };
        report.entries.push(Entry {
            prompt: prompt.clone(),
            seed: first_seed + i as u64,
            category: base[i].category.clone(),
            before: side(false, &base[i]),
            after: side(true, &aligned[i]),
            verdict: verdict(&base[i], &aligned[i]),
        });
    }
    report
}

/// Exactness decides, then the share of parts that are met.
fn verdict(base: &Graded, aligned: &Graded) -> Verdict {
    match (base.exact, base.part).partial_cmp(&(aligned.exact, aligned.part)) {
        Some(std::cmp::Ordering::Less) => Verdict::Better,
        Some(std::cmp::Ordering::Greater) => Verdict::Worse,
        _ => Verdict::Same,
    }
}

fn metric(
    name: &str,
    base: &[Graded],
    aligned: &[Graded],
    better: Direction,
    of: impl Fn(&Graded) -> Option<f64>,
) -> Metric {
    let mean = |graded: &[Graded]| {
        let values: Vec<f64> = graded.iter().filter_map(&of).collect();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    };
    Metric { name: name.to_owned(), base: mean(base), aligned: mean(aligned), better: Some(better) }
}

/// The curves of a run, from its metrics; its first step has the number `first`.
pub(super) fn training(run: &Path, first: u64) -> Outcome<Vec<TrainingPoint>> {
    let path = run.join(METRICS_FILE);
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::file(&path, error))?;
    let point = |line: &str| -> Option<TrainingPoint> {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(TrainingPoint {
            step: first + value["step"].as_u64()?,
            loss: value["loss"].as_f64()?,
            margin: value["rewards/margins"].as_f64(),
            accuracy: value["rewards/accuracies"].as_f64(),
        })
    };
    Ok(text.lines().filter_map(point).collect())
}
