//! Alignment via optimal transport on unpaired samples (AOT, unpaired).
//!
//! Source: Melnyk et al. 2024, arXiv:2406.05882, the unpaired form.
//! Loss: `−(1 − ε)·log σ(β·δ) − ε·log σ(−β·δ)` of `δ_(k) = (r_w)_(k) − (r_l)_(k)` with log-ratios r in nats, where (k) is the
//! k-th smallest in the batch: rewards of chosen completions are to dominate those of rejected ones as distributions.
//! Against DPO: who was paired with whom does not matter, so chosen and rejected completions of a batch may be of
//! different prompts. A pair's loss depends on its batch, and the whole batch of a step must go through the network at once.
//! Departures: the loss of rank k is that of the pair whose chosen completion has this rank; trl returns their mean alone.
//! As in trl, rows hold as many chosen as rejected completions.
//! Checked against: trl 1.16 `loss_type="aot_unpaired"`, whose `label_smoothing` is ε here.

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
    id: "aot_unpaired",
    title: "Alignment via optimal transport, unpaired",
    paper: "arXiv:2406.05882",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::WHOLE_BATCH),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "epsilon", doc: "0 ≤ ε < 0.5: share of wrong labels" },
    ],
    defaults: || json!(AotUnpaired::default()),
    build: |options| read_options::<AotUnpaired>("aot_unpaired", options)?.checked(),
};

/// AotUnpaired with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AotUnpaired {
    /// β.
    pub beta: f64,
    /// ε.
    pub epsilon: f64,
}

impl Default for AotUnpaired {
    fn default() -> Self {
        Self { beta: 0.01, epsilon: 0.0 }
    }
}

impl AotUnpaired {
    fn checked(self) -> Result<Objective> {
        require_positive("aot_unpaired", "beta", self.beta)?;
        require_noise("aot_unpaired", "epsilon", self.epsilon)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for AotUnpaired {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let [chosen, rejected] = inputs.implicit_rewards(self.beta)?;
        let margin = rank_by_rank(&chosen, &rejected)?;
        let per_pair = smoothed(&margin, self.epsilon, |margin| Ok(log_sigmoid(margin)?.neg()?))?;
        Ok(PairLoss::new(per_pair, [chosen, rejected]))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tests::{assert_near, row};

    #[test]
    fn hand_arithmetic() {
        // Chosen 1 and 4 against rejected 3 and 0: ranks differ by 1 − 0 and 4 − 3.
        let inputs = PairInputs::new(row(&[1.0, 4.0]), row(&[3.0, 0.0]))
            .with_reference(row(&[0.0, 0.0]), row(&[0.0, 0.0]));
        let loss = AotUnpaired { beta: 2.0, epsilon: 0.0 }.evaluate(&inputs).unwrap().per_pair;
        for found in loss.to_vec1::<f64>().unwrap() {
            assert_near(found, (-2f64).exp().ln_1p());
        }
    }
}
