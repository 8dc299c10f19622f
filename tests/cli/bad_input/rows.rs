//! Rows of text: the file, the row, the field, and what can be done with rows that cannot be trained on.

use super::*;

const GOOD: &str = r#"{"prompt":"The cat","chosen":" sat","rejected":" ran"}"#;

/// Trains on a good row and a bad one behind it.
#[track_caller]
fn check(bad: &str, settings: &[&str], parts: &[&str]) {
    let trial = Trial::text();
    let data = trial.folder.text("rows.jsonl", &format!("{GOOD}\n{bad}\n"));
    let path = format!("data.path={data}");
    trial.refused(&[settings, &[&path]].concat(), DATA, &[&["rows.jsonl: row 2"], parts].concat());
}

#[test]
fn a_missing_data_file_is_named() {
    let trial = Trial::text();
    let none = trial.path("none.jsonl");
    let missing = ["none.jsonl: cannot be read: No such file"];
    trial.refused(&[&format!("data.path={none}")], DATA, &missing);
    let (model, out) = (fixture("text/llama"), trial.path("out.jsonl"));
    trial.untouched(&["score", "--model", &model, "--data", &none, "--out", &out], DATA, &missing);
    trial.untouched(
        &["inspect", &trial.path("recipe.toml"), "--set", &format!("data.path={none}")],
        DATA,
        &missing,
    );
    let folder = format!("data.path={}", trial.path(""));
    trial.refused(
        &[&folder],
        DATA,
        &["a folder without tables is not a supported kind of preference data", ".jsonl"],
    );
    trial.folder.text("empty.jsonl", "\n\n");
    let empty = format!("data.path={}", trial.path("empty.jsonl"));
    trial.refused(&[&empty], DATA, &["empty.jsonl: no row to train on: 0 read, 0 dropped"]);
}

#[test]
fn a_row_that_cannot_be_read_is_named_with_its_field() {
    check("{\"prompt\":", &[], &["column 10: not a JSON object: EOF"]);
    check("[1, 2]", &[], &["column 1: not a JSON object: invalid type: sequence"]);
    check(&"[".repeat(100_000), &[], &["not a JSON object"]);
    check(
        r#"{"prompt":"a","chosen":"b"}"#,
        &[],
        &["field `rejected` is missing", "`prompt`, `chosen` and `rejected`"],
    );
    check(
        r#"{"prompt":"a","chosen":5,"rejected":"b"}"#,
        &[],
        &["field `chosen`: expected a string or a list of messages, found the number 5"],
    );
    check(
        r#"{"prompt":[{"role":"user"}],"chosen":[{"role":"assistant","content":"b"}],"rejected":[{"content":"c"}]}"#,
        &[],
        &["field `rejected[0].role` is missing"],
    );
}

