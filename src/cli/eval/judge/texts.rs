//! Pairs of answers to instructions of the playground.

use super::record::{CONTESTANTS, Known, Pair, every_two, more};
use crate::cli::Outcome;
use votive_critic::{Candidate, Question, Winner};
use votive_eval::grade_texts;
use votive_playground::Split;
use votive_playground::text::{check, clear_pairs, contests};

/// Shares of met constraints, of which an instruction has nine at most, are this far apart or equal.
const LEAST_DIFFERENCE: f64 = 0.05;

/// `n` pairs of a right and a flawed answer, then every two answers to some instructions.
///
/// # Errors
/// If an answer cannot be checked.
pub(super) fn pairs(split: Split, seed: u64, n: usize, contested: usize) -> Outcome<Vec<Pair>> {
    let mut pairs = Vec::new();
    for pair in clear_pairs(split, seed, n) {
        let [first, second] = pair.shown().map(|text| Candidate::Text(text.clone()));
        let checked = check(&pair.prompt, &pair.worse)?;
        let missed = checked.constraints.into_iter().filter(|(_, is_met)| !is_met);
        let known = Known {
            truth: Some(if pair.is_better_first { Winner::First } else { Winner::Second }),
            is_counted: true,
            more: more(&first, &second)?,
            flaws: missed.map(|(name, _)| name.to_owned()).collect(),
            ..Known::default()
        };
        pairs.push(Pair { question: Question::pair(&pair.prompt, first, second), known });
    }
    for (contest, (prompt, answers)) in contests(split, seed, contested, CONTESTANTS).into_iter().enumerate()
    {
        let graded = grade_texts(&vec![prompt.clone(); answers.len()], &answers)?;
        let shown = answers.into_iter().zip(graded);
        let candidates: Vec<_> =
            shown.map(|(answer, graded)| (Candidate::Text(answer), graded.utility)).collect();
        pairs.extend(every_two(&prompt, &candidates, contest * CONTESTANTS, LEAST_DIFFERENCE)?);
    }
    Ok(pairs)
}
