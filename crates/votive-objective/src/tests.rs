//! Pairs in numbers, for the arithmetic in the tests of methods.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use crate::spec::{MethodSpec, Objective};
use crate::{PairInputs, PairObjective, TokenWeights, Tokens, UnpairedInputs, UnpairedObjective};
use candle_core::{Device, Tensor, Var};
use serde_json::Value;

pub(crate) fn row(values: &[f64]) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap()
}

/// One pair with these log-ratios; the reference gives the chosen completion −3 nats and the rejected one −5.
pub(crate) fn logratios(chosen: f64, rejected: f64) -> PairInputs {
    PairInputs::new(row(&[chosen - 3.0]), row(&[rejected - 5.0])).with_reference(row(&[-3.0]), row(&[-5.0]))
}

/// One pair with these log-probabilities under the policy and these lengths, without a reference.
pub(crate) fn logps([chosen, rejected]: [f64; 2], lengths: [f64; 2]) -> PairInputs {
    PairInputs::new(row(&[chosen]), row(&[rejected])).with_lengths(row(&[lengths[0]]), row(&[lengths[1]]))
}

/// One pair of two tokens each with these weights. Log-ratios are (2, 0) and (0, −1); the chosen one's log-probability is 0.
pub(crate) fn of_two_tokens(chosen: [f64; 2], rejected: [f64; 2]) -> PairInputs {
    let cells = |values: [f64; 2]| Tensor::new(&[values], &Device::Cpu).unwrap();
    let tokens = |policy: [f64; 2]| Tokens {
        mask: cells([1.0, 1.0]),
        policy_logps: Some(cells(policy)),
        reference_logps: Some(cells([-1.0, -1.0])),
        kl: None,
    };
    let weights = |logratio: [f64; 2]| TokenWeights { logratio: cells(logratio), kl: cells([1.0, 1.0]) };
    PairInputs::new(row(&[0.0]), row(&[-3.0]))
        .with_reference(row(&[-2.0]), row(&[-2.0]))
        .with_lengths(row(&[2.0]), row(&[2.0]))
        .with_tokens(tokens([1.0, -1.0]), tokens([-1.0, -2.0]))
        .with_token_weights(weights(chosen), weights(rejected))
}

/// One completion with this log-ratio and label.
pub(crate) fn labelled(logratio: f64, is_desirable: bool) -> UnpairedInputs {
    UnpairedInputs::new(row(&[logratio - 3.0]), row(&[f64::from(u8::from(is_desirable))]))
        .with_reference(row(&[-3.0]))
}

/// The loss of the first pair.
pub(crate) fn loss(objective: &(impl PairObjective + ?Sized), inputs: &PairInputs) -> f64 {
    objective.evaluate(inputs).unwrap().per_pair.to_vec1::<f64>().unwrap()[0]
}

/// The pair objective that a row of the registry makes of some options.
pub(crate) fn built(spec: &MethodSpec, options: Value) -> Box<dyn PairObjective> {
    match (spec.build)(options).unwrap() {
        Objective::Pair(objective) => objective,
        Objective::Unpaired(_) | Objective::List(_) => panic!("{} is not of pairs", spec.id),
    }
}

/// Numbers whose slopes are asked for.
pub(crate) fn var(values: &[f64]) -> Var {
    Var::new(values, &Device::Cpu).unwrap()
}

/// Pairs with these log-ratios, against a reference at 0.
pub(crate) fn pairs(chosen: &[f64], rejected: &[f64]) -> PairInputs {
    let zeros = vec![0.0; chosen.len()];
    PairInputs::new(row(chosen), row(rejected)).with_reference(row(&zeros), row(&zeros))
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
    with_slopes(objective, &pairs(&[chosen], &[rejected]))
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

#[track_caller]
pub(crate) fn assert_near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-12 * expected.abs().max(1.0), "{found}, not {expected}");
}
