//! Labels of a model's own samples: a judge grades them, the best of a prompt is set against the worst, and some labels are flipped on
//! purpose.

use super::judges::{CHECKER, Grader, Subject, grader};
use super::{Context, Outcome, signal};
use rayon::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;
use votive_critic::{Candidate, Finding, Judge, Question};
use votive_eval::{Outcome as Graded, share};
use votive_playground::image::LEAST_DIFFERENCE;
use votive_tensor::random::{Draws, Stream};

/// Difference in log-odds below which a judge's grades are ties: the better one is better with three chances in four.
const LEAST_LOG_ODDS: f64 = 1.1;

/// Who labels.
pub(crate) struct Labeller {
    name: String,
    judge: Arc<dyn Judge>,
    /// Differences of utility below this are ties.
    least: f64,
    /// The grade between right and wrong, if there is one: a pair has one on either side. A judge that must choose between two right
    /// answers chooses by what has nothing to do with right and wrong, and a model learns that.
    origin: Option<f64>,
}

/// One labelled pair: the prompt's index, and which of its samples are chosen and rejected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Label {
    pub(crate) prompt: usize,
    pub(crate) chosen: usize,
    pub(crate) rejected: usize,
    /// By how much the labeller found the one better than the other, whichever is called chosen.
    pub(crate) margin: f64,
}

/// A set of labelled pairs.
pub(crate) struct Labelled {
    /// The set.
    pub(crate) file: PathBuf,
    pub(crate) pairs: usize,
    /// Share of the pairs whose chosen sample is truly the better one, points of 100; pairs that are equally good in truth do not
    /// count.
    pub(crate) right: f64,
}

impl Labeller {
    /// The judge of a name.
    ///
    /// # Errors
    /// As [`grader`].
    pub(crate) fn open(name: &str, subject: Subject, ctx: &Context) -> Outcome<Self> {
        let Grader { judge, scale, origin } = grader(name, subject, ctx)?;
        let least = if name == CHECKER { LEAST_DIFFERENCE } else { LEAST_LOG_ODDS * scale };
        Ok(Self { name: name.to_owned(), judge, least, origin })
    }

    /// As it was asked for.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How good each candidate is for its prompt, in the judge's units; none where it abstains. Equal candidates get equal
    /// utilities.
    ///
    /// # Errors
    /// If the judge fails.
    pub(crate) fn utilities(
        &self,
        prompts: &[String],
        candidates: &[Candidate],
        ctx: &Context,
    ) -> Outcome<Vec<Option<f64>>> {
        let progress = ctx.output.progress("judging", "samples", candidates.len() as u64);
        let one = |(prompt, candidate): (&String, &Candidate)| {
            signal::go_on()?;
            let judgment = self.judge.judge(&Question::grade(prompt, candidate.clone()), 0)?;
            progress.add(1);
            Ok(match judgment.finding {
                Finding::Grade(grade) => Some(grade),
                _ => None,
            })
        };
        // Several at a time, because small networks have no operation that is worth sharing between cores.
        let utilities = prompts.par_iter().zip(candidates).map(one).collect::<Outcome<Vec<_>>>()?;
        progress.finish();
        Ok(utilities)
    }

    /// Whether a candidate is better than another one of its prompt: 1 if it is, 0 if the other is, half if neither is clearly, or if the
    /// judge abstains.
    pub(crate) fn win(&self, other: Option<f64>, candidate: Option<f64>) -> f64 {
        candidate.zip(other).map_or(0.5, |(candidate, other)| win(candidate - other, self.least))
    }

    /// Pairs the best with the worst of each prompt's `per_prompt` samples, and turns the share `flipped` of the pairs round;
    /// prompts whose samples are equally good give none. `utilities` holds those of prompt 0 first, then those of prompt 1, and so
    /// on.
    pub(crate) fn best_against_worst(
        &self,
        utilities: &[Option<f64>],
        per_prompt: usize,
        flipped: f64,
        seed: u64,
    ) -> Vec<Label> {
        best_against_worst(utilities, per_prompt, (self.least, self.origin), flipped, seed)
    }
}

