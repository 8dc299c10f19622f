//! Pairs that a judge is asked about, and what is heard of them, whoever asked.

use super::injections::Injections;
use crate::cli::Outcome;
use crate::cli::judges::Subject;
use votive_critic::{Candidate, Cost, Finding, Question, Winner};

/// A pair as it is put.
pub(super) struct Pair {
    pub(super) question: Question,
    pub(super) known: Known,
}

/// What is known of a pair.
#[derive(Clone, Default)]
pub(super) struct Known {
    /// Who wins in truth, or to whom the judge is compared with; none if that is not known.
    pub(super) truth: Option<Winner>,
    /// Whether the pair counts for agreement and calibration.
    pub(super) is_counted: bool,
    /// By how much more of the subject's property the first has than the second.
    pub(super) more: f64,
    /// What is wrong with the worse one, in words.
    pub(super) flaws: Vec<String>,
    /// Numbers of the candidates, where all candidates of a prompt were compared.
    pub(super) candidates: Option<[usize; 2]>,
    /// Which of the two is the judge's own work, if one of them is and the other is not.
    pub(super) own: Option<Winner>,
}

/// What a judge says of a pair.
pub(super) struct Record {
    pub(super) known: Known,
    /// With its protocol.
    pub(super) judged: Finding,
    /// Verdicts in either order, each as it was shown.
    pub(super) orders: Vec<[Option<Winner>; 2]>,
    /// Without a protocol, as shown and the other way round; none where nobody asked so.
    pub(super) bare: Option<[Finding; 2]>,
}

/// All that is heard of a judge.
pub(super) struct Heard {
    pub(super) judge: String,
    /// Who is taken to be right.
    pub(super) against: String,
    pub(super) subject: Subject,
    /// The model whose candidates are the judge's own work.
    pub(super) own: Option<String>,
    pub(super) records: Vec<Record>,
    pub(super) injections: Option<Injections>,
    pub(super) cost: Cost,
}

/// By how much more of their property the first of two candidates has: a text's length in characters, an image's mean brightness
/// from 0 to 255.
///
/// # Errors
/// If an image cannot be read.
pub(super) fn more(first: &Candidate, second: &Candidate) -> Outcome<f64> {
    Ok(amount(first)? - amount(second)?)
}

fn amount(candidate: &Candidate) -> Outcome<f64> {
    match candidate {
        Candidate::Text(text) => Ok(text.chars().count() as f64),
        Candidate::Image(picture) => {
            let pixels = picture.decode().map_err(|error| crate::cli::Failure::data(error.to_string()))?;
            let bytes = pixels.as_raw();
            Ok(bytes.iter().map(|byte| f64::from(*byte)).sum::<f64>() / bytes.len().max(1) as f64)
        }
    }
}

/// The verdict that two utilities give; what differs by less than `least` is a tie.
pub(super) fn by_utility(first: f64, second: f64, least: f64) -> Winner {
    match first - second {
        difference if difference >= least => Winner::First,
        difference if difference <= -least => Winner::Second,
        _ => Winner::Tie,
    }
}

/// Every two of a prompt's candidates, which are graded and whose numbers begin at `number`.
///
/// # Errors
/// If an image cannot be read.
pub(super) fn every_two(
    prompt: &str,
    candidates: &[(Candidate, f64)],
    number: usize,
    least: f64,
) -> Outcome<Vec<Pair>> {
    let mut pairs = Vec::new();
    for (i, (first, first_utility)) in candidates.iter().enumerate() {
        for (j, (second, second_utility)) in candidates.iter().enumerate().skip(i + 1) {
            let known = Known {
                truth: Some(by_utility(*first_utility, *second_utility, least)),
                more: more(first, second)?,
                candidates: Some([number + i, number + j]),
                ..Known::default()
            };
            pairs.push(Pair { question: Question::pair(prompt, first.clone(), second.clone()), known });
        }
    }
    Ok(pairs)
}

/// Candidates of a prompt that are all compared.
pub(super) const CONTESTANTS: usize = 4;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use votive_critic::Picture;

    #[test]
    fn properties_by_hand() {
        let text = |text: &str| Candidate::Text(text.to_owned());
        assert_eq!(more(&text("größer"), &text("kurz")).unwrap(), 2.0);
        let grey = |byte: u8| {
            let pixels = image::RgbImage::from_pixel(2, 1, image::Rgb([byte, 0, 3]));
            Candidate::Image(Picture::of_pixels(&pixels).unwrap())
        };
        assert_eq!(more(&grey(30), &grey(90)).unwrap(), -20.0);
    }

    #[test]
    fn four_candidates_are_six_pairs_with_the_verdicts_of_their_utilities() {
        let candidates: Vec<(Candidate, f64)> = [0.5, 1.0, 0.52, 0.0]
            .iter()
            .map(|utility| (Candidate::Text(utility.to_string()), *utility))
            .collect();
        let pairs = every_two("p", &candidates, 8, 0.05).unwrap();
        let found: Vec<_> =
            pairs.iter().map(|pair| (pair.known.candidates.unwrap(), pair.known.truth.unwrap())).collect();
        let (first, second) = (Winner::First, Winner::Second);
        assert_eq!(
            found,
            [
                ([8, 9], second),
                ([8, 10], Winner::Tie),
                ([8, 11], first),
                ([9, 10], first),
                ([9, 11], first),
                ([10, 11], first)
            ]
        );
        assert!(pairs.iter().all(|pair| !pair.known.is_counted));
    }
}
