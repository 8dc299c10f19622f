//! LLaVA: numbers of transformers on tiny checkpoints that it saved (tests/fixtures/llava, written by
//! tools/parity/llava.py), and what training and generation promise of a model that sees images.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{DType, Device, IndexOp, Tensor};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use votive_model::{
    CausalLm, CausalLmConfig, Decoder, GenerateOptions, Generated, ImageInput, LlavaProcessor, Lora,
    LoraConfig, ModelError, Params, Request, TokenBatch, files, generate_watched, hub_folder, load_causal_lm,
    save_causal_lm,
};
use votive_tensor::segment::Recorder;

const CPU: Device = Device::Cpu;
const CASES: [&str; 4] = ["llama", "older", "layers", "gemma3"];
/// `<|eos|>` and `<image>` of the fixtures' tokenizer.
const EOS: u32 = 2;
const IMAGE: u32 = 256;

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/llava").join(case)
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn build(config: &CausalLmConfig, params: &Params) -> Decoder {
    params.build(|scope| config.build(scope)).unwrap()
}

/// A text as the processor expands it, the images that it shows, and what transformers says of both.
#[derive(Clone)]
struct Row {
    ids: Vec<u32>,
    images: Vec<ImageInput>,
    per_token_logps: Vec<f32>,
    last_logits: Vec<f32>,
    greedy: Vec<u32>,
}

fn processor(case: &str) -> LlavaProcessor {
    let config = CausalLmConfig::read_folder(&folder(case)).unwrap();
    LlavaProcessor::read(&folder(case), config.image_tokens().unwrap()).unwrap()
}

fn images(case: &str) -> (Vec<ImageInput>, BTreeMap<String, Tensor>) {
    let file = files::read(&folder(case).join("expected/images.safetensors"), &CPU).unwrap().tensors;
    let processor = processor(case);
    let read = |index: usize| {
        let image = file.get(&format!("image.{index}"))?;
        let (height, width, _) = image.dims3().unwrap();
        let rgb: Vec<u8> = image.flatten_all().unwrap().to_vec1().unwrap();
        Some(processor.image(&rgb, (width, height)).unwrap())
    };
    ((0..).map_while(read).collect(), file)
}

fn rows(case: &str) -> Vec<Row> {
    let tensors = files::read(&folder(case).join("expected/rows.safetensors"), &CPU).unwrap().tensors;
    let images = images(case).0;
    let row = |(index, about): (usize, &Value)| {
        let integers = |list: &Value| -> Vec<u32> {
            list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
        };
        let ids = tensors[&format!("ids.{index}")].to_dtype(DType::U32).unwrap();
        Row {
            ids: ids.to_vec1().unwrap(),
            images: integers(&about["images"]).into_iter().map(|n| images[n as usize].clone()).collect(),
            per_token_logps: tensors[&format!("per_token_logps.{index}")].to_vec1().unwrap(),
            last_logits: tensors[&format!("last_logits.{index}")].to_vec1().unwrap(),
            greedy: integers(&about["token_ids"]),
        }
    };
    let about = json_of(&folder(case).join("expected/rows.json"));
    about.as_array().unwrap().iter().enumerate().map(row).collect()
}

/// Every token of some rows that follows another.
fn batch(rows: &[Row]) -> TokenBatch {
    let wanted = |(row, Row { ids, .. }): (usize, &Row)| (1..ids.len()).map(move |at| (row, at));
    let wanted = rows.iter().enumerate().flat_map(wanted).collect();
    let ids = rows.iter().map(|row| row.ids.clone()).collect();
    TokenBatch::new(ids, wanted).unwrap().with_images(rows.iter().map(|row| row.images.clone()).collect())
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(found.len() == expected.len() && worst < 1e-4, "{what}: off by {worst}");
}

