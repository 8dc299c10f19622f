//! Alignment via optimal transport on pairs (AOT).
//!
//! Source: Melnyk et al. 2024, arXiv:2406.05882, the paired form.
//! Loss: `−(1 − ε)·log σ(β·δ) − ε·log σ(−β·δ)` of `δ_(k) = (log π_θ(y_w) − log π_θ(y_l))_(k) − (log π_ref(y_w) − log π_ref(y_l))_(k)`,
//! where (k) is the k-th smallest in the batch: the policy's margins are to dominate the reference's as distributions.
//! Against DPO: a margin is compared with the reference's margin of the same rank, not of the same pair. So a pair's loss
//! depends on its batch: reordering the batch reorders losses as everywhere, but a batch in two parts has another loss,
//! and the whole batch of a step must go through the network at once.
//! Departures: the loss of rank k is that of the pair whose policy margin has this rank; trl returns their mean alone.
//! Checked against: trl 1.16 `loss_type="aot"`, whose `label_smoothing` is ε here.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::sorting::rank_by_rank;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_noise, require_positive,
};
use crate::wrap::label_smoothing::smoothed;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "aot",
    title: "Alignment via optimal transport, paired",
    paper: "arXiv:2406.05882",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::WHOLE_BATCH),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "epsilon", doc: "0 ≤ ε < 0.5: share of wrong labels" },
    ],
    defaults: || json!(Aot::default()),
    build: |options| read_options::<Aot>("aot", options)?.checked(),
};

/// Aot with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Aot {
    /// β.
    pub beta: f64,
    /// ε.
    pub epsilon: f64,
}

impl Default for Aot {
    fn default() -> Self {
        Self { beta: 0.01, epsilon: 0.0 }
    }
}

impl Aot {
    fn checked(self) -> Result<Objective> {
        require_positive("aot", "beta", self.beta)?;
        require_noise("aot", "epsilon", self.epsilon)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for Aot {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let [chosen, rejected] = inputs.logratios()?;
        let policy = (&inputs.chosen.policy_logps - &inputs.rejected.policy_logps)?;
        let reference = (&policy - (&chosen - &rejected)?)?;
        let margin = (rank_by_rank(&policy, &reference)? * self.beta)?;
        let per_pair = smoothed(&margin, self.epsilon, |margin| Ok(log_sigmoid(margin)?.neg()?))?;
        Ok(PairLoss::new(per_pair, [(chosen * self.beta)?, (rejected * self.beta)?]))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tests::{assert_near, row};

    #[test]
    fn hand_arithmetic() {
        // Policy margins 1 and 4 against reference margins 3 and 0: ranks differ by 1 − 0 and 4 − 3.
        let inputs = PairInputs::new(row(&[1.0, 4.0]), row(&[0.0, 0.0]))
            .with_reference(row(&[3.0, 0.0]), row(&[0.0, 0.0]));
        let loss = Aot { beta: 1.0, epsilon: 0.25 }.evaluate(&inputs).unwrap().per_pair;
        let softplus = |x: f64| x.exp().ln_1p();
        for found in loss.to_vec1::<f64>().unwrap() {
            assert_near(found, 0.75 * softplus(-1.0) + 0.25 * softplus(1.0));
        }
    }
}
