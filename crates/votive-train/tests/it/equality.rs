//! Runs that must be equal: however the batch is cut, whatever holds the reference, whether layers are recomputed.

use crate::drive::{Named, Trajectory};
use crate::workshop::{LORA, Workshop};

/// Cutting a batch changes the order of sums, so the last bits of a gradient; relative to the norm of all gradients.
const GRADIENTS: f64 = 1e-5;
/// Absolute, at a learning rate of 1e-3: a hundredth of what one step of Adam moves a weight. Adam divides a gradient by
/// its own size, so that rounding moves the keys of attention, which hardly have a gradient.
const WEIGHTS: f64 = 1e-5;
/// Relative above 1, absolute below.
const METRICS: f64 = 1e-5;

/// The largest distance of two values of the same name and place, and the name.
fn largest_distance<'a>(a: &'a Named, b: &Named) -> (f64, &'a str) {
    assert_eq!(a.len(), b.len());
    let distance = |(name, a): (&'a String, &Vec<f32>)| {
        let distances = a.iter().zip(&b[name]).map(|(a, b)| f64::from((a - b).abs()));
        (distances.fold(0.0, f64::max), name.as_str())
    };
    a.iter().map(distance).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

/// Trains on eight rows at a time and on one row at a time.
pub(crate) fn check_cut(workshop: &Workshop, overrides: &[&str]) -> Trajectory {
    let run = |micro| {
        let sizes = ["train.batch_size=8", micro, "train.steps=4"];
        Trajectory::of(&workshop.plan(&[overrides, &sizes[..]].concat()))
    };
    let (whole, single) = (run("train.micro_batch_size=8"), run("train.micro_batch_size=1"));
    let (distance, name) = largest_distance(&whole.gradients, &single.gradients);
    assert!(distance <= GRADIENTS * whole.metric("grad_norm")[0], "gradient of {name}: {distance:e}");
    for (whole, single) in whole.metrics.iter().zip(&single.metrics) {
        for (key, value) in whole.as_object().unwrap() {
            let (a, b) = (value.as_f64().unwrap(), single[key].as_f64().unwrap());
            assert!((a - b).abs() <= METRICS * a.abs().max(1.0), "{key}: {a} {b}");
        }
    }
    let (distance, name) = largest_distance(&whole.weights, &single.weights);
    assert!(distance <= WEIGHTS, "weight {name}: {distance:e}");
    whole
}

#[test]
fn one_batch_of_eight_is_eight_of_one() {
    for adapter in [&[][..], &[LORA]] {
        check_cut(&Workshop::text(), adapter);
        check_cut(&Workshop::image(), &[adapter, &["objective.dpo.beta=100"]].concat());
    }
}

#[test]
fn one_batch_of_eight_is_eight_of_one_with_a_divergence_estimate() {
    for workshop in [Workshop::text(), Workshop::unpaired_text()] {
        // Where completions are wanted more than unwanted, all become likelier, and the estimate rises above 0.
        let run = check_cut(&workshop, &["objective.kto.undesirable_weight=0.1"]);
        assert!(run.metric("kl")[3] > 0.0, "{:?}", run.metric("kl"));
    }
}

/// However a sum is divided, and where several sums are divided in different ways; completions differ in length.
#[test]
fn one_batch_of_eight_is_eight_of_one_for_every_reduction() {
    let workshop = Workshop::text();
    for overrides in [
        &["objective.dpo.reduction=sum"][..],
        &["objective.dpo.reduction=tokens"],
        &["objective.sft.weight=1"],
        &["objective.sft.reduction=mean", "objective.sft.per_token=true"],
        &["objective.dpo.weight=0.8", "objective.sft.weight=0.2"],
        &["objective.ld_dpo.reduction=tokens"],
        &["objective.tdpo.reduction=mean"],
    ] {
        check_cut(&workshop, overrides);
    }
    // Rows without a loss under one of the terms.
    check_cut(&Workshop::unpaired_text(), &["objective.kto.weight=1", "objective.sft.weight=0.3"]);
}

#[test]
fn a_sum_is_a_mean_times_the_rows() {
    let run = |reduction| Trajectory::of(&Workshop::text().plan(&["train.steps=1", reduction]));
    let (mean, sum) = (run("objective.dpo.reduction=mean"), run("objective.dpo.reduction=sum"));
    for metric in ["loss", "grad_norm"] {
        let ratio = sum.metric(metric)[0] / mean.metric(metric)[0];
        assert!((ratio - 4.0).abs() < 1e-5, "{metric}: {ratio}");
    }
}

#[test]
fn a_cached_reference_is_a_live_one() {
    let workshop = Workshop::text();
    for adapter in [&[][..], &[LORA], &[LORA, "adapter.lora.base=nf4"]] {
        let run = |kind| Trajectory::of(&workshop.plan(&[adapter, &[kind]].concat()));
        run("reference.kind=frozen").assert_same(&run("reference.kind=cached"));
    }
}

#[test]
fn the_network_below_the_adapter_is_a_frozen_copy() {
    for workshop in [Workshop::text(), Workshop::image()] {
        let run = |kind| Trajectory::of(&workshop.plan(&[LORA, kind]));
        run("reference.kind=frozen").assert_same(&run("reference.kind=adapter_off"));
    }
    let stored = |kind| Trajectory::of(&Workshop::text().plan(&[LORA, "adapter.lora.base=int8", kind]));
    stored("reference.kind=frozen").assert_same(&stored("reference.kind=adapter_off"));
}

#[test]
fn recomputed_layers_are_kept_layers() {
    let workshop = Workshop::text();
    for adapter in [&[][..], &[LORA]] {
        let run = |recompute| Trajectory::of(&workshop.plan(&[adapter, &[recompute]].concat()));
        run("train.recompute=false").assert_same(&run("train.recompute=true"));
    }
}

#[test]
fn a_seed_decides_everything() {
    for workshop in [Workshop::text(), Workshop::image()] {
        for adapter in [&[][..], &[LORA]] {
            let run = |seed| Trajectory::of(&workshop.plan(&[adapter, &[seed]].concat()));
            let first = run("train.seed=1");
            first.assert_same(&run("train.seed=1"));
            assert_ne!(first.weights, run("train.seed=2").weights);
        }
    }
}

/// However many threads there are: a run may be resumed on another machine.
#[test]
fn the_number_of_threads_does_not_matter() {
    for workshop in [Workshop::text(), Workshop::image()] {
        let plan = workshop.plan(&["train.steps=3"]);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Trajectory::of(&plan))
        };
        run(1).assert_same(&run(3));
    }
}
