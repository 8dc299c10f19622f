//! Equality with TRL on rows in the layouts they are published in, on the fixtures of `tools/parity/layouts.py`.

use serde_json::Value;
use votive_data::{RowPolicy, TextTokenizer, read_pairs};

use crate::{Folder, fixture};

/// The tokenizer of a fixture's model with the template of the layouts.
fn tokenizer(model: &str) -> TextTokenizer {
    let folder = Folder::new();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        folder.write(name, std::fs::read(fixture("text").join(model).join(name)).unwrap());
    }
    folder.write("chat_template.jinja", std::fs::read(fixture("layouts/chat_template.jinja")).unwrap());
    TextTokenizer::load(folder.path()).unwrap()
}

#[track_caller]
fn check(layout: &str, format: &str) {
    let expected: Value =
        serde_json::from_slice(&std::fs::read(fixture("layouts/expected.json")).unwrap()).unwrap();
    let records = read_pairs(&fixture(&format!("layouts/{layout}.jsonl"))).unwrap();
    assert_eq!(records.format, Some(format));
    for (model, rows) in expected[layout].as_object().unwrap() {
        let (pairs, _) = tokenizer(model).tokenize_pairs(&records, RowPolicy::default()).unwrap();
        let found: Vec<_> =
            pairs.into_iter().map(|pair| [pair.prompt_ids, pair.chosen_ids, pair.rejected_ids]).collect();
        let rows: Vec<[Vec<u32>; 3]> = serde_json::from_value(rows.clone()).unwrap();
        assert_eq!(found, rows, "{layout} with {model}");
    }
}

#[test]
fn dialogues_as_text_are_split_where_trl_splits_them() {
    check("hh", "hh-rlhf");
}

#[test]
fn implicit_strings_are_split_where_trl_splits_them() {
    check("implicit", "trl");
}

#[test]
fn implicit_conversations_are_tokenized_as_trl_does() {
    check("implicit_chat", "trl");
}

#[test]
fn a_prompt_beside_conversations_that_repeat_it_is_read_once() {
    check("ultrafeedback_binarized", "ultrafeedback-binarized");
}

#[test]
fn tools_variables_and_several_turns_are_tokenized_as_trl_does() {
    check("chat", "trl");
}
