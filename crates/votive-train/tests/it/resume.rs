//! Runs that are stopped and go on: the same bytes as a run that was never stopped.

use crate::drive::{drive, drive_watched};
use crate::workshop::{LORA, Workshop, replace_in};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use votive_train::events::EVENTS_FILE;
use votive_train::{Plan, RunDirectory, TrainError};

/// Every file below a folder.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            files
                .extend(contents(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            files.insert(name, fs::read(&path).unwrap());
        }
    }
    files
}

/// What a finished run leaves, without the checkpoints on the way.
fn results(directory: &RunDirectory) -> BTreeMap<String, Vec<u8>> {
    let mut files = contents(directory.path());
    files.retain(|name, _| !name.starts_with("checkpoints/") || name.starts_with("checkpoints/step-000006/"));
    // Events have the time of day in them; what they say is the log's.
    let events = files.remove(EVENTS_FILE).unwrap();
    let lines =
        |name: &str| files.get(name).map_or(0, |log| log.iter().filter(|byte| **byte == b'\n').count());
    assert_eq!(records(&events), 2 + lines("metrics.jsonl") + lines("evaluations.jsonl"));
    files
}

/// Records of an event file: a length, its checksum, the data, its checksum.
fn records(mut events: &[u8]) -> usize {
    let mut n = 0;
    while let Some((length, rest)) = events.split_first_chunk() {
        events = &rest[4 + u64::from_le_bytes(*length) as usize + 4..];
        n += 1;
    }
    assert!(events.is_empty());
    n
}

#[track_caller]
fn assert_same_results(directory: &RunDirectory, whole: &RunDirectory) {
    let (found, expected) = (results(directory), results(whole));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in &found {
        assert!(*bytes == expected[name], "{name} differs");
    }
}

#[track_caller]
fn assert_interrupted(result: votive_train::Result<Vec<TrainError>>, at: u64) {
    assert!(matches!(result, Err(TrainError::Interrupted { step, .. }) if step == at), "{result:?}");
}

/// A run of six steps that nothing disturbed.
fn undisturbed(workshop: &Workshop, plan: &Plan) -> RunDirectory {
    let directory = workshop.directory("whole", plan);
    assert!(drive(plan, &directory, None).unwrap().is_empty());
    let files = contents(directory.path());
    let log = String::from_utf8(files["metrics.jsonl"].clone()).unwrap();
    assert!(log.lines().count() == 6 && log.lines().all(|line| line.contains("grad_norm")));
    assert!(
        ["plan.toml", "final/manifest.json"].iter().all(|name| files.contains_key(*name)),
        "{:?}",
        files.keys()
    );
    directory
}

pub(crate) fn check_every_step(workshop: &Workshop, overrides: &[&str]) {
    let plan = workshop.plan(overrides);
    let whole = undisturbed(workshop, &plan);
    for stop in 1..6 {
        let directory = workshop.directory(&format!("stopped{stop}"), &plan);
        assert_interrupted(drive(&plan, &directory, Some(stop)), stop);
        assert!(drive(&plan, &directory, None).unwrap().is_empty());
        assert_same_results(&directory, &whole);
    }
    let directory = workshop.directory("stopped after every step", &plan);
    for stop in 1..6 {
        assert_interrupted(drive(&plan, &directory, Some(stop)), stop);
    }
    // A signal during the last step comes too late to interrupt anything.
    drive(&plan, &directory, Some(6)).unwrap();
    assert_same_results(&directory, &whole);
}

#[test]
fn references_that_follow_the_policy_resume_at_every_step() {
    let soft = ["reference.kind=soft", "reference.every=2"];
    check_every_step(&Workshop::text(), &soft);
    check_every_step(&Workshop::image(), &[&[LORA], &soft[..]].concat());
    check_every_step(&Workshop::text(), &[LORA, "reference.kind=bema", "reference.every=2"]);
    // One that may go nowhere, so that it is frozen at its first update, and noise that the policy inverts.
    let limited = ["reference.kind=hard", "reference.every=2", "reference.max_divergence=1e-9"];
    let inverted = ["diffusion.noise=inversion", "diffusion.inversion_steps=2"];
    check_every_step(&Workshop::image(), &[&limited[..], &inverted].concat());
}

#[test]
fn a_moving_average_resumes_at_every_step() {
    let average = ["ema.decay=0.6", "ema.after=1"];
    check_every_step(&Workshop::text(), &average);
    check_every_step(&Workshop::image(), &[&[LORA], &average[..]].concat());
}

#[test]
fn pictures_that_are_drawn_and_rewarded_resume_at_every_step() {
    let workshop = Workshop::image();
    fs::write(workshop.path("prompts.txt"), "a lake\na hill\n").unwrap();
    workshop.edit("pairs.jsonl", "prompts.txt");
    workshop.edit("[objective.dpo]", "[objective.sft]");
    let clip = format!("rollout.clip={}", crate::fixture("clip/quick").display());
    let rewarded = ["rollout.pairs=none", "rollout.reward=clip", &clip, "rollout.steps=2", "rollout.cfg=1"];
    check_every_step(&workshop, &[&rewarded[..], &["reference.kind=none"]].concat());
}

