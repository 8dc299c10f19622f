//! Equality with transformers and TRL, on the fixtures of `tools/parity`.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::Value;
use votive_data::{
    ChatOptions, ChatTemplate, ClipTokenizer, DataError, ImagePlaces, Message, RowPolicy, TextTokenizer,
    VectorCount, collate_pairs, read_pairs,
};

use crate::{Folder, fixture};

fn integers(tensors: &SafeTensors, name: &str) -> Vec<i64> {
    let bytes = tensors.tensor(name).unwrap().data().to_vec();
    bytes.chunks_exact(8).map(|chunk| i64::from_le_bytes(chunk.try_into().unwrap())).collect()
}

/// Ids, masks and completion lengths of a file under the tokenizer of a model are TRL's.
fn check_against_trl(model: &str, data: &str) {
    let folder = fixture("text").join(model);
    let tokenizer = TextTokenizer::load(&folder).unwrap();
    let records = read_pairs(&fixture(&format!("text/{data}.jsonl"))).unwrap();
    let (pairs, report) = tokenizer.tokenize_pairs(&records, RowPolicy::default()).unwrap();
    let batch = collate_pairs(&pairs.iter().collect::<Vec<_>>(), tokenizer.pad_id().unwrap());

    let bytes = fs::read(folder.join(format!("{data}.expected.safetensors"))).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let context = format!("{model} {data}");
    assert_eq!(expected.tensor("input_ids").unwrap().shape(), [batch.n_sequences, batch.width], "{context}");
    let wide = |mask: &[u8]| mask.iter().map(|one| i64::from(*one)).collect::<Vec<_>>();
    let ids: Vec<_> = batch.input_ids.iter().map(|id| i64::from(*id)).collect();
    assert_eq!(ids, integers(&expected, "input_ids"), "{context}");
    assert_eq!(wide(&batch.attention_mask), integers(&expected, "attention_mask"), "{context}");
    assert_eq!(wide(&batch.completion_mask), integers(&expected, "completion_mask"), "{context}");
    let tokens: Vec<i64> = batch
        .completion_mask
        .chunks(batch.width)
        .map(|row| row.iter().map(|one| i64::from(*one)).sum())
        .collect();
    assert_eq!(tokens, integers(&expected, "tokens"), "{context}");
    assert_eq!(report.lengths.completion_tokens as i64, tokens.iter().sum::<i64>(), "{context}");
}

#[test]
fn pairs_are_tokenized_and_padded_as_trl_does() {
    for model in ["llama", "llama_tied", "mistral", "qwen2", "qwen3"] {
        check_against_trl(model, "prefs");
        check_against_trl(model, "prefs_chat");
    }
}

fn check_clip(tokenizer: &ClipTokenizer, expected: &Value) {
    for case in expected.as_array().unwrap() {
        let caption = case["caption"].as_str().unwrap();
        let ids: Vec<_> =
            case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(tokenizer.encode(caption).unwrap().ids, ids, "{caption:?}");
    }
}

#[test]
fn captions_are_tokenized_as_transformers_does() {
    let expected: Value =
        serde_json::from_slice(&fs::read(fixture("tokenizing/clip.json")).unwrap()).unwrap();
    for padding in ["end", "bang"] {
        let folder = fixture("tokenizing/clip").join(padding);
        check_clip(&ClipTokenizer::load(&folder).unwrap(), &expected[padding]);
        // The layout of transformers 4 has no tokenizer.json.
        let older = Folder::new();
        for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
            older.write(name, fs::read(folder.join(name)).unwrap());
        }
        check_clip(&ClipTokenizer::load(older.path()).unwrap(), &expected[padding]);
    }
}

#[test]
fn caption_tokens_that_do_not_fit_are_counted() {
    let tokenizer = ClipTokenizer::load(&fixture("tokenizing/clip/end")).unwrap();
    assert_eq!(tokenizer.encode(&"x".repeat(75)).unwrap().truncated_tokens, 0);
    let cut = tokenizer.encode(&"x".repeat(90)).unwrap();
    assert_eq!((cut.ids.len(), cut.ids.last(), cut.truncated_tokens), (77, Some(&tokenizer.end_id()), 15));
}

fn render(template: &Value, case: &Value) -> Result<String, DataError> {
    let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
    let options = ChatOptions {
        tools: Some(case["tools"].clone()).filter(|tools| !tools.is_null()),
        variables: case["variables"].as_object().unwrap().clone(),
    };
    let template_source = template["source"].as_str().unwrap();
    ChatTemplate::compile(template_source, Path::new(template["name"].as_str().unwrap()))?.render(
        &messages,
        case["add_generation_prompt"].as_bool().unwrap(),
        &options,
        template["special_tokens"].as_object().unwrap(),
    )
}

#[test]
fn chat_templates_render_as_in_transformers() {
    let templates: Value =
        serde_json::from_slice(&fs::read(fixture("tokenizing/templates.json")).unwrap()).unwrap();
    for template in templates.as_array().unwrap() {
        for case in template["renderings"].as_array().unwrap() {
            let context = format!("{} on {}", template["name"], case["messages"]);
            match (render(template, case), case["text"].as_str(), case["error"].as_str()) {
                (Ok(text), Some(expected), None) => assert_eq!(text, expected, "{context}"),
                (Err(error), None, Some(expected)) => {
                    assert!(error.to_string().contains(expected), "{context}: {error}")
                }
                (found, ..) => panic!("{context}: {found:?}"),
            }
        }
    }
}

/// Conversations about images of different sizes, with the marks that a Qwen3-VL has around each.
#[test]
fn images_of_any_size_stand_between_their_marks() {
    for case in ["new", "older"] {
        let folder = fixture("qwen3_vl").join(case);
        let expected: Value =
            serde_json::from_slice(&fs::read(folder.join("expected/chat.json")).unwrap()).unwrap();
        let turns: Vec<Message> = serde_json::from_value(expected["messages"].clone()).unwrap();
        let tokenizer = TextTokenizer::load(&folder).unwrap();
        let pad = tokenizer.encode("<|image_pad|>", false).unwrap()[0];
        let by_size = VectorCount::BySize(std::sync::Arc::new(|size| Ok(size.width as usize)));
        let tokenizer = tokenizer.with_images(ImagePlaces { token_id: pad, vectors: by_size });
        let (text, options) = (expected["text"].as_str().unwrap(), ChatOptions::default());
        assert_eq!(tokenizer.render_chat(&turns, true, &options).unwrap(), text, "{case}");
        let whole = tokenizer.encode(text, false).unwrap();
        let expanded = tokenizer.encode_chat_showing(&turns, &options, &[3, 1]).unwrap();
        assert_eq!(expanded.len(), whole.len() + 2, "{case}");
        assert_eq!(tokenizer.compressed(&expanded, &[3, 1]), whole, "{case}");
        let places = |ids: &[u32]| ids.iter().filter(|id| **id == pad).count();
        assert_eq!((places(&whole), places(&expanded)), (2, 4), "{case}");
        let message = tokenizer.encode_chat_showing(&turns, &options, &[3]).unwrap_err().to_string();
        assert!(message.contains("2 places for images, and is to show 1"), "{message}");
    }
}
