//! What a run sees of its images: flips, crops, buckets, weights, and what is kept of encoded images.

use crate::drive::drive;
use crate::workshop::{Workshop, replace_in};
use candle_core::Device;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use votive_data::{FaultyRows, RowProblem};
use votive_model::Params;
use votive_train::front_end::{DenoisingFrontEnd, EncodedCounts, FrontEnd, Sample};
use votive_train::{Plan, Prepared, RowReport, Run, TrainError, prepare};

fn prepared(plan: &Plan) -> votive_train::Result<(DenoisingFrontEnd, Params, RowReport)> {
    match prepare(plan, &Device::Cpu, &crate::drive::no_reward, |_, _| {})? {
        Prepared::Image(front, start, report) => Ok((*front, start, report)),
        Prepared::Text(..) | Prepared::Reward(..) | Prepared::Rollout(..) => panic!("images"),
    }
}

fn counts(plan: &Plan) -> EncodedCounts {
    prepared(plan).unwrap().2.encoded.unwrap()
}

#[track_caller]
fn refusal(plan: &Plan) -> String {
    prepared(plan).err().unwrap().to_string()
}

/// Latents that a step sees of some rows.
fn latents(front: &DenoisingFrontEnd, step: u64, samples: &[Sample]) -> Vec<f32> {
    let batch = front.batch(step, samples).unwrap();
    let dump = front.dump(
        &batch,
        &candle_core::Tensor::zeros(2, candle_core::DType::F32, &Device::Cpu).unwrap(),
        None,
    );
    let named: BTreeMap<String, candle_core::Tensor> = dump.unwrap().into_iter().collect();
    named["latents"].flatten_all().unwrap().to_vec1().unwrap()
}

/// Numbers and weights that a run leaves.
fn outcome(workshop: &Workshop, name: &str, plan: &Plan) -> (String, Vec<u8>) {
    let directory = workshop.directory(name, plan);
    drive(plan, &directory, None).unwrap();
    let read = |file: &str| fs::read(directory.path().join(file)).unwrap();
    (
        String::from_utf8(read("metrics.jsonl")).unwrap(),
        read("final/unet/diffusion_pytorch_model.safetensors"),
    )
}

#[test]
fn a_batch_is_of_one_size_and_every_shape_is_kept() {
    let workshop = Workshop::shapes();
    let plan = workshop.plan(&["data.buckets=true"]);
    let (front, start, report) = prepared(&plan).unwrap();
    let sizes = &report.train.images.sizes;
    assert!(sizes.len() > 2 && sizes.values().sum::<usize>() == 5, "{sizes:?}");
    let run = Run::new(&plan, &front, start, None, |_, _| {}).unwrap();
    let mut seen = BTreeSet::new();
    for step in 0..20 {
        let samples = run.samples(step);
        assert_eq!(samples.len(), 2);
        let targets: BTreeSet<_> = front.frames(step, &samples).iter().map(|frame| frame.target).collect();
        assert_eq!(targets.len(), 1, "step {step}");
        seen.extend(samples.iter().map(|sample| sample.row));
        front.batch(step, &samples).unwrap();
    }
    assert_eq!(seen.len(), 5);
    let message = refusal(&workshop.plan(&["data.buckets=true", "diffusion.resolution=4"]));
    assert!(
        message
            .contains("diffusion.resolution: 4 pixels a side, but with data.buckets sides are multiples of"),
        "{message}"
    );
}

#[test]
fn held_out_rows_of_several_sizes_are_evaluated_and_never_augmented() {
    let workshop = Workshop::shapes();
    let data = format!("eval.path={}", workshop.path("pairs.jsonl").display());
    let plan = workshop.plan(&["data.buckets=true", "data.crop=random", "data.flip=true", &data]);
    let (front, start, _) = prepared(&plan).unwrap();
    let run = Run::new(&plan, &front, start, None, |_, _| {}).unwrap();
    let found = run.held_out().unwrap().unwrap();
    assert!(found.loss.is_finite());
    assert_eq!(run.held_out().unwrap().unwrap(), found);
    let held_out = Sample { row: front.rows() + 3, position: 0 };
    for step in 0..20 {
        let frames = front.frames(step, &[held_out]);
        assert!(frames.iter().all(|frame| !frame.flip), "{frames:?}");
        assert_eq!(frames, front.frames(0, &[held_out]));
    }
}

#[test]
fn both_sides_of_a_pair_are_seen_alike_and_otherwise_at_other_steps() {
    let workshop = Workshop::shapes();
    let (front, ..) = prepared(&workshop.plan(&["data.crop=random", "data.flip=true"])).unwrap();
    let samples = [Sample { row: 1, position: 0 }, Sample { row: 4, position: 1 }];
    let mut seen = BTreeSet::new();
    for step in 0..30 {
        let frames = front.frames(step, &samples);
        assert_eq!(frames[..2], frames[2..]);
        seen.insert(format!("{:?}", frames[0]));
        assert_eq!(frames[0].time_ids()[4..], [32, 32]);
    }
    assert!(seen.len() > 15, "{}", seen.len());
    assert_eq!(latents(&front, 3, &samples), latents(&front, 3, &samples));
    assert_ne!(latents(&front, 3, &samples), latents(&front, 4, &samples));
}

