//! Losses of pairs on a bandit: what they minimise is a policy with a formula.

use crate::population::{Descent, Pairs, logs, pair_objective, tensor};
use candle_core::Tensor;
use serde_json::json;
use votive_testkit::Bandit;
use votive_testkit::simplex::{distance, kl, mean, softmax, tilted};

fn bandit() -> Bandit {
    Bandit { reference: vec![0.4, 0.1, 0.3, 0.2], rewards: vec![1.0, 0.5, 0.0, 2.0] }
}

const UNIFORM: [f64; 4] = [0.25; 4];

/// The policy that a pair objective is least at over all pairs of uniform completions that people of this bandit label.
fn minimiser(id: &str, options: serde_json::Value, bandit: &Bandit, rate: f64) -> Vec<f64> {
    let objective = pair_objective(id, options);
    let pairs = Pairs::new(&UNIFORM, |i, j| bandit.prefers(i, j));
    let ones = tensor(&vec![1.0; pairs.shares.len()]);
    let loss = |policy: &Tensor| {
        let inputs = pairs.inputs(policy, &bandit.reference).with_lengths(ones.clone(), ones.clone());
        pairs.mean_loss(&*objective, &inputs)
    };
    Descent { rate, steps: 40_000 }.minimise(&bandit.reference, loss)
}

#[test]
fn dpo_ends_at_the_gibbs_policy() {
    let bandit = bandit();
    let found = minimiser("dpo", json!({"beta": 0.5}), &bandit, 8.0);
    assert!(distance(&found, &bandit.gibbs(0.5)) < 1e-6, "{found:?}");
    // Where people cannot tell the completions apart, nothing is learned.
    let indifferent = Bandit { rewards: vec![0.7; 4], ..bandit.clone() };
    assert!(distance(&minimiser("dpo", json!({"beta": 0.5}), &indifferent, 8.0), &bandit.reference) < 1e-9);
}

#[test]
fn ipo_ends_where_win_rates_and_not_rewards_are_tilted_by() {
    let bandit = bandit();
    let found = minimiser("ipo", json!({"tau": 0.3}), &bandit, 2.0);
    let tilt: Vec<f64> = bandit.mean_wins().iter().map(|wins| wins / 0.3).collect();
    assert!(distance(&found, &tilted(&bandit.reference, &tilt)) < 1e-6, "{found:?}");
    // A completion that always wins has a finite margin, which the Gibbs policy does not give it.
    let certain = Bandit { rewards: vec![0.0, 0.0, 0.0, 60.0], ..bandit };
    let found = minimiser("ipo", json!({"tau": 1.0}), &certain, 1.0);
    let ratio = (found[3] / certain.reference[3]) / (found[0] / certain.reference[0]);
    assert!((ratio.ln() - 0.5).abs() < 1e-6, "{ratio}");
}

#[test]
fn a_gamma_mixture_of_one_strength_is_dpo_and_of_many_is_flatter_in_its_labels() {
    let bandit = bandit();
    let narrow = minimiser("mixdpo-gamma", json!({"shape": 1e8, "scale": 5e-9}), &bandit, 8.0);
    assert!(distance(&narrow, &bandit.gibbs(0.5)) < 1e-5, "{narrow:?}");
    let broad = minimiser("mixdpo-gamma", json!({"shape": 1.0, "scale": 0.5}), &bandit, 8.0);
    // People whose strengths differ are less sure than their mean: the same labels take a larger margin.
    assert!(kl(&broad, &bandit.reference) > kl(&narrow, &bandit.reference) + 0.01, "{broad:?}");
}

#[test]
fn a_token_costs_what_iterative_length_regularisation_says() {
    // The minimiser is π_ref·exp((r − α|y|)/β): with the sign turned round long completions would win.
    let bandit = Bandit { reference: vec![0.25; 4], rewards: vec![1.0, 0.5, 0.0, 2.0] };
    let lengths = [10.0, 10.0, 20.0, 60.0];
    let objective = pair_objective("ilr_dpo", json!({"beta": 0.5, "alpha": 0.02}));
    let pairs = Pairs::new(&UNIFORM, |i, j| bandit.prefers(i, j));
    let [chosen, rejected] = pairs.sides(&lengths);
    let loss = |policy: &Tensor| {
        let inputs = pairs.inputs(policy, &bandit.reference).with_lengths(chosen.clone(), rejected.clone());
        pairs.mean_loss(&*objective, &inputs)
    };
    let found = Descent { rate: 8.0, steps: 40_000 }.minimise(&bandit.reference, loss);
    assert!(distance(&found, &[0.40674, 0.14963, 0.0369, 0.40674]) < 5e-6, "{found:?}");
}

