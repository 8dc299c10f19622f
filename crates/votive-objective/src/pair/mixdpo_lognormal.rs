//! Mixed-logit direct preference optimization with a log-normal distribution (MixDPO).
//!
//! Source: arXiv:2601.06180.
//! Loss: `−log E[σ(b·h)]` with DPO's margin h and `log b ~ N(log β, s²)`: people differ in how strongly a reward difference
//! moves them.
//! Against DPO: a margin that would be certain for the median is not for everybody. s = 0 is DPO.
//! Departures: β and s are options and are not learned with the policy. The expectation is Gauss and Hermite's
//! quadrature with 16 nodes where the paper draws 16 random numbers: exact for smooth functions, and equal at every step.
//! Not MixDPO of Pang et al. 2026, which sends pairs of small margins to supervised fine-tuning.
//! Checked against: numpy's nodes and the formula, in tools/parity/objectives_papers.py.

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

const ID: &str = "mixdpo-lognormal";

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: ID,
    title: "Mixed-logit DPO, log-normal distribution",
    paper: "arXiv:2601.06180",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "beta", doc: "β > 0, per nat: median of β's distribution" },
        OptionDoc { name: "spread", doc: "s ≥ 0: standard deviation of log β" },
    ],
    defaults: || json!(MixDpo::default()),
    build: |options| read_options::<MixDpo>(ID, options)?.checked(),
};

/// MixDPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixDpo {
    /// β.
    pub beta: f64,
    /// s.
    pub spread: f64,
}

impl Default for MixDpo {
    fn default() -> Self {
        Self { beta: 0.1, spread: 0.5 }
    }
}

/// Nodes above 0 of the 16 for a standard normal variable, and the logarithms of their weights; those below mirror them.
const NODES: [(f64, f64); 8] = [
    (0.386_760_604_500_557_3, -1.249_777_604_798_296_5),
    (1.163_829_100_554_964_7, -1.843_020_936_221_367_9),
    (1.951_980_345_716_333_4, -3.051_567_395_833_779_0),
    (2.760_245_047_630_701_6, -4.924_420_313_983_549_1),
    (3.600_873_624_171_548_2, -7.550_238_002_340_770_0),
    (4.492_955_302_520_011_2, -11.087_655_627_444_742_7),
    (5.472_225_705_949_343_0, -15.848_470_719_591_078_8),
    (6.630_878_198_393_128_4, -22.621_843_735_297_287_8),
];

impl MixDpo {
    fn checked(self) -> Result<Objective> {
        require_positive(ID, "beta", self.beta)?;
        require_not_negative(ID, "spread", self.spread)?;
        Ok(Objective::Pair(Box::new(self)))
    }
}

impl PairObjective for MixDpo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn evaluate(&self, inputs: &PairInputs) -> Result<PairLoss> {
        inputs.check()?;
        let (chosen, rejected) = (inputs.chosen.logratio()?, inputs.rejected.logratio()?);
        let margin = (&chosen - &rejected)?;
        let nodes = NODES.iter().flat_map(|(node, log_weight)| [(*node, *log_weight), (-node, *log_weight)]);
        let terms = nodes
            .map(|(node, log_weight)| {
                Ok((log_sigmoid(&(&margin * (self.beta * (self.spread * node).exp()))?)? + log_weight)?)
            })
            .collect::<Result<Vec<Tensor>>>()?;
        Ok(PairLoss {
            per_pair: Tensor::stack(&terms, 1)?.log_sum_exp(1)?.neg()?,
            chosen_rewards: (chosen.detach() * self.beta)?,
            rejected_rewards: (rejected.detach() * self.beta)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hand::{assert_near, at};
    use crate::pair::dpo::Dpo;

    #[test]
    fn without_spread_it_is_dpo() {
        for h in [-30.0, -1.0, 0.0, 2.0, 50.0] {
            let (loss, slopes) = at(&MixDpo { beta: 0.3, spread: 0.0 }, h, 0.0);
            let (expected, expected_slopes) = at(&Dpo { beta: 0.3 }, h, 0.0);
            assert_near(loss, expected);
            assert_near(slopes[0], expected_slopes[0]);
        }
    }

    #[test]
    fn the_nodes_know_the_moments_of_a_normal_variable() {
        let moment = |power| -> f64 {
            2.0 * NODES.iter().map(|(node, log_weight)| log_weight.exp() * node.powi(power)).sum::<f64>()
        };
        for (power, expected) in [(0, 1.0), (2, 1.0), (4, 3.0), (6, 15.0), (8, 105.0)] {
            assert!((moment(power) / expected - 1.0).abs() < 1e-13, "{power}: {}", moment(power));
        }
    }

    #[test]
    fn hand_arithmetic() {
        // At the start nobody prefers anything, and the slope is that of the mean β·e^(s²/2).
        let (loss, [slope, _]) = at(&MixDpo { beta: 0.2, spread: 1.0 }, 0.0, 0.0);
        assert_near(loss, 2f64.ln());
        assert!((slope + 0.1 * 0.5f64.exp()).abs() < 1e-10, "{slope}");
        // Opposite margins have shares that add up to 1.
        let share = |h| (-at(&MixDpo { beta: 0.5, spread: 0.8 }, h, 0.0).0).exp();
        assert_near(share(3.0) + share(-3.0), 1.0);
    }
}
