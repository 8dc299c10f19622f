//! Every architecture: gradients reach every parameter, and recomputation, caching and the log-prob head change nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{Device, IndexOp, Tensor, Var};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use votive_model::config::ConfigFile;
use votive_model::{
    CausalLm, CausalLmConfig, Decoder, GenerateOptions, LoraConfig, ModelError, Params, Request,
    SamplingPolicy, TokenBatch, generate, generate_watched,
};
use votive_tensor::Recorder;
use votive_tensor::random::{Draws, Stream};

const VOCABULARY: u32 = 40;

fn read(config: &Value) -> votive_model::Result<CausalLmConfig> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    CausalLmConfig::read(&ConfigFile::read(&path)?)
}

/// A small model of an architecture with `extra` fields.
fn config(model_type: &str, extra: Value) -> CausalLmConfig {
    let mut config = json!({
        "model_type": model_type, "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
        "max_position_embeddings": 64, "initializer_range": 0.2,
    });
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    read(&config).unwrap()
}

/// Every architecture and its variants.
fn variants() -> Vec<(&'static str, CausalLmConfig)> {
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16
    });
    let caps = json!({
        "attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0, "query_pre_attn_scalar": 3, "sliding_window": 4
    });
    let long = json!({"type": "su", "short_factor": [1.0, 1.5], "long_factor": [2.0, 5.0]});
    let window = json!({"use_sliding_window": true, "sliding_window": 4, "max_window_layers": 1});
    vec![
        ("llama", config("llama", json!({"rope_scaling": llama3}))),
        ("llama, tied, biases", {
            config("llama", json!({"tie_word_embeddings": true, "attention_bias": true, "mlp_bias": true}))
        }),
        ("mistral", config("mistral", json!({"sliding_window": 4}))),
        ("qwen2", config("qwen2", window)),
        ("qwen3", config("qwen3", json!({"head_dim": 8, "attention_bias": true}))),
        ("gemma", config("gemma", json!({"attention_bias": true}))),
        ("gemma2", config("gemma2", caps)),
        ("gemma3", config("gemma3_text", json!({"sliding_window": 4, "sliding_window_pattern": 2}))),
        ("phi3", config("phi3", json!({"head_dim": 8, "partial_rotary_factor": 0.5, "sliding_window": 4}))),
        ("phi3, long", config("phi3", json!({"rope_scaling": long, "original_max_position_embeddings": 8}))),
        ("olmo2", config("olmo2", json!({"attention_bias": true}))),
        ("smollm3", config("smollm3", json!({"no_rope_layers": [1, 0, 1], "mlp_bias": true}))),
    ]
}

fn fresh(config: &CausalLmConfig) -> Params {
    Params::fresh(1, &Device::Cpu, |scope| config.build(scope)).unwrap().1
}

fn build(config: &CausalLmConfig, params: &Params) -> Decoder {
    params.build(|scope| config.build(scope)).unwrap()
}

fn random_row(len: usize, sample: u64) -> Vec<u32> {
    let mut draws = Draws::new(5, Stream::World, 0, sample);
    (0..len).map(|_| draws.below(VOCABULARY as usize) as u32).collect()
}

