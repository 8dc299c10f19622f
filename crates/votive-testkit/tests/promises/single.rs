//! Losses of single completions on a bandit.

use crate::population::{Descent, at, logs, tensor};
use candle_core::Tensor;
use serde_json::json;
use votive_objective::{Objective, Tokens, UnpairedInputs, find};
use votive_testkit::simplex::distance;

/// Where PMPO is least, for desirable completions drawn from `liked` and undesirable ones drawn from `disliked`.
fn pmpo(alpha: f64, beta: f64, reference: &[f64], [liked, disliked]: [&[f64]; 2]) -> (Vec<f64>, f64) {
    let Objective::Unpaired(objective) =
        (find("pmpo").unwrap().build)(json!({"alpha": alpha, "beta": beta})).unwrap()
    else {
        panic!("pmpo is of single completions")
    };
    let n = reference.len();
    let places: Vec<usize> = (0..n).chain(0..n).collect();
    let labels = tensor(&(0..2 * n).map(|i| f64::from(u8::from(i < n))).collect::<Vec<_>>());
    // As many of one kind as of the other: the means are over each kind.
    let shares = tensor(&[liked, disliked].concat());
    let loss = |policy: &Tensor| {
        // One token: its divergence is the policy's.
        let reference_logs = logs(reference);
        let kl = ((&reference_logs - policy).unwrap() * tensor(reference)).unwrap().sum_all().unwrap();
        // It is there once, whatever was drawn.
        let kl = kl.broadcast_as(2 * n).unwrap().affine(0.5, 0.0).unwrap();
        let tokens = Tokens {
            mask: Tensor::ones((2 * n, 1), candle_core::DType::F64, labels.device()).unwrap(),
            policy_logps: None,
            reference_logps: None,
            kl: Some(kl.unsqueeze(1).unwrap()),
        };
        let inputs = UnpairedInputs::new(at(policy, &places), labels.clone())
            .with_reference(at(&reference_logs, &places))
            .with_tokens(tokens);
        let losses = objective.evaluate(&inputs).unwrap().per_example;
        (losses * &shares).unwrap().sum_all().unwrap()
    };
    let (logits, slope) = Descent { rate: 1.0, steps: 20_000 }.descend(reference, loss);
    (votive_testkit::simplex::softmax(&logits), slope)
}

#[test]
fn inference_by_likes_and_dislikes_ends_at_a_mixture() {
    let reference = [0.4, 0.3, 0.2, 0.1];
    let uniform = [0.25; 4];
    // π ∝ α·p₊ + β·π_ref.
    let (found, _) = pmpo(1.0, 0.5, &reference, [&[0.7, 0.3, 0.0, 0.0], &uniform]);
    assert!(distance(&found, &[0.6, 0.3, 0.2 / 3.0, 0.1 / 3.0]) < 1e-6, "{found:?}");
    // π ∝ β·π_ref − p₋, where that is at least 0: an action may go to 0, slowly.
    let (found, _) = pmpo(0.0, 5.0, &reference, [&uniform, &[0.0, 0.0, 0.5, 0.5]]);
    assert!(distance(&found, &[0.5, 0.375, 0.125, 0.0]) < 1e-3, "{found:?}");
    // Both at once.
    let (found, slope) = pmpo(0.5, 1.0, &reference, [&[0.1, 0.1, 0.2, 0.6], &[0.6, 0.2, 0.1, 0.1]]);
    let target: Vec<f64> = (0..4).map(|i| [0.15, 0.25, 0.25, 0.35][i]).collect();
    assert!(slope < 1e-7 && distance(&found, &target) < 1e-6, "{found:?}");
}
