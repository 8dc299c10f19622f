//! `votive label` beside references: they reach the judge, decide what it finds, and are asked for where they are missing.

use super::chat_server::{letter, serve};
use super::*;
use votive::critic::{Candidate, Finding, Store};

/// Letters of a text that are among those of a reference, as a share of its letters.
fn overlap(text: &str, reference: &str) -> f64 {
    let letters = text.chars().filter(char::is_ascii_lowercase);
    let shared = letters.clone().filter(|letter| reference.contains(*letter)).count();
    shared as f64 / letters.count().max(1) as f64
}

/// A server that prefers what shares most letters with the reference that it is shown.
fn server() -> String {
    let (name, _) = serve(|request| {
        let seen = request["messages"][0]["content"].as_str().unwrap();
        let between = |start: &str, end: &str| {
            let after = seen.split_once(start).unwrap().1;
            after.split_once(end).unwrap().0.to_owned()
        };
        let reference = between("Reference:\n", "\n\nAnswer A:\n");
        let first = overlap(&between("Answer A:\n", "\n\nAnswer B:\n"), &reference);
        let second = overlap(&between("Answer B:\n", "\n\nWhich answer"), &reference);
        letter(if first > second { 0.9 } else { 0.1 })
    });
    name
}

/// Halves of the alphabet: whatever shares most letters with the one shares least with the other.
const HALVES: [&str; 2] = ["abcdefghijklm", "nopqrstuvwxyz"];
const PROMPTS: [&str; 4] = ["List two colours.", "Write a word.", "Say hello.", "Name an animal."];

fn prompts(folder: &Folder, name: &str, reference: impl Fn(usize) -> Value) -> String {
    let rows = PROMPTS.iter().enumerate();
    let rows =
        rows.map(|(n, prompt)| format!("{}\n", json!({ "prompt": prompt, "reference": reference(n) })));
    folder.text(name, &rows.collect::<String>())
}

/// The arguments that draw two candidates of each prompt.
fn drawing(store: &str, prompts: &str) -> Vec<String> {
    let model = format!("{}/models/tiny-lm", env!("CARGO_MANIFEST_DIR"));
    let args =
        ["label", "--quiet", "--store", store, "--prompts", prompts, "--model", &model, "--samples", "2"];
    args.iter().chain(&["--max-new-tokens", "12"]).map(|arg| (*arg).to_owned()).collect()
}

#[test]
fn a_reference_decides_and_another_one_decides_otherwise() {
    let (folder, judge) = (Folder::new(), server());
    let store = folder.path("store.sqlite");
    for (round, half) in HALVES.iter().enumerate() {
        let file = prompts(&folder, &format!("{round}.jsonl"), |_| json!(half));
        let mut args = drawing(&store, &file);
        args.extend(["--judge", &judge, "--template", "text-reference"].map(str::to_owned));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        ok(&args);
        // Nothing is drawn or asked again.
        let known = Store::open(Path::new(&store)).unwrap().judgments(None, None).unwrap().len();
        ok(&args);
        assert_eq!(Store::open(Path::new(&store)).unwrap().judgments(None, None).unwrap().len(), known);
    }
    let store = Store::open(Path::new(&store)).unwrap();
    let (mut verdicts, mut decided) = (BTreeMap::<String, Vec<Finding>>::new(), 0);
    for judgment in store.judgments(None, None).unwrap() {
        let question = store.item(judgment.item).unwrap().question;
        let Some(Candidate::Text(reference)) = question.reference() else { panic!("no reference") };
        let [Candidate::Text(first), Candidate::Text(second)] = question.candidates() else { panic!() };
        let shares = [overlap(first, reference), overlap(second, reference)];
        if let Some(winner) = judgment.judgment.finding.winner() {
            assert_eq!(winner == votive::critic::Winner::First, shares[0] > shares[1], "{first} {second}");
            decided += 1;
        }
        verdicts.entry(question.prompt().to_owned()).or_default().push(judgment.judgment.finding);
    }
    assert!(decided >= 4, "{verdicts:?}");
    for found in verdicts.values() {
        let [one, other] = found.as_slice() else { panic!("{verdicts:?}") };
        assert_eq!(one.winner(), other.clone().reversed(2).winner(), "{verdicts:?}");
    }
}

#[test]
fn prompts_without_a_reference_are_counted_and_named() {
    let (folder, judge) = (Folder::new(), server());
    let file = prompts(&folder, "some.jsonl", |n| if n % 2 == 0 { json!(HALVES[0]) } else { Value::Null });
    let (store, other) = (folder.path("store.sqlite"), folder.path("other.sqlite"));
    let with = |store: &str, file: &str, extra: &[&str]| -> Vec<String> {
        drawing(store, file).into_iter().chain(extra.iter().map(|arg| (*arg).to_owned())).collect()
    };
    let refused = |args: &[String], parts: &[&str]| {
        fails(&args.iter().map(String::as_str).collect::<Vec<_>>(), DATA, parts);
    };
    let by_reference = ["--judge", judge.as_str(), "--template", "text-reference"];
    refused(
        &with(&store, &file, &by_reference),
        &["text-reference", "2 of 4 prompts", "rows 2, 4", "some.jsonl"],
    );
    assert!(Store::open(Path::new(&store)).unwrap().items().unwrap().is_empty(), "something was drawn");
    // What lies in a store already is looked at too.
    ok(&with(&other, &file, &["--judge", "embedded"]).iter().map(String::as_str).collect::<Vec<_>>());
    let args = ["label", "--quiet", "--store", &other, "--judge", &judge, "--template", "text-reference"];
    fails(&args, DATA, &["2 of 4 pairs of", "items 2, 4"]);
    let wrong = prompts(&folder, "wrong.jsonl", |_| json!(["a list"]));
    refused(&with(&store, &wrong, &by_reference), &["wrong.jsonl", "row 1", "`reference`"]);
    let both = folder
        .text("both.jsonl", "{\"prompt\": \"p\", \"reference\": \"r\", \"reference_image\": \"x.png\"}\n");
    refused(&with(&store, &both, &by_reference), &["row 1", "both given"]);
    let gone = folder.text("gone.jsonl", "{\"prompt\": \"p\", \"reference_image\": \"x.png\"}\n");
    refused(&with(&store, &gone, &by_reference), &["row 1", "x.png"]);
}
