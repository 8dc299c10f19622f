//! `votive data`: what is wrong with a row is said in words, numbers are those of the data, and layouts survive a round
//! trip.

use crate::*;

/// A copy of the tiny Llama with another chat template.
fn with_template(folder: &Folder, template: &str) -> String {
    let model = folder.copy("text/llama");
    fs::write(format!("{model}/chat_template.jinja"), template).unwrap();
    model
}

/// Ends every turn with the token at which generation stops.
const ENDING: &str = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}\
                      {% if add_generation_prompt %}<assistant>{% endif %}";

#[track_caller]
fn check_shown(args: &[&str], parts: &[&str]) {
    let shown = ok(&[&["data", "show"], args].concat());
    for part in parts {
        assert!(shown.contains(part), "no {part:?} in\n{shown}");
    }
}

fn chat(prompt: &str, chosen: &[(&str, &str)], rejected: &[(&str, &str)]) -> String {
    let turns = |turns: &[(&str, &str)]| -> Vec<Value> {
        turns.iter().map(|(role, content)| json!({"role": role, "content": content})).collect()
    };
    json!({"prompt": turns(&[("user", prompt)]), "chosen": turns(chosen), "rejected": turns(rejected)})
        .to_string()
}

fn answers() -> String {
    chat("Hi", &[("assistant", "one")], &[("assistant", "two")])
}

#[test]
fn a_row_is_shown_as_it_is_read_and_as_it_is_trained() {
    let folder = Folder::new();
    let row =
        json!({"prompt": "Say", "chosen": " yes", "rejected": " no", "weight": 2, "margin": 0.5, "id": 7});
    let data = folder.text("pairs.jsonl", &row.to_string());
    check_shown(
        &[&data],
        &["row 1 (", "pairs.jsonl:1), weight 2, margin 0.5", "prompt: \"Say\"", "chosen: \" yes\""],
    );
    let model = fixture("text/llama");
    let tokens = ["chosen: ", " prompt + ", "<|bos|>Say[ yes<|eos|>]", "<|bos|>Say[ no<|eos|>]"];
    check_shown(&[&data, "--model", &model], &tokens);
    let output = votive(["data", "show", &data]).output().unwrap();
    assert!(stderr(&output).contains("1 rows read as trl: 1 pairs"), "{}", stderr(&output));
    assert!(stderr(&output).contains("columns not read: id (1)"), "{}", stderr(&output));
    let [shown] = &rows(&["data", "show", &data, "--model", &model])[..] else { panic!("one row") };
    assert_eq!(
        (&shown["weight"], &shown["lints"], &shown["tokens"]["problem"]),
        (&json!(2.0), &json!([]), &Value::Null)
    );
    fails(&["data", "show", &data, "--row", "9"], USAGE, &["--row 9: there is no such row; 1 were read"]);
}

#[test]
fn a_missing_end_and_an_added_system_prompt_are_said() {
    let folder = Folder::new();
    let data = folder.text("pairs.jsonl", &answers());
    let template = fs::read_to_string(fixture("layouts/chat_template.jinja")).unwrap();
    let model = with_template(&folder, &template);
    check_shown(
        &[&data, "--model", &model],
        &[
            "! missing end: chosen ends with",
            "generation stops at \"<|eos|>\"; the model does not learn to stop",
            "! added system prompt: the row has none, and the chat template writes",
            "Be a helpful machine.",
        ],
    );
    // With a system turn of its own, and ends that are ends, there is nothing to say.
    let model = with_template(&folder, ENDING);
    let shown = ok(&["data", "show", &data, "--model", &model]);
    assert!(!shown.contains('!'), "{shown}");
}

#[test]
fn doubled_ends_and_beginnings_are_said() {
    let folder = Folder::new();
    let row = json!({"prompt": "<|bos|>Say", "chosen": " yes<|eos|><|eos|>", "rejected": " no"});
    let data = folder.text("pairs.jsonl", &row.to_string());
    check_shown(
        &[&data, "--model", &fixture("text/llama")],
        &[
            "! doubled beginning: \"<|bos|>\" stands in the prompt",
            "! doubled end: \"<|eos|>\" stands 2 times in chosen",
        ],
    );
}