/// Ragged rows, of which all tokens but the first few are wanted.
fn batch() -> TokenBatch {
    let rows: Vec<Vec<u32>> =
        [12, 7, 3].iter().enumerate().map(|(i, len)| random_row(*len, i as u64)).collect();
    let wanted = rows.iter().enumerate().flat_map(|(row, tokens)| (2..tokens.len()).map(move |at| (row, at)));
    let wanted = wanted.collect();
    TokenBatch::new(rows, wanted).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn assert_close(a: &Tensor, b: &Tensor, tolerance: f32) {
    assert_eq!(a.dims(), b.dims());
    let worst = numbers(a).iter().zip(numbers(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "differ by {worst}");
}

/// Gradient of every trainable parameter, by name.
fn gradients(config: &CausalLmConfig, params: &Params, recompute: bool) -> Vec<(String, Option<Tensor>)> {
    let trainable = params.trainable();
    let recorder = Recorder::new(&trainable.iter().map(|(_, tensor)| tensor.clone()).collect::<Vec<_>>());
    let log_probs = build(config, params).log_probs(&batch(), recompute.then_some(&recorder)).unwrap();
    // The square keeps the sum from being flat in some direction.
    recorder.backward(&log_probs.sqr().unwrap().sum_all().unwrap()).unwrap();
    trainable.into_iter().map(|(name, _)| name).zip(recorder.take()).collect()
}

/// Names of parameters whose gradient is missing, not finite or zero.
fn without_gradient(config: &CausalLmConfig, params: &Params) -> Vec<String> {
    let bad = |grad: &Option<Tensor>| {
        let Some(grad) = grad else { return true };
        let values = numbers(grad);
        values.iter().any(|g| !g.is_finite()) || values.iter().all(|g| *g == 0.0)
    };
    let all = gradients(config, params, false);
    all.into_iter().filter(|(_, grad)| bad(grad)).map(|(name, _)| name).collect()
}

/// Log-probabilities, and the gradients of the sum of their squares, of some batches one after the other.
fn one_by_one(
    config: &CausalLmConfig,
    params: &Params,
    batches: Vec<TokenBatch>,
) -> (Vec<f32>, Vec<(String, Vec<f64>)>) {
    let model = build(config, params);
    let mut log_probs = Vec::new();
    let mut sums: Vec<(String, Vec<f64>)> = params
        .trainable()
        .iter()
        .map(|(name, tensor)| (name.clone(), vec![0.0; tensor.elem_count()]))
        .collect();
    for batch in batches {
        let found = model.log_probs(&batch, None).unwrap();
        log_probs.extend(numbers(&found));
        let store = found.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        for ((_, sum), (_, parameter)) in sums.iter_mut().zip(params.trainable()) {
            let Some(grad) = store.get(&parameter) else { continue };
            sum.iter_mut().zip(numbers(grad)).for_each(|(sum, grad)| *sum += f64::from(grad));
        }
    }
    (log_probs, sums)
}

#[test]
fn shared_prefixes_and_packed_rows_are_separate_passes() {
    // Two pairs, whose prompts begin alike, and a row of its own; a prompt of one token, and completions that begin
    // alike themselves.
    let prompt = random_row(9, 1);
    let other = [&prompt[..4], &random_row(3, 2)].concat();
    let row = |prompt: &[u32], len, sample| [prompt, &random_row(len, sample)].concat();
    let texts = [
        (prompt.len(), row(&prompt, 6, 3)),
        (prompt.len(), row(&prompt, 11, 4)),
        (other.len(), row(&other, 2, 5)),
        (other.len(), [&row(&other, 2, 5)[..], &[1, 2, 3]].concat()),
        (1, random_row(20, 6)),
    ];
    let wanted = |row: usize, (start, text): &(usize, Vec<u32>)| {
        (*start..text.len()).map(|at| (row, at)).collect::<Vec<_>>()
    };
    let together = TokenBatch::new(
        texts.iter().map(|(_, text)| text.clone()).collect(),
        texts.iter().enumerate().flat_map(|(i, text)| wanted(i, text)).collect(),
    )
    .unwrap();
    let separate: Vec<TokenBatch> =
        texts.iter().map(|text| TokenBatch::new(vec![text.1.clone()], wanted(0, text)).unwrap()).collect();
    for (variant, config) in variants() {
        let params = fresh(&config).into_trainable().unwrap();
        let (shared, shared_grads) = one_by_one(&config, &params, vec![together.clone()]);
        let (alone, alone_grads) = one_by_one(&config, &params, separate.clone());
        let worst = shared.iter().zip(&alone).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(shared.len() == alone.len() && worst <= 1e-5, "{variant}: log-probs differ by {worst}");
        for ((name, a), (_, b)) in shared_grads.iter().zip(&alone_grads) {
            let largest = b.iter().fold(0f64, |most, x| most.max(x.abs()));
            let worst = a.iter().zip(b).fold(0f64, |most, (a, b)| most.max((a - b).abs()));
            assert!(worst <= 1e-5 * largest, "{variant}: {name} differs by {worst} of {largest}");
        }
    }
}

#[test]
fn every_parameter_gets_a_finite_gradient() {
    for (variant, config) in variants() {
        let params = fresh(&config).into_trainable().unwrap();
        assert_eq!(params.trainable().len(), params.iter().count());
        // A bias of all keys shifts every score of a query alike, and softmax does not see it; rotation breaks the
        // tie, so even that one has a gradient.
        assert_eq!(without_gradient(&config, &params), Vec::<String>::new(), "{variant}");
    }
}

#[test]
fn every_adapter_gets_a_finite_gradient() {
    let separate = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"].as_slice();
    let fused = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"].as_slice();
    for (variant, config) in variants() {
        let targets = if variant.starts_with("phi3") { fused } else { separate };
        let lora = LoraConfig::new(2, 4.0, targets.iter().map(|name| (*name).to_owned()).collect());
        let params = fresh(&config).with_new_lora(lora, 3).unwrap();
        assert_eq!(params.trainable().len(), 3 * targets.len() * 2);
        // With B = 0 no A can have a gradient.
        let without: BTreeSet<String> = without_gradient(&config, &params).into_iter().collect();
        let all_a =
            params.trainable().into_iter().map(|(name, _)| name).filter(|name| name.contains("lora_A"));
        assert_eq!(without, all_a.collect(), "{variant}");
        for (name, tensor) in params.trainable() {
            if name.contains("lora_B") {
                let values = Tensor::from_vec(
                    Draws::new(9, Stream::Init, 0, 0).normals(tensor.elem_count()),
                    tensor.shape(),
                    &Device::Cpu,
                );
                Var::from_tensor(&tensor).unwrap().set(&values.unwrap()).unwrap();
            }
        }
        assert_eq!(without_gradient(&config, &params), Vec::<String>::new(), "{variant}");
    }
}

#[test]
fn an_adapter_on_the_head_is_refused() {
    let (_, config) = variants().remove(0);
    let lora = LoraConfig::new(2, 4.0, vec!["lm_head".to_owned()]);
    let params = fresh(&config).with_new_lora(lora, 3).unwrap();
    let message = params.build(|scope| config.build(scope)).unwrap_err().to_string();
    assert!(message.contains("`lm_head` is no linear map and no convolution of this network"), "{message}");
}

#[test]
fn recomputed_layers_give_the_same_gradients() {
    for (variant, config) in variants() {
        let params = fresh(&config).into_trainable().unwrap();
        let (plain, recomputed) = (gradients(&config, &params, false), gradients(&config, &params, true));
        for ((name, plain), (_, recomputed)) in plain.into_iter().zip(recomputed) {
            let (plain, recomputed) = (numbers(&plain.unwrap()), numbers(&recomputed.unwrap()));
            assert_eq!(plain, recomputed, "{variant}: {name}");
        }
    }
}

#[test]
fn log_probs_are_those_of_the_logits_of_each_row_alone() {
    for (variant, config) in variants() {
        let model = build(&config, &fresh(&config));
        let batch = batch();
        let log_probs = numbers(&model.log_probs(&batch, None).unwrap());
        for (&(row, at), found) in batch.wanted().iter().zip(log_probs) {
            // The whole row: how long a text is can change its angles.
            let ids = Tensor::new(batch.rows()[row].as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
            let logits = model.logits(&model.hidden(&ids).unwrap().i((0, at - 1)).unwrap()).unwrap();
            let logits = numbers(&logits);
            let most = logits.iter().copied().fold(f32::MIN, f32::max);
            let log_sum = most + logits.iter().map(|x| (x - most).exp()).sum::<f32>().ln();
            let expected = logits[batch.rows()[row][at] as usize] - log_sum;
            assert!(
                (found - expected).abs() < 1e-4,
                "{variant}: row {row}, position {at}: {found} {expected}"
            );
        }
    }
}

#[test]
fn cached_logits_are_those_of_the_whole_row_whatever_its_padding() {
    for (variant, config) in variants() {
        let model = build(&config, &fresh(&config));
        let rows = [random_row(14, 1), random_row(9, 2)];
        let padding = vec![0, 5];
        let padded: Vec<u32> =
            rows.iter().zip(&padding).flat_map(|(r, p)| [vec![0; *p], r.clone()].concat()).collect();
        let ids = Tensor::from_vec(padded, (2, 14), &Device::Cpu).unwrap();
        let mut cache = model.cache(padding, 14).unwrap();
        // The prompt at once, then token by token.
        model.next_logits(&ids.narrow(1, 0, 8).unwrap(), &mut cache).unwrap();
        for at in 8..14 {
            let logits = model.next_logits(&ids.narrow(1, at, 1).unwrap(), &mut cache).unwrap();
            for (row, tokens) in rows.iter().enumerate() {
                let seen = &tokens[..at + 1 - (14 - tokens.len())];
                let alone = Tensor::new(seen, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
                let hidden = model.hidden(&alone).unwrap().i((0, seen.len() - 1)).unwrap();
                assert_close(&logits.i(row).unwrap(), &model.logits(&hidden).unwrap(), 2e-5);
            }
        }
        assert!(
            model.next_logits(&ids.narrow(1, 0, 1).unwrap(), &mut cache).is_err(),
            "{variant}: the cache is full"
        );
    }
}

#[test]
fn a_prompt_is_continued_alike_alone_and_among_others() {
    for (variant, config) in variants() {
        let params = fresh(&config);
        let model = build(&config, &params.untracked().unwrap());
        let prompts: Vec<Vec<u32>> =
            (0..5).map(|i| random_row([7, 1, 12, 3, 60][i], 20 + i as u64)).collect();
        // Enough stop ids that rows end at different steps; the longest one ends at the model's last position.
        let greedy = GenerateOptions::greedy(20, vec![3, 4, 5]);
        let policy = SamplingPolicy {
            top_k: Some(30),
            top_p: Some(0.95),
            min_p: Some(0.01),
            repetition_penalty: 1.1,
            ..SamplingPolicy::at(1.3)
        };
        let drawn = GenerateOptions { policy, seed: 8, ..GenerateOptions::greedy(20, vec![3, 4, 5]) };
        for options in [greedy, drawn] {
            let together = generate(&model, &prompts, &options).unwrap();
            for (index, prompt) in prompts.iter().enumerate() {
                let options = GenerateOptions { first_sample: index as u64, ..options.clone() };
                let alone = generate(&model, std::slice::from_ref(prompt), &options).unwrap();
                assert_eq!(alone[0], together[index], "{variant}, prompt {index}");
                let ids = &alone[0].token_ids;
                assert!(ids.len() <= 20 && ids.len() + prompt.len() <= 64 && !ids.is_empty());
                assert_eq!(alone[0].finished, (3..6).contains(ids.last().unwrap()), "{variant}: {ids:?}");
            }
        }
    }
}

/// Samples of one prompt are read as one prompt; each is what it would be by itself, and its number alone makes it so.
#[test]
fn samples_of_one_prompt_depend_on_their_numbers_alone() {
    let (_, config) = variants().remove(0);
    let model = build(&config, &fresh(&config).untracked().unwrap());
    let (a, b) = (random_row(9, 1), random_row(4, 2));
    let options = GenerateOptions::sampled(12, vec![3], 1.0, 5);
    let draw = |requests: &[(&Vec<u32>, u64)]| {
        let requests: Vec<Request> = requests
            .iter()
            .map(|(prompt, sample)| Request { prompt, images: &[], sample: *sample })
            .collect();
        let mut go_on = |_, _| Ok::<_, ModelError>(ControlFlow::Continue(()));
        generate_watched(&model, &requests, &options, &mut go_on).unwrap()
    };
    let requests = [(&a, 0), (&b, 1), (&a, 7), (&a, 1 << 40), (&a, 0), (&b, 2)];
    let together = draw(&requests);
    for (request, found) in requests.iter().zip(&together) {
        assert_eq!(draw(&[*request])[0], *found, "{}", request.1);
    }
    assert_eq!(together[0], together[4]);
    assert_ne!(together[0], together[2]);
    assert_ne!(together[0], together[3]);
}

#[test]
fn a_watcher_sees_every_token_and_can_end_a_row() {
    let (_, config) = variants().remove(0);
    let model = build(&config, &fresh(&config).untracked().unwrap());
    let prompts = [random_row(5, 1), random_row(2, 2), random_row(7, 3)];
    let requests: Vec<Request> =
        (0..).zip(&prompts).map(|(sample, prompt)| Request { prompt, images: &[], sample }).collect();
    let options = GenerateOptions::sampled(9, vec![], 1.0, 5);
    let mut seen = vec![Vec::new(); 3];
    let mut watch = |row: usize, id| {
        seen[row].push(id);
        let is_enough = row == 1 && seen[1].len() == 4;
        Ok::<_, ModelError>(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    let found = generate_watched(&model, &requests, &options, &mut watch).unwrap();
    assert_eq!(found.iter().map(|row| row.token_ids.clone()).collect::<Vec<_>>(), seen);
    assert_eq!(found.iter().map(|row| row.finished).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), [9, 4, 9]);
}

#[test]
fn prompts_that_cannot_be_continued_are_refused() {
    let (_, config) = variants().remove(0);
    let model = build(&config, &fresh(&config));
    let message = |prompt: Vec<u32>| {
        generate(&model, &[vec![1], prompt], &GenerateOptions::greedy(2, vec![])).unwrap_err().to_string()
    };
    assert!(message(vec![]).contains("prompt 1 has 0 tokens"));
    assert!(message(vec![1; 64]).contains("prompt 1 has 64 tokens; a model of 64 positions"));
    let vocabulary = message(vec![2, 40]);
    assert!(
        vocabulary.contains("row 1, position 1: token id 40") && vocabulary.contains("vocabulary size 40")
    );
}
