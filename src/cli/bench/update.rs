//! The part of a training step that does not depend on what is trained: DPO, backward, clipping, AdamW.

use crate::cli::Outcome;
use candle_core::{DType, Tensor};
use votive_model::{LoraConfig, Params};
use votive_objective::{PairInputs, PairObjective, pair::dpo::Dpo};
use votive_tensor::Recorder;
use votive_train::gradients::{Gradients, recorder_of};
use votive_train::optimizer::{AdamW, AdamWConfig};

use super::Mode;

const LR: f64 = 1e-5;
const MAX_GRAD_NORM: f64 = 1.0;
/// Rank of the adapter.
pub(super) const RANK: usize = 16;

/// The parameters of the policy and of its reference.
pub(super) struct Sides {
    pub(super) policy: Params,
    pub(super) reference: Params,
}

impl Sides {
    /// Full fine-tuning beside the weights as they are, or a new adapter on them.
    pub(super) fn new(params: Params, mode: Mode, adapter: LoraConfig) -> Outcome<Self> {
        let policy = match mode {
            Mode::Full => params.clone().into_trainable()?,
            Mode::Lora => params.with_new_lora(adapter, 0)?,
        };
        Ok(Self { policy, reference: params })
    }
}

/// DPO's update of some parameters.
pub(super) struct Update {
    objective: Dpo,
    parameters: Vec<(String, Tensor)>,
    recorder: Recorder,
    optimizer: AdamW,
    steps: u64,
}

impl Update {
    /// An update that has not been made yet; `beta` and `weight_decay` are those of the peer.
    pub(super) fn new(policy: &Params, beta: f64, weight_decay: f64) -> Self {
        let parameters = policy.trainable();
        let recorder = recorder_of(&parameters);
        let optimizer = AdamW::new(AdamWConfig { betas: [0.9, 0.999], eps: 1e-8, weight_decay });
        Self { objective: Dpo { beta }, parameters, recorder, optimizer, steps: 0 }
    }

    /// Where parts of a network that are computed side by side leave their gradients.
    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Adds the gradient of some of a step's pairs, of which there are `all`; returns their part of the loss.
    ///
    /// # Shapes
    /// `policy_logps`, `reference_logps` `(2B,)`, chosen first
    pub(super) fn add(
        &mut self,
        policy_logps: &Tensor,
        reference_logps: &Tensor,
        all: usize,
    ) -> Outcome<f64> {
        let pairs = policy_logps.dim(0)? / 2;
        let halves = |logps: &Tensor| {
            Ok::<_, candle_core::Error>((logps.narrow(0, 0, pairs)?, logps.narrow(0, pairs, pairs)?))
        };
        let ((chosen, rejected), (reference_chosen, reference_rejected)) =
            (halves(policy_logps)?, halves(reference_logps)?);
        let inputs = PairInputs::new(chosen, rejected).with_reference(reference_chosen, reference_rejected);
        let loss = (self.objective.evaluate(&inputs)?.per_pair.sum_all()? / all as f64)?;
        self.recorder.backward(&loss)?;
        Ok(loss.to_dtype(DType::F64)?.to_scalar::<f64>()?)
    }

    /// Makes the step whose gradients were added.
    pub(super) fn finish(&mut self) -> Outcome {
        let mut gradients = Gradients::take(&self.recorder, &self.parameters);
        let norm = gradients.norm(self.steps)?;
        gradients.clip(norm, MAX_GRAD_NORM)?;
        self.optimizer.step(&self.parameters, &gradients, LR)?;
        self.steps += 1;
        Ok(())
    }

    /// Numbers that are trained.
    pub(super) fn count(&self) -> usize {
        self.parameters.iter().map(|(_, tensor)| tensor.elem_count()).sum()
    }
}
