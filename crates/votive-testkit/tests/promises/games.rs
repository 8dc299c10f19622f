//! Methods that look for an equilibrium: a step of each against the formula of the step, and where the steps end.

use crate::population::{Descent, Pairs, gradient, pair_objective, tensor};
use candle_core::Tensor;
use serde_json::json;
use votive_testkit::Game;
use votive_testkit::simplex::{distance, softmax};

const BASE: [f64; 3] = [4.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0];
const ETA: f64 = 0.3;
const TAU: f64 = 0.1;

/// INPO's loss in a round that starts from `current`, on pairs of its own completions.
fn inpo(game: &Game, current: &[f64]) -> impl Fn(&Tensor) -> Tensor {
    let objective = pair_objective("inpo-nash", json!({"eta": ETA, "tau": TAU}));
    let pairs = Pairs::new(current, |i, j| game.wins[i][j]);
    let [base_chosen, base_rejected] = pairs.sides(&BASE.map(f64::ln));
    let current = current.to_vec();
    move |policy: &Tensor| {
        let inputs = pairs.inputs(policy, &current).with_base(base_chosen.clone(), base_rejected.clone());
        pairs.mean_loss(&*objective, &inputs)
    }
}

#[test]
fn a_round_of_inpo_is_a_step_of_mirror_descent_and_the_rounds_end_at_the_equilibrium() {
    let game = Game::new(3, &[0.9, 0.2, 0.8]);
    let start = [0.2, 0.3, 0.5];
    let next = game.mirror_step(&start, &BASE, (ETA, TAU));
    assert!(distance(&next, &[0.301_891, 0.347_795, 0.350_314]) < 1e-6, "{next:?}");
    let found = Descent { rate: 0.3, steps: 4000 }.minimise(&start, inpo(&game, &start));
    assert!(distance(&found, &next) < 1e-6, "{found:?}");
    let mut current = BASE.to_vec();
    for _ in 0..200 {
        let next = game.mirror_step(&current, &BASE, (ETA, TAU));
        // The loss of this round is least there.
        let logits: Vec<f64> = next.iter().map(|p| p.ln()).collect();
        let slopes = gradient(&logits, inpo(&game, &current));
        assert!(slopes.iter().all(|slope| slope.abs() < 1e-8), "{slopes:?}");
        current = next;
    }
    assert!(distance(&current, &[0.405_856, 0.153_043, 0.441_101]) < 1e-6, "{current:?}");
    assert!(game.dual_gap(&current, &BASE, TAU).abs() < 1e-9);
}

#[test]
fn without_a_share_of_the_last_policy_the_rounds_never_settle() {
    // τ = η is IPO on the base: the best response to the last policy, which on a cycle runs around.
    let game = Game::new(3, &[0.9, 0.2, 0.8]);
    let mut current = BASE.to_vec();
    let mut step = f64::INFINITY;
    for _ in 0..400 {
        let next = game.mirror_step(&current, &BASE, (0.1, 0.1));
        step = current.iter().zip(&next).map(|(a, b)| (a - b).abs()).sum();
        current = next;
    }
    assert!(step > 0.5, "{step}");
}

/// How EGPO's operator loss moves a policy's logits against an opponent.
fn egpo_step(game: &Game, logits: &[f64], opponent: &[f64], (beta, rate): (f64, f64)) -> Vec<f64> {
    let n = logits.len();
    let reference = vec![1.0 / n as f64; n];
    let objective = pair_objective("egpo", json!({"beta": beta}));
    // Both completions uniform; which one is called chosen changes nothing, so each pair is there once.
    let pairs = Pairs::new(&reference, |_, _| 1.0);
    let wins = game.against(opponent);
    let margins: Vec<f64> =
        pairs.chosen.iter().zip(&pairs.rejected).map(|(i, j)| wins[*i] - wins[*j]).collect();
    let loss = |policy: &Tensor| {
        let inputs = pairs.inputs(policy, &reference).with_margins(tensor(&margins));
        pairs.mean_loss(&*objective, &inputs)
    };
    logits.iter().zip(gradient(logits, loss)).map(|(logit, slope)| logit - rate * slope).collect()
}

#[test]
fn extragradient_steps_converge_where_mirror_descent_circles() {
    let (game, reference) = (Game::cycle(0.9), [1.0 / 3.0; 3]);
    let gap_after = |steps: usize, extragradient: bool, beta: f64| {
        let mut logits = vec![1.0, 0.0, -1.0];
        for _ in 0..steps {
            let here = softmax(&logits);
            let setting = (beta, 0.02);
            let trial = egpo_step(&game, &logits, &here, setting);
            logits = match extragradient {
                true => egpo_step(&game, &logits, &softmax(&trial), setting),
                false => trial,
            };
        }
        game.dual_gap(&softmax(&logits), &reference, beta)
    };
    let (plain, extra) = (gap_after(100, false, 0.02), gap_after(100, true, 0.02));
    assert!(plain > 0.1 && extra < 1e-5, "{plain} {extra}");
    assert!(gap_after(400, false, 0.02) > 0.1, "mirror descent goes on circling");
    // With a large price of divergence both settle, so this test needs the small one.
    assert!(gap_after(600, false, 0.5) < 1e-6);
}

/// A round of self-play: where the loss of uniform pairs is least, from the policy of the round before.
fn self_play_round(id: &str, beta: f64, current: &[f64], scores: &[f64]) -> Vec<f64> {
    let n = current.len();
    let objective = pair_objective(id, json!({"beta": beta}));
    let pairs = Pairs::new(&vec![1.0 / n as f64; n], |_, _| 0.5);
    let [chosen, rejected] = pairs.sides(scores);
    let loss = |policy: &Tensor| {
        let inputs = pairs.inputs(policy, current).with_scores(chosen.clone(), rejected.clone());
        pairs.mean_loss(&*objective, &inputs)
    };
    let (logits, _) = Descent { rate: n as f64, steps: 12 }.descend(current, loss);
    softmax(&logits)
}

#[test]
fn the_mean_of_self_plays_rounds_is_an_equilibrium_and_the_last_one_is_not() {
    // Rock, paper, scissors, and a completion that loses to all of them.
    let game = Game::new(4, &[0.9, 0.1, 0.8, 0.9, 0.8, 0.8]);
    let mut current = softmax(&[1.0, 0.0, -0.5, 0.5]);
    let mut sum = vec![0.0; 4];
    let rounds = 250;
    for _ in 0..rounds {
        current = self_play_round("sppo", 4.0, &current, &game.against(&current));
        sum.iter_mut().zip(&current).for_each(|(sum, p)| *sum += p / f64::from(rounds));
    }
    let (mean, last) = (game.exploitability(&sum), game.exploitability(&current));
    assert!(mean < 0.06 && last > 0.2, "{mean} {last}: {sum:?} {current:?}");
    assert!(sum[3] < 0.05 && current[3] < 1e-3, "what always loses is given up: {sum:?}");
}

#[test]
fn a_round_of_general_preference_optimisation_tilts_by_mean_scores() {
    // Scores that are centred have a tilt that needs no normalisation to first order: a small step is exact.
    let (current, beta) = (vec![0.25; 4], 500.0);
    let scores = [1.5, -0.5, -1.5, 0.5];
    let found = self_play_round("general-preference", beta, &current, &scores);
    let tilt = scores.map(|score| score / beta);
    let expected = votive_testkit::simplex::tilted(&current, &tilt);
    assert!(distance(&found, &expected) < 1e-6, "{found:?} {expected:?}");
    assert!(distance(&found, &current) > 1e-4);
}
