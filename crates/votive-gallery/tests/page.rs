//! The page as a reader's browser gets it: safe, complete without script, and the same for the same report.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use serde_json::json;
use votive_gallery::{
    CategoryScore, Direction, Entry, GalleryError, Labels, Metric, ModalityReport, PAGE_FILE, Part,
    REPORT_FILE, Report, Round, Side, TrainingPoint, Verdict, write_gallery,
};

fn side(output: Side, exact: bool) -> Side {
    let parts = vec![Part { name: "colour".into(), met: true }, Part { name: "count".into(), met: exact }];
    Side { exact, parts, score: if exact { 1.0 } else { 0.5 }, ..output }
}

fn image_entry(idx: usize) -> Entry {
    let image =
        |folder: &str| Side { image: Some(format!("images/{folder}/{idx:04}.png")), ..Side::default() };
    Entry {
        prompt: format!("{} red circles", idx + 1),
        seed: 100 + idx as u64,
        category: "count".into(),
        before: side(image("before"), false),
        after: side(image("after"), idx != 1),
        verdict: if idx == 1 { Verdict::Same } else { Verdict::Better },
    }
}

fn text_entry(prompt: &str, before: &str, after: &str) -> Entry {
    let text = |text: &str| Side { text: Some(text.into()), ..Side::default() };
    Entry {
        prompt: prompt.into(),
        seed: 7,
        category: "form".into(),
        before: side(text(before), true),
        after: side(text(after), false),
        verdict: Verdict::Worse,
    }
}

fn small_report() -> Report {
    let modality = ModalityReport {
        base: 50.0,
        aligned: 62.5,
        gain: 12.5,
        gain_low: 4.0,
        gain_high: 21.0,
        n_prompts: 3,
        settings: [("steps".to_owned(), json!(20)), ("sampler".to_owned(), json!("ddim"))].into(),
        categories: vec![CategoryScore {
            name: "count".into(),
            n: 3,
            gain: -2.0,
            ..CategoryScore::default()
        }],
        not_improved: vec!["Counting is no better.".into()],
        metrics: vec![Metric {
            name: "ugly (%)".into(),
            base: 20.0,
            aligned: 9.0,
            better: Some(Direction::Lower),
        }],
        rounds: vec![Round {
            pairs: 512,
            labels_right: 81.5,
            exact: 70.5,
            labeller_wins: 61.5,
            true_wins: 58.0,
            gap: 3.5,
            gap_low: 1.5,
            gap_high: 5.5,
        }],
        labels: Some(Labels { source: "the exact checker".into(), pairs: 512, flipped: 0.1 }),
        training: (0..4)
            .map(|step| TrainingPoint { step, loss: 0.7, margin: Some(0.1), accuracy: None })
            .collect(),
        entries: (0..3).map(image_entry).collect(),
    };
    let text = ModalityReport { entries: vec![text_entry("Say yes.", "Yes.", "No.")], ..modality.clone() };
    Report {
        title: "Base against aligned".into(),
        command: "votive demo --seed 11".into(),
        seed: 11,
        created: "2024-05-01".into(),
        objective: "[objective.dpo] beta = 0.1".into(),
        image: Some(modality),
        text: Some(text),
        ..Report::default()
    }
}

fn page_of(report: &Report) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = write_gallery(report, dir.path()).unwrap();
    assert_eq!(path, dir.path().join(PAGE_FILE));
    fs::read_to_string(path).unwrap()
}

/// Values of every `src` and `href`.
fn links(page: &str) -> Vec<&str> {
    ["src=\"", "href=\""]
        .into_iter()
        .flat_map(|attribute| page.split(attribute).skip(1))
        .map(|rest| rest.split('"').next().unwrap())
        .collect()
}

#[test]
fn a_report_survives_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let report = small_report();
    assert_eq!(report.write(dir.path()).unwrap(), dir.path().join(REPORT_FILE));
    assert_eq!(Report::read(dir.path()).unwrap(), report);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file was left behind");
}

#[test]
fn headline_keys_are_the_promised_ones() {
    let json = serde_json::to_value(small_report()).unwrap();
    for modality in ["image", "text"] {
        for key in ["base", "aligned", "gain", "gain_low", "gain_high"] {
            assert!(json[modality][key].is_f64(), "{modality}.{key}");
        }
    }
    assert_eq!(json["image"]["entries"][0]["verdict"], "better");
}

#[test]
fn equal_reports_give_equal_bytes() {
    assert_eq!(page_of(&small_report()), page_of(&small_report()));
}