fn greedy(model: &Decoder, rows: &[&Row], new_tokens: usize) -> Vec<Generated> {
    let requests: Vec<Request> = (0..)
        .zip(rows)
        .map(|(sample, row)| Request { prompt: &row.ids, images: &row.images, sample })
        .collect();
    let mut go_on = |_, _| Ok::<_, ModelError>(ControlFlow::Continue(()));
    generate_watched(model, &requests, &GenerateOptions::greedy(new_tokens, vec![EOS]), &mut go_on).unwrap()
}

#[test]
fn parity_of_images_and_placeholders() {
    for case in CASES {
        let (found, file) = images(case);
        assert!(found.len() == 5, "{case}");
        let side = processor(case).tokens().side;
        for (index, image) in found.iter().enumerate() {
            let pixels = file[&format!("pixels.{index}")].flatten_all().unwrap().to_vec1().unwrap();
            let expected = ImageInput::new(pixels, (side, side)).unwrap();
            assert_eq!(image.identity(), expected.identity(), "{case}, image {index}");
        }
        for row in rows(case) {
            // One placeholder for each image gives the processor's ids back.
            let mut once = row.ids.clone();
            let per_image = processor(case).tokens().per_image;
            for start in 0..once.len() {
                if once.get(start) == Some(&IMAGE) {
                    once.drain(start + 1..start + per_image);
                }
            }
            assert_eq!(once.iter().filter(|id| **id == IMAGE).count(), row.images.len());
            assert_eq!(processor(case).expand(&once), row.ids, "{case}");
        }
    }
}

#[test]
fn parity_of_log_probs_and_logits() {
    for case in CASES {
        let (config, params) = load_causal_lm(&folder(case), &CPU).unwrap();
        let (model, rows) = (build(&config, &params), rows(case));
        let expected: Vec<f32> = rows.iter().flat_map(|row| row.per_token_logps.clone()).collect();
        let together = model.log_probs(&batch(&rows), None).unwrap().to_vec1().unwrap();
        assert_close(&together, &expected, case);
        for row in &rows {
            let seen = model.see(std::slice::from_ref(&row.ids), std::slice::from_ref(&row.images)).unwrap();
            let mut cache = model.cache(vec![0], row.ids.len()).unwrap().with_images(seen.vectors);
            let ids = Tensor::new(&*seen.rows[0], &CPU).unwrap().unsqueeze(0).unwrap();
            let logits = model.next_logits(&ids, &mut cache).unwrap().i(0).unwrap().to_vec1().unwrap();
            assert_close(&logits, &row.last_logits, case);
        }
    }
}

#[test]
fn parity_of_greedy_continuations() {
    for case in CASES {
        let (config, params) = load_causal_lm(&folder(case), &CPU).unwrap();
        let (model, rows) = (build(&config, &params), rows(case));
        let found = greedy(&model, &rows.iter().collect::<Vec<_>>(), 16);
        for (index, (row, found)) in rows.iter().zip(found).enumerate() {
            assert_eq!(found.token_ids, row.greedy, "{case}, row {index}");
        }
    }
}

/// transformers computes attention's softmax in f32 in all types, which is how exact its gradients are.
const GRADIENT: f64 = 1e-4;

#[test]
fn parity_of_gradients_which_every_parameter_has() {
    for case in CASES {
        let (config, params) = load_causal_lm(&folder(case), &CPU).unwrap();
        let params = params.into_trainable().unwrap();
        let expected = json_of(&folder(case).join("expected/gradient.json"));
        let names: BTreeSet<String> = params.trainable().into_iter().map(|(name, _)| name).collect();
        let expected_names: BTreeSet<String> =
            expected.as_object().unwrap().keys().filter(|name| *name != "lm_head.weight").cloned().collect();
        let own: BTreeSet<String> = names.iter().filter(|name| *name != "lm_head.weight").cloned().collect();
        assert_eq!(own, expected_names, "{case}");
        let batch = batch(&rows(case));
        let largest = expected.as_object().unwrap().values().filter_map(Value::as_f64).fold(0.0, f64::max);
        for recompute in [false, true] {
            let recorder = Recorder::new(params.trainable().into_iter().map(|(_, tensor)| tensor).collect());
            let model = build(&config, &params);
            let sum = model.log_probs(&batch, recompute.then_some(&recorder)).unwrap().sum_all().unwrap();
            let gradients = recorder.merge(&sum.backward().unwrap()).unwrap();
            for ((name, _), gradient) in params.trainable().into_iter().zip(gradients) {
                assert!(gradient.is_some(), "{case}: {name} has no gradient");
                let norm = gradient.unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
                let (norm, expected) = (f64::from(norm).sqrt(), expected[&name].as_f64().unwrap());
                assert!(norm > 0.0 && norm.is_finite(), "{case}: {name}");
                // What is 0 but for rounding (a bias of keys moves all scores alike) is compared with the rest.
                let allowed = GRADIENT * expected.max(1e-3 * largest);
                assert!((norm - expected).abs() <= allowed, "{case}: {name}: {norm}, expected {expected}");
            }
        }
    }
}

