//! The loss and the metrics of the rows that are held out, without a gradient.

use super::sums::Sums;
use super::{Means, Run};
use crate::error::Result;
use crate::front_end::{FrontEnd, Sample};
use serde::Serialize;
use serde_json::{Map, Value};

/// The step by which a held-out row's noise and time are drawn: no run gets there, and all evaluations see the same.
const DRAWN_AT: u64 = u32::MAX as u64;

/// The numbers of the held-out rows, with TRL's names.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOut {
    /// Steps done.
    pub step: u64,
    /// Mean over the rows, `eval_loss`.
    pub loss: f64,
    /// Means over the rows by the names that they have in training, without `eval_`.
    pub means: Means,
}

impl Serialize for HeldOut {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let means = self.means.iter().map(|(name, mean)| (format!("eval_{name}"), Value::from(*mean)));
        let own = [("step".to_owned(), Value::from(self.step)), ("eval_loss".to_owned(), self.loss.into())];
        own.into_iter().chain(means).collect::<Map<_, _>>().serialize(serializer)
    }
}

impl<F: FrontEnd> Run<'_, F> {
    /// Loss and metrics of the held-out rows with the policy as it is now; none if no row is held out.
    ///
    /// Rows go through the network as in training: `micro_batch_size` at a time, and a divergence estimate is made of
    /// `batch_size` rows.
    ///
    /// # Errors
    /// As [`Run::step`].
    pub fn held_out(&self) -> Result<Option<HeldOut>> {
        let first = self.front.rows();
        let mut samples: Vec<Sample> =
            (0..self.front.held_out()).map(|i| Sample { row: first + i, position: i }).collect();
        let bucket = |sample: &Sample| self.front.bucket(sample.row);
        samples.sort_by_key(bucket);
        if samples.is_empty() {
            return Ok(None);
        }
        let network = self.front.network(&self.params.untracked()?)?;
        let denominators = self.denominators(&samples);
        let mut sums = Sums::default();
        let alike = samples.chunk_by(|a, b| bucket(a) == bucket(b));
        for group in alike.flat_map(|alike| alike.chunks(self.plan.train.batch_size)) {
            let kl = self.divergence(DRAWN_AT, group)?;
            sums.add_divergence(kl, group.len() as f64 / samples.len() as f64);
            for samples in group.chunks(self.plan.train.micro_batch_size) {
                let micro = self.micro(&network, (self.steps_done(), DRAWN_AT), samples, kl, None)?;
                self.loss(&micro, &denominators, &mut sums)?;
            }
        }
        Ok(Some(HeldOut { step: self.steps_done(), loss: sums.loss(), means: sums.means() }))
    }
}
