//! Pairs of pictures of the playground.

use super::record::{CONTESTANTS, Known, Pair, every_two, more};
use crate::cli::Outcome;
use crate::cli::world::stored;
use votive_critic::{Candidate, Question, Winner};
use votive_eval::grade_images;
use votive_playground::Split;
use votive_playground::image::{LEAST_DIFFERENCE, check, clear_pairs, contests, in_words};

/// `n` pairs with a clear winner, then every two pictures of some captions.
///
/// # Errors
/// If a picture cannot be checked or stored.
pub(super) fn pairs(split: Split, seed: u64, n: usize, contested: usize) -> Outcome<Vec<Pair>> {
    let mut pairs = Vec::new();
    for pair in clear_pairs(split, seed, n) {
        let [first, second] = pair.shown().map(stored);
        let (first, second) = (Candidate::Image(first?), Candidate::Image(second?));
        let flaws = in_words(&check(&pair.caption, &pair.worse)?);
        let known = Known {
            truth: Some(if pair.is_better_first { Winner::First } else { Winner::Second }),
            is_counted: true,
            more: more(&first, &second)?,
            flaws: flaws.split(", ").map(str::to_owned).collect(),
            ..Known::default()
        };
        pairs.push(Pair { question: Question::pair(&pair.caption, first, second), known });
    }
    for (contest, (caption, pictures)) in
        contests(split, seed, contested, CONTESTANTS).into_iter().enumerate()
    {
        let graded = grade_images(&vec![caption.clone(); pictures.len()], &pictures)?;
        let shown = pictures.iter().zip(graded);
        let candidates =
            shown.map(|(picture, graded)| Ok((Candidate::Image(stored(picture)?), graded.utility)));
        let candidates = candidates.collect::<Outcome<Vec<_>>>()?;
        pairs.extend(every_two(&caption, &candidates, contest * CONTESTANTS, LEAST_DIFFERENCE)?);
    }
    Ok(pairs)
}
