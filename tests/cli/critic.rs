//! Judges: how they are measured, what they label, and what a killed labelling leaves.

use super::chat_server::{letter, serve};
use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use votive::critic::{Finding, Store, Winner};

/// A server that prefers the image whose bytes come first, and takes its time.
fn server(wait: Duration) -> (String, Arc<AtomicUsize>) {
    serve(move |request| {
        thread::sleep(wait);
        let content = request["messages"][0]["content"].as_array().unwrap();
        let seen: Vec<&str> = content.iter().filter_map(|part| part["image_url"]["url"].as_str()).collect();
        letter(if seen[0] < seen[1] { 0.9 } else { 0.1 })
    })
}

/// A folder with captions, and the arguments that draw their candidates in it.
fn captions() -> (TempDir, Vec<String>) {
    let folder = tempdir().unwrap();
    let prompts = folder.path().join("captions.txt");
    let lines = [
        "a large red circle on a white background",
        "a small blue square on a gray background",
        "two green triangles on a black background",
        "a yellow square above a red circle on a gray background",
    ];
    fs::write(&prompts, lines.join("\n")).unwrap();
    let store = folder.path().join("store.sqlite");
    let model = format!("{}/models/tiny-sd", env!("CARGO_MANIFEST_DIR"));
    let args =
        ["label", "--quiet", "--store", store.to_str().unwrap(), "--prompts", prompts.to_str().unwrap()];
    let args =
        args.iter().copied().chain(["--model", &model, "--samples", "3", "--steps", "4", "--cfg", "1.5"]);
    let args = args.map(str::to_owned).collect();
    (folder, args)
}

#[test]
fn the_shipped_critics_are_the_judge_that_nobody_names() {
    let report: Value = rows(&["eval", "judge", "--pairs", "150", "--seed", "11"]).remove(0);
    assert!(report["judge"].as_str().unwrap().starts_with("embedded"), "{report}");
    assert!(report["accuracy"].as_f64().unwrap() > 0.85, "{report}");
    assert!(
        report["order_flip_rate"].as_f64().unwrap() < 0.05 && report["ece"].as_f64().unwrap() < 0.1,
        "{report}"
    );
}

#[test]
fn the_shipped_reward_model_judges_texts() {
    let report: Value =
        rows(&["eval", "judge", "--subject", "texts", "--pairs", "150", "--seed", "11"]).remove(0);
    assert!(report["accuracy"].as_f64().unwrap() > 0.8, "{report}");
    assert_eq!(report["order_flip_rate"], json!(0.0));
}

#[test]
fn a_jury_is_named_and_votes() {
    let report: Value = rows(&["eval", "judge", "--judge", "checker,checker", "--pairs", "20"]).remove(0);
    assert_eq!(report["accuracy"], json!(1.0));
    assert!(report["judge"].as_str().unwrap().contains("jury"), "{report}");
}

#[test]
fn candidates_become_a_preference_set_once() {
    let (folder, args) = captions();
    let out = folder.path().join("pairs.jsonl");
    let mut all: Vec<&str> = args.iter().map(String::as_str).collect();
    all.extend(["--judge", "checker", "--out", out.to_str().unwrap()]);
    let first: Value = rows(&all).remove(0);
    assert_eq!((&first["judged"], &first["cost"]["calls"]), (&json!(12), &json!(48)));
    let pairs = fs::read_to_string(&out).unwrap();
    assert_eq!(pairs.lines().count() as u64, first["pairs"].as_u64().unwrap());
    for line in pairs.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        for side in ["chosen", "rejected"] {
            assert!(folder.path().join(row[side].as_str().unwrap()).is_file(), "{line}");
        }
        assert!(row["score_chosen"].as_f64() > row["score_rejected"].as_f64(), "{line}");
    }
    // Nothing is drawn or asked again, and the set is the same.
    let again: Value = rows(&all).remove(0);
    assert_eq!((&again["cost"]["calls"], &again["pairs"]), (&json!(0), &first["pairs"]));
    assert_eq!(fs::read_to_string(&out).unwrap(), pairs);
    ok(&["data", "stats", out.to_str().unwrap()]);
}