#[test]
fn an_end_that_is_not_trained_is_said() {
    let folder = Folder::new();
    let rounds = [("assistant", "one"), ("user", "more")];
    let data = folder.text("pairs.jsonl", &chat("Hi", &rounds, &[("assistant", "two")]));
    let model = with_template(&folder, ENDING);
    check_shown(
        &[&data, "--model", &model, "--train-on", "assistant"],
        &["[one<|eos|>]<user>more<|eos|>", "! untrained end: the token that ends chosen", " of others"],
    );
    check_shown(&[&data, "--model", &model], &["[one<|eos|><user>more<|eos|>]"]);
}

#[test]
fn truncation_is_seen_and_said() {
    let folder = Folder::new();
    let row = json!({"prompt": "Say", "chosen": " yes and yes and yes", "rejected": " no"});
    let data = folder.text("pairs.jsonl", &row.to_string());
    let model = fixture("text/llama");
    let [whole] = &rows(&["data", "show", &data, "--model", &model])[..] else { panic!("one row") };
    let prompt = whole["tokens"]["prompt_ids"].as_array().unwrap().len();
    let most = (prompt + 2).to_string();
    check_shown(
        &[&data, "--model", &model, "--max-length", &most],
        &["<|eos|>}", "! truncated: the last ", "of chosen do not fit"],
    );
    check_shown(
        &[&data, "--model", &model, "--max-length", &prompt.to_string()],
        &["! not trained on: the prompt fills the context (", "raise max_length"],
    );
    fails(&["data", "show", &data, "--max-length", "9"], USAGE, &["--model"]);
}

#[test]
fn a_prompt_that_is_tokenized_differently_alone_is_said() {
    let folder = Folder::new();
    let template = fs::read_to_string(fixture("layouts/chat_template.jinja")).unwrap();
    let model = with_template(&folder, &template);
    check_shown(
        &[&fixture("layouts/chat.jsonl"), "--model", &model, "--row", "1"],
        &["{<think></think>}[", "! retokenized prompt: alone it ends with", "never sees when it generates"],
    );
    let row = json!({"prompt": "The wor", "chosen": "d is", "rejected": "ld is"}).to_string();
    let data = folder.text("words.jsonl", &row);
    let shown = ok(&["data", "show", &data, "--model", &model]);
    assert!(shown.contains("chosen: "), "{shown}");
}

#[test]
fn rows_without_a_pair_say_why() {
    let folder = Folder::new();
    let same = json!({"prompt": "a", "chosen": "b", "rejected": "b"}).to_string();
    let data = folder.text("same.jsonl", &same);
    check_shown(
        &[&data, "--model", &fixture("text/llama")],
        &["! not trained on: chosen and rejected are the same"],
    );
    let tie = json!({"prompt": "a", "responses": ["b", "c"], "scores": [1, 1]}).to_string();
    let data = folder.text("tie.jsonl", &tie);
    check_shown(&[&data, "--row", "1"], &["row 1 gives no record: the scores are equal"]);
}

