//! The loss and the metrics of the rows that are held out, without a gradient.

use super::{Run, Sums};
use crate::error::Result;
use crate::front_end::{FrontEnd, Sample};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

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
    pub means: BTreeMap<&'static str, f64>,
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
        let samples: Vec<Sample> =
            (0..self.front.held_out()).map(|i| Sample { row: first + i, position: i }).collect();
        if samples.is_empty() {
            return Ok(None);
        }
        let network = self.front.network(&self.params.untracked()?)?;
        let mut sums = Sums::default();
        let mut divergence = None;
        for group in samples.chunks(self.plan.train.batch_size) {
            let kl = self.divergence(DRAWN_AT, group)?;
            divergence = kl.map(|kl| divergence.unwrap_or(0.0) + kl * group.len() as f64);
            for micro in group.chunks(self.plan.train.micro_batch_size) {
                let loss = self.held_out_loss(&network, micro, kl, &mut sums)?;
                sums.loss += loss;
            }
        }
        sums.kl = divergence.map(|sum| sum / samples.len() as f64);
        let losses = (self.losses_per_sample * samples.len()) as f64;
        Ok(Some(HeldOut { step: self.steps_done(), loss: sums.loss / losses, means: sums.means() }))
    }

    /// The sum of some rows' losses.
    fn held_out_loss(
        &self,
        network: &F::Network,
        samples: &[Sample],
        kl: Option<f64>,
        sums: &mut Sums,
    ) -> Result<f64> {
        let step = self.steps_done();
        let batch = self.front.batch(DRAWN_AT, samples)?;
        let policy = self.front.logps(network, &batch, None)?;
        let reference = self.reference.logps(self.front, samples, &batch, self.device())?;
        self.require_finite(step, "log-probability", &policy, samples)?;
        let losses = self.per_row_losses(&batch, &policy, reference.as_ref(), kl, sums)?;
        self.require_finite(step, "loss", &losses, samples)?;
        Ok(f64::from(losses.sum_all()?.to_scalar::<f32>()?))
    }
}