#[test]
fn a_killed_labelling_loses_only_what_was_in_flight_and_goes_on() {
    let (address, answered) = server(Duration::from_millis(40));
    let (folder, args) = captions();
    let store = folder.path().join("store.sqlite");
    let mut all: Vec<&str> = args.iter().map(String::as_str).collect();
    all.extend(["--judge", &address, "--at-once", "2"]);
    let mut child = votive(&all).stdout(Stdio::null()).spawn().unwrap();
    // Two questions a judgment, two judgments at a time: stopped in the middle of them.
    while answered.load(Ordering::SeqCst) < 11 {
        thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let acknowledged = answered.load(Ordering::SeqCst);
    let kept = Store::open(&store).unwrap().judgments(None, None).unwrap();
    assert!(
        kept.len() >= acknowledged / 2 - 2 && kept.len() < 12,
        "{} of {acknowledged} answers",
        kept.len()
    );

    let report: Value = rows(&all).remove(0);
    assert_eq!(report["judged"], json!(12));
    assert_eq!(report["cost"]["calls"].as_u64().unwrap() as usize, 2 * (12 - kept.len()));
    let store = Store::open(&store).unwrap();
    let judgments = store.judgments(None, None).unwrap();
    let judged: std::collections::BTreeSet<i64> = judgments.iter().map(|judgment| judgment.item).collect();
    assert_eq!((judgments.len(), judged.len()), (12, 12));
    for judgment in judgments {
        assert!(matches!(judgment.judgment.finding, Finding::Preference(_)), "{judgment:?}");
        let shown: Vec<bool> =
            judgment.judgment.evidence.iter().map(|evidence| evidence.is_reversed).collect();
        assert_eq!(shown, [false, true]);
    }
}

#[test]
fn several_models_are_rated() {
    let (folder, mut args) = captions();
    // The same weights under another name: as good, within the interval.
    let copy = folder.path().join("other");
    copy_folder(Path::new(&format!("{}/models/tiny-sd", env!("CARGO_MANIFEST_DIR"))), &copy);
    args.extend([
        "--model".to_owned(),
        copy.to_str().unwrap().to_owned(),
        "--judge".to_owned(),
        "checker".to_owned(),
    ]);
    let all: Vec<&str> = args.iter().map(String::as_str).collect();
    let report: Value = rows(&all).remove(0);
    let ratings = report["ratings"].as_array().unwrap();
    assert_eq!(ratings.len(), 2);
    for rating in ratings {
        assert!(
            rating["low"].as_f64().unwrap() <= 0.0 && rating["high"].as_f64().unwrap() >= 0.0,
            "{report}"
        );
    }
}

#[test]
fn mistakes_are_named_before_anything_is_drawn() {
    let (folder, args) = captions();
    let all: Vec<&str> = args.iter().map(String::as_str).collect();
    for (more, named) in [
        (&["--judge", "checker", "--max-new-tokens", "5"][..], "--max-new-tokens"),
        (&["--least", "1.5"], "--least"),
        (&["--judge", "http://127.0.0.1:9/v1"], "names no model"),
        (&["--judge", "checker", "--by", "person:ann"], "--by"),
        (&["--judge", "models/tiny-rm"], "reads texts"),
    ] {
        fails(&[all.as_slice(), more].concat(), USAGE, &[named]);
        let drawn = Store::open(&folder.path().join("store.sqlite")).unwrap().item_numbers().unwrap();
        assert!(drawn.is_empty(), "{more:?}");
    }
    let empty = folder.path().join("empty.sqlite");
    fails(&["label", "--store", empty.to_str().unwrap()], DATA, &["nothing in it to judge"]);
}

#[test]
fn an_untrained_model_likes_a_place_and_is_not_believed() {
    for judge in ["llava/llama", "qwen3_vl/new"] {
        let report = rows(&["eval", "judge", "--judge", &fixture(judge), "--pairs", "20"]).remove(0);
        let flips = report["abstentions"]["order_flip"].as_u64().unwrap();
        let rate = report["bare"]["order"]["flip_rate"]["value"].as_f64().unwrap();
        assert!(flips > 10 && rate > 50.0, "{judge}: {report}");
        assert_eq!(report["agreement"]["accuracy"]["n"].as_u64().unwrap() + flips, 20, "{judge}");
    }
}

#[test]
fn some_pairs_are_gold() {
    let (folder, args) = captions();
    let all: Vec<&str> = args.iter().map(String::as_str).collect();
    let store = folder.path().join("store.sqlite");
    ok(&[all.as_slice(), &["--judge", "checker", "--gold", "1"]].concat());
    let gold = |store: &Path| {
        let store = Store::open(store).unwrap();
        let origins = store.origins().unwrap();
        origins.into_iter().filter_map(|(id, _, origin)| Some((id, origin.get("truth")?.clone()))).collect()
    };
    let found: BTreeMap<i64, Value> = gold(&store);
    let judged = Store::open(&store).unwrap();
    let by = judged.judge_named("checker").unwrap();
    for known in judged.judgments(None, Some(&by)).unwrap() {
        let winner = known.judgment.finding.winner().filter(|winner| *winner != Winner::Tie);
        assert_eq!(found.get(&known.item), winner.map(|winner| json!(winner)).as_ref());
    }
    assert!(!found.is_empty());
    let (_other, args) = captions();
    let all: Vec<&str> = args.iter().map(String::as_str).collect();
    fails(&[all.as_slice(), &["--judge", "checker", "--gold", "1.5"]].concat(), USAGE, &["--gold 1.5"]);
}
