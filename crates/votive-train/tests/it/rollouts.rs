//! A policy that learns from what it draws itself.

use crate::drive::Trajectory;
use crate::workshop::{LORA, Workshop};
use std::fs;
use votive_train::Plan;

/// Four steps of chains of six, two prompts each.
fn workshop() -> Workshop {
    let workshop = Workshop::image();
    fs::write(workshop.path("prompts.txt"), "a lake\n\na hill at night\na door\n").unwrap();
    workshop.edit("pairs.jsonl", "prompts.txt");
    workshop
}

const CHAIN: [&str; 4] = ["rollout.steps=6", "rollout.cfg=2", "train.steps=4", "objective.dpo.beta=10"];

fn plan(workshop: &Workshop, overrides: &[&str]) -> Plan {
    workshop.plan(&[&CHAIN, overrides].concat())
}

#[test]
fn both_kinds_of_pairs_start_at_ln_2_and_learn() {
    let workshop = workshop();
    for pairs in ["rollout.pairs=steps", "rollout.pairs=images"] {
        for adapter in [&[][..], &[LORA]] {
            let run = Trajectory::of(&plan(&workshop, &[&[pairs], adapter].concat()));
            let loss = run.metric("loss");
            assert!((loss[0] - std::f64::consts::LN_2).abs() < 1e-6, "{pairs}: {loss:?}");
            assert!(loss[3] != loss[0] && loss.iter().all(|loss| loss.is_finite()), "{pairs}: {loss:?}");
            let [chosen, rejected] = ["score/chosen", "score/rejected"].map(|name| run.metric(name));
            assert!(chosen.iter().zip(&rejected).all(|(c, r)| c > r), "{pairs}: {chosen:?} {rejected:?}");
            assert_eq!(run.metric("rollout/kept"), [1.0; 4]);
        }
    }
}

/// The gradient at the start leads from the loser to the winner: a small step along it makes the winner's step likelier.
#[test]
fn a_step_leads_from_the_loser_to_the_winner() {
    let workshop = workshop();
    let same = ["optimizer.lr=1e-4", "optimizer.warmup_steps=0", "optimizer.schedule=constant"];
    crate::drive::with_prepared!(&plan(&workshop, &same), |front, start| {
        let plan = plan(&workshop, &same);
        let mut run = votive_train::Run::new(&plan, &front, start, None, |_, _| {}).unwrap();
        let before = run.inspect(0, false).unwrap().tensors;
        let find = |tensors: &[(String, candle_core::Tensor)], name: &str| {
            tensors
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, tensor)| crate::drive::values(tensor))
                .unwrap()
        };
        assert_eq!(find(&before, "policy_logps"), find(&before, "reference_logps"));
        // The same step again after the update: its own chain moved with the policy, so the batch is kept.
        use votive_train::front_end::{FrontEnd as _, Networks};
        let samples = run.samples(0);
        let networks =
            |run: &votive_train::Run<_>| front.network(&run.params().untracked().unwrap()).unwrap();
        let policy = networks(&run);
        let batch = front
            .complete(
                (0, &samples),
                front.batch(0, &samples).unwrap(),
                Networks { policy: &policy, reference: None },
            )
            .unwrap();
        let margin = |network: &_| {
            let logps = crate::drive::values(&front.logps(network, &batch).unwrap());
            let (chosen, rejected) = logps.split_at(samples.len());
            chosen.iter().sum::<f32>() - rejected.iter().sum::<f32>()
        };
        let at_start = margin(&networks(&run));
        run.step().unwrap();
        let moved = margin(&networks(&run));
        assert!(moved > at_start, "{at_start} -> {moved}");
    });
}

#[test]
fn preferring_the_rejected_turns_the_scores_round() {
    let workshop = workshop();
    let first = |prefer: &str| Trajectory::of(&plan(&workshop, &["train.steps=1", prefer]));
    let (usual, turned) = (first("data.prefer=chosen"), first("data.prefer=rejected"));
    let [best, worst] = ["score/chosen", "score/rejected"].map(|name| usual.metric(name)[0]);
    assert_eq!((turned.metric("score/chosen")[0], turned.metric("score/rejected")[0]), (-worst, -best));
}

#[test]
fn pairs_that_are_too_close_give_no_gradient() {
    let workshop = workshop();
    let run = Trajectory::of(&plan(&workshop, &["train.steps=1", "rollout.min_gap=0"]));
    assert!(run.metric("grad_norm")[0] > 0.0);
    // All of a step's pairs are too close, so nothing has a gradient.
    let tied = Trajectory::of(&plan(&workshop, &["train.steps=1", "rollout.min_gap=1000"]));
    assert_eq!((tied.metric("grad_norm")[0], tied.metric("rollout/kept")[0]), (0.0, 0.0));
}

#[test]
fn micro_batches_draw_what_the_whole_batch_draws() {
    let workshop = workshop();
    for pairs in ["rollout.pairs=steps", "rollout.pairs=images"] {
        let run = |size: &str| Trajectory::of(&plan(&workshop, &[pairs, size, "train.steps=2"]));
        let (whole, parts) = (run("train.micro_batch_size=2"), run("train.micro_batch_size=1"));
        for name in ["score/chosen", "score/rejected", "grad_norm"] {
            for (a, b) in whole.metric(name).iter().zip(parts.metric(name)) {
                assert!((a - b).abs() < 2e-3 * a.abs().max(1e-3), "{pairs}, {name}: {a} {b}");
            }
        }
    }
}

#[test]
fn what_a_rollout_has_not_is_refused() {
    let workshop = workshop();
    for (overrides, expected) in [
        (&["objective.mapo.beta=1"][..], "looks at denoising errors"),
        (&["objective.smpo.beta=1"], "scored margins"),
        (&["diffusion.noise=shared"], "diffusion.noise"),
        (&["rollout.eta=0"], "has no probability"),
        (&["rollout.candidates=3", "rollout.pairs=images"], "rollout.candidates"),
    ] {
        let overrides: Vec<String> = CHAIN.iter().chain(overrides).map(|entry| (*entry).to_owned()).collect();
        let message = Plan::read(&workshop.path("recipe.toml"), &overrides).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    let late = plan(&workshop, &["rollout.first_step=6"]);
    let late = votive_train::prepare(&late, &candle_core::Device::Cpu, &crate::drive::brightness, |_, _| {});
    assert!(late.err().unwrap().to_string().contains("rollout.first_step = 6"));
}
