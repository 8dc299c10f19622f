//! Whether an edit improved on its original, as a judge found it.

use crate::judgment::{Abstention, Finding};

/// Why an edit makes no pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotImproved {
    /// The original is better.
    Worse,
    /// Neither is.
    Tied,
    /// The edited one is, but with less than the probability that was asked for.
    Unsure,
    /// The judge does not say, for this reason.
    Undecided(&'static str),
}

impl NotImproved {
    /// The reason in words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worse => "the original was found better",
            Self::Tied => "both were found equally good",
            Self::Unsure => "the judge was not sure enough",
            Self::Undecided(reason) => reason,
        }
    }
}

/// The probability that the edited candidate is better, if it is more than ½ and at least `least`; `finding` is of the pair
/// (original, edited) in this order.
///
/// # Errors
/// Why there is no improvement to learn from.
pub fn improvement(finding: &Finding, least: f64) -> Result<f64, NotImproved> {
    match finding {
        Finding::Preference(original) => {
            let edited = 1.0 - original;
            match edited {
                _ if edited < 0.5 => Err(NotImproved::Worse),
                _ if edited == 0.5 => Err(NotImproved::Tied),
                _ if edited < least => Err(NotImproved::Unsure),
                _ => Ok(edited),
            }
        }
        Finding::Abstention(abstention) => Err(NotImproved::Undecided(abstention.reason())),
        // Nothing that compares two.
        Finding::Grade(_) | Finding::Ranking(_) => {
            Err(NotImproved::Undecided(Abstention::Undecided.reason()))
        }
    }
}
