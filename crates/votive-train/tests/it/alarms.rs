//! Alarms of whole runs: logged once, told to whoever looks on, and no obstacle to a resume.

use crate::drive::{drive, with_prepared};
use crate::workshop::Workshop;
use serde_json::Value;
use std::fs;
use std::sync::atomic::AtomicBool;
use votive_train::front_end::FrontEnd;
use votive_train::run_directory::{ALARMS_FILE, METRICS_FILE};
use votive_train::{Alarm, Plan, Run, RunDirectory, StepMetrics, TrainError, Watch};

/// Ends the run at the first alarm.
struct Strict;

impl<F: FrontEnd> Watch<F> for Strict {
    type Error = TrainError;

    fn step(&mut self, _: &StepMetrics) -> Result<(), TrainError> {
        Ok(())
    }

    fn alarm(&mut self, alarm: &Alarm) -> Result<(), TrainError> {
        Err(TrainError::Plan(format!("{} at step {}: {}", alarm.id, alarm.step, alarm.message)))
    }
}

fn drive_strictly(plan: &Plan, directory: &RunDirectory) -> Result<(), TrainError> {
    with_prepared!(plan, |front, start| {
        let (resumed, _) = directory.newest(plan, &front, &start)?;
        let mut run = Run::new(plan, &front, start, resumed, |_, _| {})?;
        directory.train(&mut run, plan, &front, &AtomicBool::new(false), &mut Strict)
    })
}

/// What was logged, and the alarms among it.
fn logs(directory: &RunDirectory) -> [String; 2] {
    [METRICS_FILE, ALARMS_FILE]
        .map(|file| fs::read_to_string(directory.path().join(file)).unwrap_or_default())
}

fn alarms(directory: &RunDirectory) -> Vec<Value> {
    logs(directory)[1].lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_run_that_cannot_learn_says_so_once_and_can_be_stopped_by_it() {
    for workshop in [Workshop::text(), Workshop::image()] {
        let plan = workshop.plan(&["optimizer.lr=0.0", "train.steps=8", "train.save_every=50"]);
        let whole = workshop.directory("whole", &plan);
        drive(&plan, &whole, None).unwrap();
        let found = alarms(&whole);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0]["step"].as_u64(), found[0]["alarm"].as_str()),
            (Some(5), Some("no_learning_rate"))
        );

        let strict = workshop.directory("strict", &plan);
        let message = drive_strictly(&plan, &strict).unwrap_err().to_string();
        assert!(
            message.starts_with("no_learning_rate at step 5: the learning rate is 0 in 5 lines; "),
            "{message}"
        );
        assert!(strict.path().join("checkpoints/step-000005/manifest.json").exists());
        // It was said, so a resumed run goes on.
        drive_strictly(&plan, &strict).unwrap();
        assert_eq!(logs(&strict), logs(&whole));
    }
}

#[test]
fn an_ordinary_run_raises_nothing() {
    let workshop = Workshop::text();
    let plan = workshop.plan(&["train.steps=20"]);
    let directory = workshop.directory("run", &plan);
    drive(&plan, &directory, None).unwrap();
    assert_eq!(alarms(&directory), Vec::<Value>::new());
}
