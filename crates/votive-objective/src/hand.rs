//! What tests that can be done in the head need: numbers in, numbers out.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::contract::{PairInputs, PairObjective, UnpairedInputs, UnpairedObjective};
#[cfg(test)]
use candle_core::{Device, Tensor, Var};

/// Numbers of a batch.
pub(crate) fn row<const B: usize>(values: [f64; B]) -> Tensor {
    Tensor::new(&values, &Device::Cpu).unwrap()
}

/// Numbers whose slopes are asked for.
pub(crate) fn var<const B: usize>(values: [f64; B]) -> Var {
    Var::new(&values, &Device::Cpu).unwrap()
}

/// One pair with these log-ratios, against a reference at 0.
pub(crate) fn pair(chosen: f64, rejected: f64) -> PairInputs {
    pairs([chosen], [rejected])
}

/// Pairs with these log-ratios, against a reference at 0.
pub(crate) fn pairs<const B: usize>(chosen: [f64; B], rejected: [f64; B]) -> PairInputs {
    PairInputs::new(row(chosen), row(rejected)).with_reference(row([0.0; B]), row([0.0; B]))
}

/// The numbers of a tensor.
pub(crate) fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Losses of pairs.
pub(crate) fn losses(objective: &dyn PairObjective, inputs: &PairInputs) -> Vec<f64> {
    numbers(&objective.evaluate(inputs).unwrap().per_pair)
}

/// Losses of single completions.
pub(crate) fn unpaired_losses(objective: &dyn UnpairedObjective, inputs: &UnpairedInputs) -> Vec<f64> {
    numbers(&objective.evaluate(inputs).unwrap().per_example)
}

/// Loss of a pair with these log-ratios, and its slopes by them.
pub(crate) fn at(objective: &dyn PairObjective, chosen: f64, rejected: f64) -> (f64, [f64; 2]) {
    let inputs = pair(chosen, rejected);
    with_slopes(objective, &inputs)
}

/// Loss of the first pair, and its slopes by the two log-probabilities of the policy.
pub(crate) fn with_slopes(objective: &dyn PairObjective, inputs: &PairInputs) -> (f64, [f64; 2]) {
    let [chosen, rejected] =
        [&inputs.chosen, &inputs.rejected].map(|side| Var::from_tensor(&side.policy_logps).unwrap());
    let mut inputs = inputs.clone();
    inputs.chosen.policy_logps = chosen.as_tensor().clone();
    inputs.rejected.policy_logps = rejected.as_tensor().clone();
    let loss = objective.evaluate(&inputs).unwrap().per_pair;
    let gradients = loss.sum_all().unwrap().backward().unwrap();
    let slope = |var: &Var| gradients.get(var).map_or(0.0, |slopes| numbers(slopes)[0]);
    (numbers(&loss)[0], [slope(&chosen), slope(&rejected)])
}

/// Whether two numbers are equal but for rounding.
#[track_caller]
pub(crate) fn assert_near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-12 * expected.abs().max(1.0), "{found}, expected {expected}");
}
