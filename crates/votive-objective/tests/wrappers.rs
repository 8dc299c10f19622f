//! What goes around what: wrappers that are refused with the reason, and methods of reward models with all that are not.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use votive_objective::{METHODS, Needs, Objective, ObjectiveError, PairInputs, WITH, WRAPPERS, build, find};

/// A method with one wrapper around it.
fn with(id: &str, wrapper: &str, options: Value) -> Result<Objective, ObjectiveError> {
    let spec = find(id).unwrap();
    let mut all = (spec.defaults)();
    all[WITH] = json!({ wrapper: options });
    build(spec, all)
}

#[test]
fn wrappers_that_make_no_sense_are_refused_with_the_reason() {
    for (id, wrapper, reason) in [
        ("sft", "nll", "single completions"),
        ("nca_pair", "label_smoothing", "not one of a margin"),
        ("robust", "label_smoothing", "its ε says already"),
        ("cdpo", "label_smoothing", "smoothed already"),
        ("ipo", "length", "divided by lengths"),
        ("r_dpo", "length", "a length term already"),
        ("simpo", "f_divergence", "no reference"),
        ("tdpo", "f_divergence", "another divergence already"),
        ("ld_dpo", "token_mask", "weighs single tokens itself"),
        ("hinge", "beta_distribution", "logarithm of a probability"),
        ("aot", "policy_weight", "ranks over a batch"),
        ("wpo", "policy_weight", "weighted already"),
        ("cpo", "nll", "a likelihood term already"),
        ("tpo_triple", "gold_nll", "a gold completion already"),
        ("dpo", "center_rewards", "a method of log-probabilities"),
        ("bradley_terry", "nll", "a reward model gives none"),
        ("bradley_terry", "token_mask", "one number of a whole completion"),
        ("scaled_bradley_terry", "f_divergence", "without a reference"),
        ("scaled_bradley_terry", "label_smoothing", "not one of a margin"),
    ] {
        let wrapper_spec = WRAPPERS.iter().find(|spec| spec.name == wrapper).unwrap();
        let message = with(id, wrapper, (wrapper_spec.defaults)()).unwrap_err().to_string();
        assert!(message.contains(reason) && message.contains(wrapper), "{id} with {wrapper}: {message}");
    }
}

/// A loss of a reward model that read log-probabilities would have no number.
#[test]
fn methods_of_rewards_read_no_log_probabilities() {
    let row = |values: [f64; 3]| Tensor::new(&values, &Device::Cpu).unwrap();
    let inputs = PairInputs::of_rewards(row([1.0, -2.0, 0.5]), row([0.0, 3.0, 0.5])).unwrap();
    let inputs =
        inputs.with_margins(row([0.1, 0.0, 2.0])).with_lengths(row([4.0, 2.0, 9.0]), row([1.0, 7.0, 3.0]));
    let mut tried = 0;
    for spec in METHODS.iter().filter(|spec| spec.needs.contains(Needs::REWARDS)) {
        let plain = (spec.build)((spec.defaults)());
        let wrapped = WRAPPERS.iter().map(|wrapper| with(spec.id, wrapper.name, (wrapper.defaults)()));
        for objective in wrapped.chain([plain]) {
            let Ok(Objective::Pair(objective)) = objective else { continue };
            let losses = objective.evaluate(&inputs).unwrap().per_pair.to_vec1::<f64>().unwrap();
            assert!(losses.iter().all(|loss| loss.is_finite()), "{}: {losses:?}", spec.id);
            tried += 1;
        }
    }
    assert!(tried > 5, "{tried}");
}