#[test]
fn parity_of_an_adapter_on_all_parts() {
    let (config, params) = load_causal_lm(&folder("llama"), &CPU).unwrap();
    let expected = folder("llama").join("expected");
    let lora = Lora::load(&expected.join("adapter"), &CPU).unwrap();
    let params = params.with_lora(lora).unwrap();
    let rows = rows("llama");
    let tensors = files::read(&expected.join("adapter.safetensors"), &CPU).unwrap().tensors;
    let logps: Vec<f32> = (0..rows.len())
        .flat_map(|row| tensors[&format!("per_token_logps.{row}")].to_vec1::<f32>().unwrap())
        .collect();
    let found = build(&config, &params).log_probs(&batch(&rows), None).unwrap().to_vec1().unwrap();
    assert_close(&found, &logps, "adapter");
    let merged = build(&config, &params.merged().unwrap());
    assert_close(&merged.log_probs(&batch(&rows), None).unwrap().to_vec1().unwrap(), &logps, "merged");
}

#[test]
fn a_new_adapter_is_on_what_is_read_and_changes_nothing() {
    let (config, params) = load_causal_lm(&folder("llama"), &CPU).unwrap();
    let targets = ["q_proj", "linear_1", "fc2"].map(str::to_owned).to_vec();
    let adapted = params.with_new_lora(LoraConfig::new(2, 4.0, targets), 5).unwrap();
    let paths: Vec<&str> = adapted.lora().unwrap().paths().collect();
    assert!(paths.contains(&"model.multi_modal_projector.linear_1"), "{paths:?}");
    assert!(paths.contains(&"model.vision_tower.encoder.layers.1.mlp.fc2"), "{paths:?}");
    // The features are those before the last layer.
    assert!(!paths.iter().any(|path| path.starts_with("model.vision_tower.encoder.layers.2")), "{paths:?}");
    let batch = batch(&rows("llama"));
    let log_probs = |params: &Params| build(&config, params).log_probs(&batch, None).unwrap();
    let (before, after) = (log_probs(&params), log_probs(&adapted));
    assert_eq!(before.to_vec1::<f32>().unwrap(), after.to_vec1::<f32>().unwrap());
    let store = after.sum_all().unwrap().backward().unwrap();
    for (name, tensor) in adapted.trainable() {
        assert!(store.get(&tensor).is_some(), "{name} has no gradient");
        let norm = store.get(&tensor).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert_eq!(norm > 0.0, name.contains("lora_B"), "{name}: {norm}");
    }
    // An adapter whose keys are PEFT's paths is the same after a round through a folder.
    let saved = tempfile::tempdir().unwrap();
    adapted.lora().unwrap().save(saved.path(), "base").unwrap();
    params.with_lora(Lora::load(saved.path(), &CPU).unwrap()).unwrap();
}

