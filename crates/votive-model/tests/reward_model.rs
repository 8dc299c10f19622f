//! Reward models: rewards of transformers on every architecture (tests/fixtures/reward_models, written by
//! tools/parity/reward_models.py), folders in both directions, heads, adapters, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use votive_model::config::ConfigFile;
use votive_model::language::ARCHITECTURES;
use votive_model::{
    CausalLmConfig, Lora, LoraConfig, Params, RewardModel, RewardModelConfig, SCORE, files,
    load_reward_model, new_reward_model, save_reward_model,
};
use votive_tensor::Recorder;
use votive_tensor::Storage;

/// `<|pad|>` and `<|eos|>` of the fixtures' tokenizer.
const PAD: u32 = 0;
const EOS: u32 = 2;
/// Rewards are up to 10, sums of a few dozen numbers in f32.
const REWARDS: f32 = 2e-5;
const HEAD: &str = "score.weight";

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path)
}

/// The models whose rewards transformers gave.
fn models() -> Vec<String> {
    let files = fs::read_dir(fixture("reward_models")).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
    let names = files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    names.filter(|name| fixture("text").join(name).exists()).collect()
}

/// A language model's folder with transformers' head on it, what padding is, and what transformers says of its rows.
fn with_head(model: &str, pad: u32) -> (RewardModelConfig, Params, BTreeMap<String, Tensor>) {
    let expected =
        files::read(&fixture(&format!("reward_models/{model}.safetensors")), &Device::Cpu).unwrap();
    let folder = fixture("text").join(model);
    let (config, params) = new_reward_model(&folder, &Device::Cpu, None, (pad, 1)).unwrap();
    let other = |(name, tensor): (&str, &Tensor)| {
        let tensor = if name == HEAD { &expected.tensors[HEAD] } else { tensor };
        (name.to_owned(), tensor.clone())
    };
    let tensors = params.iter().map(other).collect();
    (config, Params::new(model, tensors, &Device::Cpu), expected.tensors)
}

fn build(config: &RewardModelConfig, params: &Params) -> RewardModel {
    params.build(|scope| config.build(scope)).unwrap()
}

fn rows(expected: &BTreeMap<String, Tensor>) -> Vec<Vec<u32>> {
    let integers = |name: &str| expected[name].to_dtype(DType::U32).unwrap();
    let lengths = integers("lengths").to_vec1::<u32>().unwrap();
    let ids = integers("input_ids").to_vec2::<u32>().unwrap();
    ids.into_iter().zip(lengths).map(|(ids, length)| ids[..length as usize].to_vec()).collect()
}

fn worst(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn rewards_are_those_of_transformers() {
    let models = models();
    assert_eq!(models.len(), 13, "{models:?}");
    for model in models {
        // Where the end of a text is padding too, its reward is read before the end.
        for (pad, name) in [(PAD, "rewards"), (EOS, "rewards_of_eos")] {
            let (config, params, expected) = with_head(&model, pad);
            let found = build(&config, &params).rewards(&rows(&expected), None).unwrap();
            let worst = worst(&found, &expected[name]);
            assert!(worst <= REWARDS, "{model}, {name}: off by {worst:e}");
        }
    }
}

#[test]
fn every_parameter_gets_a_gradient_recomputed_or_not() {
    for model in models() {
        let (config, params, expected) = with_head(&model, PAD);
        let params = params.into_trainable().unwrap();
        let trainable = params.trainable();
        let gradients = |recompute: bool| {
            let recorder =
                Recorder::new(&trainable.iter().map(|(_, tensor)| tensor.clone()).collect::<Vec<_>>());
            let rewards =
                build(&config, &params).rewards(&rows(&expected), recompute.then_some(&recorder)).unwrap();
            recorder.backward(&rewards.sqr().unwrap().sum_all().unwrap()).unwrap();
            recorder.take()
        };
        let numbers =
            |tensor: Option<Tensor>| tensor.unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (((name, _), plain), recomputed) in trainable.iter().zip(gradients(false)).zip(gradients(true)) {
            let (plain, recomputed) = (numbers(plain), numbers(recomputed));
            assert!(
                plain.iter().all(|x| x.is_finite()) && plain.iter().any(|x| *x != 0.0),
                "{model}: {name}"
            );
            assert_eq!(plain, recomputed, "{model}: {name}");
        }
        assert!(trainable.iter().any(|(name, _)| name == HEAD));
        assert!(trainable.iter().all(|(name, _)| name != "lm_head.weight"));
    }
}

#[test]
fn a_folder_of_transformers_is_read_and_written_back_as_it_was() {
    for model in ["llama", "gemma2"] {
        let folder = fixture("reward_models").join(model);
        assert!(RewardModelConfig::is_in(&folder).unwrap());
        let (config, params) = load_reward_model(&folder, &Device::Cpu, None).unwrap();
        let saved = tempfile::tempdir().unwrap();
        save_reward_model(saved.path(), &config, &params, DType::F32).unwrap();
        let read = |folder: &Path| -> Value {
            serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap()
        };
        assert_eq!(read(saved.path()), read(&folder));
        let (again, params_again) = load_reward_model(saved.path(), &Device::Cpu, None).unwrap();
        assert!(again == config);
        let names = |params: &Params| params.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&params_again), names(&params));
        assert!(params.iter().zip(params_again.iter()).all(|((_, a), (_, b))| worst(a, b) == 0.0));
    }
}

