//! `votive revise`: what a critic says becomes edits, and what improved becomes pairs.

use super::chat_server::{serve, words};
use super::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use votive::critic::Store;

/// A server that answers what `says` makes of all texts and images of a request, one behind the other; and how often it has
/// answered.
fn server(says: fn(&str) -> String) -> (String, Arc<AtomicUsize>) {
    serve(move |request| words(&says(&strings(&request["messages"]).join("\n"))))
}

/// All strings inside of a value, in order.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(all) => all.iter().flat_map(strings).collect(),
        Value::Object(fields) => fields.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

/// Blames the colour of most images, and has no use for others: by their bytes.
fn blames(seen: &str) -> String {
    let image = seen.lines().find(|line| line.starts_with("data:image/png")).unwrap();
    match image.bytes().map(usize::from).sum::<usize>() % 8 {
        0 => "It is what it is.".to_owned(),
        1 => "Shown: a red circle\nWrong: nothing\nEdit: nothing".to_owned(),
        2 => "Shown: a red circle\nWrong: dull\nEdit: nothing".to_owned(),
        3 => "Shown: a red circle\nWrong: quality\nEdit: make it sharp".to_owned(),
        _ => "It is not what was asked for.\nShown: a red circle\nWrong: colour, count\nEdit: change it"
            .to_owned(),
    }
}

/// A folder with a store of candidates for a few captions.
fn drawn() -> (TempDir, String) {
    let folder = tempdir().unwrap();
    let prompts = folder.path().join("captions.txt");
    let lines = [
        "a large red circle on a white background",
        "a small blue square on a gray background",
        "two green triangles on a black background",
        "a yellow square above a red circle on a gray background",
        "three purple circles on a white background",
    ];
    fs::write(&prompts, lines.join("\n")).unwrap();
    let store = folder.path().join("store.sqlite").to_str().unwrap().to_owned();
    let mut args = vec!["label", "--quiet", "--store", &store, "--prompts", prompts.to_str().unwrap()];
    let model = model();
    args.extend(["--model", &model, "--samples", "3", "--steps", "4", "--cfg", "1.5", "--judge", "checker"]);
    ok(&args);
    (folder, store)
}

