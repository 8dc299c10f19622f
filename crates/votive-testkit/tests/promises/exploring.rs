//! Methods that read what a policy writes itself: what they keep, and what they look for.

use crate::population::{Descent, Pairs, at, gradient, logs, pair_objective, tensor};
use candle_core::{Device, Tensor, Var};
use serde_json::{Value, json};
use votive_objective::{Objective, PairObjective, TokenWeights, Tokens, build, find};
use votive_testkit::Bandit;
use votive_testkit::simplex::{distance, mean, normalised, softmax};

/// All of these pairs with a third completion drawn from `golds`, as often as both are drawn.
fn with_golds(pairs: &Pairs, golds: &[f64]) -> (Pairs, Vec<usize>) {
    let (mut all, mut third) = (Pairs::default(), Vec::new());
    for (gold, share) in golds.iter().enumerate().filter(|(_, share)| **share > 0.0) {
        all.chosen.extend(&pairs.chosen);
        all.rejected.extend(&pairs.rejected);
        all.shares.extend(pairs.shares.iter().map(|pair| pair * share));
        third.extend(vec![gold; pairs.shares.len()]);
    }
    (all, third)
}

/// The mean loss of pairs with a third completion.
fn loss_with_golds<'a>(
    objective: &'a dyn PairObjective,
    (pairs, golds): &'a (Pairs, Vec<usize>),
    reference: &'a [f64],
) -> impl Fn(&Tensor) -> Tensor + 'a {
    let lengths = tensor(&vec![1.0; golds.len()]);
    move |policy| {
        let inputs = pairs.inputs(policy, reference).with_gold(at(policy, golds), lengths.clone());
        pairs.mean_loss(objective, &inputs)
    }
}

#[test]
fn typo_goes_from_what_people_prefer_to_the_reference_and_dpo_does_neither() {
    let bandit = Bandit { reference: softmax(&[1.0, 0.0, -0.5]), rewards: vec![0.0, 1.2, 0.4] };
    let mut pairs = Pairs::new(&[1.0; 3], |i, j| bandit.prefers(i, j));
    pairs.shares = normalised(pairs.shares);
    let all = with_golds(&pairs, &bandit.reference);
    let minimiser = |lambda: f64| {
        let objective = pair_objective("typo", json!({ "lambda": lambda }));
        let loss = loss_with_golds(&*objective, &all, &bandit.reference);
        let rate = 3.0 / (1.0 + lambda);
        // The slope that is left scales with the loss.
        softmax(&Descent { rate, steps: 30_000 }.descend(&bandit.reference, loss).0)
    };
    let people = softmax(&bandit.rewards);
    let (near, far) = (minimiser(1e-4), minimiser(1e3));
    assert!(distance(&near, &people) < 3e-4, "{near:?}");
    assert!(distance(&far, &bandit.reference) < 4e-4, "{far:?}");
    let between: Vec<f64> = [1e-3, 0.1, 1.0, 10.0].map(|lambda| distance(&minimiser(lambda), &people)).into();
    assert!(between.windows(2).all(|two| two[0] < two[1]), "{between:?}");
    // Without a price of divergence DPO's best policy is the best completion alone.
    assert!(bandit.gibbs(0.02)[1] > 0.999);
}

/// The probability of the best completion, which the policy has never written, after some steps of a round.
fn chance_of_the_unwritten(objective: &dyn PairObjective, steps: usize) -> f64 {
    let bandit = Bandit {
        reference: normalised(vec![0.4, 0.3, 0.2, 0.099, 1e-3]),
        rewards: vec![0.0, 0.4, 0.8, 1.0, 3.0],
    };
    let written = normalised([&bandit.reference[..4], &[0.0]].concat());
    let all = with_golds(&Pairs::new(&written, |i, j| bandit.prefers(i, j)), &written);
    let loss = loss_with_golds(objective, &all, &bandit.reference);
    softmax(&Descent { rate: 1.0, steps }.descend(&bandit.reference, loss).0)[4]
}

