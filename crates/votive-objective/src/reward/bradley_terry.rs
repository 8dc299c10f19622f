//! Bradley-Terry: the reward model whose rewards make what people chose likeliest.
//!
//! Source: Bradley & Terry 1952; for language models Ouyang et al. 2022, arXiv:2203.02155, Eq. 1.
//! Loss: `−log σ(r_w − r_l)` with the rewards r_w of the chosen and r_l of the rejected completion. A difference of rewards is the
//! logarithm of the odds that people prefer the one to the other.
//! Against DPO: r is a network's own number, and not `β·log(π_θ/π_ref)`. So the loss does not say where 0 lies: only differences of
//! rewards of one prompt mean something, unless the wrapper `center_rewards` is around it.
//! Departures: none. What others have as options or variants are wrappers here. TRL's `center_rewards_coefficient` is
//! `with.center_rewards`. The column `margin` in the data, which TRL always subtracts, counts with `with.margin_offset`: `−log σ(r_w − r_l − m)`,
//! the margin of Llama 2 (arXiv:2307.09288, Eq. 2), the strength of a preference in Secrets of RLHF II (arXiv:2401.06080), and
//! the agreement of annotators in reward regularization (arXiv:2412.03822). The soft labels of Secrets of RLHF II are
//! `with.label_smoothing`.
//! Checked against: trl 1.16 `RewardTrainer`, losses and training steps.

use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, Reduction, read_options};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "bradley_terry",
    title: "Bradley-Terry reward model",
    paper: "arXiv:2203.02155, Eq. 1",
    domains: &[Domain::Text],
    needs: Needs::REWARDS,
    reduction: Reduction::Mean,
    options: &[],
    defaults: || json!(BradleyTerry::default()),
    build: |options| Ok(Objective::Pair(Box::new(read_options::<BradleyTerry>("bradley_terry", options)?))),
};

/// Bradley-Terry, which has no option.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BradleyTerry {}

impl MarginObjective for BradleyTerry {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        inputs.rewards()
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        Ok(log_sigmoid(margin)?.neg()?)
    }

    fn is_likelihood(&self) -> bool {
        true
    }

    fn refuses(&self, wrapper: &str) -> Option<&'static str> {
        super::refuses(wrapper)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tests::{assert_near, numbers, row};
    use crate::{WITH, build};
    use serde_json::Value;

    fn loss(chosen: f64, rejected: f64, margin: f64, with: Value) -> f64 {
        let Objective::Pair(objective) = build(&SPEC, json!({ WITH: with })).unwrap() else {
            unreachable!("of pairs")
        };
        let inputs = PairInputs::of_rewards(row(&[chosen]), row(&[rejected])).unwrap();
        let found = objective.evaluate(&inputs.with_margins(row(&[margin]))).unwrap();
        // Whatever is around it, the rewards are the model's.
        assert_eq!(
            (numbers(&found.chosen_rewards)[0], numbers(&found.rejected_rewards)[0]),
            (chosen, rejected)
        );
        numbers(&found.per_pair)[0]
    }

    #[test]
    fn hand_arithmetic() {
        let ln3 = 3f64.ln();
        assert_near(loss(ln3, 0.0, 0.0, json!({})), (4f64 / 3.0).ln());
        assert_near(loss(0.0, ln3, 0.0, json!({})), 4f64.ln());
        // A margin of ln 3 takes all of the difference away.
        assert_near(loss(ln3, 0.0, ln3, json!({"margin_offset": {}})), std::f64::consts::LN_2);
        assert_near(
            loss(ln3, 0.0, 0.0, json!({"label_smoothing": {"epsilon": 0.25}})),
            0.75 * (4f64 / 3.0).ln() + 0.25 * 4f64.ln(),
        );
        let centred = json!({"center_rewards": {"coefficient": 0.5}});
        assert_near(loss(3.0 + ln3, 3.0, 0.0, centred), (4f64 / 3.0).ln() + 0.5 * (6.0 + ln3).powi(2));
    }

    /// Secrets of RLHF II: a difference of 1.5 with a margin of 0.8, and with labels of which a tenth is taken to be wrong.
    #[test]
    fn margins_and_soft_labels_of_secrets_of_rlhf_ii() {
        let round = |x: f64| (x * 1e6).round() / 1e6;
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-6, "{found}");
        near(round(loss(1.5, 0.0, 0.8, json!({"margin_offset": {}}))), 0.403_186);
        near(round(loss(1.5, 0.0, 0.0, json!({"label_smoothing": {"epsilon": 0.1}}))), 0.351_413);
    }
}