#[test]
fn images_decide_what_rows_share() {
    let (config, params) = load_causal_lm(&folder("llama"), &CPU).unwrap();
    let (model, rows) = (build(&config, &params), rows("llama"));
    let (ids, images) = (rows[0].ids.clone(), images("llama").0);
    let wanted = |row: usize| (ids.len() - 4..ids.len()).map(move |at| (row, at));
    let of = |shown: &[usize]| {
        let n_rows = shown.len();
        let batch =
            TokenBatch::new(vec![ids.clone(); n_rows], (0..n_rows).flat_map(wanted).collect()).unwrap();
        let batch = batch.with_images(shown.iter().map(|n| vec![images[*n].clone()]).collect());
        let found: Vec<f32> = model.log_probs(&batch, None).unwrap().to_vec1().unwrap();
        found.chunks(4).map(<[f32]>::to_vec).collect::<Vec<_>>()
    };
    let together = of(&[0, 1, 0, 2]);
    assert_eq!(together[0], together[2]);
    for (found, alone) in together.iter().zip([0, 1, 0, 2]) {
        assert_close(found, &of(&[alone])[0], "one row among others");
    }
    let differ = |a: &[f32], b: &[f32]| a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-2);
    assert!(differ(&together[0], &together[1]) && differ(&together[1], &together[3]));
    // The same prompt with other images is another prompt to the cache as well.
    let shown = |n: usize| Row { images: vec![images[n].clone()], ..rows[0].clone() };
    let (first, second) = (shown(0), shown(3));
    let both = greedy(&model, &[&first, &second, &first], 12);
    assert_eq!(both[0], both[2]);
    assert_eq!(both[0], greedy(&model, &[&first], 12)[0]);
    assert_eq!(both[1], greedy(&model, &[&second], 12)[0]);
}

/// Token by token through the cache, and all at once.
#[test]
fn cached_generation_is_the_whole_forward() {
    for case in CASES {
        let (config, params) = load_causal_lm(&folder(case), &CPU).unwrap();
        let model = build(&config, &params);
        for row in rows(case) {
            let made = greedy(&model, &[&row], 10).remove(0).token_ids;
            let mut ids = row.ids.clone();
            for token in made {
                let batch =
                    TokenBatch::new(vec![[&ids[..], &[token]].concat()], vec![(0, ids.len())]).unwrap();
                let head = model.head(&batch.with_images(vec![row.images.clone()]), None).unwrap();
                let logits: Vec<f32> = model.logits(&head.hidden).unwrap().i(0).unwrap().to_vec1().unwrap();
                let best = logits.iter().copied().fold(f32::MIN, f32::max);
                assert!(best - logits[token as usize] < 1e-4, "{case}");
                ids.push(token);
            }
        }
    }
}

#[test]
fn a_saved_model_is_read_back_as_it_was() {
    for case in CASES {
        let (config, params) = load_causal_lm(&folder(case), &CPU).unwrap();
        let saved = tempfile::tempdir().unwrap();
        let trained = params.clone().into_trainable().unwrap();
        save_causal_lm(saved.path(), &config, &trained, DType::F32).unwrap();
        let names = |folder: &Path| -> BTreeSet<String> {
            let file = files::read(&folder.join("model.safetensors"), &CPU).unwrap();
            file.tensors.into_keys().filter(|name| !name.ends_with("position_ids")).collect()
        };
        let spelled = names(saved.path());
        let (own, tower): (Vec<_>, Vec<_>) =
            spelled.iter().partition(|name| !name.starts_with("vision_tower."));
        assert!(own.iter().all(|name| names(&folder(case)).contains(*name)), "{case}: {own:?}");
        assert!(tower.iter().all(|name| name.starts_with("vision_tower.vision_model.")), "{case}");
        assert_eq!(spelled.len(), names(&folder(case)).len(), "{case}");
        let (config_again, params_again) = load_causal_lm(saved.path(), &CPU).unwrap();
        assert!(config_again == config && config_again.is_same_network(&config), "{case}");
        assert_eq!(params.largest_difference(&params_again).unwrap(), 0.0, "{case}");
        // A whole folder, with everything that reading images and texts takes.
        let whole = tempfile::tempdir().unwrap();
        hub_folder::copy_companions(&folder(case), whole.path(), DType::BF16).unwrap();
        hub_folder::write_weights(whole.path(), (&config, &params), DType::BF16, 50_000).unwrap();
        let (config_again, params_again) = load_causal_lm(whole.path(), &CPU).unwrap();
        assert!(config_again == config, "{case}");
        assert!(params.largest_difference(&params_again).unwrap() < 1e-2, "{case}");
        LlavaProcessor::read(whole.path(), config.image_tokens().unwrap()).unwrap();
        let text = json_of(&whole.path().join("config.json"));
        assert!(text.to_string().matches("bfloat16").count() == 1 + usize::from(case == "older"), "{text}");
    }
}

