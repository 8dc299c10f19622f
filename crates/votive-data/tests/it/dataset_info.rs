//! Data sets that LLaMA-Factory's `dataset_info.json` lists.

use serde_json::{Value, json};
use votive_data::{Completion, DataError, PairText, Result, TextRecords, TextSource};

use crate::{Folder, check_message};

fn folder(entries: &Value) -> Folder {
    let folder = Folder::new();
    folder.write("dataset_info.json", entries.to_string());
    folder
}

fn read(folder: &Folder, path: &str, name: Option<&str>) -> Result<TextRecords> {
    let name = name.map(str::to_owned);
    TextSource { name, ..TextSource::new(folder.path().join(path)) }.read()
}

fn chat(records: &TextRecords) -> (Vec<Value>, Vec<Value>, Vec<Value>) {
    let TextRecords::Pairs(records) = records else { panic!("{records:?}") };
    let PairText::Chat { prompt, chosen, rejected, .. } = &records.rows[0].text else {
        panic!("{records:?}")
    };
    let turns = |turns: &Vec<votive_data::Message>| {
        turns.iter().map(|turn| serde_json::to_value(turn).unwrap()).collect()
    };
    (turns(prompt), turns(chosen), turns(rejected))
}

fn turn(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

#[test]
fn columns_and_tags_are_called_as_the_entry_says() {
    let folder = folder(&json!({
        "mine": {
            "file_name": "data/mine.json", "formatting": "sharegpt", "ranking": true,
            "columns": {"messages": "talk", "chosen": "good", "rejected": "bad", "system": "rules", "tools": "functions"},
            "tags": {"role_tag": "who", "content_tag": "says", "user_tag": "u", "assistant_tag": "a", "function_tag": "f", "observation_tag": "o"}
        }
    }));
    let row = json!([{
        "rules": "Be brief.", "functions": "[]", "chosen": "not this one",
        "talk": [{"who": "u", "says": "Hi"}, {"who": "f", "says": "{\"name\": \"g\", \"arguments\": {\"x\": 1}}"}, {"who": "o", "says": "7"}],
        "good": {"who": "a", "says": "Hello"}, "bad": {"who": "a", "says": "What"}
    }]);
    folder.write("data/mine.json", row.to_string());
    for path in ["dataset_info.json", ""] {
        let records = read(&folder, path, Some("mine")).unwrap();
        let (prompt, chosen, rejected) = chat(&records);
        let call = json!([{"type": "function", "function": {"name": "g", "arguments": {"x": 1}}}]);
        assert_eq!(prompt[..2], [turn("system", "Be brief."), turn("user", "Hi")]);
        assert_eq!(prompt[2..], [json!({"role": "assistant", "tool_calls": call}), turn("tool", "7")]);
        assert_eq!((chosen, rejected), (vec![turn("assistant", "Hello")], vec![turn("assistant", "What")]));
        let TextRecords::Pairs(records) = records else { panic!("pairs") };
        assert_eq!(records.format, Some("sharegpt"));
        // The file's own column of that name is nobody's.
        assert_eq!(records.ignored_columns.keys().collect::<Vec<_>>(), ["chosen (as the file calls it)"]);
    }
}

#[test]
fn alpaca_rows_have_rounds_and_an_input() {
    let folder = folder(&json!({"mine": {"file_name": "mine.jsonl", "ranking": true, "columns":
        {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected", "history": "history"}}}));
    let row = json!({"instruction": "Add", "input": "1 2", "system": "not named, not read", "chosen": "3", "rejected": "4", "history": [["Hi", "Hello"]]});
    folder.write("mine.jsonl", row.to_string());
    let records = read(&folder, "dataset_info.json", Some("mine")).unwrap();
    let (prompt, chosen, _) = chat(&records);
    let TextRecords::Pairs(records) = records else { panic!("pairs") };
    assert_eq!(records.ignored_columns.keys().collect::<Vec<_>>(), ["system (as the file calls it)"]);
    assert_eq!(prompt, [turn("user", "Hi"), turn("assistant", "Hello"), turn("user", "Add\n1 2")]);
    assert_eq!(chosen, [turn("assistant", "3")]);
}

#[test]
fn a_tag_for_kto_makes_labelled_completions() {
    let folder = folder(&json!({"mine": {"file_name": "mine.jsonl", "formatting": "sharegpt",
        "columns": {"messages": "conversations", "kto_tag": "ok"}}}));
    let row = json!({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}], "ok": false});
    folder.write("mine.jsonl", row.to_string());
    let TextRecords::Unpaired(records) = read(&folder, "dataset_info.json", Some("mine")).unwrap() else {
        panic!("unpaired")
    };
    let Completion::Chat { prompt, completion, .. } = &records.rows[0].text else { panic!("{records:?}") };
    assert_eq!((prompt.len(), completion[0].content(), records.rows[0].label), (1, Some("Yes"), false));
}

#[test]
fn entries_that_cannot_be_read_are_named() {
    let folder = folder(&json!({
        "sft": {"file_name": "a.json"}, "hub": {"hf_hub_url": "a/b", "ranking": true},
        "images": {"file_name": "a.json", "ranking": true, "columns": {"images": "images"}},
        "tags": {"file_name": "a.json", "ranking": true, "tags": {"who": "x"}},
        "form": {"file_name": "a.json", "ranking": true, "formatting": "openai"},
        "none": {"ranking": true}
    }));
    let check = |name: Option<&str>, parts: &[&str]| {
        let error = read(&folder, "dataset_info.json", name).unwrap_err();
        assert!(matches!(error, DataError::Settings { .. }));
        check_message(error, &[&["dataset_info.json: "], parts].concat());
    };
    check(None, &["say which data set is meant", "known: sft, hub, images"]);
    check(Some("other"), &["no data set `other`; known: sft"]);
    check(Some("sft"), &["sft: no preferences", "\"ranking\": true"]);
    check(Some("hub"), &["hub: `hf_hub_url` is not supported", "file_name"]);
    check(Some("images"), &["the column `images` is not supported"]);
    check(Some("tags"), &["the tag `who` is not known"]);
    check(Some("form"), &["neither \"alpaca\" nor \"sharegpt\""]);
    check(Some("none"), &["`file_name` is missing"]);
    folder.write("rows.jsonl", "{}");
    check_message(read(&folder, "rows.jsonl", Some("x")).unwrap_err(), &["this is no dataset_info.json"]);
}
