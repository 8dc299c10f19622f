//! Supervised fine-tuning (SFT): maximum likelihood of the desirable completions.
//!
//! Source: Ouyang et al. 2022, arXiv:2203.02155, Sec. 3.5; as a term of preference losses, Pang et al. 2024,
//! arXiv:2404.19733, Eq. 1 (there divided by |y|: `per_token = true` with `reduction = "mean"`).
//! Loss: `−log π_θ(y|x)` of a desirable completion, `−log π_θ(y|x)/|y|` with `per_token`; none of an undesirable one.
//! Departures: none. By default the sum over a batch is divided by its number of tokens, as in trl.
//! Checked against: trl 1.16 `loss_type="sft"`.

use crate::contract::{UnpairedInputs, UnpairedLoss, UnpairedObjective};
use crate::error::Result;
use crate::needs::Needs;
use crate::spec::{Domain, MethodSpec, Objective, OptionDoc, Reduction, read_options};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The row of this method.
pub static SPEC: MethodSpec = MethodSpec {
    id: "sft",
    title: "Supervised fine-tuning",
    paper: "arXiv:2203.02155, Sec. 3.5",
    domains: &[Domain::Text],
    needs: Needs::NONE,
    reduction: Reduction::Tokens,
    options: &[OptionDoc {
        name: "per_token",
        doc: "whether each completion's loss is divided by its own length; goes with `reduction = \"mean\"`",
    }],
    defaults: || json!(Sft::default()),
    build: |options| Ok(Objective::Unpaired(Box::new(read_options::<Sft>("sft", options)?))),
};

/// SFT with its option.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sft {
    /// Whether losses are divided by |y|.
    pub per_token: bool,
}

impl UnpairedObjective for Sft {
    fn needs(&self) -> Needs {
        if self.per_token { Needs::LENGTHS } else { Needs::NONE }
    }

    fn reads_undesirable(&self) -> bool {
        false
    }

    fn evaluate(&self, inputs: &UnpairedInputs) -> Result<UnpairedLoss> {
        inputs.check()?;
        let completions = &inputs.completions;
        let logps = &completions.policy_logps;
        let logps = if self.per_token { completions.per_token(logps)? } else { logps.clone() };
        Ok(UnpairedLoss { per_example: (logps.neg()? * &inputs.labels)?, rewards: None })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    #[test]
    fn hand_arithmetic() {
        let t = |x: &[f64]| Tensor::new(x, &Device::Cpu).unwrap();
        let inputs = UnpairedInputs::new(t(&[-6.0, -8.0]), t(&[1.0, 0.0])).with_lengths(t(&[3.0, 4.0]));
        for (per_token, expected) in [(false, [6.0, 0.0]), (true, [2.0, 0.0])] {
            let loss = Sft { per_token }.evaluate(&inputs).unwrap();
            assert_eq!(loss.per_example.to_vec1::<f64>().unwrap(), expected);
            assert!(loss.rewards.is_none());
        }
    }
}
