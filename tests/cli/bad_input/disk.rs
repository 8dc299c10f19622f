//! Disks that are full, and targets that are no files.

use super::*;

/// `ulimit -f` counts blocks of half a KiB. The model has some 140 KiB, the optimizer's moments twice that.
#[cfg(target_os = "linux")]
mod limit {
    pub(super) const BELOW_THE_MODEL: &str = "-f 100";
    pub(super) const BELOW_THE_MOMENTS: &str = "-f 400";
}

#[cfg(target_os = "linux")]
#[track_caller]
fn disk_is_full(output: &Output, file: &str) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(RESOURCES), "{message}");
    assert!(message.contains(file) && message.contains("File too large"), "{message}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_on_save_leaves_a_run_that_can_go_on() {
    let trial = Trial::text();
    let whole = trial.undisturbed(&[]);
    let output = limited(limit::BELOW_THE_MODEL, &trial.training(&[]));
    disk_is_full(&output, "model.safetensors");
    let left = || contents(Path::new(&trial.path("run"))).into_keys().collect::<Vec<_>>();
    assert_eq!(left(), ["checkpoints/", "events.out.tfevents.votive", "metrics.jsonl", "plan.toml"]);
    disk_is_full(&limited(limit::BELOW_THE_MOMENTS, &trial.resuming()), "optimizer.safetensors");
    assert_eq!(left(), ["checkpoints/", "events.out.tfevents.votive", "metrics.jsonl", "plan.toml"]);
    // It had not saved yet, so it starts over.
    trial.works(&trial.resuming());
    assert!(trial.finished("run") == whole, "another model than that of an undisturbed run");
    assert_eq!(fs::read_to_string(trial.path("run/metrics.jsonl")).unwrap().lines().count(), 6);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_keeps_the_checkpoint_before() {
    let trial = Trial::text();
    let whole = trial.undisturbed(&[]);
    trial.works(&trial.training(&[]));
    for later in ["checkpoints/step-000004", "checkpoints/step-000006", "final"] {
        fs::remove_dir_all(trial.path(&format!("run/{later}"))).unwrap();
    }
    let checkpoints = || contents(Path::new(&trial.path("run/checkpoints")));
    let before = checkpoints();
    disk_is_full(&limited(limit::BELOW_THE_MOMENTS, &trial.resuming()), "optimizer.safetensors");
    assert!(checkpoints() == before, "the checkpoint of step 2 was changed");
    trial.works(&trial.resuming());
    assert!(trial.finished("run") == whole, "another model than that of an undisturbed run");
}

/// A link to a device is written through and stays a link; what cannot be written is said to be full.
#[cfg(target_os = "linux")]
#[test]
fn a_device_is_written_to_and_never_replaced() {
    let trial = Trial::text();
    let full = trial.path("full");
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    let (model, data) = (fixture("text/llama"), fixture(TEXT_DATA));
    let space = ["/full", "No space left on device"];
    fails(&["score", "--model", &model, "--data", &data, "--out", &full], RESOURCES, &space);
    fails(&["inspect", &trial.path("recipe.toml"), "--dump", &full], RESOURCES, &space);
    assert_eq!(fs::read_link(&full).unwrap(), Path::new("/dev/full"));
    assert_eq!(fs::read_dir(trial.path("")).unwrap().count(), 2);
}

#[test]
fn a_folder_in_the_place_of_a_file_is_refused() {
    let trial = Trial::text();
    let folder = trial.path("folder");
    fs::create_dir(&folder).unwrap();
    let (model, data) = (fixture("text/llama"), fixture(TEXT_DATA));
    let score = ["score", "--model", &model, "--data", &data, "--out", &folder];
    trial.untouched(&score, DATA, &["/folder", "directory"]);
    trial.untouched(
        &["inspect", &trial.path("recipe.toml"), "--dump", &folder],
        DATA,
        &["/folder", "directory"],
    );
}

#[test]
fn a_file_in_the_place_of_a_folder_is_refused() {
    let trial = Trial::text();
    let file = trial.folder.text("file", "");
    let recipe = trial.path("recipe.toml");
    for out in [file.clone(), format!("{file}/run")] {
        trial.untouched(&["train", &recipe, "--quiet", "--out", &out], DATA, &["/file", "(os error "]);
    }
    let model = fixture("diffusion/sd1");
    let sample = ["sample", "--model", &model, "--prompt", "a", "--steps", "1", "--out", &file];
    trial.untouched(&sample, DATA, &["/file", "(os error "]);
}
