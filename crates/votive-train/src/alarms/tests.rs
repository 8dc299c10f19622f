//! Made histories in which each alarm is raised, and those next to them in which it is not.

use super::*;
use serde_json::{Map, Value};

/// A run whose numbers are functions of the line, over a run in which nothing is wrong.
fn history(lines: usize, numbers: &[(&str, &dyn Fn(usize) -> f64)]) -> History {
    let healthy: [(&str, &dyn Fn(usize) -> f64); 10] = [
        ("loss", &|i| 0.69 - 0.002 * i as f64),
        ("grad_norm", &|i| 1.0 + 0.1 * (i % 3) as f64),
        ("learning_rate", &|_| 1e-6),
        ("epoch", &|i| 0.01 * i as f64),
        ("logps/chosen", &|i| -80.0 - (i % 7) as f64),
        ("rewards/chosen", &|i| 0.001 * i as f64),
        ("rewards/rejected", &|i| -0.002 * i as f64),
        ("rewards/margins", &|i| 0.003 * i as f64),
        ("rewards/accuracies", &|i| 0.5 + 0.25 * (i % 3) as f64),
        ("logratios/abs", &|i| 0.001 * i as f64),
    ];
    let mut history = History::default();
    for i in 0..lines {
        let mut line = Map::from_iter([("step".to_owned(), Value::from(i as u64 + 1))]);
        for (name, number) in healthy.iter().chain(numbers) {
            line.insert((*name).to_owned(), number(i).into());
        }
        history.add(&Value::Object(line));
    }
    history
}

fn ids(history: &History) -> Vec<&'static str> {
    raised(history, 1).into_iter().map(|alarm| alarm.id).collect()
}

#[track_caller]
fn check(lines: usize, numbers: &[(&str, &dyn Fn(usize) -> f64)], expected: &[&str]) {
    assert_eq!(ids(&history(lines, numbers)), expected);
}

#[test]
fn a_healthy_run_raises_nothing() {
    for lines in [0, 1, 4, 5, 19, 20, 40, 50, 200] {
        check(lines, &[], &[]);
    }
}

#[test]
fn a_falling_likelihood_counts_only_while_the_margin_grows() {
    let falls = |i: usize| -80.0 - 0.5 * i as f64;
    check(100, &[("logps/chosen", &falls)], &["likelihood_falls"]);
    check(100, &[("logps/chosen", &falls), ("rewards/margins", &|_| 0.1)], &[]);
    check(100, &[("logps/chosen", &|i| -80.0 - 0.05 * i as f64)], &[]);
    check(39, &[("logps/chosen", &falls)], &[]);
}

#[test]
fn errors_of_both_sides_are_compared_with_the_reference_or_with_the_start() {
    let (flat, rises) = (|_: usize| 0.2, |i: usize| 0.2 + 0.001 * i as f64);
    let both: [(&str, &dyn Fn(usize) -> f64); 2] = [("error/chosen", &rises), ("error/rejected", &rises)];
    check(100, &both, &["both_errors_rise"]);
    check(100, &[("error/chosen", &flat), ("error/rejected", &rises)], &[]);
    // The data became harder for the reference too.
    let reference: [(&str, &dyn Fn(usize) -> f64); 2] =
        [("reference_error/chosen", &rises), ("reference_error/rejected", &rises)];
    check(100, &[both, reference].concat(), &[]);
    check(39, &both, &[]);
}

#[test]
fn a_single_odd_batch_moves_no_median() {
    let odd = |i: usize| if i.is_multiple_of(5) { -300.0 } else { -80.0 };
    check(100, &[("logps/chosen", &odd)], &[]);
    check(100, &[("rewards/margins", &|i| if i % 3 == 0 { 90.0 } else { 0.01 * i as f64 })], &[]);
}

#[test]
fn rewards_may_fall_as_long_as_the_margin_gains_more() {
    let down = |by: f64| move |i: usize| -by * i as f64;
    let both = |chosen: f64, rejected: f64| {
        ids(&history(100, &[("rewards/chosen", &down(chosen)), ("rewards/rejected", &down(rejected))]))
    };
    assert_eq!(both(0.02, 0.03), ["both_rewards_fall"]);
    assert_eq!(both(0.01, 0.03), [""; 0]);
    assert_eq!(both(0.02, -0.03), [""; 0]);
    // A reward model's have no origin.
    let of_model =
        [("mean_reward", &down(0.02)), ("rewards/chosen", &down(0.02)), ("rewards/rejected", &down(0.03))];
    let of_model = of_model.map(|(name, values)| (name, values as &dyn Fn(usize) -> f64));
    assert_eq!(ids(&history(100, &of_model)), [""; 0]);
}

