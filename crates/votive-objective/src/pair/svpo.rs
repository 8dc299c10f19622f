//! Step-level value preference optimization (SVPO).
//!
//! Source: Chen et al. 2024, arXiv:2406.10858.
//! Loss: `−log σ(β·h) + w_v·½·Σ_{y ∈ {y_w, y_l}} (V(y) − Q(y))² + w_m·max(0, m − (V(y_w) − V(y_l)))` on two steps that
//! continue the same beginning of a solution: DPO's margin h over the tokens of the step, what a value head says of
//! each, V, and how often a tree search reached the answer through each, Q (the row's scores, from −1 to 1).
//! Against DPO: preferences between steps instead of solutions, and a value head that learns the same order, which a beam
//! search by steps can use.
//! Departures: the weights w_v and w_m, the margin m, and that the square is halved over both steps are guesses: the
//! paper says that the value's loss is a margin loss and a squared error, not how they are weighed. In training V is
//! `tanh` of a linear map of the state that the step's last token is predicted from. `value_weight = 0` with
//! `margin_weight = 0` is the step loss alone and needs no value head.
//! Checked against: the formula, written independently in tools/parity/objectives_papers.py.

use crate::contract::{PairInputs, PairLoss, PairObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::positive_part::positive_part;
use crate::spec::{
    Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_not_negative, require_positive,
};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use votive_tensor::log_sigmoid;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "svpo",
    title: "Step-level value preference optimization",
    paper: "arXiv:2406.10858",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE.or(Needs::SCORES).or(Needs::VALUES),
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: strength of the pull to the reference" },
        OptionDoc {
            name: "value_weight", doc: "w_v ≥ 0: weight of the value head's squared error; a guess"
        },
        OptionDoc { name: "margin_weight", doc: "w_m ≥ 0: weight of the value head's order; a guess" },
        OptionDoc {
            name: "margin",
            doc: "m ≥ 0: by how much the better step's value must be ahead; a guess",
        },
    ],
    defaults: || json!(Svpo::default()),
    build: |options| read_options::<Svpo>("svpo", options)?.checked(),
};

/// SVPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Svpo {
    /// β.
    pub beta: f64,
    /// w_v.
    pub value_weight: f64,
    /// w_m.
    pub margin_weight: f64,
    /// m.
    pub margin: f64,
}

impl Default for Svpo {
    fn default() -> Self {
        Self { beta: 0.1, value_weight: 1.0, margin_weight: 1.0, margin: 0.1 }
    }
}

impl Svpo {
    fn checked(self) -> Result<Objective> {
        require_positive("svpo", "beta", self.beta)?;
        for (option, value) in [
            ("value_weight", self.value_weight),
            ("margin_weight", self.margin_weight),
            ("margin", self.margin),
        ] {
            require_not_negative("svpo", option, value)?;
        }
        Ok(Objective::Pair(Box::new(self)))
    }

    fn reads_values(&self) -> bool {
        self.value_weight > 0.0 || self.margin_weight > 0.0
    }

    /// The value head's loss, `(B,)`.
    fn value_loss(&self, inputs: &PairInputs) -> Result<Tensor> {
        let (chosen, rejected) = (inputs.chosen.values()?, inputs.rejected.values()?);
        let of_chosen = (chosen - inputs.chosen.scores()?)?.sqr()?;
        let of_rejected = (rejected - inputs.rejected.scores()?)?.sqr()?;
        let short = ((rejected - chosen)? + self.margin)?;
        let squares = ((of_chosen + of_rejected)? * (0.5 * self.value_weight))?;
        Ok((squares + (positive_part(&short)? * self.margin_weight)?)?)
    }
}

impl PairObjective for Svpo {
    fn needs(&self) -> Needs {
        if self.reads_values() { SPEC.needs } else { Needs::REFERENCE }
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let (chosen, rejected) = (inputs.chosen.logratio()?, inputs.rejected.logratio()?);
        let step = log_sigmoid(&((&chosen - &rejected)? * self.beta)?)?.neg()?;
        Ok(PairLoss {
            per_pair: if self.reads_values() { (step + self.value_loss(inputs)?)? } else { step },
            chosen_rewards: (chosen.detach() * self.beta)?,
            rejected_rewards: (rejected.detach() * self.beta)?,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tests::{assert_near, losses, numbers, pairs, row, var};

    const SVPO: Svpo = Svpo { beta: 1.0, value_weight: 2.0, margin_weight: 3.0, margin: 0.5 };

    #[test]
    fn hand_arithmetic() {
        let run = |values: [f64; 2]| {
            let inputs = pairs(&[0.0], &[0.0])
                .with_scores(row(&[0.75]), row(&[-0.25]))
                .with_values(row(&[values[0]]), row(&[values[1]]));
            losses(&SVPO, &inputs)[0] - 2f64.ln()
        };
        assert_near(run([0.75, -0.25]), 0.0);
        // Errors ¼ and ½; in the right order by ½ − ¼ less than the margin.
        assert_near(run([0.5, 0.25]), 0.0625 + 0.25 + 3.0 * 0.25);
        // Errors but an order beyond the margin.
        assert_near(run([1.0, 0.0]), 0.0625 + 0.0625);
    }

    #[test]
    fn the_value_head_gets_its_own_gradient() {
        let values = [var(&[0.5]), var(&[0.25])];
        let inputs = pairs(&[1.0], &[0.0])
            .with_scores(row(&[0.75]), row(&[-0.25]))
            .with_values(values[0].as_tensor().clone(), values[1].as_tensor().clone());
        let gradients = SVPO.evaluate(&inputs).unwrap().per_pair.sum_all().unwrap().backward().unwrap();
        let slope = |value: &candle_core::Var| numbers(gradients.get(value).unwrap())[0];
        assert_near(slope(&values[0]), 2.0 * -0.25 - 3.0);
        assert_near(slope(&values[1]), 2.0 * 0.5 + 3.0);
    }

    #[test]
    fn the_step_loss_alone_reads_no_values() {
        let alone = Svpo { value_weight: 0.0, margin_weight: 0.0, ..SVPO };
        assert_eq!(alone.needs(), Needs::REFERENCE);
        assert_near(losses(&alone, &pairs(&[3f64.ln()], &[0.0]))[0], (4f64 / 3.0).ln());
    }
}