/// Weights as module paths (transformers 5 in memory, some tools on disk) are the same model.
#[test]
fn module_paths_are_read_too() {
    let (config, params) = load_causal_lm(&folder("older"), &CPU).unwrap();
    let other = tempfile::tempdir().unwrap();
    std::fs::copy(folder("older").join("config.json"), other.path().join("config.json")).unwrap();
    for tower in ["model.vision_tower.", "model.vision_tower.vision_model."] {
        let tensors = params
            .iter()
            .map(|(name, tensor)| (name.replace("model.vision_tower.", tower), tensor.clone()))
            .collect::<Vec<_>>();
        let path = other.path().join("model.safetensors");
        files::write(&path, tensors, DType::F32, BTreeMap::new()).unwrap();
        let (_, again) = load_causal_lm(other.path(), &CPU).unwrap();
        assert_eq!(params.largest_difference(&again).unwrap(), 0.0);
        build(&config, &again);
    }
}

fn read(change: impl FnOnce(&mut Value)) -> Result<CausalLmConfig, ModelError> {
    let copy = tempfile::tempdir().unwrap();
    let mut config = json_of(&folder("llama").join("config.json"));
    change(&mut config);
    std::fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
    CausalLmConfig::read_folder(copy.path())
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 11] = [
        ("vision_feature_layer", |c| c["vision_feature_layer"] = json!(-5)),
        ("vision_feature_layer", |c| c["vision_feature_layer"] = json!([])),
        ("vision_feature_layer", |c| c["vision_feature_layer"] = json!([1, 4])),
        ("vision_feature_select_strategy", |c| c["vision_feature_select_strategy"] = json!("cls_patch")),
        ("projector_hidden_act", |c| c["projector_hidden_act"] = json!("relu")),
        ("image_token_index", |c| c["image_token_index"] = json!(264)),
        ("vision_config.model_type", |c| c["vision_config"]["model_type"] = json!("siglip_vision_model")),
        ("text_config.model_type", |c| c["text_config"]["model_type"] = json!("llava")),
        ("text_config.model_type", |c| c["text_config"]["model_type"] = json!("opt")),
        ("text_config.hidden_size", |c| {
            c["text_config"] = json!({"model_type": "olmo2", "vocab_size": 40_000});
        }),
        ("quantization_config", |c| c["quantization_config"] = json!({"bits": 4})),
    ];
    for (field, change) in cases {
        let message = read(change).unwrap_err().to_string();
        assert!(message.contains("config.json") && message.contains(field), "{field}: {message}");
    }
}