fn model() -> String {
    format!("{}/models/tiny-sd", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn what_improved_becomes_pairs_and_all_else_is_counted() {
    let (critic, asked) = server(blames);
    let (folder, store) = drawn();
    let copy = folder.path().join("copy.sqlite").to_str().unwrap().to_owned();
    fs::copy(&store, &copy).unwrap();
    let out = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (whole, in_parts) = (out("whole.jsonl"), out("parts.jsonl"));
    let model = model();
    let revise = |store: &str, each: &str, out: &str| -> Value {
        let mut args = vec!["revise", "--quiet", "--store", store, "--critic", &critic, "--model", &model];
        args.extend(["--steps", "5", "--cfg", "3", "--judge", "checker", "--least", "0.99"]);
        args.extend(["--truth", "checker", "--each", each, "--out", out]);
        rows(&args).remove(0)
    };
    let number = |value: &Value| value.as_u64().unwrap();
    let sum = |value: &Value| value.as_object().unwrap().values().map(number).sum::<u64>();

    let report = revise(&store, "3", &whole);
    let critiques = &report["critiques"];
    let counted = ["nothing_wrong", "nothing_to_act_on", "actionable"].map(|name| number(&critiques[name]));
    assert_eq!(counted.iter().sum::<u64>() + sum(&critiques["abstentions"]), 15, "{report}");
    assert_eq!((number(&report["originals"]), asked.load(Ordering::SeqCst)), (15, 15));
    assert!(counted[2] >= 5, "{report}");
    let (made, pairs) = (number(&report["edits"]["made"]), number(&report["pairs"]));
    assert_eq!(made + number(&report["edits"]["unchanged"]), counted[2], "{report}");
    assert_eq!(pairs + sum(&report["edits_without_a_pair"]), made, "{report}");
    assert!(pairs > 0 && pairs < made, "{report}");

    // The judge is the truth: what it let through is an improvement, and not all edits are.
    let truth = &report["truth"];
    let share = |name: &str| (truth[name]["value"].as_f64().unwrap(), number(&truth[name]["n"]));
    assert_eq!(
        (share("kept"), share("edits").1, share("redrawn").1),
        ((100.0, pairs), made, made),
        "{report}"
    );
    assert!((share("edits").0 - 100.0 * pairs as f64 / made as f64).abs() < 1e-9, "{report}");
    assert_eq!(share("random").0, 100.0, "{report}");

    let written = lines(&whole);
    assert_eq!(written.len() as u64, pairs);
    for row in &written {
        let image = |side: &str| fs::read(folder.path().join(row[side].as_str().unwrap())).unwrap();
        assert_ne!(image("chosen"), image("rejected"));
        assert!(row["score_chosen"].as_f64() >= Some(0.99), "{row}");
    }
    ok(&["data", "stats", &whole]);

    // What the store has is neither asked nor made again, and the set is the same.
    let again = revise(&store, "3", &whole);
    assert_eq!((number(&again["cost"]["calls"]), asked.load(Ordering::SeqCst)), (0, 15));
    assert_eq!((&again["truth"], lines(&whole)), (truth, written.clone()));

    // One candidate of each prompt first, the others later: the same edits, and the same pairs.
    revise(&copy, "1", &in_parts);
    assert_eq!(asked.load(Ordering::SeqCst), 20);
    let parts = revise(&copy, "3", &in_parts);
    assert_eq!(asked.load(Ordering::SeqCst), 30);
    for part in ["critiques", "edits", "edits_without_a_pair", "pairs", "truth"] {
        assert_eq!(parts[part], report[part], "{part}");
    }
    let hashes = |rows: &[Value]| -> Vec<[String; 2]> {
        let hash =
            |row: &Value, side: &str| row[side].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        rows.iter().map(|row| [hash(row, "chosen"), hash(row, "rejected")]).collect()
    };
    assert_eq!(hashes(&lines(&in_parts)), hashes(&written));

    // The store says where each edit came from, and labelling goes on without it.
    let kept = Store::open(Path::new(&store)).unwrap();
    let origins = kept.origins().unwrap();
    let revised: Vec<&Value> = origins.iter().filter_map(|(_, _, origin)| origin.get("revised")).collect();
    assert_eq!(revised.len() as u64, counted[2]);
    for edit in &revised {
        let words = edit["critique"].as_str().unwrap();
        let strength = if words.contains("quality") { 0.4 } else { 0.8 };
        assert_eq!(edit["edit"]["strength"], json!(strength), "{edit}");
        assert_eq!(edit["edit"]["negative"], json!("a red circle"), "{edit}");
    }
    let seeds: BTreeSet<u64> = revised.iter().map(|edit| number(&edit["seed"])).collect();
    assert_eq!(seeds.len(), revised.len());
    let labelled = rows(&["label", "--store", &store, "--judge", "checker"]).remove(0);
    assert_eq!(number(&labelled["cost"]["calls"]), 0, "{labelled}");
}

const TASKS: [&str; 3] = [
    "A teacher asks: may I clean your boat? Politely say no.",
    "A neighbour asks: may I touch your boat? Politely say no.",
    "A farmer asks: may I borrow your book? Politely say no.",
];

/// Criticises every answer, and writes one anew, one as it was and one not at all.
fn writes(seen: &str) -> String {
    if !seen.contains("Write the answer anew") {
        return "It is rude.\nWrong: manners\nEdit: be polite".to_owned();
    }
    assert!(seen.contains("It is rude."), "{seen}");
    if seen.contains(TASKS[0]) {
        return "No, sorry, please do not clean my boat.".to_owned();
    }
    let (_, answer) = seen.split_once("A first answer:\n").unwrap();
    let (answer, _) = answer.split_once("\n\nWhat was said of it").unwrap();
    if seen.contains(TASKS[1]) { answer.to_owned() } else { String::new() }
}

#[test]
fn texts_are_criticised_and_written_anew() {
    let (speaker, asked) = server(writes);
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (prompts, store, out) = (path("tasks.txt"), path("store.sqlite"), path("pairs.jsonl"));
    fs::write(&prompts, TASKS.join("\n")).unwrap();
    let model = format!("{}/models/tiny-lm", env!("CARGO_MANIFEST_DIR"));
    let mut args = vec!["label", "--quiet", "--store", &store, "--prompts", &prompts, "--model", &model];
    // From this seed the first answers are rude.
    args.extend(["--samples", "2", "--max-new-tokens", "12", "--seed", "1", "--judge", "checker"]);
    ok(&args);
    let mut args = vec!["revise", "--quiet", "--store", &store, "--critic", &speaker, "--model", &speaker];
    args.extend(["--judge", "checker", "--out", &out]);
    let report = rows(&args).remove(0);
    assert_eq!(report["critiques"]["actionable"], json!(3), "{report}");
    let edits = json!({ "made": 1, "unchanged": 1, "abstentions": { "malformed": 1 } });
    assert_eq!((&report["edits"], &report["pairs"], asked.load(Ordering::SeqCst)), (&edits, &json!(1), 6));
    let [row] = &lines(&out)[..] else { panic!("{report}") };
    // The model has a chat template, so that the rows are turns.
    assert_eq!(row["chosen"][0]["content"], json!("No, sorry, please do not clean my boat."));
    assert_eq!(row["prompt"][0]["content"], json!(TASKS[0]));
    fails(&[args.as_slice(), &["--steps", "5"]].concat(), USAGE, &["--steps", "images"]);
}

#[test]
fn mistakes_are_named_before_anything_is_asked() {
    let (critic, asked) = server(blames);
    let (folder, store) = drawn();
    let (sd, lm) = (model(), format!("{}/models/tiny-lm", env!("CARGO_MANIFEST_DIR")));
    let empty = folder.path().join("empty.sqlite").to_str().unwrap().to_owned();
    for (store, critic, model, more, code, named) in [
        (&store, "checker", &sd, &["--judge", "checker"][..], USAGE, "only gives grades"),
        (&store, &critic, &lm, &["--judge", "checker"], USAGE, "edits no images"),
        (&store, &critic, &sd, &["--judge", "checker", "--least", "0.2"], USAGE, "--least"),
        (&store, &critic, &sd, &["--judge", "checker", "--truth", "me"], USAGE, "checker"),
        (
            &store,
            &critic,
            &sd,
            &["--judge", "checker", "--critic-template", "picture-fit"],
            USAGE,
            "asks for no critique",
        ),
        (
            &store,
            &critic,
            &sd,
            &["--judge", "checker", "--critic-template", "text-critique"],
            USAGE,
            "no [edit]",
        ),
        (&empty, &critic, &sd, &["--judge", "checker"], DATA, "no candidates in it"),
    ] {
        let args = ["revise", "--store", store, "--critic", critic, "--model", model];
        fails(&[&args, more].concat(), code, &[named]);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}
