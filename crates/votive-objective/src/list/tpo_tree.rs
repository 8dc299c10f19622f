//! Tree preference optimization (TPO): a list of a preference tree's leaves, ranked.
//!
//! Source: Liao et al. 2024, arXiv:2410.12854, with the weights of LiPO-λ (Liu et al. 2024, arXiv:2402.01878).
//! Loss: `−Σ_{v_i > v_j} λ_ij·log σ(r_i − r_j)` with `r = β·(log π_θ − log π_ref)`, scores v, and
//! `λ_ij = |2^v_i − 2^v_j|·|1/log(1 + rank_i) − 1/log(1 + rank_j)|`, the ranks being those of the rewards as they are, equal
//! ones in the order of the list.
//! Against DPO: all answers to a prompt at once, and a confusion at the top of the list counts more. Two completions with
//! weight 1 are DPO.
//! Departures: the paper's adaptive step reward, which weighs steps by how alike hidden states are, is not here: a completion's
//! log-ratio is the sum over its tokens. That λ is LiPO's is recalled and could not be confirmed (a guess), so it is an
//! option; `equal` weights are 1. The authors' released code has the other sign (it minimises `−log σ(β·L)` of a ranking loss L, which raises L), no λ, and adds log 2 for each tie; this is the
//! paper's form.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::error::{ObjectiveError, Result};
use crate::list::contract::{ListInputs, ListLoss, ListObjective};
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

const ID: &str = "tpo-tree";

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: ID,
    title: "Tree preference optimization",
    paper: "arXiv:2410.12854",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::SCORES),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc {
            name: "weights",
            doc: "λ of two completions: LiPO's `lambda` (that the paper has it could not be confirmed: a guess), or `equal`, \
                  which is 1",
        },
    ],
    defaults: || json!(TreePo::default()),
    build: |options| read_options::<TreePo>(ID, options)?.checked(),
};

/// What two completions count, of which one is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// LiPO's λ.
    Lambda,
    /// 1.
    Equal,
}

/// TPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TreePo {
    /// β.
    pub beta: f64,
    /// λ.
    pub weights: Weights,
}

impl Default for TreePo {
    fn default() -> Self {
        Self { beta: 0.5, weights: Weights::Lambda }
    }
}

impl TreePo {
    fn checked(self) -> Result<Objective> {
        require_positive(ID, "beta", self.beta)?;
        Ok(Objective::List(Box::new(self)))
    }
}

/// `values_i − values_j` of every two completions, `(B, N, N)`.
fn differences(values: &Tensor) -> Result<Tensor> {
    Ok(values.unsqueeze(2)?.broadcast_sub(&values.unsqueeze(1)?)?)
}

/// LiPO's λ of every two completions, `(B, N, N)`, where the first is better.
fn lambda(rewards: &Tensor, scores: &Tensor) -> Result<Tensor> {
    let dtype = rewards.dtype();
    let ln2 = std::f64::consts::LN_2;
    let gains = differences(&(scores * ln2)?.exp()?)?;
    // A completion's rank is 1 and how many have larger rewards, or equal ones and an earlier place: where a run starts, all
    // rewards are equal.
    let difference = differences(rewards)?;
    let n = rewards.dim(1)?;
    let is_earlier = (Tensor::tril2(n, dtype, rewards.device())? - Tensor::eye(n, dtype, rewards.device())?)?;
    let is_equal = difference.eq(0.0)?.to_dtype(dtype)?.broadcast_mul(&is_earlier)?;
    let ahead = (difference.lt(0.0)?.to_dtype(dtype)? + is_equal)?.sum(2)?;
    let discounts = (ahead + 2.0)?.log()?.recip()?;
    Ok((gains * differences(&discounts)?.abs()?)?)
}

/// Refuses scores whose gains `2^v` have no numbers in f32; the authors' lie between −100 and 100.
fn require_gains(scores: &Tensor) -> Result<()> {
    let scores = scores.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    match scores.into_iter().find(|score| score.is_nan() || score.abs() > 100.0) {
        None => Ok(()),
        Some(found) => {
            let what =
                "between -100 and 100, where λ has numbers; divide all scores, or use weights = \"equal\"";
            Err(ObjectiveError::Input { name: "scores", found, what })
        }
    }
}

impl ListObjective for TreePo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &ListInputs) -> Result<ListLoss> {
        inputs.check()?;
        let rewards = (inputs.logratios()? * self.beta)?;
        let scores = inputs.scores()?;
        if self.weights == Weights::Lambda {
            require_gains(&scores)?;
        }
        let is_better = differences(&scores)?.gt(0.0)?.to_dtype(rewards.dtype())?;
        let weights = match self.weights {
            Weights::Lambda => (lambda(&rewards.detach(), &scores)? * is_better)?,
            Weights::Equal => is_better,
        };
        let losses = (log_sigmoid(&differences(&rewards)?)? * weights)?;
        Ok(ListLoss { per_list: losses.sum((1, 2))?.neg()?, rewards: rewards.detach() })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tests::{assert_near, numbers, row};

    fn run(rewards: [f64; 3], scores: [f64; 3]) -> f64 {
        let list = |values: [f64; 3]| row(&values).reshape((1, 3)).unwrap();
        let inputs = ListInputs::new(list(rewards)).with_reference(list([0.0; 3])).with_scores(list(scores));
        numbers(&TreePo { beta: 1.0, weights: Weights::Lambda }.evaluate(&inputs).unwrap().per_list)[0]
    }

    #[test]
    fn the_right_order_costs_least_and_the_released_codes_sign_is_the_other() {
        // Values of LiPO-λ on scores 3, 2, 1.
        let (right, wrong) = (run([3.0, 2.0, 1.0], [3.0, 2.0, 1.0]), run([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]));
        assert!((right - 1.3349).abs() < 5e-5 && (wrong - 11.5963).abs() < 5e-5, "{right} {wrong}");
    }

    #[test]
    fn the_order_of_the_list_does_not_matter_and_ties_count_nothing() {
        assert_near(run([2.0, 3.0, 1.0], [2.0, 3.0, 1.0]), run([3.0, 2.0, 1.0], [3.0, 2.0, 1.0]));
        assert_eq!(run([3.0, 2.0, 1.0], [1.0, 1.0, 1.0]), 0.0);
    }

    /// Two completions are DPO times their weight.
    #[test]
    fn hand_arithmetic() {
        let list = |values: [f64; 2]| row(&values).reshape((1, 2)).unwrap();
        let inputs = ListInputs::new(list([3f64.ln(), 0.0]))
            .with_reference(list([0.0, 0.0]))
            .with_scores(list([1.0, 0.0]));
        let found =
            numbers(&TreePo { beta: 1.0, weights: Weights::Lambda }.evaluate(&inputs).unwrap().per_list)[0];
        assert_near(found, (1.0 / 2f64.ln() - 1.0 / 3f64.ln()) * (4f64 / 3.0).ln());
        let equal = TreePo { beta: 1.0, weights: Weights::Equal };
        assert_near(numbers(&equal.evaluate(&inputs).unwrap().per_list)[0], (4f64 / 3.0).ln());
    }
}