#[test]
fn what_the_old_policy_never_wrote_becomes_likelier_while_a_round_is_short() {
    let objective = |id: &str, options: Value| match build(find(id).unwrap(), options).unwrap() {
        Objective::Pair(objective) => objective,
        _ => panic!("{id} is not of pairs"),
    };
    let (beta, alpha) = (0.5, 0.2);
    let selm = objective("selm", json!({"beta": beta, "alpha": alpha}));
    let dpo = objective("dpo", json!({"beta": beta}));
    // The other sign imitates what is written anyway.
    let turned = objective("dpo", json!({"beta": beta, "with": {"gold_nll": {"weight": alpha * beta}}}));
    let after = |steps: usize| [&selm, &dpo, &turned].map(|one| chance_of_the_unwritten(&**one, steps));
    let [explored, plain, imitated] = after(20);
    assert!(explored > plain && plain > imitated, "{explored} {plain} {imitated}");
    assert!(((explored - plain) / (plain - imitated) - 1.0).abs() < 0.1, "{explored} {plain} {imitated}");
    // The term has no bound: in a long round it drives the policy away from all that was written, and to one completion.
    let [explored, plain, _] = after(1000);
    assert!(explored < 0.5 * plain, "{explored} {plain}");
}

/// Random numbers that are the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A completion of a policy.
    fn draw(&mut self, policy: &[f64]) -> usize {
        let mut rest = self.next();
        policy
            .iter()
            .position(|p| {
                rest -= p;
                rest < 0.0
            })
            .unwrap_or(policy.len() - 1)
    }
}

/// Where an online run ends whose pairs are picked among 16 samples of the policy: four completions are right, two wrong.
fn online(seed: u64, pick: impl Fn(&[f64], &[usize], &[usize], &mut Numbers) -> [usize; 2]) -> Vec<f64> {
    let reference = [0.3, 0.2, 0.1, 0.05, 0.2, 0.15];
    let objective = pair_objective("dpo", json!({"beta": 0.1}));
    let (mut numbers, mut logits) = (Numbers(seed), logs(&reference).to_vec1::<f64>().unwrap());
    for _ in 0..3000 {
        let policy = softmax(&logits);
        let samples: Vec<usize> = (0..16).map(|_| numbers.draw(&policy)).collect();
        let (right, wrong): (Vec<usize>, Vec<usize>) = samples.into_iter().partition(|one| *one < 4);
        if right.is_empty() || wrong.is_empty() {
            continue;
        }
        let [chosen, rejected] = pick(&policy, &right, &wrong, &mut numbers);
        let pairs = Pairs { chosen: vec![chosen], rejected: vec![rejected], shares: vec![1.0] };
        let loss = |policy: &Tensor| pairs.mean_loss(&*objective, &pairs.inputs(policy, &reference));
        let slopes = gradient(&logits, loss);
        logits.iter_mut().zip(slopes).for_each(|(logit, slope)| *logit -= 0.5 * slope);
    }
    softmax(&logits)
}

/// DivPO (arXiv:2501.18101): the rarest of the right answers against the commonest of the wrong ones.
#[test]
fn pairs_of_rare_right_and_common_wrong_answers_keep_all_right_ones() {
    let entropy = |policy: &[f64]| -mean(policy, &policy.iter().map(|p| p.ln()).collect::<Vec<_>>());
    let by = |order: fn(f64, f64) -> bool, policy: &[f64], of: &[usize]| {
        of.iter()
            .copied()
            .reduce(|best, one| if order(policy[one], policy[best]) { one } else { best })
            .unwrap()
    };
    let ends: Vec<[Vec<f64>; 2]> = (0..5)
        .map(|seed| {
            let diverse = online(seed, |policy, right, wrong, _| {
                [by(|a, b| a < b, policy, right), by(|a, b| a > b, policy, wrong)]
            });
            let any = online(seed, |_, right, wrong, numbers| {
                [right, wrong].map(|of| of[(numbers.next() * of.len() as f64) as usize])
            });
            [diverse, any]
        })
        .collect();
    for [diverse, any] in ends {
        let right = |policy: &[f64]| policy[..4].iter().sum::<f64>();
        assert!(right(&diverse) > 0.95 && right(&any) > 0.95, "{diverse:?} {any:?}");
        // Four right answers, each as often as another, have the entropy ln 4.
        assert!(entropy(&diverse) > 1.3 && entropy(&any) < 1.1, "{diverse:?} {any:?}");
    }
}

