//! Pairs in numbers, for the arithmetic in the tests of methods.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use crate::spec::{MethodSpec, Objective};
use crate::{PairInputs, PairObjective, UnpairedInputs};
use candle_core::{Device, Tensor};
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
        Objective::Unpaired(_) => panic!("{} is not of pairs", spec.id),
    }
}

#[track_caller]
pub(crate) fn assert_near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
}
