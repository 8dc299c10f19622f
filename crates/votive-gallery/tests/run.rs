//! The gallery of a run directory: checkpoints downwards, prompts across.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use votive_gallery::{
    GalleryError, METRICS_FILE, OTHER_LOGS, Report, SAMPLES_DIR, SAMPLES_FILE, Sample, read_checkpoints,
    step_folder, write_run_gallery, write_samples,
};

fn picture(prompt: &str, seed: u64, file: &str) -> Sample {
    Sample { prompt: prompt.into(), seed, image: Some(file.into()), exact: Some(true), ..Sample::default() }
}

fn write_run(dir: &Path) {
    let first = [picture("a red circle", 1, "0000.png"), picture("a blue square", 2, "0001.png")];
    write_samples(dir, 100, &first).unwrap();
    // The second prompt is absent here and a third one is new.
    write_samples(dir, 0, &[first[0].clone(), picture("two stars", 3, "0001.png")]).unwrap();
}

fn page_of(dir: &Path) -> String {
    fs::read_to_string(write_run_gallery(dir).unwrap()).unwrap()
}

#[test]
fn samples_survive_the_disk_in_order_of_step() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path());
    assert!(step_folder(dir.path(), 100).ends_with("samples/step-000100"));
    let checkpoints = read_checkpoints(dir.path()).unwrap();
    assert_eq!(checkpoints.iter().map(|checkpoint| checkpoint.step).collect::<Vec<_>>(), [0, 100]);
    assert_eq!(checkpoints[1].samples[1].image.as_deref(), Some("samples/step-000100/0001.png"));
    assert_eq!(checkpoints[1].samples[1].prompt, "a blue square");
}

#[test]
fn rows_are_checkpoints_and_columns_are_prompts() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path());
    let page = page_of(dir.path());
    assert_eq!(page.matches("<th scope=\"row\">").count(), 2);
    assert_eq!(page.matches("<th scope=\"col\"><span class=\"prompt\"").count(), 3);
    // Step 0 lacks the blue square and step 100 the stars.
    assert_eq!(page.matches("<td class=\"quiet\">—</td>").count(), 2);
    // The red circle is column 0 of both rows.
    for (row, step) in [(0, 0), (1, 100)] {
        let cell = format!("data-row=\"{row}\" data-column=\"0\"");
        let start = page.find(&cell).unwrap();
        assert!(page[start..].contains(&format!("samples/step-{step:06}/0000.png")));
    }
    assert_eq!(page, page_of(dir.path()));
}

#[test]
fn a_run_in_progress_can_be_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path());
    // Images drawn, list not yet written; a foreign folder; a log line cut in the middle.
    fs::create_dir_all(step_folder(dir.path(), 200)).unwrap();
    fs::create_dir_all(dir.path().join(SAMPLES_DIR).join("step-last")).unwrap();
    let log =
        "{\"step\":0,\"loss\":0.693,\"rewards/accuracies\":0.5,\"rewards/margins\":0.0}\n{\"step\":1,\"lo";
    fs::write(dir.path().join(METRICS_FILE), log).unwrap();
    let page = page_of(dir.path());
    assert!(page.contains("Loss over steps 0 to 0") && page.contains("Margin over steps"));
    assert_eq!(page.matches("<th scope=\"row\">").count(), 2);
}

#[test]
fn alarms_and_held_out_rows_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, log: &str| fs::write(dir.path().join(name), log).unwrap();
    write(METRICS_FILE, "{\"step\":1,\"loss\":0.69}\n{\"step\":2,\"loss\":0.5}\n");
    let [evaluations, alarms] = OTHER_LOGS;
    write(evaluations, "{\"step\":1,\"eval_loss\":0.7,\"eval_rewards/accuracies\":0.5}\n");
    write(alarms, "{\"step\":1,\"alarm\":\"accuracy_stuck\",\"message\":\"it <stays>; look\"}\n");
    let page = page_of(dir.path());
    assert!(page.contains("<b>Step 1:</b> it &lt;stays&gt;; look"), "{page}");
    assert!(page.contains("accuracy_stuck"));
    assert_eq!(page.matches("Loss over steps").count(), 2);
    assert!(page.contains("On held-out rows") && page.contains("Accuracy over steps 1 to 1"));
}

#[test]
fn a_run_with_a_report_shows_both() {
    let dir = tempfile::tempdir().unwrap();
    write_run(dir.path());
    Report { title: "Both & more".into(), ..Report::default() }.write(dir.path()).unwrap();
    let page = page_of(dir.path());
    assert!(page.contains("<h1>Both &amp; more</h1>"));
    assert!(page.contains("<section id=\"samples\">"));
}

#[test]
fn text_samples_are_escaped() {
    let dir = tempfile::tempdir().unwrap();
    let sample = Sample { prompt: "<b>".into(), text: Some("</td><script>".into()), ..Sample::default() };
    write_samples(dir.path(), 0, &[sample]).unwrap();
    let page = page_of(dir.path());
    assert!(page.contains("<blockquote dir=\"auto\">&lt;/td&gt;&lt;script&gt;</blockquote>"));
    assert_eq!(page.matches("<script>").count(), 1);
}

#[test]
fn bad_runs_are_refused_with_their_reason() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(write_run_gallery(dir.path()), Err(GalleryError::NothingToShow { .. })));

    let outside = [picture("x", 1, "../../secret.png")];
    let message = write_samples(dir.path(), 7, &outside).unwrap_err().to_string();
    assert!(
        message.starts_with("samples/step-000007/samples.json[0].image is `../../secret.png`"),
        "{message}"
    );

    fs::write(dir.path().join(METRICS_FILE), "{\"step\":0,\"loss\":1}\nnonsense\n").unwrap();
    let message = write_run_gallery(dir.path()).unwrap_err().to_string();
    assert!(message.contains("metrics.jsonl, line 2 is not valid"), "{message}");

    fs::remove_file(dir.path().join(METRICS_FILE)).unwrap();
    let step = step_folder(dir.path(), 7);
    fs::create_dir_all(&step).unwrap();
    fs::write(step.join(SAMPLES_FILE), "[{\"seed\": 1}]").unwrap();
    let message = write_run_gallery(dir.path()).unwrap_err().to_string();
    assert!(message.contains("missing field `prompt`"), "{message}");
}
