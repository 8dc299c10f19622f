//! Identity preference optimization (IPO).
//!
//! Source: Azar et al. 2023, arXiv:2310.12036, Eq. 17.
//! Loss: `(h − 1/(2τ))²` with the margin `h` in nats per token.
//! Against DPO: a square instead of a logistic, so the margin has a finite target and certain pairs don't drive it
//! without bound.
//! Departures: log-ratios are averaged over the completion's tokens, as trl does; the paper is silent on length.
//! Checked against: trl 1.16 `loss_type="ipo"`, whose `beta` is τ here.

use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "ipo",
    title: "Identity preference optimization",
    paper: "arXiv:2310.12036, Eq. 17",
    domains: &[Domain::Text, Domain::Image],
    needs: Needs::REFERENCE.or(Needs::LENGTHS),
    reduction: Reduction::Mean,
    options: &[OptionDoc { name: "tau", doc: "τ > 0: the margin's target is 1/(2τ) nats per token" }],
    defaults: || json!(Ipo::default()),
    build: |options| read_options::<Ipo>("ipo", options)?.checked(),
};

/// IPO with its one option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ipo {
    /// τ.
    pub tau: f64,
}

impl Default for Ipo {
    fn default() -> Self {
        Self { tau: 0.1 }
    }
}

impl Ipo {
    fn checked(self) -> Result<Objective> {
        require_positive("ipo", "tau", self.tau)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl MarginObjective for Ipo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        let [chosen, rejected] = inputs.logratios()?;
        Ok([inputs.chosen.per_token(&chosen)?, inputs.rejected.per_token(&rejected)?])
    }

    fn rewards(&self, inputs: &PairInputs, _scores: [Tensor; 2]) -> Result<[Tensor; 2]> {
        inputs.implicit_rewards(self.tau)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        Ok((margin - 0.5 / self.tau)?.sqr()?)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::PairObjective;
    use candle_core::Device;

    #[test]
    fn hand_arithmetic() {
        let t = |x: f64| Tensor::new(&[x], &Device::Cpu).unwrap();
        // 12 nats over 4 tokens against −4 over 2: the margin is 5 nats per token, τ = 0.1 asks for 5.
        let inputs =
            PairInputs::new(t(12.0), t(-4.0)).with_reference(t(0.0), t(0.0)).with_lengths(t(4.0), t(2.0));
        let loss = |tau| Ipo { tau }.evaluate(&inputs).unwrap().per_pair.to_vec1::<f64>().unwrap()[0];
        assert_eq!(loss(0.1), 0.0);
        assert_eq!(loss(0.25), 9.0);
    }
}
