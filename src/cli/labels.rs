//! Labels of a model's own samples: a judge grades them, a right one of a prompt is set against a wrong one (or the best against the
//! worst, where grades mean nothing by themselves), and some labels are flipped on purpose.

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
    /// The grade between right and wrong, if there is one.
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

    /// One pair of each prompt's `per_prompt` samples, and the share `flipped` of the pairs turned round; prompts whose samples are
    /// equally good give none. `utilities` holds those of prompt 0 first, then those of prompt 1, and so on.
    pub(crate) fn label(
        &self,
        utilities: &[Option<f64>],
        per_prompt: usize,
        flipped: f64,
        seed: u64,
    ) -> Vec<Label> {
        label(utilities, per_prompt, (self.least, self.origin), flipped, seed)
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

fn label(
    utilities: &[Option<f64>],
    per_prompt: usize,
    (least, origin): (f64, Option<f64>),
    flipped: f64,
    seed: u64,
) -> Vec<Label> {
    let mut labels = Vec::new();
    for (prompt, samples) in utilities.chunks(per_prompt).enumerate() {
        let graded = samples.iter().enumerate().filter_map(|(i, utility)| Some((i, (*utility)?)));
        let pair = match origin {
            Some(origin) => right_against_wrong(graded, origin, least / 2.0),
            None => best_against_worst(graded),
        };
        let Some([(better, most), (worse, fewest)]) = pair else { continue };
        let margin = most - fewest;
        if margin >= least {
            let flip = Draws::new(seed, Stream::LabelFlip, 0, prompt as u64).chance(flipped);
            let (chosen, rejected) = if flip { (worse, better) } else { (better, worse) };
            labels.push(Label { prompt, chosen, rejected, margin });
        }
    }
    labels
}

/// The first sample that lies at least `away` above the origin against the first that lies as far below it, in the order in which they
/// were drawn: which of the right ones is chosen must not depend on how much the judge likes it, because beyond right and wrong its
/// likes are what a model learns to game (docs/decisions/0012).
fn right_against_wrong(
    graded: impl Iterator<Item = (usize, f64)> + Clone,
    origin: f64,
    away: f64,
) -> Option<[(usize, f64); 2]> {
    let right = graded.clone().find(|(_, utility)| *utility >= origin + away)?;
    let wrong = graded.clone().find(|(_, utility)| *utility <= origin - away)?;
    Some([right, wrong])
}

/// The best sample against the worst; of equals the first, because which one it is must not depend on anything but the samples.
fn best_against_worst(graded: impl Iterator<Item = (usize, f64)> + Clone) -> Option<[(usize, f64); 2]> {
    let best = graded.clone().reduce(|best, other| if other.1 > best.1 { other } else { best })?;
    let worst = graded.reduce(|worst, other| if other.1 < worst.1 { other } else { worst })?;
    Some([best, worst])
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
        let expected = Label { prompt: 0, chosen: 1, rejected: 2, margin: 1.0 };
        assert_eq!(label(&samples, 3, (0.05, None), 0.0, 1), [expected]);
        assert_eq!(label(&samples, 3, (0.05, None), 1.0, 1), [Label { chosen: 2, rejected: 1, ..expected }]);
    }

    #[test]
    fn what_is_not_judged_is_neither_best_nor_worst() {
        let samples = [None, Some(-3.0), None, Some(-5.0), None, None, None, Some(1.0)];
        let expected = Label { prompt: 0, chosen: 1, rejected: 3, margin: 2.0 };
        assert_eq!(label(&samples, 4, (1.1, None), 0.0, 1), [expected]);
    }

    #[test]
    fn two_that_are_right_give_no_pair_where_grades_have_an_origin() {
        let samples = known(&[0.6, 3.0, 1.0, -2.0]);
        let expected = Label { prompt: 1, chosen: 0, rejected: 1, margin: 3.0 };
        assert_eq!(label(&samples, 2, (1.1, Some(0.0)), 0.0, 1), [expected]);
        assert_eq!(label(&samples, 2, (1.1, None), 0.0, 1).len(), 2);
    }

    #[test]
    fn the_first_right_one_meets_the_first_wrong_one_however_much_others_are_liked() {
        let samples = known(&[0.5, -1.0, 2.0, 9.0, -7.0]);
        let expected = Label { prompt: 0, chosen: 2, rejected: 1, margin: 3.0 };
        assert_eq!(label(&samples, 5, (1.1, Some(0.0)), 0.0, 1), [expected]);
        let best = Label { chosen: 3, rejected: 4, margin: 16.0, ..expected };
        assert_eq!(label(&samples, 5, (1.1, None), 0.0, 1), [best]);
        // Half the least difference is not reached by 0.5 and -0.5.
        assert_eq!(label(&known(&[0.5, -0.5, 0.54]), 3, (1.1, Some(0.0)), 0.0, 1), []);
    }

    #[test]
    fn about_the_asked_share_is_flipped() {
        let samples = known(&[0.0, 1.0].repeat(2000));
        let flipped = label(&samples, 2, (0.05, None), 0.1, 7).iter().filter(|l| l.chosen == 0).count();
        assert!((160..240).contains(&flipped), "{flipped}");
    }
}