#[test]
fn the_second_dimension_keeps_what_the_first_one_learned() {
    let (first_beta, beta) = (0.4, 0.6);
    let base = [0.1, 0.3, 0.4, 0.2];
    let (first, second) = ([1.0, 0.2, -0.5, 0.4], [-0.8, 0.3, 0.9, 0.1]);
    let scaled = |rewards: [f64; 4], factor: f64| rewards.map(|reward| reward * factor);
    let reference = tilted(&base, &scaled(first, 1.0 / first_beta));
    let people = Bandit { reference: reference.clone(), rewards: second.to_vec() };
    let pairs = Pairs::new(&UNIFORM, |i, j| people.prefers(i, j));
    let [base_chosen, base_rejected] = pairs.sides(&base.map(f64::ln));
    let kept: Vec<f64> = [0.0, 0.4, 0.7]
        .into_iter()
        .map(|alpha| {
            let options = json!({"beta": beta, "first_beta": first_beta, "alpha": alpha});
            let objective = pair_objective("spo-sequential", options);
            let loss = |policy: &Tensor| {
                let inputs =
                    pairs.inputs(policy, &reference).with_base(base_chosen.clone(), base_rejected.clone());
                pairs.mean_loss(&*objective, &inputs)
            };
            let found = Descent { rate: 8.0, steps: 40_000 }.minimise(&reference, loss);
            let both: Vec<f64> = (0..4).map(|i| (second[i] + alpha * first[i]) / beta).collect();
            assert!(distance(&found, &tilted(&reference, &both)) < 1e-6, "{alpha}: {found:?}");
            mean(&found, &first)
        })
        .collect();
    assert!(kept.windows(2).all(|two| two[0] < two[1]), "the first reward grows with alpha: {kept:?}");
}

#[test]
fn pessimism_is_the_value_of_the_best_policy() {
    // J*(r) = max E r − β·KL = −β·E_cal[log π/π_ref] once E_cal r = 0, and the offline term is minus that, pair by pair.
    let bandit = bandit();
    let (beta, calibration) = (0.5, [0.3, 0.1, 0.2, 0.4]);
    let shift = mean(&calibration, &bandit.rewards);
    let calibrated =
        Bandit { rewards: bandit.rewards.iter().map(|reward| reward - shift).collect(), ..bandit.clone() };
    let best = calibrated.gibbs(beta);
    let log_ratios: Vec<f64> = best.iter().zip(&bandit.reference).map(|(p, q)| (p / q).ln()).collect();
    assert!((calibrated.value(&best, beta) + beta * mean(&calibration, &log_ratios)).abs() < 1e-14);
    // In the loss: α = 0 is DPO, and pessimism pulls the policy to what was chosen.
    let chosen_often = |alpha: f64| {
        let found = minimiser("vpo", json!({"beta": beta, "alpha": alpha}), &bandit, 8.0);
        let pairs = Pairs::new(&UNIFORM, |i, j| bandit.prefers(i, j));
        let total: f64 = pairs.shares.iter().sum();
        pairs.chosen.iter().zip(&pairs.shares).map(|(i, share)| share / total * found[*i].ln()).sum::<f64>()
    };
    let likelihoods = [0.0, 0.2, 1.0].map(chosen_often);
    assert!(likelihoods.windows(2).all(|two| two[0] < two[1]), "{likelihoods:?}");
    assert!(
        distance(&minimiser("vpo", json!({"beta": beta, "alpha": 0.0}), &bandit, 8.0), &bandit.gibbs(beta))
            < 1e-6
    );
}

#[test]
fn comparisons_do_not_say_what_matters_and_cardinal_feedback_does() {
    // Three prompts, one choice for all of them: A is worth 10 more on the first and 1 less on the others.
    let gaps: [f64; 3] = [10.0, -1.0, -1.0];
    let chosen: Vec<usize> = gaps.iter().map(|gap| usize::from(*gap < 0.0)).collect();
    let pairs =
        Pairs { rejected: chosen.iter().map(|side| 1 - side).collect(), chosen, shares: vec![1.0 / 3.0; 3] };
    let share_of_a = |id: &str, options| {
        let objective = pair_objective(id, options);
        let margins = tensor(&gaps.map(f64::abs));
        let loss = |policy: &Tensor| {
            let inputs = pairs.inputs(policy, &[0.5, 0.5]).with_margins(margins.clone());
            pairs.mean_loss(&*objective, &inputs)
        };
        Descent { rate: 1.0, steps: 4000 }.minimise(&[0.5, 0.5], loss)[0]
    };
    let (ordinal, cardinal) =
        (share_of_a("dpo", json!({"beta": 1.0})), share_of_a("cardinal", json!({"beta": 1.0, "unit": 10.0})));
    // The majority of comparisons, and the sum of values: odds 1 : 2 and 10 : 2.
    assert!(
        (ordinal - 1.0 / 3.0).abs() < 1e-6 && (cardinal - 5.0 / 6.0).abs() < 1e-6,
        "{ordinal} {cardinal}"
    );
}

