//! Rewards with a gradient by a picture's pixels: pictures that are compared with nothing, and candidates that are moved.

use crate::drive::{Trajectory, values, with_prepared};
use crate::fixture;
use crate::workshop::{LORA, Workshop};
use candle_core::{Device, Tensor, Var};
use std::fs;
use votive_model::stable_diffusion::StableDiffusionFolder;
use votive_train::reward::{ImageReward, PictureScorer};
use votive_train::{Plan, Run};

/// Three prompts, two of them a step, and the reward of a CLIP model.
fn workshop(objective: &str) -> Workshop {
    let workshop = Workshop::image();
    fs::write(workshop.path("prompts.txt"), "a red circle\ntwo blue squares\na triangle\n").unwrap();
    workshop.edit("pairs.jsonl", "prompts.txt");
    workshop.edit("[objective.dpo]", objective);
    workshop
}

fn plan(workshop: &Workshop, overrides: &[&str]) -> Plan {
    let clip = format!("rollout.clip={}", fixture("clip/quick").display());
    workshop.plan(&[&["rollout.reward=clip", &clip, "rollout.steps=4"], overrides].concat())
}

const REFL: [&str; 3] = ["rollout.pairs=none", "rollout.cfg=1.5", "reference.kind=none"];

fn refl(workshop: &Workshop, overrides: &[&str]) -> Plan {
    plan(workshop, &[&REFL, overrides].concat())
}

fn find(tensors: &[(String, Tensor)], name: &str) -> Vec<f32> {
    let (_, tensor) = tensors.iter().find(|(key, _)| key == name).unwrap();
    values(&tensor.to_dtype(candle_core::DType::F32).unwrap())
}

/// A step of the run that trains the first step of the chain: what it is given depends on no network.
fn from_noise<F: votive_train::front_end::FrontEnd>(run: &Run<F>) -> u64 {
    // The first of four steps of a thousand times, in diffusers' leading spacing with an offset of one.
    const FIRST: f32 = 751.0;
    let is_first = |step: &u64| find(&run.inspect(*step, false).unwrap().tensors, "timestep")[0] == FIRST;
    (0..32).find(is_first).unwrap()
}

#[test]
fn the_gradient_through_the_pixels_is_the_slope_of_the_reward() {
    let workshop = workshop("[objective.sft]");
    for adapter in [&[][..], &[LORA]] {
        let plan = refl(&workshop, adapter);
        with_prepared!(&plan, |front, start| {
            let run = Run::new(&plan, &front, start, None, |_, _| {}).unwrap();
            let step = from_noise(&run);
            let found = run.evaluate(step).unwrap();
            let trained = run.params().trainable();
            let gradient = |name: &str| found.gradients.get(name).unwrap().clone();
            let square: f64 = trained
                .iter()
                .flat_map(|(name, _)| values(&gradient(name)))
                .map(|x| f64::from(x) * f64::from(x))
                .sum();
            // Along the gradient, by a length that f32 can see and a curve cannot.
            let length = 2e-2;
            let moved = |sign: f64| {
                for (name, tensor) in &trained {
                    let shift = (gradient(name) * (sign * length / square.sqrt())).unwrap();
                    Var::from_tensor(tensor).unwrap().set(&(tensor.detach() + shift).unwrap()).unwrap();
                }
                run.evaluate(step).unwrap().loss
            };
            let above = moved(1.0);
            let below = moved(-2.0);
            let slope = (above - below) / (2.0 * length);
            let error = (slope - square.sqrt()).abs() / square.sqrt();
            assert!(error < 2e-2, "{adapter:?}: slope {slope}, gradient {}", square.sqrt());
        });
    }
}

#[test]
fn a_reward_rises_and_its_negative_is_the_loss() {
    let workshop = workshop("[objective.sft]");
    let plan = refl(&workshop, &["train.steps=12", "optimizer.lr=3e-4", "optimizer.schedule=constant"]);
    with_prepared!(&plan, |front, start| {
        let mut run = Run::new(&plan, &front, start, None, |_, _| {}).unwrap();
        let step = from_noise(&run);
        let before = run.evaluate(step).unwrap();
        assert!((before.loss + before.means["score"]).abs() < 1e-5, "{:?}", before.means);
        assert!(!before.means.keys().any(|name| name.starts_with("rewards")), "{:?}", before.means);
        (0..12).for_each(|_| drop(run.step().unwrap()));
        let after = run.evaluate(step).unwrap().means["score"];
        assert!(after > before.means["score"] + 0.05, "{} -> {after}", before.means["score"]);
    });
    // The other way round with what is preferred.
    let first = |prefer: &str| Trajectory::of(&refl(&workshop, &["train.steps=1", prefer])).metric("loss")[0];
    let (loss, turned) = (first("data.prefer=chosen"), first("data.prefer=rejected"));
    assert!((loss + turned).abs() < 1e-5, "{loss} {turned}");
}

#[test]
fn a_reward_that_is_enough_gives_no_gradient() {
    let workshop = workshop("[objective.sft]");
    let first = |enough: &str| Trajectory::attempt(&refl(&workshop, &["train.steps=1", enough]));
    let message = first("rollout.enough=-1000").unwrap_err().to_string();
    assert!(message.contains("no gradient"), "{message}");
    let (free, far) = (first("rollout.enough=none").unwrap(), first("rollout.enough=1000").unwrap());
    assert_eq!(free.metric("loss"), far.metric("loss"));
}

