//! Labels from the exact checker: the best and the worst of several samples, some of them flipped on purpose.

use votive_eval::Outcome as Graded;
use votive_playground::image::LEAST_DIFFERENCE;
use votive_tensor::random::{Draws, Stream};

/// One labelled pair: the prompt's index, and which of its samples are chosen and rejected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Label {
    pub(crate) prompt: usize,
    pub(crate) chosen: usize,
    pub(crate) rejected: usize,
    /// By how much the labeller found the one better than the other, whichever is called chosen.
    pub(crate) margin: f64,
}

/// Pairs the best with the worst of each prompt's `per_prompt` samples; prompts whose samples are equally good give
/// none. `graded` holds the samples of prompt 0 first, then those of prompt 1, and so on.
pub(crate) fn best_against_worst(
    graded: &[Graded],
    per_prompt: usize,
    flipped: f64,
    seed: u64,
) -> Vec<Label> {
    let mut labels = Vec::new();
    for (prompt, samples) in graded.chunks(per_prompt).enumerate() {
        // The first of equals: which one it is must not depend on anything but the samples.
        let (mut best, mut worst) = (0, 0);
        for (i, sample) in samples.iter().enumerate() {
            if sample.utility > samples[best].utility {
                best = i;
            }
            if sample.utility < samples[worst].utility {
                worst = i;
            }
        }
        let margin = samples[best].utility - samples[worst].utility;
        if margin >= LEAST_DIFFERENCE {
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

    fn graded(utilities: &[f64]) -> Vec<Graded> {
        let one = |utility: &f64| Graded {
            category: String::new(),
            parts: Vec::new(),
            exact: false,
            part: *utility,
            utility: *utility,
            ugliness: None,
        };
        utilities.iter().map(one).collect()
    }

    #[test]
    fn the_best_is_chosen_over_the_worst_and_ties_give_no_pair() {
        let samples = graded(&[0.5, 1.0, 0.0, 1.0, 1.0, 1.0]);
        let label = Label { prompt: 0, chosen: 1, rejected: 2, margin: 1.0 };
        assert_eq!(best_against_worst(&samples, 3, 0.0, 1), [label]);
        assert_eq!(best_against_worst(&samples, 3, 1.0, 1), [Label { chosen: 2, rejected: 1, ..label }]);
    }

    #[test]
    fn about_the_asked_share_is_flipped() {
        let samples = graded(&[0.0, 1.0].repeat(2000));
        let flipped =
            best_against_worst(&samples, 2, 0.1, 7).iter().filter(|label| label.chosen == 0).count();
        assert!((160..240).contains(&flipped), "{flipped}");
    }
}
