//! Records written in a layout are the same records when they are read again.

use serde_json::{Value, json};
use votive_data::{
    DataError, Format, Records, Result, TextLayout, TextRecords, TextSource, convert, read_text, write_jsonl,
};

use crate::{Folder, check_message, fixture};

fn read(rows: &[Value], format: Option<&str>) -> TextRecords {
    let folder = Folder::new();
    let file = folder.path().join("rows.jsonl");
    write_jsonl(&file, rows).unwrap();
    let format = format.map(|name| Format::find(name).unwrap());
    TextSource { format, ..TextSource::new(file) }.read().unwrap()
}

/// Records without where they were read.
fn content(records: TextRecords) -> TextRecords {
    match records {
        TextRecords::Pairs(records) => TextRecords::Pairs(Records::new("", records.rows)),
        TextRecords::Unpaired(records) => TextRecords::Unpaired(Records::new("", records.rows)),
    }
}

#[track_caller]
fn check(row: &Value, layout: TextLayout, format: &str) {
    let records = read(std::slice::from_ref(row), None);
    let rows = convert(&records, layout).unwrap();
    let again = read(&rows, None);
    let found = match &again {
        TextRecords::Pairs(records) => records.format,
        TextRecords::Unpaired(records) => records.format,
    };
    assert_eq!((found, content(again)), (Some(format), content(records)), "{rows:?}");
}

fn turns(turns: &[(&str, &str)]) -> Value {
    turns.iter().map(|(role, content)| json!({"role": role, "content": content})).collect()
}

const DIALOGUE: &[(&str, &str)] =
    &[("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "More?\nNow")];

fn pair() -> Value {
    json!({"prompt": turns(DIALOGUE), "chosen": turns(&[("assistant", "é")]), "rejected": turns(&[("assistant", "no")]),
           "tools": [{"name": "f"}], "weight": 2.0, "margin": 0.5})
}

fn labelled() -> Value {
    json!({"prompt": turns(DIALOGUE), "completion": turns(&[("assistant", "é")]), "label": false, "weight": 2.0})
}

#[test]
fn conversations_survive_every_layout_for_them() {
    for (layout, format) in [
        (TextLayout::TrlConversational, "trl"),
        (TextLayout::Sharegpt, "sharegpt"),
        (TextLayout::Alpaca, "alpaca"),
    ] {
        check(&pair(), layout, format);
    }
}

#[test]
fn labelled_conversations_survive_every_layout_for_them() {
    for (layout, format) in [
        (TextLayout::Unpaired, "trl-unpaired"),
        (TextLayout::Sharegpt, "sharegpt"),
        (TextLayout::Alpaca, "alpaca"),
    ] {
        check(&labelled(), layout, format);
    }
}

#[test]
fn strings_survive() {
    check(&json!({"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1.0}), TextLayout::Trl, "trl");
    check(&json!({"chosen": "a b", "rejected": "a c"}), TextLayout::Trl, "trl");
    check(&json!({"prompt": "a", "completion": "b", "label": true}), TextLayout::Unpaired, "trl-unpaired");
}

#[test]
fn a_pair_becomes_a_good_and_a_bad_completion() {
    let rows = convert(&read(&[pair()], None), TextLayout::Unpaired).unwrap();
    let labels: Vec<_> =
        rows.iter().map(|row| (row["label"].clone(), row["completion"][0]["content"].clone())).collect();
    assert_eq!(labels, [(json!(true), json!("é")), (json!(false), json!("no"))]);
    assert!(rows.iter().all(|row| row["margin"] == json!(0.5) && row["tools"] == json!([{"name": "f"}])));
}

#[test]
fn strings_become_turns() {
    let strings = json!({"prompt": "a", "chosen": "b", "rejected": "c"});
    let rows = convert(&read(&[strings], None), TextLayout::TrlConversational).unwrap();
    assert_eq!(
        (&rows[0]["prompt"], &rows[0]["chosen"]),
        (&turns(&[("user", "a")]), &turns(&[("assistant", "b")]))
    );
}

#[test]
fn what_a_layout_cannot_say_is_refused() {
    let refused = |row: Value, layout: TextLayout, parts: &[&str]| {
        let result: Result<Vec<Value>> = convert(&read(&[row], None), layout);
        let error = result.unwrap_err();
        assert!(matches!(error, DataError::NotWritable { row: 1, .. }), "{error}");
        check_message(error, &[&["rows.jsonl: row 1: ", layout.name()], parts].concat());
    };
    refused(pair(), TextLayout::Trl, &["a conversation", "trl-conversational"]);
    refused(labelled(), TextLayout::Trl, &["with a label", "unpaired"]);
    refused(json!({"chosen": "a b", "rejected": "a c"}), TextLayout::Unpaired, &["without a prompt"]);
    let mut rounds = pair();
    rounds["chosen"] = turns(&[("assistant", "a"), ("user", "b"), ("assistant", "c")]);
    refused(rounds.clone(), TextLayout::Sharegpt, &["not one answer of the assistant"]);
    rounds = pair();
    rounds["prompt"] = turns(&[("user", "a"), ("user", "b")]);
    refused(rounds.clone(), TextLayout::Alpaca, &["do not alternate"]);
    rounds["chat_template_kwargs"] = json!({"x": 1});
    refused(rounds, TextLayout::Sharegpt, &["chat_template_kwargs"]);
}

#[test]
fn the_images_of_a_text_are_found_from_wherever_the_file_is_written() {
    let images = json!(["a.png", "b/c.jpg"]);
    let pair = json!({"images": images, "prompt": "<image><image>x", "chosen": "y", "rejected": "z"});
    check(&pair, TextLayout::Trl, "trl");
    let labelled = json!({"images": images, "prompt": "<image><image>x", "completion": "y", "label": true});
    check(&labelled, TextLayout::Unpaired, "trl-unpaired");
    let embedded = read_text(&fixture("llava_steps/prefs.parquet")).unwrap();
    let error = convert(&embedded, TextLayout::TrlConversational).unwrap_err();
    check_message(error, &["row 1", "an embedded image"]);
}