#[test]
fn absent_fields_are_those_of_the_classes() {
    let defaults = json_of(&folder("").join("class_defaults.json"));
    for (model_type, sizes) in defaults["text_config"].as_object().unwrap() {
        // Vocabularies of 32000 end before the placeholder, so that LLaVAs have larger ones.
        let config = read(|c| {
            c["text_config"] = json!({"model_type": model_type});
            c["image_token_index"] = json!(5);
        });
        let config = config.unwrap();
        let found = config.sizes();
        let found = json!({
            "vocab_size": found.vocab_size, "hidden_size": found.hidden_size,
            "intermediate_size": found.intermediate_size, "num_hidden_layers": found.num_hidden_layers,
            "num_attention_heads": found.num_attention_heads,
        });
        assert_eq!(&found, sizes, "{model_type}");
    }
    let config = read(|c| {
        *c = json!({"model_type": "llava", "text_config": {"vocab_size": 32_064}});
    });
    let tokens = config.unwrap().image_tokens().unwrap();
    let vision = &defaults["vision_config"];
    let patches = (vision["image_size"].as_u64().unwrap() / vision["patch_size"].as_u64().unwrap()).pow(2);
    assert_eq!((tokens.per_image as u64, Some(tokens.side as u64)), (patches, vision["image_size"].as_u64()));
    assert_eq!(Some(u64::from(tokens.placeholder)), defaults["image_token_index"].as_u64());
    // Either field ties the head.
    let tied = |change: fn(&mut Value)| read(change).unwrap().sizes().tie_word_embeddings;
    assert!(!tied(|_| ()) && tied(|c| c["tie_word_embeddings"] = json!(true)));
    assert!(tied(|c| c["text_config"]["tie_word_embeddings"] = json!(true)));
}

#[test]
fn a_processor_of_another_model_is_refused() {
    let tokens = CausalLmConfig::read_folder(&folder("llama")).unwrap().image_tokens().unwrap();
    let with = |change: fn(&mut Value)| {
        let copy = tempfile::tempdir().unwrap();
        let mut file = json_of(&folder("llama").join("processor_config.json"));
        change(&mut file);
        std::fs::write(copy.path().join("processor_config.json"), file.to_string()).unwrap();
        LlavaProcessor::read(copy.path(), tokens)
    };
    assert_eq!(with(|_| ()).unwrap(), processor("llama"));
    // Folders of before transformers 4.46 do not say how many tokens an image has.
    with(|file| file["patch_size"] = Value::Null).unwrap();
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 6] = [
        ("num_additional_image_tokens", |f| f["num_additional_image_tokens"] = json!(0)),
        ("num_additional_image_tokens", |f| f["vision_feature_select_strategy"] = json!("full")),
        ("num_additional_image_tokens", |f| f["patch_size"] = json!(4)),
        ("20×20", |f| f["image_processor"]["crop_size"] = json!({"height": 16, "width": 20})),
        ("do_pad", |f| f["image_processor"]["do_pad"] = json!(true)),
        ("image_processor_type", |f| {
            f["image_processor"]["image_processor_type"] = json!("SiglipImageProcessor")
        }),
    ];
    for (part, change) in cases {
        let message = with(change).unwrap_err().to_string();
        assert!(message.contains(part), "{part}: {message}");
    }
    let message = LlavaProcessor::read(&folder(""), tokens).unwrap_err().to_string();
    assert!(message.contains("preprocessor_config.json"), "{message}");
}

#[test]
fn images_and_placeholders_that_do_not_match_are_refused() {
    let (config, params) = load_causal_lm(&folder("llama"), &CPU).unwrap();
    let (model, rows) = (build(&config, &params), rows("llama"));
    let wanted = vec![(0, rows[0].ids.len() - 1)];
    let message = |images: Vec<ImageInput>| {
        let batch = TokenBatch::new(vec![rows[0].ids.clone()], wanted.clone()).unwrap();
        model.log_probs(&batch.with_images(vec![images]), None).unwrap_err().to_string()
    };
    for images in [vec![], images("llama").0[..2].to_vec()] {
        let message = message(images);
        assert!(message.contains("row 0") && message.contains("16 image tokens"), "{message}");
    }
    // A language model alone sees nothing.
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/text/llama");
    let (config, params) = load_causal_lm(&text, &CPU).unwrap();
    let batch = TokenBatch::new(vec![vec![1, 7, 8]], vec![(0, 2)]).unwrap();
    let batch = batch.with_images(vec![images("llama").0[..1].to_vec()]);
    let message = build(&config, &params).log_probs(&batch, None).unwrap_err().to_string();
    assert!(message.contains("row 0 has images"), "{message}");
}
