//! `votive label --contrast`: pairs of a judge's own answers, by a truth or by a group.

use super::chat_server::{serve, words};
use super::*;
use votive::critic::{Candidate, Question, Store};

/// A judge of texts behind a server, under a name of its own; `errs` says by the seed of a request when it errs. It is right about what is
/// longer.
fn judge(name: &str, errs: fn(u64) -> bool) -> String {
    let (server, _) = serve(move |request| {
        let turns = request["messages"].as_array().unwrap();
        let seen = turns.last().unwrap()["content"].as_str().unwrap();
        let behind = |mark: &str| seen.split_once(mark).unwrap().1.lines().next().unwrap().len();
        let seed = request["seed"].as_u64().unwrap_or(0);
        let is_first = (behind("Answer A:\n") > behind("Answer B:\n")) != errs(seed);
        words(&format!("Draw {seed}. {}", json!({ "winner": if is_first { "A" } else { "B" } })))
    });
    server.replace("#m", &format!("#{name}"))
}

const ITEMS: usize = 5;

fn store(folder: &Folder) -> String {
    let path = folder.path("store.sqlite");
    let mut store = Store::open(Path::new(&path)).unwrap();
    for item in 0..ITEMS {
        let [long, short] =
            ["a long answer", "short"].map(|text| Candidate::Text(format!("{text} of {item}")));
        let (first, second) = if item.is_multiple_of(2) { (long, short) } else { (short, long) };
        store.add(&Question::pair(format!("prompt {item}"), first, second), &json!({})).unwrap();
    }
    path
}

/// The winner that a row's answer names.
fn verdict(row: &Value, side: &str) -> String {
    let said = row[side][0]["content"][0]["text"].as_str().unwrap();
    let object: Value = serde_json::from_str(&said[said.find('{').unwrap()..]).unwrap();
    object["winner"].as_str().unwrap().to_owned()
}

/// Labels, and gives the rows and what is said to people.
fn contrast(store: &str, judge: &str, out: &str, more: &[&str]) -> (Vec<Value>, String) {
    let own = ["--template", "text-verdict", "--temperature", "1", "--majority", "3", "--one-order"];
    let args = ["label", "--store", store, "--judge", judge, "--contrast", out];
    let output = votive([&args[..], &own, more].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    (lines(out), stderr(&output))
}

#[test]
fn a_group_tells_good_answers_from_odd_ones_without_a_truth() {
    let folder = Folder::new();
    let (store, out) = (store(&folder), folder.path("own.jsonl"));
    for (name, errs) in [("anna", (|_| false) as fn(u64) -> bool), ("bela", |_| false), ("odd", |_| true)] {
        let args = ["label", "--quiet", "--store", &store, "--judge", &judge(name, errs)];
        ok(&[&args[..], &["--template", "text-verdict"]].concat());
    }
    // Of its three draws of an item two err: alone, its errors are the majority; in the group they are odd.
    let client = judge("client", |seed| seed % 3 != 1);
    let right = |row: &Value, side: &str| {
        let prompt = row["prompt"][1]["content"][0]["text"].as_str().unwrap();
        let item: usize = prompt.split_once("prompt ").unwrap().1.lines().next().unwrap().parse().unwrap();
        verdict(row, side) == if item.is_multiple_of(2) { "A" } else { "B" }
    };
    let (rows, said) = contrast(&store, &client, &out, &["--group", "anna,bela", "--seed", "3"]);
    assert_eq!(rows.len(), ITEMS);
    for row in &rows {
        assert!(right(row, "chosen") && !right(row, "rejected"), "{row}");
    }
    assert!(
        said.contains("odd one out: anna at ") && said.contains("by text-verdict, both orders 0"),
        "{said}"
    );
    assert!(said.contains(&format!("majority of 3 {ITEMS}")), "{said}");
    let (alone, said) = contrast(&store, &client, &out, &["--group", "--seed", "3"]);
    assert_eq!(alone.len(), ITEMS);
    for row in &alone {
        assert!(!right(row, "chosen") && right(row, "rejected"), "{row}");
    }
    assert!(!said.contains("odd one out"), "{said}");
    // Two against two: what agrees with either agrees alike.
    let (none, _) = contrast(&store, &client, &out, &["--group", "anna,bela,odd", "--seed", "3"]);
    assert!(none.is_empty(), "{none:?}");
    let (truth, _) = contrast(&store, &client, &out, &["--truth", "anna", "--seed", "3"]);
    assert_eq!(truth.len(), ITEMS);

    let sure = judge("sure", |_| true);
    let (none, _) = contrast(&store, &sure, &out, &["--group", "anna,bela"]);
    assert!(none.is_empty(), "who always says the same has nothing to learn from");
}

#[test]
fn somebody_must_say_what_is_right() {
    let folder = Folder::new();
    let (store, out) = (store(&folder), folder.path("own.jsonl"));
    let args = ["label", "--store", &store, "--by", "anna", "--contrast", &out];
    fails(&args, USAGE, &["--truth", "--group"]);
    fails(&[&args[..], &["--truth", "a", "--group", "b"]].concat(), USAGE, &["--truth", "--group"]);
    fails(&["label", "--store", &store, "--by", "anna", "--group"], USAGE, &["--contrast"]);
    fails(&[&args[..], &["--group", "nobody"]].concat(), DATA, &["anna"]);
}