#[test]
fn guessing_is_noticed_after_a_long_window() {
    let guess = |i: usize| (i % 2) as f64;
    check(100, &[("rewards/accuracies", &guess)], &["accuracy_stuck"]);
    check(49, &[("rewards/accuracies", &guess)], &[]);
    check(100, &[("rewards/accuracies", &|i| if i % 5 < 3 { 1.0 } else { 0.0 })], &[]);
    // While the learning rate is 0, nothing can be learned.
    let warming = |i: usize| if i < 60 { 0.0 } else { 1e-6 };
    let alarms = ids(&history(100, &[("rewards/accuracies", &guess), ("learning_rate", &warming)]));
    assert_eq!(alarms, [""; 0]);
}

#[test]
fn a_margin_without_bounds_and_a_reference_out_of_sight() {
    check(100, &[("rewards/margins", &|i| i as f64)], &["margin_explodes"]);
    check(100, &[("rewards/margins", &|i| 0.1 * i as f64)], &[]);
    check(100, &[("logratios/abs", &|i| 0.02 * i as f64)], &["reference_left"]);
    check(100, &[("kl", &|i| 2.0 * i as f64)], &["reference_left"]);
    check(100, &[("kl", &|i| 0.5 * i as f64)], &[]);
}

#[test]
fn three_spikes_and_not_two() {
    let spikes = |most: usize| {
        move |i: usize| if i >= 60 && (i - 60) / 10 < most && i.is_multiple_of(10) { 50.0 } else { 1.0 }
    };
    check(100, &[("grad_norm", &spikes(3))], &["gradient_spikes"]);
    check(100, &[("grad_norm", &spikes(2))], &[]);
    check(100, &[("grad_norm", &|i| if i % 10 == 0 { 9.0 } else { 1.0 })], &[]);
}

#[test]
fn nothing_is_learned() {
    let at_start = |_: usize| std::f64::consts::LN_2;
    check(100, &[("loss", &at_start)], &["loss_at_ln_2"]);
    check(49, &[("loss", &at_start)], &[]);
    check(100, &[("loss", &|i| std::f64::consts::LN_2 - 1e-4 * i as f64)], &[]);
    check(5, &[("grad_norm", &|_| 0.0)], &["no_gradient"]);
    check(5, &[("grad_norm", &|i| if i == 2 { 1e-9 } else { 0.0 })], &[]);
    check(5, &[("learning_rate", &|_| 0.0)], &["no_learning_rate"]);
    // A warm-up begins at 0.
    check(5, &[("learning_rate", &|i| 1e-6 * i as f64)], &[]);
}

#[test]
fn the_fifth_pass_is_the_last_without_a_word() {
    check(500, &[("epoch", &|i| 0.01 * (i + 1) as f64), ("loss", &|_| 0.1)], &[]);
    check(501, &[("epoch", &|i| 0.01 * (i + 1) as f64), ("loss", &|_| 0.1)], &["data_seen_often"]);
}

#[test]
fn a_held_out_loss_that_rises_three_times() {
    let alarms = |losses: &[f64]| {
        let mut history = history(10, &[]);
        for (i, loss) in losses.iter().enumerate() {
            history.add(&serde_json::json!({ "step": 10 * (i + 1), "eval_loss": loss }));
        }
        ids(&history)
    };
    assert_eq!(alarms(&[0.6, 0.5, 0.53, 0.54, 0.55]), ["held_out_loss_rises"]);
    assert_eq!(alarms(&[0.6, 0.5, 0.52, 0.54, 0.55]), [""; 0]);
    assert_eq!(alarms(&[0.5, 0.53, 0.54]), [""; 0]);
}

#[test]
fn an_alarm_is_raised_once_and_says_what_to_do() {
    let mut history = history(5, &[("learning_rate", &|_| 0.0)]);
    let alarms = raised(&history, 5);
    let [alarm] = &alarms[..] else { panic!("{alarms:?}") };
    assert_eq!(
        alarm.message,
        "the learning rate is 0 in 5 lines; set optimizer.lr above 0 and optimizer.warmup_steps below train.steps"
    );
    history.add(&serde_json::to_value(alarm).unwrap_or_default());
    assert_eq!(ids(&history), [""; 0]);
}

#[test]
fn the_middle_of_numbers() {
    assert_eq!(median(vec![]), None);
    assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
}

#[test]
fn steps_in_which_nothing_is_preferred_are_counted() {
    let ties = |i: usize| if i.is_multiple_of(2) { 0.0 } else { 0.5 };
    check(20, &[("rollout/kept", &ties)], &["nothing_preferred"]);
    check(19, &[("rollout/kept", &ties)], &[]);
    check(20, &[("rollout/kept", &|i| if i.is_multiple_of(3) { 0.0 } else { 0.5 })], &[]);
}
