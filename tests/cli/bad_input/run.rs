//! Run directories: of another run, of none, edited, and with damaged checkpoints.

use super::*;

#[test]
fn the_directory_of_another_run_is_refused() {
    let trial = Trial::text();
    trial.works(&trial.training(&["train.steps=1"]));
    let same = ["/run: holds this run already; go on with `votive resume`, or choose another --out"];
    trial.refused(&["train.steps=1"], USAGE, &same);
    let other = ["/run: holds a run of another recipe (train.seed was 11, is 12); choose another --out"];
    trial.refused(&["train.steps=1", "train.seed=12"], USAGE, &other);
}

#[test]
fn a_directory_without_a_run_cannot_be_resumed() {
    let trial = Trial::text();
    for name in ["none", "", "recipe.toml"] {
        trial.untouched(&["resume", &trial.path(name)], USAGE, &["holds no plan.toml, so it is not a run's"]);
    }
    fs::create_dir(trial.path("run")).unwrap();
    fs::write(trial.path("run/plan.toml"), "[train]\nstepps = 1\n").unwrap();
    let mistakes = ["run/plan.toml: ", "line 2, column 1: unknown key `train.stepps`"];
    trial.untouched(&trial.resuming(), USAGE, &mistakes);
}

#[test]
fn an_edited_plan_is_refused_by_its_key() {
    let trial = Trial::text();
    trial.works(&trial.training(&["train.steps=2"]));
    let whole = trial.finished("run");
    let plan = trial.path("run/plan.toml");
    for (from, to, difference) in [
        ("lr = 0.001", "lr = 0.002", "optimizer.lr was 0.001, is 0.002"),
        ("steps = 2", "steps = 4", "train.steps was 2, is 4"),
        ("beta = 0.1", "beta = 0.2", "objective.dpo.beta was 0.1, is 0.2"),
    ] {
        replace_in(&plan, from, to);
        let parts = ["/run: its plan.toml was changed after the run began", difference, "start a new run"];
        trial.untouched(&trial.resuming(), USAGE, &parts);
        replace_in(&plan, to, from);
    }
    trial.works(&trial.resuming());
    assert!(trial.finished("run") == whole);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_named() {
    let trial = Trial::text();
    let whole = trial.undisturbed(&[]);
    trial.works(&trial.training(&[]));
    fs::remove_dir_all(trial.path("run/final")).unwrap();
    // A byte of a weight, and a byte of a header.
    flip(&trial.path("run/checkpoints/step-000006/model.safetensors"), 100_000);
    flip(&trial.path("run/checkpoints/step-000004/trainer/optimizer.safetensors"), 20);
    let said = trial.works(&trial.resuming());
    for part in [
        "warning: passed over a checkpoint: ",
        "step-000006: not a whole checkpoint: model.safetensors does not have the contents that were written",
        "step-000004: not a whole checkpoint: trainer/optimizer.safetensors does not have the contents",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(trial.finished("run") == whole, "another model than that of an undisturbed run");
    assert_eq!(fs::read_to_string(trial.path("run/metrics.jsonl")).unwrap().lines().count(), 6);
}

#[test]
fn without_a_whole_checkpoint_a_run_starts_over_and_says_so() {
    let trial = Trial::text();
    trial.works(&trial.training(&["train.steps=2"]));
    let whole = trial.finished("run");
    let state = trial.path("run/checkpoints/step-000002/trainer/state.json");
    fs::write(&state, &fs::read(&state).unwrap()[..10]).unwrap();
    let said = trial.works(&trial.resuming());
    assert!(said.contains("step-000002") && said.contains("trainer/state.json has 10 bytes, not "), "{said}");
    assert!(trial.finished("run") == whole);
}

/// A run that could not begin is no run: the mended recipe goes into the same directory.
#[test]
fn a_failed_start_does_not_occupy_the_directory() {
    let trial = Trial::text();
    trial.refused(&["reference.kind=adapter_off"], USAGE, &["adapter_off"]);
    trial.works(&trial.training(&["train.steps=1"]));
}