#[test]
fn data_are_counted() {
    let folder = Folder::new();
    let list = |scores: [i32; 3]| {
        json!({"prompt": "Say", "responses": [" yes", " no, not now", " no"], "scores": scores}).to_string()
    };
    let lines = [list([3, 1, 1]), list([3, 1, 1]), list([1, 3, 2]), list([2, 2, 2])].join("\n");
    let data = folder.text("lists.jsonl", &lines);
    let [stats] = &rows(&["data", "stats", &data])[..] else { panic!("one line") };
    assert_eq!(
        (&stats["unit"], &stats["report"]["rows_read"], &stats["report"]["records"]),
        (&json!("characters"), &json!(4), &json!(3))
    );
    assert_eq!(stats["report"]["dropped"]["tie"], json!({"count": 1, "first": [4]}));
    assert_eq!((&stats["margin"]["mean"], &stats["lengths"]["prompt"]["max"]), (&json!(2.0), &json!(3.0)));
    assert_eq!(stats["duplicates"]["records"], json!({"count": 1, "first": [2]}));
    assert_eq!(stats["duplicates"]["contradictions"], json!({"count": 0, "first": []}));
    assert_eq!(stats["lengths"]["chosen_longer"], json!(1.0));
    let model = fixture("text/llama");
    let text = ok(&["data", "stats", &data, "--model", &model, "--max-length", "8"]);
    for part in [
        "4 rows read as ranked, 3 records made",
        "the scores are equal: 1 (row 4)",
        "longer than the context: ",
        "prompt, tokens: ",
        "█ ",
        "margin: 3 from 2 to 2",
        "prompt and completions that came before: 1",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn a_data_set_is_written_in_another_layout() {
    let folder = Folder::new();
    let (out, again) = (folder.path("out.jsonl"), folder.path("again.jsonl"));
    let data = fixture("tables/snappy.parquet");
    let said = ok(&["data", "convert", &data, "--to", "trl-conversational", "--out", &out]);
    assert!(said.contains("5 rows written to"), "{said}");
    ok(&["data", "convert", &out, "--to", "trl-conversational", "--out", &again]);
    assert_eq!(fs::read_to_string(&out).unwrap(), fs::read_to_string(&again).unwrap());
    let shown = |data: &str| -> Vec<Value> {
        let mut shown = rows(&["data", "show", data, "--rows", "9"]);
        shown.iter_mut().for_each(|row| row["file"] = Value::Null);
        shown
    };
    assert_eq!(shown(&data), shown(&out));
    let [entry] = &rows(&["data", "convert", &data, "--to", "sharegpt", "--out", &out])[..] else {
        panic!("one line")
    };
    fs::write(folder.path("dataset_info.json"), entry["dataset_info"].to_string()).unwrap();
    let listed = shown_entry(&folder);
    assert_eq!(listed[0]["chosen"], shown(&data)[0]["chosen"]);
    let refused =
        ["snappy.parquet: row 1: a conversation cannot be written as trl; write it as trl-conversational"];
    fails(&["data", "convert", &data, "--to", "trl", "--out", &again], DATA, &refused);
    fails(&["data", "convert", &data, "--to", "csv", "--out", &again], USAGE, &["trl-conversational"]);
}

fn shown_entry(folder: &Folder) -> Vec<Value> {
    rows(&["data", "show", &folder.path("dataset_info.json"), "--name", "out"])
}

#[test]
fn bad_data_are_named_by_every_command() {
    let folder = Folder::new();
    let unknown = folder.text("unknown.jsonl", r#"{"question": "a", "best": "b"}"#);
    let whole = fs::read(fixture("tables/snappy.parquet")).unwrap();
    let cut = folder.path("cut.parquet");
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    for command in ["show", "stats"] {
        fails(
            &["data", command, &unknown],
            DATA,
            &["unknown.jsonl: row 1", "found: `question`, `best`", "known formats: sharegpt"],
        );
        fails(&["data", command, &cut], DATA, &["cut.parquet: after row 0: not a whole Parquet file"]);
    }
    // Wherever a byte is wrong, the program says so or does not notice; it never panics.
    for at in (4..whole.len()).step_by(whole.len() / 40) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x5a;
        fs::write(&cut, damaged).unwrap();
        let output = votive(["data", "stats", &cut]).output().unwrap();
        let said = stderr(&output);
        assert!(
            matches!(output.status.code(), Some(0 | DATA)) && !said.contains("panicked"),
            "byte {at}: {said}"
        );
    }
    fails(&["data", "show", &unknown, "--format", "hh"], USAGE, &["hh-rlhf"]);
    let data = folder.text("pairs.jsonl", &answers());
    let model = folder.copy("text/llama");
    fs::remove_file(format!("{model}/chat_template.jinja")).unwrap();
    fails(&["data", "show", &data, "--model", &model], DATA, &["pairs.jsonl: row 1", "no chat template"]);
    fs::write(format!("{model}/chat_template.jinja"), "{{ raise_exception('not you') }}").unwrap();
    fails(&["data", "stats", &data, "--model", &model], DATA, &["pairs.jsonl: row 1", "line 1: not you"]);
}

#[test]
fn the_playground_gives_prompts_of_a_split() {
    let test = ok(&["data", "playground", "captions", "--split", "test", "-n", "20", "--seed", "3"]);
    assert_eq!(test.lines().count(), 20);
    assert!(test.lines().all(votive::playground::image::held_out), "{test}");
    let train = ok(&["data", "playground", "captions", "-n", "20", "--seed", "3"]);
    assert!(train.lines().all(|caption| !votive::playground::image::held_out(caption)), "{train}");
    let texts: Vec<Value> = rows(&["data", "playground", "instructions", "-n", "5"]);
    assert_eq!(texts[0].as_array().unwrap().len(), 5);
    fails(
        &["data", "playground", "captions", "--split", "test", "-n", "100000"],
        USAGE,
        &["different prompts"],
    );
}