/// Share of right labels among those of samples that differ in truth, points of 100; `truth` holds what the exact checker says of all
/// samples, prompt by prompt.
pub(crate) fn share_right(labels: &[Label], truth: &[Graded], per_prompt: usize) -> f64 {
    let utility = |label: &Label, sample: usize| truth[label.prompt * per_prompt + sample].utility;
    let wins = labels
        .iter()
        .map(|label| win(utility(label, label.chosen) - utility(label, label.rejected), LEAST_DIFFERENCE));
    share(&wins.filter(|win| *win != 0.5).map(|win| win == 1.0).collect::<Vec<_>>()).value
}

/// 1 for a win, 0 for a loss, half for a difference below `least`.
pub(crate) fn win(difference: f64, least: f64) -> f64 {
    match difference {
        up if up >= least => 1.0,
        down if down <= -least => 0.0,
        _ => 0.5,
    }
}

fn best_against_worst(
    utilities: &[Option<f64>],
    per_prompt: usize,
    (least, origin): (f64, Option<f64>),
    flipped: f64,
    seed: u64,
) -> Vec<Label> {
    let mut labels = Vec::new();
    for (prompt, samples) in utilities.chunks(per_prompt).enumerate() {
        // The first of equals: which one it is must not depend on anything but the samples.
        let mut ends: Option<[(usize, f64); 2]> = None;
        for (i, utility) in samples.iter().enumerate() {
            let Some(utility) = *utility else { continue };
            let [best, worst] = ends.get_or_insert([(i, utility); 2]);
            if utility > best.1 {
                *best = (i, utility);
            }
            if utility < worst.1 {
                *worst = (i, utility);
            }
        }
        let Some([(best, most), (worst, fewest)]) = ends else { continue };
        let margin = most - fewest;
        let is_divided = origin.is_none_or(|origin| most > origin && origin > fewest);
        if margin >= least && is_divided {
            let flip = Draws::new(seed, Stream::LabelFlip, 0, prompt as u64).chance(flipped);
            let (chosen, rejected) = if flip { (worst, best) } else { (best, worst) };
            labels.push(Label { prompt, chosen, rejected, margin });
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(utilities: &[f64]) -> Vec<Option<f64>> {
        utilities.iter().copied().map(Some).collect()
    }

    #[test]
    fn the_best_is_chosen_over_the_worst_and_ties_give_no_pair() {
        let samples = known(&[0.5, 1.0, 0.0, 1.0, 1.0, 1.0]);
        let label = Label { prompt: 0, chosen: 1, rejected: 2, margin: 1.0 };
        assert_eq!(best_against_worst(&samples, 3, (0.05, None), 0.0, 1), [label]);
        assert_eq!(
            best_against_worst(&samples, 3, (0.05, None), 1.0, 1),
            [Label { chosen: 2, rejected: 1, ..label }]
        );
    }

    #[test]
    fn what_is_not_judged_is_neither_best_nor_worst() {
        let samples = [None, Some(-3.0), None, Some(-5.0), None, None, None, Some(1.0)];
        let label = Label { prompt: 0, chosen: 1, rejected: 3, margin: 2.0 };
        assert_eq!(best_against_worst(&samples, 4, (1.1, None), 0.0, 1), [label]);
    }

    #[test]
    fn two_that_are_right_give_no_pair_where_grades_have_an_origin() {
        let samples = known(&[0.6, 3.0, 1.0, -2.0]);
        let label = Label { prompt: 1, chosen: 0, rejected: 1, margin: 3.0 };
        assert_eq!(best_against_worst(&samples, 2, (1.1, Some(0.0)), 0.0, 1), [label]);
        assert_eq!(best_against_worst(&samples, 2, (1.1, None), 0.0, 1).len(), 2);
    }

    #[test]
    fn about_the_asked_share_is_flipped() {
        let samples = known(&[0.0, 1.0].repeat(2000));
        let flipped =
            best_against_worst(&samples, 2, (0.05, None), 0.1, 7).iter().filter(|l| l.chosen == 0).count();
        assert!((160..240).contains(&flipped), "{flipped}");
    }
}
