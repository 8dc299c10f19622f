//! LLaVA: numbers of transformers on tiny checkpoints that it saved (tests/fixtures/llava, written by
//! tools/parity/llava.py), and what training and generation promise of a model that sees images.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod seeing;

use candle_core::DType;
use seeing::{CPU, Family, Row, assert_close, batch, build, greedy, json_of};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use votive_model::{
    CausalLm, CausalLmConfig, ImageInput, ImageProcessor, ImageVectors, Lora, LoraConfig, ModelError, Params,
    TokenBatch, files, hub_folder, load_causal_lm, save_causal_lm,
};

const LLAVA: Family = Family { name: "llava", cases: &["llama", "older", "layers", "gemma3", "siglip"] };
/// `<image>` of the fixtures' tokenizer.
const IMAGE: u32 = 256;

fn folder(case: &str) -> PathBuf {
    LLAVA.folder(case)
}

fn images(case: &str) -> Vec<ImageInput> {
    LLAVA.images(case).0
}

#[test]
fn parity_of_images_and_placeholders() {
    LLAVA.check_images_and_placeholders(IMAGE);
}

#[test]
fn parity_of_log_probs_and_logits() {
    LLAVA.check_log_probs_and_logits();
}

#[test]
fn parity_of_greedy_continuations() {
    LLAVA.check_greedy_continuations();
}

#[test]
fn parity_of_gradients_which_every_parameter_has() {
    LLAVA.check_gradients();
}

#[test]
fn parity_of_an_adapter_on_all_parts() {
    LLAVA.check_adapter("llama");
}

#[test]
fn all_linear_maps_take_an_adapter_and_fewer_bytes() {
    let maps = ["model.language_model.layers.0.mlp.up_proj", "model.multi_modal_projector.linear_2"];
    LLAVA.check_all_linear_maps("llama", &maps);
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
    let batch = batch(&LLAVA.rows("llama"));
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
    let (model, rows) = (build(&config, &params), LLAVA.rows("llama"));
    let (ids, images) = (rows[0].ids.clone(), images("llama"));
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

#[test]
fn cached_generation_is_the_whole_forward() {
    LLAVA.check_cached_generation();
}

#[test]
fn a_saved_model_is_read_back_as_it_was() {
    for case in LLAVA.cases {
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
        assert!(config_again.image_processor(whole.path()).unwrap().is_some(), "{case}");
        let text = json_of(&whole.path().join("config.json"));
        assert!(text.to_string().matches("bfloat16").count() == 1 + usize::from(*case == "older"), "{text}");
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
        ("vision_config.model_type", |c| c["vision_config"]["model_type"] = json!("pixtral")),
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
    let side = vision["image_size"].as_u64().unwrap() as usize;
    assert_eq!(tokens.vectors, ImageVectors::Fixed { side, per_image: patches as usize });
    assert_eq!(Some(u64::from(tokens.placeholder)), defaults["image_token_index"].as_u64());
    // Either field ties the head.
    let tied = |change: fn(&mut Value)| read(change).unwrap().sizes().tie_word_embeddings;
    assert!(!tied(|_| ()) && tied(|c| c["tie_word_embeddings"] = json!(true)));
    assert!(tied(|c| c["text_config"]["tie_word_embeddings"] = json!(true)));
}

#[test]
fn a_processor_of_another_model_is_refused() {
    let config = CausalLmConfig::read_folder(&folder("llama")).unwrap();
    let read = |folder: &Path| -> Result<Arc<dyn ImageProcessor>, ModelError> {
        Ok(config.image_processor(folder)?.unwrap())
    };
    let with = |change: fn(&mut Value)| {
        let copy = tempfile::tempdir().unwrap();
        let mut file = json_of(&folder("llama").join("processor_config.json"));
        change(&mut file);
        std::fs::write(copy.path().join("processor_config.json"), file.to_string()).unwrap();
        read(copy.path())
    };
    assert_eq!(format!("{:?}", with(|_| ()).unwrap()), format!("{:?}", LLAVA.processor("llama")));
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
            f["image_processor"]["image_processor_type"] = json!("ViTImageProcessor")
        }),
    ];
    for (part, change) in cases {
        let message = with(change).unwrap_err().to_string();
        assert!(message.contains(part), "{part}: {message}");
    }
    let message = read(&folder("")).unwrap_err().to_string();
    assert!(message.contains("preprocessor_config.json"), "{message}");
}

#[test]
fn images_and_placeholders_that_do_not_match_are_refused() {
    let (config, params) = load_causal_lm(&folder("llama"), &CPU).unwrap();
    let (model, rows) = (build(&config, &params), LLAVA.rows("llama"));
    let wanted = vec![(0, rows[0].ids.len() - 1)];
    let message = |images: Vec<ImageInput>| {
        let batch = TokenBatch::new(vec![rows[0].ids.clone()], wanted.clone()).unwrap();
        model.log_probs(&batch.with_images(vec![images]), None).unwrap_err().to_string()
    };
    for images in [vec![], images("llama")[..2].to_vec()] {
        let message = message(images);
        assert!(message.contains("row 0") && message.contains("16 image tokens"), "{message}");
    }
    // A language model alone sees nothing.
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/text/llama");
    let (config, params) = load_causal_lm(&text, &CPU).unwrap();
    let batch = TokenBatch::new(vec![vec![1, 7, 8]], vec![(0, 2)]).unwrap();
    let batch = batch.with_images(vec![images("llama")[..1].to_vec()]);
    let message = build(&config, &params).log_probs(&batch, None).unwrap_err().to_string();
    assert!(message.contains("row 0 has images"), "{message}");
}
