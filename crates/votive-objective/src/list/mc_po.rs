//! Monte-Carlo preference optimization by contrastive divergence (MC-PO).
//!
//! Source: Chen et al. 2025, arXiv:2502.04567.
//! Loss: of a list whose best completion is y_w, `−log(e^r(y_w)/(e^r(y_w) + e^r(y')))` with `r = β·(log π_θ − log π_ref)` and a y'
//! that is drawn from the other completions with probability `softmax r`, under the policy as it is: the one that it
//! finds hardest to tell from a good one. With `negatives = "all"` all others stand in the denominator, which is ranking
//! noise-contrastive estimation.
//! Against DPO: a list of two is DPO. The rejected completion is chosen anew at every step.
//! Departures: one negative a step; the paper's number of them and of candidates could not be confirmed, nor its β. The
//! kernel's draw with a logistic loss does not recover the people's policy from a pool (measured: 0.13 in total variation on
//! five arms, where all negatives have 0.005), so nothing of that kind is claimed here.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::error::Result;
use crate::list::contract::{ListInputs, ListLoss, ListObjective};
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "mc_po",
    title: "Monte-Carlo preference optimization",
    paper: "arXiv:2502.04567",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::SCORES).or(Needs::DRAWS),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference; a guess" },
        OptionDoc {
            name: "negatives",
            doc: "one that the `kernel` draws (MC-PO; how many the paper draws could not be confirmed, one is a guess), or \
                  `all` (ranking NCE)",
        },
    ],
    defaults: || json!(McPo::default()),
    build: |options| read_options::<McPo>("mc_po", options)?.checked(),
};

/// Which completions stand against the best one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Negatives {
    /// One, drawn with the policy's own preference.
    Kernel,
    /// All others.
    All,
}

/// MC-PO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct McPo {
    /// β.
    pub beta: f64,
    /// y'.
    pub negatives: Negatives,
}

impl Default for McPo {
    fn default() -> Self {
        Self { beta: 0.1, negatives: Negatives::Kernel }
    }
}

impl McPo {
    fn checked(self) -> Result<Objective> {
        require_positive("mc_po", "beta", self.beta)?;
        Ok(Objective::List(Box::new(self)))
    }

    /// 1 on the completion that the kernel draws for each list, 0 elsewhere, `(B, N)`; `is_best` marks the best ones.
    fn drawn(rewards: &Tensor, is_best: &Tensor, draws: &Tensor) -> Result<Tensor> {
        // The best one cannot be drawn: its weight is 0.
        let others = (rewards - (is_best * 1e9)?)?;
        let weights = others.broadcast_sub(&others.max_keepdim(D::Minus1)?)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        // The draw falls between what is before a completion and what is up to it.
        let up_to = weights.cumsum(D::Minus1)?;
        let before = (&up_to - &weights)?;
        // As rounding leaves their sum, so that a draw near 1 still falls somewhere.
        let draws = (draws.unsqueeze(1)? * up_to.narrow(1, up_to.dim(1)? - 1, 1)?)?;
        let reached = before.broadcast_le(&draws)?.to_dtype(rewards.dtype())?;
        let passed = up_to.broadcast_le(&draws)?.to_dtype(rewards.dtype())?;
        Ok((reached - passed)?)
    }
}

impl ListObjective for McPo {
    fn needs(&self) -> Needs {
        match self.negatives {
            Negatives::Kernel => SPEC.needs,
            Negatives::All => Needs::REFERENCE.or(Needs::SCORES),
        }
    }

    fn evaluate(&self, inputs: &ListInputs) -> Result<ListLoss> {
        inputs.check()?;
        let rewards = (inputs.logratios()? * self.beta)?;
        let best = inputs.scores()?.argmax_keepdim(D::Minus1)?;
        let places = Tensor::arange(0u32, rewards.dim(1)? as u32, rewards.device())?.unsqueeze(0)?;
        let is_best = places.broadcast_eq(&best)?.to_dtype(rewards.dtype())?;
        let counted = match self.negatives {
            Negatives::All => is_best.ones_like()?,
            Negatives::Kernel => {
                let drawn = Self::drawn(&rewards.detach(), &is_best, &inputs.draws()?)?;
                (drawn + &is_best)?
            }
        };
        // What does not count is far below everything.
        let standing = (&rewards + ((counted - 1.0)? * 1e9)?)?;
        let chosen = (&rewards * is_best)?.sum(1)?;
        Ok(ListLoss { per_list: (standing.log_sum_exp(1)? - chosen)?, rewards: rewards.detach() })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tests::{assert_near, numbers, row};

    /// Three completions with rewards ln 1, ln 2 and ln 6, the second of which is best.
    fn inputs(draw: f64) -> ListInputs {
        let list = |values: [f64; 3]| row(&values).reshape((1, 3)).unwrap();
        ListInputs::new(list([0.0, 2f64.ln(), 6f64.ln()]))
            .with_reference(list([0.0; 3]))
            .with_scores(list([0.1, 0.9, 0.3]))
            .with_draws(row(&[draw]))
    }

    fn run(negatives: Negatives, draw: f64) -> f64 {
        numbers(&McPo { beta: 1.0, negatives }.evaluate(&inputs(draw)).unwrap().per_list)[0]
    }

    #[test]
    fn hand_arithmetic() {
        assert_near(run(Negatives::All, 0.0), (9f64 / 2.0).ln());
        // The others have weights 1/7 and 6/7.
        assert_near(run(Negatives::Kernel, 0.1), (3f64 / 2.0).ln());
        assert_near(run(Negatives::Kernel, 0.15), 4f64.ln());
        assert_near(run(Negatives::Kernel, 0.999), 4f64.ln());
    }

    #[test]
    fn the_kernel_follows_the_policys_rewards() {
        let mut found = [0.0; 3];
        for i in 0..7000 {
            let draw = (f64::from(i) + 0.5) / 7000.0;
            let is_best = row(&[0.0, 1.0, 0.0]).reshape((1, 3)).unwrap();
            let drawn = McPo::drawn(&inputs(0.0).policy_logps, &is_best, &row(&[draw])).unwrap();
            found.iter_mut().zip(numbers(&drawn)).for_each(|(count, is)| *count += is);
        }
        assert_eq!(found, [1000.0, 0.0, 6000.0]);
    }
}
