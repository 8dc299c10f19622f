//! Token-level direct preference optimization (TDPO).
//!
//! Source: Zeng et al. 2024, arXiv:2404.11999, Eq. 15 (TDPO₁) and Eq. 17 (TDPO₂).
//! Loss: `−log σ(β·(h − α·δ))` with DPO's margin h and the difference of sequence divergences
//! `δ = Σ_t KL(π_ref ‖ π_θ)(y_l) − sg Σ_t KL(π_ref ‖ π_θ)(y_w)`, each over the vocabulary at every token of the completion.
//! Against DPO: a policy that leaves the reference at the tokens of the rejected completion pays for it, so α holds the
//! divergence down where DPO lets it grow.
//! Departures: none. `stop_gradient = false` with `alpha = 1` is TDPO₁, the defaults are TDPO₂; α = 0 is DPO.
//! Checked against: the equations, written independently in tools/parity/objectives.py.

use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative, require_positive,
};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "tdpo",
    title: "Token-level direct preference optimization",
    paper: "arXiv:2404.11999, Eq. 15 and 17",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::TOKEN_KL),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc { name: "alpha", doc: "α ≥ 0: weight of the divergence; 1 in TDPO₁" },
        OptionDoc {
            name: "stop_gradient",
            doc: "whether the chosen completion's divergence carries no gradient (TDPO₂) or does (TDPO₁)",
        },
    ],
    defaults: || json!(Tdpo::default()),
    build: |options| read_options::<Tdpo>("tdpo", options)?.checked(),
};

/// TDPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tdpo {
    /// β.
    pub beta: f64,
    /// α.
    pub alpha: f64,
    /// sg.
    pub stop_gradient: bool,
}

impl Default for Tdpo {
    fn default() -> Self {
        Self { beta: 0.1, alpha: 0.5, stop_gradient: true }
    }
}

impl Tdpo {
    fn checked(self) -> Result<Objective> {
        require_positive("tdpo", "beta", self.beta)?;
        require_not_negative("tdpo", "alpha", self.alpha)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl MarginObjective for Tdpo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        let kl = inputs.chosen.sequence_kl()?;
        let kl = if self.stop_gradient { kl.detach() } else { kl };
        let score = |logratio: Tensor, kl: Tensor| (logratio + (kl * self.alpha)?)? * self.beta;
        let [chosen, rejected] = inputs.logratios()?;
        Ok([score(chosen, kl)?, score(rejected, inputs.rejected.sequence_kl()?)?])
    }

    fn rewards(&self, inputs: &PairInputs, _scores: [Tensor; 2]) -> Result<[Tensor; 2]> {
        inputs.implicit_rewards(self.beta)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        Ok(log_sigmoid(margin)?.neg()?)
    }

    fn is_likelihood(&self) -> bool {
        true
    }

    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        (wrapper == "f_divergence").then_some("its margin holds another divergence already")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::PairObjective;
    use crate::completion::Tokens;
    use candle_core::{Device, Var};

    /// Loss, and its slopes by the divergences of the chosen and of the rejected completion.
    fn run(tdpo: &Tdpo) -> (f64, [f64; 2]) {
        let t = |x: f64| Tensor::new(&[x], &Device::Cpu).unwrap();
        // Two tokens of which the second is padding.
        let kl = [0.25, 0.75].map(|kl| Var::new(&[[kl, 9.0]], &Device::Cpu).unwrap());
        let side = |kl: &Var| Tokens {
            mask: Tensor::new(&[[1.0, 0.0]], &Device::Cpu).unwrap(),
            policy_logps: None,
            reference_logps: None,
            kl: Some(kl.as_tensor().clone()),
        };
        let inputs = PairInputs::new(t(-2.0), t(-5.0))
            .with_reference(t(-3.0), t(-5.0))
            .with_tokens(side(&kl[0]), side(&kl[1]));
        let loss = tdpo.evaluate(&inputs).unwrap().per_pair;
        let grads = loss.sum_all().unwrap().backward().unwrap();
        let slope = |var: &Var| grads.get(var).map_or(0.0, |grad| grad.to_vec2::<f64>().unwrap()[0][0]);
        (loss.to_vec1::<f64>().unwrap()[0], kl.each_ref().map(slope))
    }

    #[test]
    fn hand_arithmetic() {
        // h = 1, δ = ½; σ(−β(h − αδ)) is the weight of the slopes.
        let (loss, slopes) = run(&Tdpo { beta: 2.0, alpha: 1.0, stop_gradient: false });
        let weight = 1.0 / (1.0 + 1f64.exp());
        assert!((loss - (1.0 + (-1f64).exp()).ln()).abs() < 1e-12);
        assert!((slopes[0] + 2.0 * weight).abs() < 1e-12 && (slopes[1] - 2.0 * weight).abs() < 1e-12);
        let (loss, slopes) = run(&Tdpo { beta: 2.0, alpha: 0.5, stop_gradient: true });
        let weight = 1.0 / (1.0 + 1.5f64.exp());
        assert!((loss - (1.0 + (-1.5f64).exp()).ln()).abs() < 1e-12);
        assert!(slopes[0] == 0.0 && (slopes[1] - weight).abs() < 1e-12);
    }
}