#[test]
fn a_flip_that_is_encoded_ahead_is_that_of_the_step() {
    let workshop = Workshop::shapes();
    let (plain, ..) = prepared(&workshop.plan(&[])).unwrap();
    let (flipped, _, report) = prepared(&workshop.plan(&["data.flip=true"])).unwrap();
    assert_eq!(report.encoded.unwrap().computed, [20, 5]);
    let sample = [Sample { row: 2, position: 0 }];
    let mut flips = 0;
    for step in 0..10 {
        let same = latents(&plain, step, &sample) == latents(&flipped, step, &sample);
        let flip = flipped.frames(step, &sample)[0].flip;
        assert_eq!(same, !flip, "step {step}");
        flips += usize::from(flip);
    }
    assert!((1..10).contains(&flips));
}

#[test]
fn a_cache_changes_no_number_and_saves_the_encoding() {
    let workshop = Workshop::image();
    let cache = format!("data.cache={}", workshop.path("cache").display());
    let plan = workshop.plan(&[&cache]);
    let without = outcome(&workshop, "without", &workshop.plan(&[]));
    assert_eq!(outcome(&workshop, "cold", &plan), without);
    assert_eq!(counts(&plan), EncodedCounts { computed: [0, 0], found: [10, 5] });
    assert_eq!(outcome(&workshop, "warm", &plan), without);
    let (front, _, report) = prepared(&plan).unwrap();
    assert_eq!(front.numbers_in_memory(), 0);
    assert!(report.to_string().contains("found encoded: 10 images, 5 prompts"), "{report}");
    assert!(prepared(&workshop.plan(&[])).unwrap().0.numbers_in_memory() > 0);
}

#[test]
fn what_is_stale_is_never_found() {
    let workshop = Workshop::image();
    let cache = format!("data.cache={}", workshop.path("cache").display());
    let plan = |more: &[&str]| workshop.plan(&[&[cache.as_str()], more].concat());
    assert_eq!(counts(&plan(&[])).computed, [10, 5]);
    // Another size, and the mirrored images.
    assert_eq!(
        counts(&plan(&["diffusion.resolution=16"])),
        EncodedCounts { computed: [10, 0], found: [0, 5] }
    );
    assert_eq!(counts(&plan(&["data.flip=true"])), EncodedCounts { computed: [10, 0], found: [10, 5] });
    // Another image under the same name, another caption.
    fs::copy(workshop.path("chosen0.png"), workshop.path("kept.png")).unwrap();
    let picture = image::open(workshop.path("chosen0.png")).unwrap().brighten(9);
    picture.save(workshop.path("chosen0.png")).unwrap();
    replace_in(&workshop.path("pairs.jsonl"), "picture number 3", "something else");
    assert_eq!(counts(&plan(&[])), EncodedCounts { computed: [1, 1], found: [9, 4] });
    // Another autoencoder.
    let model = workshop.path("model");
    copy_folder(&crate::fixture("diffusion/sd1"), &model);
    let weights = model.join("vae/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x80;
    fs::write(&weights, bytes).unwrap();
    let other = format!("model.path={}", model.display());
    assert_eq!(counts(&plan(&[&other])), EncodedCounts { computed: [10, 0], found: [0, 5] });
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy_folder(&path, &target) } else { fs::copy(&path, &target).map(drop).unwrap() }
    }
}

#[test]
fn a_damaged_cache_is_named() {
    let workshop = Workshop::image();
    let plan = workshop.plan(&[&format!("data.cache={}", workshop.path("cache").display())]);
    counts(&plan);
    let file = fs::read_dir(workshop.path("cache"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("/images-"))
        .unwrap();
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let message = refusal(&plan);
    assert!(message.contains("/cache/images-") && message.contains("delete the file"), "{message}");
    fs::remove_file(&file).unwrap();
    assert_eq!(counts(&plan), EncodedCounts { computed: [10, 0], found: [0, 5] });
}

#[test]
fn a_corrupt_image_stops_a_run_or_is_dropped_and_counted() {
    let workshop = Workshop::image();
    let image = workshop.path("rejected2.png");
    let whole = fs::read(&image).unwrap();
    fs::write(&image, &whole[..whole.len() / 2]).unwrap();
    let plan = workshop.plan(&[]);
    assert_eq!(plan.data.rows.faulty_rows, FaultyRows::Error);
    let error = prepared(&plan).err().unwrap();
    assert!(matches!(error, TrainError::Data(_)));
    assert!(error.to_string().contains("pairs.jsonl: row 3, field `rejected`"), "{error}");
    let (front, _, report) = prepared(&workshop.plan(&["data.faulty_rows=drop"])).unwrap();
    assert_eq!((front.rows(), report.train.rows_kept), (4, 4));
    assert_eq!(report.train.dropped[&RowProblem::UnreadableImage].first, [3]);
}

#[test]
fn a_row_counts_by_its_weight() {
    let workshop = Workshop::image();
    replace_in(
        &workshop.path("pairs.jsonl"),
        r#""prompt": "picture number 1""#,
        r#""prompt": "picture number 1", "weight": 2.5"#,
    );
    let (front, _, report) = prepared(&workshop.plan(&[])).unwrap();
    let weights: Vec<f64> = (0..5).map(|row| front.weight(row)).collect();
    assert_eq!(weights, [1.0, 2.5, 1.0, 1.0, 1.0]);
    assert_eq!(report.train.weights.count, 1);
}
