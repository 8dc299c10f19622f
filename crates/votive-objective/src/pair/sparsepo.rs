//! Sparse preference optimization (SparsePO): TDPO whose tokens count as masks say.
//!
//! Source: Christopoulou et al. 2024, arXiv:2410.05102, and the authors' code (huawei-noah/HEBO, SparsePO).
//! Loss: `−log σ(β·(u − δ)) + λ_u·(|m_u(y_w)|₁ + |m_u(y_l)|₁) + λ_d·(|m_d(y_w)|₁ + |m_d(y_l)|₁)` with
//! `u = Σ_t m_u·(log π_θ − log π_ref)(y_w) − …(y_l)` and `δ = Σ_t m_d·KL(π_ref ‖ π_θ)(y_l) − …(y_w)`, KL over the vocabulary
//! at every token.
//! Against TDPO: few tokens decide whether an answer is preferred, and the others need not count. All weights 1 are TDPO₁,
//! `m_u = 1` with `m_d = 0` is DPO.
//! Departures: the masks are inputs. Their gradient is there, so whoever computes them can learn them (the paper's
//! SparsePO); masks of the reference's activations (the paper's MaPO masks) are numbers. One mask for both (the paper's
//! "common") counts its norm twice here, so its λ must be halved, as in the authors' code.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::completion::Completion;
use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
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
    id: "sparsepo",
    title: "Sparse preference optimization",
    paper: "arXiv:2410.05102",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::TOKEN_LOGPS).or(Needs::TOKEN_KL).or(Needs::TOKEN_WEIGHTS),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc {
            name: "reward_sparsity", doc: "λ_u ≥ 0: what a token's weight in the log-ratio costs"
        },
        OptionDoc {
            name: "divergence_sparsity",
            doc: "λ_d ≥ 0: what a token's weight in the divergence costs",
        },
    ],
    defaults: || json!(SparsePo::default()),
    build: |options| read_options::<SparsePo>("sparsepo", options)?.checked(),
};

/// SparsePO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SparsePo {
    /// β.
    pub beta: f64,
    /// λ_u.
    pub reward_sparsity: f64,
    /// λ_d.
    pub divergence_sparsity: f64,
}

impl Default for SparsePo {
    fn default() -> Self {
        Self { beta: 0.1, reward_sparsity: 0.0, divergence_sparsity: 0.0 }
    }
}

/// What a side gives: weighted log-ratio, weighted divergence, and what its masks cost; `(B,)` each.
struct Side {
    logratio: Tensor,
    divergence: Tensor,
    cost: Tensor,
}

impl SparsePo {
    fn checked(self) -> Result<Objective> {
        require_positive("sparsepo", "beta", self.beta)?;
        require_not_negative("sparsepo", "reward_sparsity", self.reward_sparsity)?;
        require_not_negative("sparsepo", "divergence_sparsity", self.divergence_sparsity)?;
        Ok(Objective::Pair(Box::new(self)))
    }

    fn side(&self, side: &Completion) -> Result<Side> {
        let weights = side.token_weights()?;
        let (of_reward, of_kl) = (&weights.logratio, &weights.kl);
        // Weights are not negative, so their sum is their norm.
        let cost = ((of_reward * self.reward_sparsity)? + (of_kl * self.divergence_sparsity)?)?;
        Ok(Side {
            logratio: side.masked_sum(&(side.token_logratios()? * of_reward)?)?,
            divergence: side.masked_sum(&(side.token_kl()? * of_kl)?)?,
            cost: side.masked_sum(&cost)?,
        })
    }
}

impl PairObjective for SparsePo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let (chosen, rejected) = (self.side(&inputs.chosen)?, self.side(&inputs.rejected)?);
        let delta = (&rejected.divergence - &chosen.divergence)?;
        let margin = ((&chosen.logratio - &rejected.logratio)? - delta)?;
        let cost = (chosen.cost + rejected.cost)?;
        Ok(PairLoss {
            per_pair: (cost - log_sigmoid(&(margin * self.beta)?)?)?,
            chosen_rewards: (chosen.logratio.detach() * self.beta)?,
            rejected_rewards: (rejected.logratio.detach() * self.beta)?,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::completion::{TokenWeights, Tokens};
    use crate::tests::{assert_near, numbers, row};
    use candle_core::{Device, Var};

    /// Loss with these weights on both sides, and the slopes by the chosen side's weights in the log-ratio.
    fn run(sparsepo: &SparsePo, reward: [f64; 3], kl: [f64; 3]) -> (f64, Vec<f64>) {
        let tensor = |values: [f64; 3]| Tensor::new(&[values], &Device::Cpu).unwrap();
        // Two tokens; the third is padding with numbers that mean nothing.
        let tokens = |policy: [f64; 3], kl: [f64; 3]| Tokens {
            mask: tensor([1.0, 1.0, 0.0]),
            policy_logps: Some(tensor(policy)),
            reference_logps: Some(tensor([-1.0, -1.0, 3.0])),
            kl: Some(tensor(kl)),
        };
        let learned = Var::from_tensor(&tensor(reward)).unwrap();
        let weights = |logratio: &Tensor| TokenWeights { logratio: logratio.clone(), kl: tensor(kl) };
        let inputs = PairInputs::new(row(&[0.0]), row(&[-3.0]))
            .with_reference(row(&[-2.0]), row(&[-2.0]))
            // Log-ratios (2, 0) and (0, −1), divergences (¼, ½) and (1, 2).
            .with_tokens(
                tokens([1.0, -1.0, 9.0], [0.25, 0.5, 7.0]),
                tokens([-1.0, -2.0, 9.0], [1.0, 2.0, 7.0]),
            )
            .with_token_weights(weights(&learned), weights(&tensor(reward)));
        let loss = sparsepo.evaluate(&inputs).unwrap().per_pair;
        let gradients = loss.sum_all().unwrap().backward().unwrap();
        (numbers(&loss)[0], numbers(gradients.get(&learned).unwrap()))
    }

    fn logistic(margin: f64) -> f64 {
        (-margin).exp().ln_1p()
    }

    const FREE: SparsePo = SparsePo { beta: 0.5, reward_sparsity: 0.0, divergence_sparsity: 0.0 };

    #[test]
    fn hand_arithmetic() {
        // DPO: u = 3. TDPO₁: δ = 3 − ¾ too. A mask on the first token: u = 2, δ = ½·(1 − ¼).
        assert_near(run(&FREE, [1.0; 3], [0.0; 3]).0, logistic(1.5));
        assert_near(run(&FREE, [1.0; 3], [1.0; 3]).0, logistic(0.5 * (3.0 - 2.25)));
        assert_near(run(&FREE, [1.0, 0.0, 1.0], [0.5, 0.0, 1.0]).0, logistic(0.5 * (2.0 - 0.375)));
        assert_near(run(&FREE, [0.0; 3], [0.0; 3]).0, 2f64.ln());
    }

    #[test]
    fn a_weight_is_worth_its_tokens_log_ratio_and_costs_its_norm() {
        let sparse = SparsePo { reward_sparsity: 0.125, divergence_sparsity: 0.25, ..FREE };
        let (loss, slopes) = run(&sparse, [0.0; 3], [0.5; 3]);
        // Two sides of two tokens each: 0.25·½·4; δ = ½·2.25.
        assert_near(loss, logistic(-0.5 * 1.125) + 0.5);
        let pull = 0.5 / (1.0 + (-0.5f64 * 1.125).exp());
        for (slope, expected) in slopes.iter().zip([0.125 - 2.0 * pull, 0.125, 0.0]) {
            assert_near(*slope, expected);
        }
    }
}