#[test]
fn labels_that_their_estimator_disowns_do_not_cancel_those_that_it_stands_by() {
    // Half of the pairs are labelled rightly by a sure estimator, and half are turned round by one that disagrees with itself
    // as much as can be: α is ½ there.
    let bandit = bandit();
    let mut pairs = Pairs::new(&UNIFORM, |i, j| bandit.prefers(i, j));
    let turned = Pairs::new(&UNIFORM, |i, j| bandit.prefers(j, i));
    let sure = pairs.shares.len();
    pairs.chosen.extend(turned.chosen);
    pairs.rejected.extend(turned.rejected);
    pairs.shares.extend(turned.shares);
    let unsure: Vec<f64> =
        (0..2 * sure).map(|i| if i < sure { 0.0 } else { std::f64::consts::LN_2 }).collect();
    let minimiser = |id: &str, options| {
        let objective = pair_objective(id, options);
        let ones = tensor(&vec![1.0; 2 * sure]);
        let loss = |policy: &Tensor| {
            let inputs = pairs
                .inputs(policy, &bandit.reference)
                .with_lengths(ones.clone(), ones.clone())
                .with_uncertainties(tensor(&unsure));
            pairs.mean_loss(&*objective, &inputs)
        };
        Descent { rate: 4.0, steps: 40_000 }.minimise(&bandit.reference, loss)
    };
    // Right and wrong labels cancel, and DPO learns nothing at all.
    assert!(distance(&minimiser("dpo", json!({"beta": 0.5})), &bandit.reference) < 1e-6);
    // Here they are as good as labels of people who toss a coin for every second pair.
    let found = minimiser("upo", json!({"beta": 0.5, "label_noise": "entropy", "lambda": 0.0}));
    let coins = Pairs::new(&UNIFORM, |i, j| 0.5 * bandit.prefers(i, j) + 0.25);
    let dpo = pair_objective("dpo", json!({"beta": 0.5}));
    let loss = |policy: &Tensor| coins.mean_loss(&*dpo, &coins.inputs(policy, &bandit.reference));
    let expected = Descent { rate: 8.0, steps: 40_000 }.minimise(&bandit.reference, loss);
    assert!(distance(&found, &expected) < 1e-6, "{found:?} {expected:?}");
    assert!(mean(&found, &bandit.rewards) > mean(&bandit.reference, &bandit.rewards) + 0.1);
}

#[test]
fn labels_of_two_strengths_want_a_spread_and_labels_of_one_do_not() {
    let bandit = Bandit { reference: vec![0.25; 4], rewards: vec![0.0, 1.0, 2.5, 4.0] };
    // The policy whose implicit rewards are the true ones; half of the people feel 0.3 of them and half 1.7.
    let policy = softmax(&bandit.rewards);
    let strengths = |low: f64, high: f64| {
        move |i: usize, j: usize| {
            let felt = |strength: f64| {
                votive_testkit::simplex::logistic(strength * (bandit.rewards[i] - bandit.rewards[j]))
            };
            0.5 * (felt(low) + felt(high))
        }
    };
    let best_spread = |pairs: &Pairs| {
        let loss = |spread: f64| {
            let objective = pair_objective("mixdpo-lognormal", json!({"beta": 1.0, "spread": spread}));
            let inputs = pairs.inputs(&logs(&policy), &UNIFORM);
            pairs.mean_loss(&*objective, &inputs).to_scalar::<f64>().unwrap()
        };
        (0..=30).map(|i| f64::from(i) * 0.05).min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap()
    };
    let uniform = Pairs::new(&UNIFORM, strengths.clone()(1.0, 1.0));
    let mixed = Pairs::new(&UNIFORM, strengths(0.3, 1.7));
    assert!(best_spread(&uniform) == 0.0, "{}", best_spread(&uniform));
    assert!(best_spread(&mixed) > 0.4, "{}", best_spread(&mixed));
}
