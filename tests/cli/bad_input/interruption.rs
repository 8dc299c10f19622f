//! Signals: the first saves and ends with exit code 6, the second ends at once; either way the run goes on.
#![cfg(unix)]

use super::*;
use std::process::Child;
use std::time::Duration;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(args: &[String]) -> Child {
    votive(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn send(signal: &str, child: &Child) {
    let script = format!("kill -{signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
}

#[track_caller]
fn ends(child: Child, code: i32) -> String {
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn a_signal_saves_and_the_run_goes_on_to_the_same_bytes() {
    // Some seconds of work, and no checkpoint by itself before the end.
    const LONG: [&str; 2] = ["train.steps=400", "train.save_every=400"];
    let trial = Trial::text();
    let child = start(&trial.training(&LONG));
    let metrics = trial.path("run/metrics.jsonl");
    let lines = || fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    wait_until("three steps are done", || lines() >= 3);
    send("INT", &child);
    let said = ends(child, INTERRUPTED);
    let step = lines();
    assert!(said.contains(&format!("interrupted at step {step}; everything is saved")), "{said}");
    assert!(said.contains("votive resume "), "{said}");
    assert!((3..400).contains(&step), "{step}");
    let saved: Vec<String> = fs::read_dir(trial.path("run/checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(saved, [format!("step-{step:06}")]);
    assert!(!Path::new(&trial.path("run/final")).exists());
    trial.works(&trial.resuming());
    assert_eq!(lines(), 400);
    assert!(
        trial.finished("run") == trial.undisturbed(&LONG),
        "another model than that of an undisturbed run"
    );
}

#[test]
fn a_signal_before_the_first_step_leaves_a_run_that_starts_over() {
    let trial = Trial::text();
    let child =
        start(&trial.training(&["train.batch_size=400", "train.micro_batch_size=2", "train.steps=2"]));
    wait_until("the plan is written", || Path::new(&trial.path("run/plan.toml")).exists());
    send("TERM", &child);
    let said = ends(child, INTERRUPTED);
    assert!(said.contains("interrupted at step 0;") || said.contains("interrupted at step 1;"), "{said}");
    trial.works(&trial.resuming());
    assert!(trial.finished("run").contains_key("model.safetensors"));
}

#[test]
fn a_second_signal_ends_at_once_and_the_run_starts_over() {
    // One step of a second or so, in which both signals arrive.
    const SLOW: [&str; 3] = ["train.batch_size=1000", "train.micro_batch_size=2", "train.steps=1"];
    let trial = Trial::text();
    let mut child = start(&trial.training(&SLOW));
    wait_until("the first step begins", || Path::new(&trial.path("run/metrics.jsonl")).exists());
    std::thread::sleep(Duration::from_millis(50));
    send("INT", &child);
    std::thread::sleep(Duration::from_millis(50));
    assert!(child.try_wait().unwrap().is_none(), "the first signal waits for the step");
    send("INT", &child);
    ends(child, 130);
    let left: Vec<String> = contents(Path::new(&trial.path("run"))).into_keys().collect();
    // The lock's file stays, but nobody holds it.
    assert_eq!(left, ["events.out.tfevents.votive", "metrics.jsonl", "plan.toml", "run.lock"]);
    trial.works(&trial.resuming());
    assert!(
        trial.finished("run") == trial.undisturbed(&SLOW),
        "another model than that of an undisturbed run"
    );
}