#[test]
fn micro_batches_and_weights_add_up() {
    let workshop = workshop("[objective.sft]");
    let run =
        |overrides: &[&str]| Trajectory::of(&refl(&workshop, &[&["train.steps=1"], overrides].concat()));
    let whole = run(&[]);
    let parts = run(&["train.micro_batch_size=1"]);
    let light = run(&["objective.sft.weight=0.001"]);
    let same = |a: f64, b: f64| (a - b).abs() < 2e-3 * a.abs();
    assert!(same(whole.metric("grad_norm")[0], parts.metric("grad_norm")[0]));
    assert!(same(whole.metric("grad_norm")[0], 1000.0 * light.metric("grad_norm")[0]));
}

/// The candidate that is preferred is moved by so many deviations of the step, to where its reward is higher.
#[test]
fn a_winner_is_moved_along_the_gradient_of_its_reward() {
    let workshop = workshop("[objective.dpo]");
    // The last step leads to clean latents, whose pictures can be scored here.
    let last = ["rollout.candidates=2", "rollout.first_step=3", "rollout.cfg=1.5"];
    let next = |ascent: &str| {
        let plan = plan(&workshop, &[&last[..], &[ascent]].concat());
        with_prepared!(&plan, |front, start| {
            let run = Run::new(&plan, &front, start, None, |_, _| {}).unwrap();
            let tensors = run.inspect(0, false).unwrap().tensors;
            let (_, next) = tensors.into_iter().find(|(name, _)| name == "next_latents").unwrap();
            next
        })
    };
    let (still, moved, further) =
        (next("rollout.ascent=0"), next("rollout.ascent=0.5"), next("rollout.ascent=1"));
    let side = |next: &Tensor, first: usize| next.narrow(0, first, 2).unwrap();
    assert_eq!(values(&side(&still, 2)), values(&side(&moved, 2)));
    let way = |next: &Tensor| {
        let change = (side(next, 0) - side(&still, 0)).unwrap().sqr().unwrap();
        values(&change.flatten_from(1).unwrap().mean(1).unwrap())
            .into_iter()
            .map(f32::sqrt)
            .collect::<Vec<_>>()
    };
    for (half, whole) in way(&moved).into_iter().zip(way(&further)) {
        assert!(half > 0.0 && (whole / half - 2.0).abs() < 1e-3, "{half} {whole}");
    }
    let folder = StableDiffusionFolder::open(&fixture("diffusion/sd1")).unwrap();
    let (vae, reward) = (
        folder.read_vae(&Device::Cpu).unwrap(),
        PictureScorer::open(&fixture("clip/quick"), &Device::Cpu).unwrap(),
    );
    let plan = plan(&workshop, &last);
    let prompts: Vec<String> = with_prepared!(&plan, |front, start| {
        let run = Run::new(&plan, &front, start, None, |_, _| {}).unwrap();
        let lines = run.inspect(0, false).unwrap().lines;
        lines[..2].iter().map(|line| line.split('"').nth(1).unwrap().to_owned()).collect()
    });
    let scores = |next: &Tensor| {
        let latents = (side(next, 0) / vae.config().scaling_factor).unwrap();
        let images = ((vae.decode(&latents).unwrap() / 2.0).unwrap() + 0.5).unwrap().clamp(0.0, 1.0).unwrap();
        reward.score(&prompts, &images).unwrap()
    };
    for (before, after) in scores(&still).into_iter().zip(scores(&moved)) {
        assert!(after > before, "{before} -> {after}");
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let workshop = workshop("[objective.sft]");
    for (overrides, expected) in [
        (&["rollout.pairs=none"][..], "gradient by a picture's pixels"),
        (&["rollout.ascent=1"], "gradient by a picture's pixels"),
        (&["rollout.reward=clip"], "rollout.clip is missing"),
        (
            &["rollout.pairs=none", "rollout.reward=clip", "rollout.clip=a", "rollout.candidates=2"],
            "rollout.candidates",
        ),
        (
            &["rollout.pairs=none", "rollout.reward=clip", "rollout.clip=a", "objective.dpo.beta=1"],
            "`dpo`: compares pairs",
        ),
        (&["rollout.enough=1"], "rollout.enough"),
    ] {
        let overrides: Vec<String> = overrides.iter().map(|entry| (*entry).to_owned()).collect();
        let message = Plan::read(&workshop.path("recipe.toml"), &overrides).unwrap_err().to_string();
        let expected = expected.replace("`dpo`: ", "objective.dpo: ");
        assert!(message.contains(&expected), "{message}");
    }
    let missing = ["rollout.reward=clip", "rollout.clip=nowhere"];
    let missing = workshop.plan(&missing);
    let reward = crate::drive::brightness;
    let message =
        votive_train::prepare(&missing, &Device::Cpu, &reward, |_, _| {}).err().unwrap().to_string();
    assert!(message.contains("nowhere") && message.contains("config.json"), "{message}");
}

/// Steps in which all candidates tie are made and logged; a run of nothing else ends.
#[test]
fn ties_do_not_stop_a_run_at_once() {
    let workshop = workshop("[objective.dpo]");
    let tied = |steps: &str| {
        Trajectory::attempt(&plan(
            &workshop,
            &["rollout.min_gap=1000", "rollout.steps=2", "rollout.cfg=1", steps],
        ))
    };
    let run = tied("train.steps=3").unwrap();
    assert_eq!((run.metric("rollout/kept"), run.metric("grad_norm")), (vec![0.0; 3], vec![0.0; 3]));
    let message = tied("train.steps=51").unwrap_err().to_string();
    assert!(message.contains("last 50 steps") && message.contains("rollout.min_gap"), "{message}");
}
