//! A moving average of the weights: it follows them, changes nothing of the run, and may be what the run ends with.

use crate::drive::{Named, drive, values};
use crate::workshop::{LORA, Workshop};
use candle_core::Device;
use std::fs;
use std::path::Path;
use votive_model::files;
use votive_train::Plan;

fn tensors(file: &Path) -> Named {
    let tensors = files::read(file, &Device::Cpu).unwrap().tensors;
    tensors.into_iter().map(|(name, tensor)| (name, values(&tensor))).collect()
}

/// What is in a file of every checkpoint, and of the finished model.
fn run(workshop: &Workshop, name: &str, overrides: &[&str], file: &str) -> (Vec<Named>, Named) {
    let plan = workshop.plan(&[&["train.save_every=1", "train.steps=4"], overrides].concat());
    let directory = workshop.directory(name, &plan);
    drive(&plan, &directory, None).unwrap();
    let saved =
        (1..=4).map(|step| tensors(&directory.path().join(format!("checkpoints/step-{step:06}/{file}"))));
    (saved.collect(), tensors(&directory.final_folder().join(file)))
}

#[test]
fn the_finished_model_is_the_average_of_the_checkpoints() {
    for (workshop, adapter, file) in [
        (Workshop::text(), &[][..], "model.safetensors"),
        (Workshop::text(), &[LORA, "reference.kind=adapter_off"], "adapter_model.safetensors"),
    ] {
        let with = |overrides: &[&'static str]| [adapter, overrides].concat();
        let (plain, last) = run(&workshop, "plain", &with(&[]), file);
        assert_eq!(plain[3], last);
        let (averaged, finished) = run(&workshop, "averaged", &with(&["ema.decay=0.15"]), file);
        assert_eq!(plain, averaged, "an average changes the weights");
        // Decays 0, 2/11 and 3/12, but never more than 0.15: the first average is the first step's weights.
        let mut expected = plain[0].clone();
        for weights in &plain[1..] {
            for (name, average) in &mut expected {
                for (average, weight) in average.iter_mut().zip(&weights[name]) {
                    *average -= 0.85 * (*average - weight);
                }
            }
        }
        for (name, found) in &finished {
            for (found, expected) in found.iter().zip(&expected[name]) {
                assert!((found - expected).abs() < 1e-6, "{name}: {found} {expected}");
            }
        }
        assert_ne!(finished, last);
        let (_, kept_apart) = run(&workshop, "apart", &with(&["ema.decay=0.15", "ema.final=false"]), file);
        assert_eq!(kept_apart, last);
    }
}

#[test]
fn settings_that_say_nothing_are_refused() {
    let workshop = Workshop::text();
    for (overrides, expected) in [
        (&["ema.decay=1"][..], "must be below 1"),
        (&["ema.min_decay=0.9", "ema.decay=0.5"], "at most ema.decay"),
        (&["ema.power=1"], "ema.power"),
        (&["ema.warmup=power", "ema.inv_gamma=0"], "above 0"),
    ] {
        let overrides: Vec<String> = overrides.iter().map(|entry| (*entry).to_owned()).collect();
        let message = Plan::read(&workshop.path("recipe.toml"), &overrides).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    let plan = workshop.plan(&["ema.warmup=power"]);
    assert!(plan.to_toml().contains("[ema]"), "{}", plan.to_toml());
    fs::write(workshop.path("resolved.toml"), plan.to_toml()).unwrap();
    assert_eq!(Plan::read(&workshop.path("resolved.toml"), &[]).unwrap().ema, plan.ema);
}
