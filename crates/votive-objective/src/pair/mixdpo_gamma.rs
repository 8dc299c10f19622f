//! Mixed-logit direct preference optimization with a gamma distribution (MixDPO).
//!
//! Source: arXiv:2601.06180.
//! Loss: `−log E[σ(b·h)]` with DPO's margin h and `b ~ Gamma(k, t)`, shape k and scale t: people differ in how strongly a
//! reward difference moves them. In closed form `E[σ(−b·h)] = Σ_{n≥1} (−1)ⁿ⁻¹·(1 + n·t·h)⁻ᵏ` for h ≥ 0.
//! Against DPO: heavy tails. A pair that is ranked wrongly by far loses `k·log h` and not `β·h`, so single contradictions
//! do not pull the policy around. As t → 0 with k·t = β it is DPO.
//! Departures: k and t are options and are not learned with the policy. The alternating series is summed by Cohen,
//! Villegas and Zagier's weights of 24 terms, which leave less than rounding.
//! Not MixDPO of Pang et al. 2026, which sends pairs of small margins to supervised fine-tuning.
//! Checked against: mpmath's sum of the series, in tools/parity/objectives_papers.py.

use crate::contract::PairInputs;
use crate::error::Result;
use crate::margin::MarginObjective;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options, require_positive};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;

const ID: &str = "mixdpo-gamma";

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: ID,
    title: "Mixed-logit DPO, gamma distribution",
    paper: "arXiv:2601.06180",
    domains: &[Domain::Text],
    needs: Needs::REFERENCE,
    reduction: Reduction::Mean,
    options: &[
        OptionDoc { name: "shape", doc: "k > 0: shape of β's distribution; its relative spread is 1/√k" },
        OptionDoc { name: "scale", doc: "t > 0, per nat: scale of β's distribution; its mean is k·t" },
    ],
    defaults: || json!(MixDpo::default()),
    build: |options| read_options::<MixDpo>(ID, options)?.checked(),
};

/// MixDPO with its options.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixDpo {
    /// k.
    pub shape: f64,
    /// t.
    pub scale: f64,
}

impl Default for MixDpo {
    fn default() -> Self {
        Self { shape: 4.0, scale: 0.025 }
    }
}

/// Terms of the series that are summed.
const TERMS: i32 = 24;

impl MixDpo {
    fn checked(self) -> Result<Objective> {
        require_positive(ID, "shape", self.shape)?;
        require_positive(ID, "scale", self.scale)?;
        Ok(Objective::Pair(Box::new(self)))
    }

    /// `log E[σ(−b·h)]` for `size = k·t·h ≥ 0`.
    fn log_share_against(&self, size: &Tensor) -> Result<Tensor> {
        // log aₙ = −k·log(1 + n·t·h), and not a power: no base can be negative, and the first term is taken out of the
        // sum, so that nothing is rounded to 0.
        let log = |n: i32| -> Result<Tensor> {
            Ok((((size * (f64::from(n) / self.shape))? + 1.0)?.log()? * -self.shape)?)
        };
        let first = log(1)?;
        // Σ (−1)ⁿ·aₙ of a sequence of moments: Cohen, Villegas & Zagier 2000, algorithm 1.
        let half = (3.0 + 8f64.sqrt()).powi(TERMS);
        let d = f64::midpoint(half, half.recip());
        let (mut b, mut c) = (-1.0, -d);
        let mut sum = size.zeros_like()?;
        for n in 0..TERMS {
            c = b - c;
            sum = (sum + ((log(n + 1)? - &first)?.exp()? * (c / d))?)?;
            let (n, terms) = (f64::from(n), f64::from(TERMS));
            b *= (n + terms) * (n - terms) / ((n + 0.5) * (n + 1.0));
        }
        Ok((sum.log()? + first)?)
    }
}

impl MarginObjective for MixDpo {
    fn needs(&self) -> Needs {
        SPEC.needs
    }

    fn scores(&self, inputs: &PairInputs) -> Result<[Tensor; 2]> {
        inputs.implicit_rewards(self.shape * self.scale)
    }

    fn loss(&self, margin: &Tensor) -> Result<Tensor> {
        // |h| by a sign without a gradient: both branches are the same smooth function of h, and meet at 0.
        let is_ahead = margin.detach().ge(0.0)?.to_dtype(margin.dtype())?;
        let sign = ((&is_ahead * 2.0)? - 1.0)?;
        let against = self.log_share_against(&(margin * sign)?)?;
        let ahead = ((1.0 - against.exp()?)?.log()? * &is_ahead)?;
        let behind = (against * (1.0 - &is_ahead)?)?;
        Ok((ahead + behind)?.neg()?)
    }

    fn is_likelihood(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::dpo::Dpo;
    use crate::tests::{assert_near, at};

    #[test]
    fn hand_arithmetic() {
        // k = 1, t·h = 1: b·h is exponential, E[σ(−b·h)] = ½ − ⅓ + ¼ − … = 1 − ln 2.
        let mix = MixDpo { shape: 1.0, scale: 0.5 };
        assert_near(at(&mix, 2.0, 0.0).0, -(2f64.ln()).ln());
        assert_near(at(&mix, 0.0, 2.0).0, -(1.0 - 2f64.ln()).ln());
        // At the start the labels say nothing yet, and the slope is that of the mean.
        let (loss, [slope, _]) = at(&MixDpo { shape: 2.0, scale: 0.3 }, 0.0, 0.0);
        assert_near(loss, 2f64.ln());
        assert_near(slope, -0.3);
    }

    #[test]
    fn a_narrow_distribution_is_its_mean() {
        for h in [-3.0, 0.0, 0.5, 4.0] {
            let (loss, [slope, _]) = at(&MixDpo { shape: 1e7, scale: 5e-8 }, h, 0.0);
            let (expected, [expected_slope, _]) = at(&Dpo { beta: 0.5 }, h, 0.0);
            assert!(
                (loss - expected).abs() < 1e-6 && (slope - expected_slope).abs() < 1e-6,
                "{loss} {slope}"
            );
        }
    }

    #[test]
    fn shares_of_a_monte_carlo_mean() {
        // k = 2, t = 0.3; means over two million draws agree to four digits.
        for (h, share) in [(0.5, 0.573_414), (2.0, 0.739_102), (5.0, 0.881_744)] {
            let mix = MixDpo { shape: 2.0, scale: 0.3 };
            assert!(((-at(&mix, h, 0.0).0).exp() - share).abs() < 1e-6);
            assert!(((-at(&mix, -h, 0.0).0).exp() - (1.0 - share)).abs() < 1e-6);
        }
    }
}
