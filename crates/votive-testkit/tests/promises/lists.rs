//! Losses of lists on a bandit.

use crate::population::{Descent, at, logs, tensor};
use candle_core::Tensor;
use serde_json::{Value, json};
use votive_objective::{ListInputs, ListObjective, Objective, find};
use votive_testkit::simplex::{distance, tilted};

fn list_objective(id: &str, options: Value) -> Box<dyn ListObjective> {
    match (find(id).unwrap().build)(options).unwrap() {
        Objective::List(objective) => objective,
        _ => panic!("{id} is not of lists"),
    }
}

/// Lists of completions with the policy's and the reference's log-probabilities.
fn inputs(lists: &[Vec<usize>], policy: &Tensor, reference: &[f64]) -> ListInputs {
    let flat: Vec<usize> = lists.concat();
    let shape = (lists.len(), lists[0].len());
    let table = |values: &Tensor| at(values, &flat).reshape(shape).unwrap();
    ListInputs::new(table(policy)).with_reference(table(&logs(reference)))
}

#[test]
fn all_negatives_recover_what_the_good_completions_were_drawn_from() {
    // y_w from p*, two negatives from a uniform pool: the minimiser has e^r ∝ p*, so π ∝ π_ref·p*^(1/β).
    let (wanted, reference, beta) = ([0.5, 0.3, 0.2], [0.2, 0.2, 0.6], 0.5);
    let lists: Vec<Vec<usize>> = (0..27).map(|i| vec![i / 9, i / 3 % 3, i % 3]).collect();
    let shares = tensor(&lists.iter().map(|list| wanted[list[0]] / 9.0).collect::<Vec<_>>());
    let scores = tensor(&[1.0, 0.0, 0.0].repeat(27)).reshape((27, 3)).unwrap();
    let objective = list_objective("mc_po", json!({"beta": beta, "negatives": "all"}));
    let loss = |policy: &Tensor| {
        let inputs = inputs(&lists, policy, &reference).with_scores(scores.clone());
        (objective.evaluate(&inputs).unwrap().per_list * &shares).unwrap().sum_all().unwrap()
    };
    let found = Descent { rate: 8.0, steps: 20_000 }.minimise(&reference, loss);
    let tilt: Vec<f64> = wanted.iter().map(|p: &f64| p.ln() / beta).collect();
    assert!(distance(&found, &tilted(&reference, &tilt)) < 1e-6, "{found:?}");
}

#[test]
fn the_kernels_negatives_are_harder_than_uniform_ones() {
    let (policy, reference) = (logs(&[0.1, 0.6, 0.25, 0.05]), [0.25; 4]);
    let draws: Vec<f64> = (0..400).map(|i| (f64::from(i) + 0.5) / 400.0).collect();
    let lists = vec![vec![0, 1, 2, 3]; draws.len()];
    let scores = tensor(&[1.0, 0.0, 0.0, 0.0].repeat(draws.len())).reshape((draws.len(), 4)).unwrap();
    let kernel = list_objective("mc_po", json!({"beta": 1.0, "negatives": "kernel"}));
    let inputs = inputs(&lists, &policy, &reference).with_scores(scores).with_draws(tensor(&draws));
    let hard = kernel.evaluate(&inputs).unwrap().per_list.mean_all().unwrap().to_scalar::<f64>().unwrap();
    // Against each of the others as often.
    let uniform = [0.6f64, 0.25, 0.05].map(|p| (1.0 + p / 0.1).ln()).iter().sum::<f64>() / 3.0;
    let expected = [0.6f64, 0.25, 0.05].map(|p| p / 0.9 * (1.0 + p / 0.1).ln()).iter().sum::<f64>();
    assert!((hard - expected).abs() < 0.01 && hard > uniform + 0.2, "{hard} {expected} {uniform}");
}

#[test]
fn the_leaves_of_a_tree_end_in_the_order_of_their_scores() {
    let (reference, scores) = ([0.4, 0.1, 0.3, 0.2], [0.0, 1.0, 2.0, 3.0]);
    let objective = list_objective("tpo-tree", json!({"beta": 0.5}));
    let table = tensor(&scores).reshape((1, 4)).unwrap();
    let loss = |policy: &Tensor| {
        let inputs = inputs(&[vec![0, 1, 2, 3]], policy, &reference).with_scores(table.clone());
        objective.evaluate(&inputs).unwrap().per_list.sum_all().unwrap()
    };
    let (logits, _) = Descent { rate: 0.5, steps: 400 }.descend(&reference, loss);
    let rewards: Vec<f64> = logits.iter().zip(&reference).map(|(logit, p)| logit - p.ln()).collect();
    assert!(rewards.windows(2).all(|two| two[0] < two[1]), "{rewards:?}");
    // The top of the list is where the weights are.
    assert!(rewards[3] - rewards[2] > rewards[1] - rewards[0], "{rewards:?}");
}