#[test]
fn every_entry_is_in_the_html_itself() {
    let report = small_report();
    let page = page_of(&report);
    for modality in [&report.image, &report.text] {
        for entry in &modality.as_ref().unwrap().entries {
            assert!(page.contains(&format!(">{}</p>", entry.prompt)), "{}", entry.prompt);
        }
    }
    assert_eq!(page.matches("<article ").count(), 4);
    assert!(page.contains("<blockquote dir=\"auto\">Yes.</blockquote>"));
    assert!(page.contains("Counting is no better."));
    assert!(page.contains("512 pairs, labelled by the exact checker; 10.0\u{a0}% of the labels"));
    // Signs are typographic.
    assert!(page.contains("<td>61.5</td><td>58.0</td><td>+3.5 [+1.5, +5.5]</td>"));
}

#[test]
fn untrusted_text_stays_text() {
    let attack = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\" onclick=\"alert(1)";
    let mut report = small_report();
    report.title = attack.into();
    report.command = attack.into();
    let text = report.text.as_mut().unwrap();
    text.entries = vec![text_entry(attack, attack, attack)];
    text.entries[0].category = attack.into();
    text.entries[0].after.parts[0].name = attack.into();
    text.categories[0].name = attack.into();
    text.not_improved = vec![attack.into()];
    text.settings.insert(attack.into(), json!({ attack: [attack] }));

    let page = page_of(&report);
    assert_eq!(page.matches("<script>").count(), 1);
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(!page.contains("<img src=x"));
    assert!(!page.contains("\" onclick"));
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
}

#[test]
fn every_link_is_relative_and_nothing_is_fetched() {
    let mut report = small_report();
    report.image.as_mut().unwrap().entries[0].before.image = Some("javascript:alert(1).png".into());
    let page = page_of(&report);
    let links = links(&page);
    assert!(links.contains(&"images/after/0002.png"));
    assert!(links.contains(&"javascript%3Aalert%281%29.png"));
    assert!(links.iter().all(|link| !link.contains(':') && !link.starts_with('/')), "{links:?}");
    assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("@import"));
    assert!(page.contains("default-src 'none'"));
    assert!(!page.contains("unsafe-"));
    // The policy refuses inline styles and handlers, so the page may not rely on any.
    assert!(!page.contains(" style=\"") && !page.contains(" onclick"));
}

#[test]
fn an_interval_that_includes_zero_is_called_so() {
    let mut report = small_report();
    report.image.as_mut().unwrap().gain_low = -1.0;
    let page = page_of(&report);
    assert!(page.contains("Not shown to differ: the interval includes zero."));
    assert!(page.contains("Better: the interval lies above zero."));
}

#[test]
fn an_empty_report_is_a_page_still() {
    let page = page_of(&Report::default());
    assert!(page.contains("The report lists nothing here."));
    assert!(!page.contains("<article "));
}

#[track_caller]
fn check_refused(dir: &Path, json: &str, expected: &str) {
    fs::write(dir.join(REPORT_FILE), json).unwrap();
    let message = Report::read(dir).unwrap_err().to_string();
    assert!(message.contains(expected), "{message}");
}

#[test]
fn a_bad_report_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Report::read(dir.path()), Err(GalleryError::Io { action: "read", .. })));
    check_refused(dir.path(), "{", "report.json is not valid: EOF");
    check_refused(dir.path(), "{\"schema_version\": 2}", "schema_version is 2, expected 1");
    check_refused(dir.path(), "{\"schema_version\": 1}", "missing field `title`");

    let mut report = small_report();
    report.image.as_mut().unwrap().entries[2].after.image = Some("../secret.png".into());
    check_refused(
        dir.path(),
        &serde_json::to_string(&report).unwrap(),
        "image.entries[2].after.image is `../secret.png`",
    );
    assert!(matches!(report.write(dir.path()), Err(GalleryError::ImagePath { .. })));
    assert!(matches!(write_gallery(&report, dir.path()), Err(GalleryError::ImagePath { .. })));
}

#[test]
fn a_gallery_that_cannot_be_written_leaves_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    // A folder in the page's place makes the final rename fail.
    fs::create_dir_all(dir.path().join(PAGE_FILE).join("held")).unwrap();
    let error = write_gallery(&small_report(), dir.path()).unwrap_err();
    assert!(matches!(error, GalleryError::Io { action: "write", .. }));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file was left behind");
}