#[test]
fn a_row_that_teaches_nothing_is_named_or_dropped() {
    let (empty, same) =
        (r#"{"prompt":"a","chosen":"","rejected":"b"}"#, r#"{"prompt":"a","chosen":"b","rejected":"b"}"#);
    check(empty, &[], &["empty completion; mend the row, or set faulty_rows to \"drop\""]);
    check(same, &[], &["chosen and rejected are the same; mend the row, or set faulty_rows to \"drop\""]);
    let trial = Trial::text();
    let data = trial.folder.text("rows.jsonl", &format!("{GOOD}\n{empty}\n{same}\n"));
    let inspect = ["inspect", &trial.path("recipe.toml"), "--set", &format!("data.path={data}")];
    let said = trial.works(&[&inspect[..], &["--set", "data.faulty_rows=drop"]].concat());
    for part in ["empty completion: 1 (row 2)", "chosen and rejected are the same: 1 (row 3)"] {
        assert!(said.contains(part), "{said}");
    }
    trial.folder.text("rows.jsonl", same);
    let path = format!("data.path={data}");
    let none_left = "no row to train on: 1 read, 1 dropped (chosen and rejected are the same: 1 (row 1))";
    trial.refused(&[&path, "data.faulty_rows=drop"], DATA, &[none_left]);
}

#[test]
fn a_row_beyond_the_context_is_refused_dropped_or_cut() {
    let long_prompt = format!(r#"{{"prompt":"{}","chosen":" sat","rejected":" ran"}}"#, "cat ".repeat(300));
    let long_answer = format!(r#"{{"prompt":"The","chosen":"{}","rejected":" ran"}}"#, " cat".repeat(300));
    let fills = ["the prompt fills the context (303 tokens, the context holds 256)", "long_rows to \"drop\""];
    check(&long_prompt, &[], &fills);
    check(&long_answer, &[], &["longer than the context (", "\"drop\" or \"truncate\""]);
    check(&long_answer, &["data.max_length=16"], &["the context holds 16)"]);
    let trial = Trial::text();
    let data = trial.folder.text("rows.jsonl", &[GOOD, &long_prompt, &long_answer].join("\n"));
    let inspect = |long_rows: &str| {
        let (path, long_rows) = (format!("data.path={data}"), format!("data.long_rows={long_rows}"));
        trial.works(&["inspect", &trial.path("recipe.toml"), "--set", &path, "--set", &long_rows])
    };
    let generate = ["generate", "--model", &fixture("text/llama"), "--prompt", &"cat ".repeat(300)];
    let room = ["prompt 0 has 303 tokens; a model of 256 positions can continue 1 to 255"];
    trial.untouched(&generate, DATA, &room);
    // A prompt that fills the context leaves nothing to cut to.
    for (long_rows, parts) in [
        ("drop", ["the prompt fills the context: 1 (row 2)", "longer than the context: 1 (row 3)"]),
        ("truncate", ["the prompt fills the context: 1 (row 2)", "truncated: 1 (row 3)"]),
    ] {
        let said = inspect(long_rows);
        parts.iter().for_each(|part| assert!(said.contains(part), "{long_rows}: no {part:?} in {said}"));
    }
}

#[test]
fn data_of_the_other_kind_is_refused() {
    let trial = Trial::text();
    let data =
        trial.folder.text("labelled.jsonl", r#"{"prompt":"The cat","completion":" sat","label":true}"#);
    let path = format!("data.path={data}");
    trial.refused(&[&path], USAGE, &["`dpo` compares pairs", "single completions with labels"]);
    trial.folder.text("labelled.jsonl", r#"{"prompt":"The cat","completion":" sat","label":"yes"}"#);
    let wrong = ["labelled.jsonl: row 1, field `label`: expected true or false, found the string \"yes\""];
    trial.refused(&[&path, "objective.kto.beta=0.1"], DATA, &wrong);
}

#[test]
fn rows_of_another_kind_than_the_first_are_named() {
    let turns = |role: &str, text: &str| format!(r#"[{{"role":"{role}","content":"{text}"}}]"#);
    let chat = format!(
        r#"{{"prompt":{},"chosen":{},"rejected":{}}}"#,
        turns("user", "a"),
        turns("assistant", "b"),
        turns("assistant", "c")
    );
    check(&chat, &[], &["conversations, but row 1 of", "has strings with a prompt", "split it"]);
    check(r#"{"prompt":"a","completion":"b","label":true}"#, &[], &["the format `trl-unpaired`"]);
    let trial = Trial::text();
    let data = trial.folder.text("rows.jsonl", r#"{"question":"a","best":"b"}"#);
    let path = format!("data.path={data}");
    trial.refused(&[&path], DATA, &["rows.jsonl: row 1", "found: `question`, `best`", "known formats: "]);
    trial.refused(&["data.format=hh"], USAGE, &["data.format: expected \"auto\"", "found \"hh\""]);
    trial.refused(&["data.pairs=some"], USAGE, &["data.pairs: expected \"best_worst\""]);
    trial.refused(&["data.split=train"], DATA, &["a file has no splits"]);
}

#[test]
fn a_run_reads_shards_in_a_layout_of_its_own() {
    let trial = Trial::text();
    let row = |n: usize| {
        let answers = format!(r#"[" it is {n}"," no","not"]"#);
        format!(r#"{{"prompt":"The cat","responses":{answers},"scores":[3,2,{n}],"weight":0.5}}"#)
    };
    let shards = [0, 1].map(|n| trial.folder.text(&format!("train-0000{n}-of-00002.jsonl"), &row(n)));
    let list = format!("data.path=[{:?}, {:?}]", shards[0], shards[1]);
    let mut args = trial.training(&[&list, "data.pairs=all"]);
    args.retain(|arg| arg != "--quiet");
    let said = trial.works(&args);
    for part in
        ["2 rows read as ranked, 6 records made, 6 kept", "weight: 6 numbers from 0.5 to 0.5", "margin: "]
    {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let plan = fs::read_to_string(trial.path("run/plan.toml")).unwrap();
    for part in ["path = [", "pairs = \"all\"", "format = \"auto\""] {
        assert!(plan.contains(part), "no {part:?} in {plan}");
    }
}