#[test]
fn text_resumes_at_every_step() {
    check_every_step(&Workshop::text(), &[]);
}

#[test]
fn a_text_adapter_resumes_at_every_step() {
    check_every_step(&Workshop::text(), &[LORA, "reference.kind=adapter_off"]);
}

#[test]
fn an_adapter_on_a_base_in_fewer_bytes_resumes_at_every_step() {
    let base = [LORA, "adapter.lora.base=int8", "reference.kind=adapter_off"];
    check_every_step(&Workshop::text(), &base);
}

#[test]
fn a_mixture_of_objectives_resumes_at_every_step() {
    check_every_step(&Workshop::text(), &["objective.tdpo.weight=0.5", "objective.sft.weight=0.5"]);
}

#[test]
fn unpaired_text_resumes_at_every_step() {
    check_every_step(&Workshop::unpaired_text(), &["objective.kto.beta=0.2", LORA]);
}

#[test]
fn a_running_mean_of_log_ratios_resumes_at_every_step() {
    check_every_step(&Workshop::unpaired_text(), &["objective.bco.beta=0.5"]);
    check_every_step(&Workshop::text(), &["objective.bco.beta=0.5", "train.batch_size=2"]);
}

#[test]
fn a_reward_model_resumes_at_every_step() {
    let centred = "objective.bradley_terry.with.center_rewards.coefficient=0.01";
    for overrides in [&[][..], &[LORA, centred]] {
        let workshop = Workshop::text();
        workshop.edit("[objective.dpo]", "[objective.bradley_terry]");
        check_every_step(&workshop, overrides);
    }
}

#[test]
fn images_resume_at_every_step() {
    check_every_step(&Workshop::image(), &["diffusion.caption_dropout=0.3"]);
}

#[test]
fn images_that_are_seen_otherwise_at_every_step_resume_at_every_step() {
    check_every_step(&Workshop::shapes(), &["data.flip=true", "data.crop=random", "data.buckets=true"]);
}

#[test]
fn an_image_adapter_resumes_at_every_step() {
    check_every_step(&Workshop::image(), &[LORA, "reference.kind=adapter_off"]);
}

/// kohya's file keeps α with fewer digits than the recipe, and has other names.
#[test]
fn an_adapter_of_convolutions_in_kohyas_format_resumes_at_every_step() {
    let adapter = [
        LORA,
        "adapter.lora.alpha=0.7",
        "adapter.lora.format=kohya",
        r#"adapter.lora.targets=["to_q", "conv1", "conv_in", "proj_out"]"#,
        "adapter.lora.rank_pattern={ conv1 = 3 }",
    ];
    check_every_step(&Workshop::image(), &adapter);
}

/// A finished run does nothing more, and its directory takes no other run.
#[test]
fn a_finished_run_stays_as_it_is() {
    let workshop = Workshop::text();
    let plan = workshop.plan(&[]);
    let whole = undisturbed(&workshop, &plan);
    let before = contents(whole.path());
    drive(&plan, &whole, None).unwrap();
    assert!(contents(whole.path()) == before);
    let refusal = |plan: &Plan| RunDirectory::create(whole.path(), plan).unwrap_err().to_string();
    assert!(refusal(&plan).contains("holds this run already"), "{}", refusal(&plan));
    let other = refusal(&workshop.plan(&["train.seed=12"]));
    assert!(other.contains("another recipe (train.seed was 11, is 12)"), "{other}");
}

/// A crash loses what came after the newest checkpoint: those steps are made again, and their metrics replaced.
#[test]
fn a_crash_between_checkpoints_is_made_good() {
    let workshop = Workshop::text();
    let plan = workshop.plan(&[]);
    let whole = undisturbed(&workshop, &plan);
    for (stop, lost) in [(5, "checkpoints/step-000005"), (2, "checkpoints")] {
        let directory = workshop.directory(&format!("crashed{stop}"), &plan);
        assert_interrupted(drive(&plan, &directory, Some(stop)), stop);
        fs::remove_dir_all(directory.path().join(lost)).unwrap();
        let metrics = directory.path().join("metrics.jsonl");
        let mut lines = fs::read(&metrics).unwrap();
        lines.extend(br#"{"step":6,"lo"#);
        fs::write(&metrics, lines).unwrap();
        drive(&plan, &directory, None).unwrap();
        assert_same_results(&directory, &whole);
    }
}

#[test]
fn a_flipped_bit_makes_an_older_checkpoint_the_newest() {
    let workshop = Workshop::text();
    let plan = workshop.plan(&[]);
    let whole = undisturbed(&workshop, &plan);
    for file in ["model.safetensors", "trainer/optimizer.safetensors", "trainer/state.json", "manifest.json"]
    {
        let directory = workshop.directory(&file.replace('/', "-"), &plan);
        assert_interrupted(drive(&plan, &directory, Some(4)), 4);
        let broken = directory.path().join("checkpoints/step-000004").join(file);
        let mut bytes = fs::read(&broken).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&broken, bytes).unwrap();
        let skipped: Vec<String> =
            drive(&plan, &directory, None).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(skipped.len(), 1, "{skipped:?}");
        assert!(skipped[0].contains("step-000004") && skipped[0].contains(file), "{skipped:?}");
        assert_same_results(&directory, &whole);
    }
}

