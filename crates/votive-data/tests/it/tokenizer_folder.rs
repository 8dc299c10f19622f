//! Layouts of tokenizer folders, special tokens, and folders that are wrong.

use serde_json::json;
use votive_data::{ChatOptions, ClipTokenizer, DataError, Message, TextTokenizer};

use crate::{Folder, check_message, fixture};

/// A folder with the fixture's `tokenizer.json` and nothing else.
fn bare() -> Folder {
    let folder = Folder::new();
    folder.write("tokenizer.json", std::fs::read(fixture("text/llama/tokenizer.json")).unwrap());
    folder
}

fn render(tokenizer: &TextTokenizer, options: &ChatOptions) -> String {
    tokenizer.render_chat(&[Message::new("user", "Hi")], false, options).unwrap()
}

#[test]
fn the_layout_of_transformers_5() {
    let tokenizer = TextTokenizer::load(&fixture("text/llama")).unwrap();
    assert_eq!(
        (tokenizer.pad_id().unwrap(), tokenizer.bos_id(), tokenizer.eos_id().unwrap()),
        (0, Some(1), 2)
    );
    assert_eq!(tokenizer.eos_token().unwrap(), "<|eos|>");
    assert_eq!(tokenizer.stop_ids(), [2]);
    assert_eq!(tokenizer.model_max_length(), Some(256));
    assert_eq!(render(&tokenizer, &ChatOptions::default()), "<|im_start|>user\nHi<|im_end|>\n");
}

#[test]
fn the_layout_of_transformers_4() {
    let folder = bare();
    let settings = json!({"chat_template": [
        {"name": "default", "template": "{{ bos_token }}{{ messages[0].content }}"},
        {"name": "tool_use", "template": "tools"},
    ], "eos_token": "overridden", "model_max_length": 1e30});
    folder.write("tokenizer_config.json", settings.to_string());
    let map = json!({"bos_token": {"content": "<|bos|>", "lstrip": false}, "eos_token": "<|eos|>"});
    folder.write("special_tokens_map.json", map.to_string());
    folder.write("generation_config.json", json!({"eos_token_id": [4, 2]}).to_string());
    let tokenizer = TextTokenizer::load(folder.path()).unwrap();
    assert_eq!((tokenizer.eos_id().unwrap(), tokenizer.pad_id().unwrap()), (2, 2));
    assert_eq!(tokenizer.stop_ids(), [4, 2]);
    assert_eq!(tokenizer.model_max_length(), None);
    assert_eq!(render(&tokenizer, &ChatOptions::default()), "<|bos|>Hi");
    let with_tools = ChatOptions { tools: Some(json!([])), ..ChatOptions::default() };
    assert_eq!(render(&tokenizer, &with_tools), "tools");
}

#[test]
fn template_files_win_over_settings() {
    let folder = bare();
    folder
        .write("tokenizer_config.json", json!({"chat_template": "old", "eos_token": "<|eos|>"}).to_string());
    folder.write("chat_template.jinja", "new");
    folder.write("additional_chat_templates/tool_use.jinja", "new tools");
    let tokenizer = TextTokenizer::load(folder.path()).unwrap();
    assert_eq!(render(&tokenizer, &ChatOptions::default()), "new");
    let with_tools = ChatOptions { tools: Some(json!([])), ..ChatOptions::default() };
    assert_eq!(render(&tokenizer, &with_tools), "new tools");
}

#[test]
fn a_folder_without_names_takes_them_from_the_model() {
    let folder = bare();
    check_message(
        TextTokenizer::load(folder.path()).unwrap().eos_token().unwrap_err(),
        &["no `eos_token`", "tokenizer_config.json"],
    );
    folder.write("config.json", json!({"eos_token_id": 2, "bos_token_id": 1}).to_string());
    let tokenizer = TextTokenizer::load(folder.path()).unwrap();
    assert_eq!((tokenizer.eos_token().unwrap(), tokenizer.bos_id()), ("<|eos|>", Some(1)));
}

#[test]
fn truncation_and_padding_in_the_file_do_not_count() {
    let folder = bare();
    let mut json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("tokenizer.json")).unwrap()).unwrap();
    json["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = json!({"strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": null,
                             "pad_id": 0, "pad_type_id": 0, "pad_token": "<|pad|>"});
    let text = "one two three four five six";
    let plain = TextTokenizer::load(folder.path()).unwrap().encode(text, true).unwrap();
    folder.write("tokenizer.json", json.to_string());
    assert_eq!(TextTokenizer::load(folder.path()).unwrap().encode(text, true).unwrap(), plain);
}

#[test]
fn a_vocabulary_larger_than_the_model_is_refused() {
    let tokenizer = TextTokenizer::load(&fixture("text/llama")).unwrap();
    assert_eq!(tokenizer.vocab_size(), 256);
    tokenizer.check_model_vocabulary(256).unwrap();
    tokenizer.check_model_vocabulary(300).unwrap();
    let error = tokenizer.check_model_vocabulary(200).unwrap_err();
    assert!(matches!(error, DataError::Vocabulary { tokenizer_size: 256, model_size: 200, .. }));
    check_message(error, &["text/llama", "256 tokens", "vocabulary has 200"]);
    let clip = ClipTokenizer::load(&fixture("tokenizing/clip/end")).unwrap();
    clip.check_model_vocabulary(clip.vocab_size()).unwrap();
    check_message(clip.check_model_vocabulary(10).unwrap_err(), &["vocabulary has 10", "<|endoftext|>"]);
}

#[test]
fn folders_that_are_wrong_are_named() {
    let empty = Folder::new();
    check_message(TextTokenizer::load(empty.path()).unwrap_err(), &["no tokenizer found", "tokenizer.json"]);
    check_message(ClipTokenizer::load(empty.path()).unwrap_err(), &["vocab.json with merges.txt"]);
    empty.write("tokenizer.json", "{}");
    check_message(TextTokenizer::load(empty.path()).unwrap_err(), &["tokenizer.json", "not a tokenizer"]);
    for damaged in [r#"{"decoder":{"type":"ByteLevel" "x"}}"#, r#"{"decoder":{"type":1e999}}"#] {
        empty.write("tokenizer.json", damaged);
        let error = TextTokenizer::load(empty.path()).unwrap_err();
        check_message(error, &["tokenizer.json", "not a tokenizer", "line 1 column "]);
    }
    let folder = bare();
    folder.write("tokenizer_config.json", "{");
    check_message(
        TextTokenizer::load(folder.path()).unwrap_err(),
        &["tokenizer_config.json", "not a JSON object"],
    );
    folder.write("tokenizer_config.json", "{\"chat_template\": 3}");
    check_message(
        TextTokenizer::load(folder.path()).unwrap_err(),
        &["chat_template: expected a string or a list"],
    );
    folder.write("tokenizer_config.json", "{\"chat_template\": \"a\\n{% if %}\"}");
    check_message(
        TextTokenizer::load(folder.path()).unwrap_err(),
        &["tokenizer_config.json: line 2", "syntax error"],
    );
}