/// Masks of two answers that differ in their last token, learned with the policy: `relu` of a number for each token.
fn learned_masks(sparsity: f64) -> [Vec<f64>; 2] {
    let options = json!({"beta": 0.5, "reward_sparsity": sparsity, "divergence_sparsity": 0.0});
    let objective = pair_objective("sparsepo", options);
    let cells = |values: &[f64]| tensor(values).reshape((1, 4)).unwrap();
    let reference = [-1.0, -2.0, -0.5];
    let (mut numbers, mut logits) = ([vec![0.5; 4], vec![0.5; 4]], vec![0.0, 0.0]);
    for _ in 0..60 {
        let var = |values: &[f64]| Var::new(values, &Device::Cpu).unwrap();
        let (variables, policy) = (numbers.each_ref().map(|side| var(side)), var(&logits));
        let last = policy.broadcast_sub(&policy.log_sum_exp(0).unwrap()).unwrap();
        let tokens = |place: usize| {
            let shared = Tensor::cat(&[&tensor(&reference), &last.narrow(0, place, 1).unwrap()], 0).unwrap();
            Tokens {
                mask: cells(&[1.0; 4]),
                policy_logps: Some(shared.reshape((1, 4)).unwrap()),
                reference_logps: Some(cells(&[&reference[..], &[0.5f64.ln()]].concat())),
                kl: Some(cells(&[0.0; 4])),
            }
        };
        let weights = variables.each_ref().map(|variable| {
            let is_above = variable.gt(0.0).unwrap().to_dtype(candle_core::DType::F64).unwrap();
            let logratio = (variable.as_tensor() * is_above).unwrap().reshape((1, 4)).unwrap();
            TokenWeights { logratio, kl: cells(&[0.0; 4]) }
        });
        let [chosen, rejected] = weights;
        let pairs = Pairs { chosen: vec![0], rejected: vec![1], shares: vec![1.0] };
        let inputs = pairs.inputs(&last, &[0.5, 0.5]).with_tokens(tokens(0), tokens(1));
        let loss = pairs.mean_loss(&*objective, &inputs.with_token_weights(chosen, rejected));
        let gradients = loss.backward().unwrap();
        let slope = |var: &Var| {
            gradients.get(var).map_or_else(|| vec![0.0; 4], |slope| slope.to_vec1::<f64>().unwrap())
        };
        for (side, variable) in numbers.iter_mut().zip(&variables) {
            side.iter_mut().zip(slope(variable)).for_each(|(number, slope)| *number -= slope);
        }
        logits.iter_mut().zip(slope(&policy)).for_each(|(logit, slope)| *logit -= slope);
    }
    numbers.map(|side| side.into_iter().map(|number| number.max(0.0)).collect())
}

#[test]
fn masks_that_cost_something_are_exactly_0_where_answers_do_not_differ() {
    for side in learned_masks(0.01) {
        assert_eq!(side[..3], [0.0; 3], "what both answers say");
        assert!(side[3] > 0.5, "{side:?}");
    }
    for side in learned_masks(0.0) {
        assert_eq!(side[..3], [0.5; 3], "nothing moves what costs nothing and says nothing");
        assert!(side[3] > 0.5);
    }
}
