//! Which rows are trained on and which are held out for evaluation.
//!
//! A share is held out by a hash of the prompt: the choice does not change when rows are added or moved, and all pairs
//! of a prompt are on the same side, so that nothing that was trained on is evaluated.

use crate::error::{Result, TrainError};
use crate::front_end::EncodedCounts;
use crate::plan::{EvalPlan, EvalRows};
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::Path;
use votive_data::{
    CaptionRow, DataReport, FramedPair, ImageSource, TokenizedList, TokenizedPair, TokenizedUnpaired,
};

/// What happened to the rows of a run.
#[derive(Clone, Debug)]
pub struct RowReport {
    /// The rows of `data.path`.
    pub train: DataReport,
    /// The rows of `eval.path`, if there is one.
    pub eval: Option<DataReport>,
    /// Rows that are held out, of whichever file.
    pub held_out: usize,
    /// Images and prompts that were encoded or found encoded; none for text.
    pub encoded: Option<EncodedCounts>,
}

impl fmt::Display for RowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.train)?;
        match &self.eval {
            Some(eval) => write!(f, "\nheld out for evaluation: {eval}")?,
            None if self.held_out > 0 => {
                write!(f, "\n  held out for evaluation: {} of them", self.held_out)?;
            }
            None => {}
        }
        self.encoded.iter().try_for_each(|encoded| write!(f, "\n  {encoded}"))
    }
}

/// Rows that can be parted by their prompts.
pub(crate) trait Rows: Sized {
    /// How many.
    fn count(&self) -> usize;
    /// All with what was preferred and what was not exchanged.
    fn turned(self) -> Self;
    /// Those whose prompt is not picked, and those whose prompt is, each in their order.
    fn part(self, picked: impl Fn(&[u8]) -> bool) -> (Self, Self);
}

/// Rows to train on and rows to evaluate, and what happened to all of them.
pub(crate) struct Split<R> {
    pub(crate) train: R,
    /// None if nothing is held out.
    pub(crate) held_out: Option<R>,
    pub(crate) report: RowReport,
}

/// Parts rows as the plan says; `read` reads another file of the same kind.
pub(crate) fn split<R: Rows>(
    eval: Option<&EvalPlan>,
    (rows, report): (R, DataReport),
    read: impl Fn(&Path) -> Result<(R, DataReport)>,
) -> Result<Split<R>> {
    let (train, held_out, eval_report) = match eval.map(|eval| &eval.rows) {
        None => (rows, None, None),
        Some(EvalRows::File(path)) => {
            let (held_out, report) = read(path)?;
            (rows, Some(held_out), Some(report))
        }
        Some(EvalRows::Share(share)) => {
            let all = rows.count();
            let (train, held_out) = rows.part(|prompt| is_held_out(prompt, *share));
            if train.count() == 0 || held_out.count() == 0 {
                return Err(TrainError::Plan(format!(
                    "data.eval_fraction = {share}: holds out {} of {all} rows; there must be some to train on and some \
                     to evaluate, so choose another share, or give the rows to evaluate as eval.path",
                    held_out.count()
                )));
            }
            (train, Some(held_out), None)
        }
    };
    let n_held_out = held_out.as_ref().map_or(0, Rows::count);
    Ok(Split {
        train,
        held_out,
        report: RowReport { train: report, eval: eval_report, held_out: n_held_out, encoded: None },
    })
}

/// Whether the prompt's hash, read as a fraction, is below the share.
fn is_held_out(prompt: &[u8], share: f64) -> bool {
    let digest = Sha256::digest(prompt);
    let head = digest.iter().take(8).fold(0u64, |head, byte| head << 8 | u64::from(*byte));
    (head as f64) < share * 2f64.powi(64)
}

