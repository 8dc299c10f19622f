//! Policies of tokens: what a loss of sequences does to single tokens.

use crate::population::{Pairs, at, log_policy, logs, pair_objective, tensor};
use candle_core::{Device, Tensor, Var};
use serde_json::json;
use votive_testkit::simplex::{distance, logistic, softmax, tilted};
use votive_testkit::{Bandit, Tree};

const BETA: f64 = 0.5;

/// Log-probabilities of every sequence under logits at every beginning, which lie one after another.
fn sequence_logps(tree: &Tree, logits: &Tensor) -> Tensor {
    let nodes = logits.dims1().unwrap() / tree.width;
    let by_node = logits.reshape((nodes, tree.width)).unwrap();
    let by_node = by_node.broadcast_sub(&by_node.log_sum_exp(1).unwrap().unsqueeze(1).unwrap()).unwrap();
    let flat = by_node.flatten_all().unwrap();
    let before = |length: usize| (0..length).map(|l| tree.width.pow(l as u32)).sum::<usize>();
    (0..tree.depth).fold(tensor(&vec![0.0; tree.rewards.len()]), |sum, step| {
        let places: Vec<usize> = (0..tree.rewards.len())
            .map(|leaf| {
                let (length, node, token) = tree.path(leaf).nth(step).unwrap();
                (before(length) + node) * tree.width + token
            })
            .collect();
        (sum + at(&flat, &places)).unwrap()
    })
}

#[test]
fn dpo_on_sequences_learns_every_tokens_advantage() {
    let tree = Tree::made(2, 3);
    let n = tree.rewards.len();
    let people = Bandit { reference: tree.sequences(&tree.reference), rewards: tree.rewards.clone() };
    let pairs = Pairs::new(&vec![1.0 / n as f64; n], |i, j| people.prefers(i, j));
    let objective = pair_objective("dpo", json!({"beta": BETA}));
    let start: Vec<f64> = tree.reference.concat().concat().iter().map(|p| p.ln()).collect();
    let mut logits = start;
    for _ in 0..6000 {
        let var = Var::new(logits.as_slice(), &Device::Cpu).unwrap();
        let inputs = pairs.inputs(&sequence_logps(&tree, &var), &people.reference);
        let gradients = pairs.mean_loss(&*objective, &inputs).backward().unwrap();
        let slopes: Vec<f64> = gradients.get(&var).unwrap().to_vec1().unwrap();
        logits.iter_mut().zip(&slopes).for_each(|(logit, slope)| *logit -= 16.0 * slope);
    }
    let found = softmax_by_node(&logits, tree.width);
    let best = tree.solution(BETA);
    let expected = best.policy.concat();
    assert!(
        found.iter().zip(&expected).all(|(found, expected)| distance(found, expected) < 1e-5),
        "{found:?}"
    );
    // β times a token's log-ratio is Q − V, and along a sequence they add up to r − V of the empty beginning.
    let reference = tree.reference.concat();
    for leaf in 0..n {
        let credits = tree.path(leaf).enumerate().map(|(step, (length, at, token))| {
            let node = if length == 0 { 0 } else { 1 + at };
            let credit = BETA * (found[node][token] / reference[node][token]).ln();
            let after = best.values[step + 1][at * tree.width + token];
            assert!((credit - (after - best.values[step][at])).abs() < 1e-4, "{leaf} {step}: {credit}");
            credit
        });
        let sum: f64 = credits.sum();
        assert!((sum - (tree.rewards[leaf] - best.values[0][0])).abs() < 1e-4);
    }
}

fn softmax_by_node(logits: &[f64], width: usize) -> Vec<Vec<f64>> {
    logits.chunks(width).map(softmax).collect()
}

#[test]
fn pairs_of_steps_labelled_by_the_search_make_the_best_policy_of_tokens() {
    // SVPO's step loss at every beginning, with Q as the reward of a step.
    let tree = Tree::made(3, 2);
    let best = tree.solution(BETA);
    let objective = pair_objective("svpo", json!({"beta": BETA, "value_weight": 0.0, "margin_weight": 0.0}));
    for (length, level) in tree.reference.iter().enumerate() {
        for (at, reference) in level.iter().enumerate() {
            let q: Vec<f64> =
                (0..tree.width).map(|token| best.values[length + 1][at * tree.width + token]).collect();
            let pairs = Pairs::new(&[0.5, 0.5], |i, j| logistic(q[i] - q[j]));
            let loss = |policy: &Tensor| pairs.mean_loss(&*objective, &pairs.inputs(policy, reference));
            let found = crate::population::Descent { rate: 8.0, steps: 20_000 }.minimise(reference, loss);
            assert!(distance(&found, &best.policy[length][at]) < 1e-6, "{length} {at}: {found:?}");
        }
    }
}

#[test]
fn a_value_head_that_knows_the_search_costs_nothing_if_its_steps_are_apart() {
    let objective = pair_objective(
        "svpo",
        json!({"beta": 1.0, "value_weight": 1.0, "margin_weight": 1.0, "margin": 0.2}),
    );
    let pairs = Pairs { chosen: vec![0], rejected: vec![1], shares: vec![1.0] };
    let cost = |values: [f64; 2]| {
        let [chosen, rejected] = pairs.sides(&[0.6, -0.4]);
        let policy = log_policy(&logs(&[0.5, 0.5]));
        let [v_chosen, v_rejected] = values.map(|value| tensor(&[value]));
        let inputs = pairs
            .inputs(&policy, &[0.5, 0.5])
            .with_scores(chosen, rejected)
            .with_values(v_chosen, v_rejected);
        pairs.mean_loss(&*objective, &inputs).to_scalar::<f64>().unwrap() - 2f64.ln()
    };
    assert!(cost([0.6, -0.4]).abs() < 1e-15);
    assert!(cost([0.5, -0.4]) > 0.0 && cost([-0.4, 0.6]) > 1.0);
}

#[test]
fn sequences_under_a_tilt_of_tokens_are_tilted_by_the_sum() {
    let tree = Tree::made(2, 2);
    let tilt: Vec<Vec<Vec<f64>>> =
        tree.reference.iter().map(|level| level.iter().map(|p| tilted(p, &[0.3, -0.2])).collect()).collect();
    let logits: Vec<f64> = tilt.concat().concat().iter().map(|p| p.ln()).collect();
    let found: Vec<f64> = sequence_logps(&tree, &tensor(&logits)).to_vec1().unwrap();
    let expected = tree.sequences(&tilt);
    assert!(found.iter().zip(&expected).all(|(log, p)| (log - p.ln()).abs() < 1e-12));
}