#[test]
fn a_changed_plan_is_refused_by_the_key() {
    let workshop = Workshop::text();
    let plan = workshop.plan(&[]);
    let directory = workshop.directory("run", &plan);
    assert_interrupted(drive(&plan, &directory, Some(2)), 2);
    let path = directory.path().to_owned();
    let plan_file = directory.plan_file();
    drop(directory);
    let resume = || {
        let directory = RunDirectory::open(&path).unwrap();
        drive(&Plan::read(&directory.plan_file(), &[]).unwrap(), &directory, None)
    };
    replace_in(&plan_file, "lr = 0.001", "lr = 0.002");
    let message = resume().unwrap_err().to_string();
    assert!(
        message.contains("plan.toml was changed") && message.contains("optimizer.lr was 0.001, is 0.002"),
        "{message}"
    );
    replace_in(&plan_file, "lr = 0.002", "lr = 0.001");
    resume().unwrap();
}

/// A save that fails half-way, as on a full disk, leaves the older checkpoint and nothing else.
#[test]
fn a_save_that_fails_leaves_the_older_checkpoint() {
    let workshop = Workshop::text();
    let model = workshop.path("model");
    copy_folder(&crate::fixture("text/llama"), &model);
    let plan = workshop.plan(&[&format!("model.path={}", model.display()), "train.save_every=2"]);
    let whole = undisturbed(&workshop, &plan);
    let directory = workshop.directory("run", &plan);
    // A file of the tokenizer that cannot be copied: the weights are written by then.
    let obstacle = model.join("vocab.json");
    let failed = drive_watched(&plan, &directory, |step| {
        if step == 3 {
            fs::create_dir(&obstacle).unwrap();
        }
        false
    });
    let message = failed.unwrap_err().to_string();
    assert!(message.contains("vocab.json"), "{message}");
    let left = contents(&directory.path().join("checkpoints"));
    assert!(left.keys().all(|name| name.starts_with("step-000002/")), "{:?}", left.keys());
    fs::remove_dir(&obstacle).unwrap();
    assert!(drive(&plan, &directory, None).unwrap().is_empty());
    assert_same_results(&directory, &whole);
}

/// A process that is killed while it saves leaves a folder, which the next one removes; two cannot have a run at once.
#[test]
fn a_directory_is_used_by_one_process_at_a_time_and_swept() {
    let workshop = Workshop::text();
    let plan = workshop.plan(&[]);
    let whole = undisturbed(&workshop, &plan);
    let directory = workshop.directory("run", &plan);
    assert_interrupted(drive(&plan, &directory, Some(4)), 4);
    let path = directory.path().to_owned();
    let refusal = RunDirectory::open(&path).unwrap_err().to_string();
    assert!(refusal.contains(&format!("is in use by process {}", std::process::id())), "{refusal}");
    drop(directory);
    copy_folder(&path.join("checkpoints/step-000003/trainer"), &path.join("checkpoints/.tmp-step-000005-1"));
    copy_folder(&path.join("checkpoints/step-000003/trainer"), &path.join(".tmp-final-1"));
    let directory = RunDirectory::open(&path).unwrap();
    assert!(drive(&plan, &directory, None).unwrap().is_empty());
    assert_same_results(&directory, &whole);
    let left: Vec<String> = contents(&path).into_keys().filter(|name| name.contains(".tmp-")).collect();
    assert_eq!(left, [""; 0]);
    drop((directory, whole));
    assert!(!contents(&path).contains_key("run.lock"));
}

#[test]
fn a_run_that_evaluates_resumes_at_every_step() {
    check_every_step(&Workshop::text(), &["data.eval_fraction=0.3", "eval.every=2"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let workshop = Workshop::text();
    let plan = workshop.plan(&[]);
    let directory = workshop.directory("run", &plan);
    fs::write(directory.path().join("checkpoints"), "a file where a folder should be").unwrap();
    let message = drive(&plan, &directory, None).unwrap_err().to_string();
    assert!(message.contains("checkpoints"), "{message}");
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for (name, bytes) in contents(from) {
        fs::write(to.join(name), bytes).unwrap();
    }
}