/// A prompt with the names of the images that it shows, wherever their folder lies.
fn bytes(ids: &[u32], images: &[ImageSource]) -> Vec<u8> {
    let name = |image: &ImageSource| match image {
        ImageSource::File(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        ImageSource::Embedded(embedded) => {
            format!("{} {} {} {}", embedded.column, embedded.group, embedded.row, embedded.index)
        }
    };
    let ids = ids.iter().flat_map(|id| id.to_le_bytes());
    ids.chain(images.iter().map(name).flat_map(String::into_bytes)).collect()
}

impl Rows for Vec<FramedPair> {
    fn count(&self) -> usize {
        self.len()
    }

    fn turned(self) -> Self {
        self.into_iter().map(FramedPair::turned).collect()
    }

    fn part(self, picked: impl Fn(&[u8]) -> bool) -> (Self, Self) {
        self.into_iter().partition(|row| !picked(row.pair.prompt.as_bytes()))
    }
}

impl Rows for Vec<CaptionRow> {
    fn count(&self) -> usize {
        self.len()
    }

    /// A prompt has no sides.
    fn turned(self) -> Self {
        self
    }

    fn part(self, picked: impl Fn(&[u8]) -> bool) -> (Self, Self) {
        self.into_iter().partition(|row| !picked(row.prompt.as_bytes()))
    }
}

/// Tokenized rows of either kind.
pub(crate) enum TextRows {
    Pairs(Vec<TokenizedPair>),
    Unpaired(Vec<TokenizedUnpaired>),
    Lists(Vec<TokenizedList>),
}

impl Rows for TextRows {
    fn count(&self) -> usize {
        match self {
            Self::Pairs(rows) => rows.len(),
            Self::Unpaired(rows) => rows.len(),
            Self::Lists(rows) => rows.len(),
        }
    }

    fn turned(self) -> Self {
        match self {
            Self::Pairs(rows) => Self::Pairs(rows.into_iter().map(TokenizedPair::turned).collect()),
            Self::Unpaired(rows) => {
                let turned = |row: TokenizedUnpaired| TokenizedUnpaired { label: !row.label, ..row };
                Self::Unpaired(rows.into_iter().map(turned).collect())
            }
            Self::Lists(rows) => Self::Lists(rows.into_iter().map(TokenizedList::turned).collect()),
        }
    }

    fn part(self, picked: impl Fn(&[u8]) -> bool) -> (Self, Self) {
        match self {
            Self::Pairs(rows) => {
                let (rest, held_out) =
                    rows.into_iter().partition(|row| !picked(&bytes(&row.prompt_ids, &row.images)));
                (Self::Pairs(rest), Self::Pairs(held_out))
            }
            Self::Unpaired(rows) => {
                let (rest, held_out) =
                    rows.into_iter().partition(|row| !picked(&bytes(&row.prompt_ids, &row.images)));
                (Self::Unpaired(rest), Self::Unpaired(held_out))
            }
            Self::Lists(rows) => {
                let prompt = |row: &TokenizedList| {
                    row.completions.first().map(|one| bytes(&one.prompt_ids, &one.images))
                };
                let (rest, held_out) =
                    rows.into_iter().partition(|row| !prompt(row).is_some_and(|p| picked(&p)));
                (Self::Lists(rest), Self::Lists(held_out))
            }
        }
    }
}

impl TextRows {
    /// These rows followed by others.
    ///
    /// # Errors
    /// If the kinds differ.
    pub(crate) fn followed_by(self, others: Option<Self>) -> Result<Self> {
        match (self, others) {
            (rows, None) => Ok(rows),
            (Self::Pairs(rows), Some(Self::Pairs(others))) => Ok(Self::Pairs([rows, others].concat())),
            (Self::Unpaired(rows), Some(Self::Unpaired(others))) => {
                Ok(Self::Unpaired([rows, others].concat()))
            }
            (Self::Lists(rows), Some(Self::Lists(others))) => Ok(Self::Lists([rows, others].concat())),
            _ => Err(TrainError::Plan(
                "eval.path and data.path differ: one has pairs, the other single completions with labels"
                    .to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use votive_data::{ImageFacts, ImagePair, ImageSize};

    fn pair(row: usize) -> FramedPair {
        let image = |name: &str| std::path::PathBuf::from(name);
        let size = ImageSize::square(8);
        // Two pairs of every prompt.
        let pair = ImagePair::new(row, format!("prompt {}", row / 2), image("a"), image("b"));
        FramedPair { pair, images: [ImageFacts { size, digest: [0; 32] }; 2], target: size }
    }

    #[test]
    fn a_share_is_held_out_by_prompt_and_stays_when_rows_are_added() {
        let part = |n: usize| {
            let rows: Vec<FramedPair> = (0..n).map(pair).collect();
            let (train, held_out) = rows.part(|prompt| is_held_out(prompt, 0.2));
            assert_eq!(train.len() + held_out.len(), n);
            assert!(held_out.iter().all(|out| train.iter().all(|row| row.pair.prompt != out.pair.prompt)));
            held_out.into_iter().map(|row| row.pair.row).collect::<Vec<_>>()
        };
        let (few, many) = (part(1000), part(2000));
        assert!((160..240).contains(&few.len()), "{}", few.len());
        assert_eq!(few, many.into_iter().filter(|row| *row < 1000).collect::<Vec<_>>());
    }

    #[test]
    fn all_and_none_are_the_ends_of_the_scale() {
        assert!(!is_held_out(b"x", 0.0) && is_held_out(b"x", 1.0));
    }
}