#[test]
fn a_fresh_head_is_normal_and_the_seeds() {
    let folder = fixture("text/llama");
    assert!(!RewardModelConfig::is_in(&folder).unwrap());
    let head = |seed| {
        let (_, params) = new_reward_model(&folder, &Device::Cpu, None, (PAD, seed)).unwrap();
        params.get(HEAD).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(head(1), head(1));
    assert_ne!(head(1), head(2));
    let numbers: Vec<f64> = (0..100).flat_map(head).map(f64::from).collect();
    let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
    let deviation = (numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / numbers.len() as f64).sqrt();
    // 3200 numbers: four standard errors.
    assert!(mean.abs() < 0.0015 && (deviation - 0.02).abs() < 0.001, "{mean} {deviation}");
}

/// What transformers' model of sequence classification needs to be found as one, and nothing of the language model's own.
#[test]
fn a_language_models_configuration_becomes_a_reward_models() {
    for row in ARCHITECTURES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let config = json!({
            "architectures": [row.class], "model_type": row.model_type, "vocab_size": 20, "hidden_size": 16,
            "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 4, "max_position_embeddings": 64, "tie_word_embeddings": false, "dtype": "bfloat16",
        });
        fs::write(&path, config.to_string()).unwrap();
        let reward = RewardModelConfig::on_language_model(&ConfigFile::read(&path).unwrap(), 7);
        let Some(class) = row.reward_class else {
            let message = reward.unwrap_err().to_string();
            assert!(message.contains(row.model_type) && message.contains("reads text alone"), "{message}");
            continue;
        };
        let reward = reward.unwrap();
        let written = reward.to_json("float32");
        assert_eq!(written["architectures"], json!([class]));
        assert_eq!(written["id2label"], json!({"0": "LABEL_0"}));
        assert_eq!((&written["pad_token_id"], &written["dtype"]), (&json!(7), &json!("float32")));
        assert_eq!(written["tie_word_embeddings"], false);
        fs::write(&path, written.to_string()).unwrap();
        assert!(RewardModelConfig::read(&ConfigFile::read(&path).unwrap()).unwrap() == reward);
        let message = CausalLmConfig::read_folder(folder.path()).unwrap_err().to_string();
        assert!(message.contains("a reward model, which gives scores and no words"), "{message}");
        // The body of a reward model is that of its language model, so its parameters are too, but for the head.
        let names = |build: &dyn Fn(&votive_model::Scope) -> votive_model::Result<()>| {
            let (_, params) = Params::fresh(1, &Device::Cpu, build).unwrap();
            params.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        fs::write(&path, config.to_string()).unwrap();
        let language = CausalLmConfig::read_folder(folder.path()).unwrap();
        let mut expected = names(&|scope| language.build(scope).map(drop));
        expected.retain(|name| name != "lm_head.weight");
        expected.push(HEAD.to_owned());
        assert_eq!(names(&|scope| reward.build(scope).map(drop)), expected);
    }
}

#[test]
fn configurations_of_other_classifiers_are_refused_by_name() {
    let read = |changes: Value| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let bytes = fs::read(fixture("reward_models/llama/config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&bytes).unwrap();
        for (name, value) in changes.as_object().unwrap() {
            config[name] = value.clone();
        }
        fs::write(&path, config.to_string()).unwrap();
        RewardModelConfig::read(&ConfigFile::read(&path).unwrap()).map_err(|error| error.to_string())
    };
    assert!(read(json!({})).is_ok());
    assert!(read(json!({"id2label": null, "num_labels": 1})).is_ok());
    for (changes, part) in [
        (json!({"id2label": {"0": "bad", "1": "good"}}), "`id2label` = {\"0\":\"bad\",\"1\":\"good\"}"),
        // transformers takes two labels where none are named.
        (json!({"id2label": null}), "`id2label` = null"),
        (json!({"id2label": null, "num_labels": 3}), "`num_labels` = 3"),
        (json!({"num_labels": 2}), "`num_labels` = 2"),
        (json!({"architectures": ["MistralForSequenceClassification"]}), "LlamaForSequenceClassification"),
        (json!({"auto_map": {"AutoModelForSequenceClassification": "x.Y"}}), "`auto_map`"),
    ] {
        let message = read(changes).unwrap_err();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn rows_that_cannot_be_scored_are_refused() {
    let (config, params, _) = with_head("llama", PAD);
    let model = build(&config, &params);
    let message = |row: Vec<u32>| model.rewards(&[vec![5], row], None).unwrap_err().to_string();
    assert!(message(vec![]).contains("row 1 has no tokens"));
    assert!(message(vec![5, 256]).contains("token id 256 is not below the model's vocabulary size 256"));
    assert!(message(vec![5; 257]).contains("257 tokens in a row, but the model has 256 positions"));
    // Nothing but padding: transformers reads the first token then.
    let rewards = model.rewards(&[vec![PAD, PAD], vec![PAD]], None).unwrap().to_vec1::<f32>().unwrap();
    assert!((rewards[0] - rewards[1]).abs() < 1e-6);
}

/// A head that an adapter has whole is PEFT's `modules_to_save`, and its folder says that it is of a classifier.
#[test]
fn an_adapter_of_peft_brings_its_head() {
    let folder = fixture("reward_models/lora/step5");
    let lora = Lora::load(&folder, &Device::Cpu).unwrap();
    let (config, params) = load_reward_model(&fixture("reward_models/llama"), &Device::Cpu, None).unwrap();
    let adapted = params.with_lora(lora.clone()).unwrap();
    let rows = vec![vec![9, 8, 7, EOS], vec![9, 8, EOS]];
    let rewards = |params: &Params| build(&config, params).rewards(&rows, None).unwrap();
    let own = files::read(&folder.join("adapter_model.safetensors"), &Device::Cpu).unwrap().tensors;
    let merged = adapted.merged().unwrap();
    assert_eq!(worst(merged.get(HEAD).unwrap(), &own["base_model.model.score.weight"]), 0.0);
    assert!(worst(&rewards(&adapted), &rewards(&merged)) < REWARDS);
    assert!(worst(&rewards(&adapted), &rewards(&params)) > 1e-3);
    // On the language model's body, too: the fresh head is not the adapter's.
    let (body, bare) = new_reward_model(&fixture("text/llama"), &Device::Cpu, None, (PAD, 3)).unwrap();
    let on_body = build(&body, &bare.with_lora(lora.clone()).unwrap()).rewards(&rows, None).unwrap();
    assert!(worst(&on_body, &rewards(&adapted)) < REWARDS);

    let saved = tempfile::tempdir().unwrap();
    lora.save(saved.path(), "llama").unwrap();
    let written: Value =
        serde_json::from_slice(&fs::read(saved.path().join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(written["task_type"], "SEQ_CLS");
    let again = Lora::load(saved.path(), &Device::Cpu).unwrap();
    assert_eq!(worst(&rewards(&params.with_lora(again).unwrap()), &rewards(&adapted)), 0.0);
}

/// A new adapter has the head whole; below it, linear maps may be kept in fewer bytes, and the head is not one of them.
#[test]
fn a_new_adapter_trains_the_head_over_stored_weights() {
    let folder = fixture("reward_models/llama");
    for storage in [None, Some(Storage::BFloat16), Some(Storage::Nf4)] {
        let (config, params) = load_reward_model(&folder, &Device::Cpu, storage).unwrap();
        assert!(params.get(HEAD).is_some());
        let mut lora = LoraConfig::new(2, 4.0, vec!["q_proj".to_owned(), "v_proj".to_owned()]);
        lora.modules_to_save = vec![SCORE.to_owned()];
        let params = params.with_new_lora(lora, 3).unwrap();
        let trained: Vec<String> = params.trainable().into_iter().map(|(name, _)| name).collect();
        assert_eq!(trained.len(), 2 * 2 * 2 + 1, "{trained:?}");
        assert_eq!(trained.last().unwrap(), HEAD);
        let rewards = build(&config, &params).rewards(&[vec![9, 8, EOS]], None).unwrap();
        let store = rewards.sum_all().unwrap().backward().unwrap();
        let head = params.trainable().pop().unwrap().1;
        assert!(store.get(&head).is_some());
    }
}
