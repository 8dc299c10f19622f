//! Preference optimization as probabilistic inference (PMPO).
//!
//! Source: Abdolmaleki et al. 2024, arXiv:2410.04166.
//! Loss: `−α·log π_θ(y)` for a desirable completion, `(1 − α)·log π_θ(y)` for an undesirable one, and for both
//! `β·Σ_t KL(π_ref ‖ π_θ)`, over the vocabulary at every token of the completion.
//! Against KTO: no saturation. The likelihood of what is undesirable falls without end but for the divergence, which is
//! taken from the reference's side: there it grows without end where the policy gives up what the reference does. On a
//! table the minimiser is `π ∝ α·p₊ − (1 − α)·p₋ + β·π_ref` where that is not negative anywhere.
//! It works with one kind of label alone: α = 1 for desirable completions, α = 0 for undesirable ones.
//! Departures: the divergence is summed over the tokens of the data's completions. Means are over all completions, not over
//! each kind; with as many of one as of the other the loss is half of the paper's, β included. Where
//! `(1 − α)·p₋ > α·p₊ + β·π_ref` the loss has no lower bound; β = 0 with α < 1 is refused.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::contract::{UnpairedInputs, UnpairedLoss, UnpairedObjective};
use crate::error::{ObjectiveError, Result};
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "pmpo",
    title: "Preference optimization as probabilistic inference",
    paper: "arXiv:2410.04166",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::TOKEN_KL),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc {
            name: "alpha",
            doc: "0 ≤ α ≤ 1: weight of desirable completions; undesirable ones have 1 − α",
        },
        OptionDoc { name: "beta", doc: "β > 0: weight of the divergence; it may be 0 if α is 1" },
    ],
    defaults: || json!(Pmpo::default()),
    build: |options| read_options::<Pmpo>("pmpo", options)?.checked(),
};

/// PMPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pmpo {
    /// α.
    pub alpha: f64,
    /// β.
    pub beta: f64,
}

impl Default for Pmpo {
    fn default() -> Self {
        Self { alpha: 0.5, beta: 1.0 }
    }
}

impl Pmpo {
    fn checked(self) -> Result<Objective> {
        require_not_negative("pmpo", "alpha", self.alpha)?;
        require_not_negative("pmpo", "beta", self.beta)?;
        if self.alpha > 1.0 {
            let (id, option, value) = ("pmpo", "alpha", self.alpha);
            return Err(ObjectiveError::Range { id, option, value, range: "at most 1" });
        }
        if self.alpha < 1.0 && self.beta == 0.0 {
            let range = "above 0 unless alpha is 1: without it the loss has no lower bound";
            return Err(ObjectiveError::Range { id: "pmpo", option: "beta", value: self.beta, range });
        }
        Ok(Objective::Unpaired(Box::new(self)))
    }
}

impl UnpairedObjective for Pmpo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &UnpairedInputs) -> Result<UnpairedLoss> {
        inputs.check()?;
        let completions = &inputs.completions;
        // 1 − α − label: −α where the label is 1, 1 − α where it is 0.
        let sign = ((1.0 - self.alpha) - &inputs.labels)?;
        let divergence = (completions.sequence_kl()? * self.beta)?;
        Ok(UnpairedLoss {
            per_example: ((&completions.policy_logps * sign)? + divergence)?,
            rewards: Some(completions.logratio()?.detach()),
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::completion::Tokens;
    use crate::tests::{row, unpaired_losses};
    use candle_core::{Device, Tensor};

    #[test]
    fn hand_arithmetic() {
        let tokens = |mask: [[f64; 2]; 2], kl: [[f64; 2]; 2]| Tokens {
            mask: Tensor::new(&mask, &Device::Cpu).unwrap(),
            policy_logps: None,
            reference_logps: None,
            kl: Some(Tensor::new(&kl, &Device::Cpu).unwrap()),
        };
        let inputs = UnpairedInputs::new(row(&[-4.0, -8.0]), row(&[1.0, 0.0]))
            .with_reference(row(&[-4.5, -7.0]))
            .with_tokens(tokens([[1.0, 1.0], [1.0, 0.0]], [[0.25, 0.5], [1.0, 9.0]]));
        let loss = unpaired_losses(&Pmpo { alpha: 0.75, beta: 2.0 }, &inputs);
        assert_eq!(loss, [3.0 + 1.5, -2.0 + 2.0]);
    }

    #[test]
    fn a_loss_without_a_lower_bound_is_refused() {
        let error = Pmpo { alpha: 0.5, beta: 0.0 }.checked().unwrap_err().to_string();
        assert!(error.contains("no lower bound"), "{error}");
        Pmpo { alpha: 1.0, beta: 0.0 }.checked().unwrap();
    }
}
