//! Qwen3-VL: numbers of transformers on tiny checkpoints that it saved (tests/fixtures/qwen3_vl, written by
//! tools/parity/qwen3_vl.py), and what training and generation promise of a model that sees images of any size.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod seeing;

use candle_core::{DType, Tensor};
use seeing::{CPU, Family, Row, assert_close, batch, build, greedy, integers, json_of};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use votive_model::{
    CausalLm, CausalLmConfig, ImageInput, ImageVectors, Lora, LoraConfig, ModelError, Params, TokenBatch,
    files, hub_folder, load_causal_lm, save_causal_lm,
};

const QWEN: Family = Family { name: "qwen3_vl", cases: &["new", "older"] };
/// `<|image_pad|>` of the fixtures' tokenizer.
const IMAGE: u32 = 258;

fn folder(case: &str) -> PathBuf {
    QWEN.folder(case)
}

#[test]
fn parity_of_images_and_placeholders() {
    QWEN.check_images_and_placeholders(IMAGE);
}

#[test]
fn parity_of_sizes() {
    for case in QWEN.cases {
        let (processor, pairs) = (QWEN.processor(case), json_of(&folder(case).join("expected/sizes.json")));
        let size = |pair: &Value| {
            let sides = integers(pair);
            (sides[0] as usize, sides[1] as usize)
        };
        assert!(pairs.as_array().unwrap().len() > 80, "{case}");
        for pair in pairs.as_array().unwrap() {
            assert_eq!(processor.size(size(&pair[0])).unwrap(), size(&pair[1]), "{case}: {}", pair[0]);
        }
    }
}

#[test]
fn parity_of_vectors_and_what_deepstack_adds() {
    for case in QWEN.cases {
        let (config, params) = QWEN.load(case);
        let (model, (images, file)) = (build(&config, &params), QWEN.images(case));
        let vectors = |n: usize| config.image_tokens().unwrap().count(images[n].size());
        let rows: Vec<Vec<u32>> = (0..images.len()).map(|n| vec![IMAGE; vectors(n)]).collect();
        let shown: Vec<Vec<ImageInput>> = images.iter().map(|image| vec![image.clone()]).collect();
        // All at once, of which two have one size, and one by one.
        let seen = model.see(&rows, &shown).unwrap().images.unwrap();
        let mut start = 0;
        for n in 0..images.len() {
            let alone = model.see(&rows[n..=n], &shown[n..=n]).unwrap().images.unwrap();
            let check = |together: &Tensor, alone: &Tensor, name: String| {
                let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let expected = values(&file[&name]);
                assert_close(&values(&together.narrow(0, start, vectors(n)).unwrap()), &expected, &name);
                assert_close(&values(alone), &expected, &name);
            };
            check(&seen.vectors, &alone.vectors, format!("vectors.{n}"));
            for (layer, (together, alone)) in seen.added.iter().zip(&alone.added).enumerate() {
                check(together, alone, format!("added.{n}.{layer}"));
            }
            let added = file.keys().filter(|name| name.starts_with(&format!("added.{n}."))).count();
            assert!(added > 0 && added == seen.added.len(), "{case}");
            start += vectors(n);
        }
    }
}

#[test]
fn parity_of_log_probs_and_logits() {
    QWEN.check_log_probs_and_logits();
}

#[test]
fn parity_of_greedy_continuations() {
    QWEN.check_greedy_continuations();
}

#[test]
fn parity_of_gradients_which_every_parameter_has() {
    QWEN.check_gradients();
}

#[test]
fn parity_of_an_adapter_on_all_parts() {
    QWEN.check_adapter("new");
}

#[test]
fn cached_generation_is_the_whole_forward() {
    QWEN.check_cached_generation();
}

/// Without images a Qwen3-VL is a Qwen3, to the bit.
#[test]
fn words_alone_stand_as_in_a_qwen3() {
    for case in QWEN.cases {
        let (config, params) = QWEN.load(case);
        let text = tempfile::tempdir().unwrap();
        let whole = json_of(&folder(case).join("config.json"));
        let mut own = whole["text_config"].clone();
        own["model_type"] = json!("qwen3");
        own["tie_word_embeddings"] = whole["tie_word_embeddings"].clone();
        std::fs::write(text.path().join("config.json"), own.to_string()).unwrap();
        let renamed = params.iter().filter(|(name, _)| !name.starts_with("model.visual."));
        let renamed: Vec<_> = renamed
            .map(|(name, tensor)| (name.replace("model.language_model.", "model."), tensor.clone()))
            .collect();
        files::write(&text.path().join("model.safetensors"), renamed, DType::F32, Default::default())
            .unwrap();
        let (qwen3, weights) = load_causal_lm(text.path(), &CPU).unwrap();
        let (seeing, reading) = (build(&config, &params), build(&qwen3, &weights));
        let row = Row { images: vec![], ..QWEN.rows(case).pop().unwrap() };
        let log_probs = |model: &dyn CausalLm| -> Vec<f32> {
            model.log_probs(&batch(std::slice::from_ref(&row)), None).unwrap().to_vec1().unwrap()
        };
        assert_eq!(log_probs(&seeing), log_probs(&reading), "{case}");
        assert_eq!(greedy(&seeing, &[&row], 12), greedy(&reading, &[&row], 12), "{case}");
    }
}

/// Rows with images of different sizes, of which some begin alike, are what each is alone.
#[test]
fn images_decide_what_rows_share() {
    for case in QWEN.cases {
        let (config, params) = QWEN.load(case);
        let (model, rows) = (build(&config, &params), QWEN.rows(case));
        let longer = Row { ids: [&rows[2].ids[..], &[7, 8, 9]].concat(), ..rows[2].clone() };
        let all = [rows[2].clone(), rows[0].clone(), longer, rows[1].clone(), rows[2].clone()];
        let last = |rows: &[Row]| -> Vec<Vec<f32>> {
            let wanted =
                |(row, one): (usize, &Row)| (one.ids.len() - 3..one.ids.len()).map(move |at| (row, at));
            let wanted = rows.iter().enumerate().flat_map(wanted).collect();
            let batch = TokenBatch::new(rows.iter().map(|row| row.ids.clone()).collect(), wanted).unwrap();
            let batch = batch.with_images(rows.iter().map(|row| row.images.clone()).collect());
            let found: Vec<f32> = model.log_probs(&batch, None).unwrap().to_vec1().unwrap();
            found.chunks(3).map(<[f32]>::to_vec).collect()
        };
        let together = last(&all);
        for (row, found) in all.iter().zip(&together) {
            assert_close(found, &last(std::slice::from_ref(row))[0], case);
        }
        assert_eq!(together[0], together[4]);
        // Side by side in a cache, rows of different lengths whose images take different positions.
        let each: Vec<&Row> = rows.iter().collect();
        for (row, found) in each.iter().zip(greedy(&model, &each, 8)) {
            assert_eq!(found, greedy(&model, &[row], 8)[0], "{case}");
        }
    }
}

#[test]
fn all_linear_maps_take_an_adapter_and_fewer_bytes() {
    let maps = ["model.language_model.layers.0.mlp.up_proj", "model.visual.blocks.1.attn.qkv"];
    QWEN.check_all_linear_maps("new", &maps);
}

#[test]
fn a_new_adapter_is_on_either_network_and_changes_nothing() {
    let (config, params) = QWEN.load("new");
    let targets = ["q_proj", "qkv", "linear_fc2"].map(str::to_owned).to_vec();
    let adapted = params.with_new_lora(LoraConfig::new(2, 4.0, targets), 5).unwrap();
    let paths: BTreeSet<&str> = adapted.lora().unwrap().paths().collect();
    for path in [
        "model.language_model.layers.2.self_attn.q_proj",
        "model.visual.blocks.0.attn.qkv",
        "model.visual.blocks.2.mlp.linear_fc2",
        "model.visual.merger.linear_fc2",
        "model.visual.deepstack_merger_list.1.linear_fc2",
    ] {
        assert!(paths.contains(path), "{paths:?}");
    }
    let batch = batch(&QWEN.rows("new"));
    let log_probs = |params: &Params| build(&config, params).log_probs(&batch, None).unwrap();
    let (before, after) = (log_probs(&params), log_probs(&adapted));
    assert_eq!(before.to_vec1::<f32>().unwrap(), after.to_vec1::<f32>().unwrap());
    let store = after.sum_all().unwrap().backward().unwrap();
    for (name, tensor) in adapted.trainable() {
        assert!(store.get(&tensor).is_some(), "{name} has no gradient");
        let norm = store.get(&tensor).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert_eq!(norm > 0.0, name.contains("lora_B"), "{name}: {norm}");
    }
    let saved = tempfile::tempdir().unwrap();
    adapted.lora().unwrap().save(saved.path(), "base").unwrap();
    params.with_lora(Lora::load(saved.path(), &CPU).unwrap()).unwrap();
}

#[test]
fn a_saved_model_is_read_back_as_it_was() {
    for case in QWEN.cases {
        let (config, params) = QWEN.load(case);
        let saved = tempfile::tempdir().unwrap();
        let trained = params.clone().into_trainable().unwrap();
        save_causal_lm(saved.path(), &config, &trained, DType::F32).unwrap();
        let names = |folder: &Path| -> BTreeSet<String> {
            files::read(&folder.join("model.safetensors"), &CPU).unwrap().tensors.into_keys().collect()
        };
        assert_eq!(names(saved.path()), names(&folder(case)), "{case}");
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
    }
}

fn read(change: impl FnOnce(&mut Value)) -> Result<CausalLmConfig, ModelError> {
    let copy = tempfile::tempdir().unwrap();
    let mut config = json_of(&folder("new").join("config.json"));
    change(&mut config);
    std::fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
    CausalLmConfig::read_folder(copy.path())
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 18] = [
        ("model_type", |c| c["model_type"] = json!("qwen3_vl_moe")),
        ("architectures", |c| c["architectures"] = json!(["Qwen3VLMoeForConditionalGeneration"])),
        ("quantization_config", |c| c["quantization_config"] = json!({"bits": 4})),
        ("image_token_id", |c| c["image_token_id"] = json!(264)),
        ("text_config.model_type", |c| c["text_config"]["model_type"] = json!("qwen3_vl_moe_text")),
        ("text_config.use_sliding_window", |c| c["text_config"]["use_sliding_window"] = json!(true)),
        ("text_config.rope_parameters.mrope_section", |c| {
            c["text_config"]["rope_parameters"]["mrope_section"] = json!([4, 2, 1]);
        }),
        ("text_config.rope_parameters.mrope_section", |c| {
            c["text_config"]["rope_parameters"].as_object_mut().unwrap().remove("mrope_section");
        }),
        ("text_config.rope_parameters.mrope_interleaved", |c| {
            c["text_config"]["rope_parameters"]["mrope_interleaved"] = json!(false);
        }),
        ("text_config.rope_parameters.rope_type", |c| {
            c["text_config"]["rope_parameters"]["rope_type"] = json!("yarn");
        }),
        ("vision_config.model_type", |c| c["vision_config"]["model_type"] = json!("qwen2_5_vl")),
        ("vision_config.in_channels", |c| c["vision_config"]["in_channels"] = json!(1)),
        ("vision_config.hidden_act", |c| c["vision_config"]["hidden_act"] = json!("relu")),
        ("vision_config.num_heads", |c| c["vision_config"]["num_heads"] = json!(3)),
        ("vision_config.num_position_embeddings", |c| {
            c["vision_config"]["num_position_embeddings"] = json!(24);
        }),
        ("vision_config.out_hidden_size", |c| c["vision_config"]["out_hidden_size"] = json!(25)),
        ("vision_config.deepstack_visual_indexes", |c| {
            c["vision_config"]["deepstack_visual_indexes"] = json!([2, 0]);
        }),
        ("vision_config.deepstack_visual_indexes", |c| {
            c["vision_config"]["deepstack_visual_indexes"] = json!([3]);
        }),
    ];
    for (field, change) in cases {
        let message = read(change).unwrap_err().to_string();
        assert!(message.contains("config.json") && message.contains(field), "{field}: {message}");
    }
}

#[test]
fn absent_fields_are_those_of_the_classes() {
    let defaults = json_of(&folder("").join("class_defaults.json"));
    let config = read(|c| {
        *c = json!({"model_type": "qwen3_vl", "vision_config": {"out_hidden_size": 4096}});
    });
    let config = config.unwrap();
    let found = config.sizes();
    let found = json!({
        "vocab_size": found.vocab_size, "hidden_size": found.hidden_size,
        "intermediate_size": found.intermediate_size, "num_hidden_layers": found.num_hidden_layers,
        "num_attention_heads": found.num_attention_heads, "num_key_value_heads": found.num_key_value_heads,
        "head_dim": found.head_dim, "max_position_embeddings": found.max_position_embeddings,
    });
    assert_eq!(found, defaults["text_config"]);
    let tokens = config.image_tokens().unwrap();
    let side = defaults["cell"].as_u64().unwrap() as usize;
    assert_eq!(tokens.vectors, ImageVectors::Cells { side });
    assert_eq!(Some(u64::from(tokens.placeholder)), defaults["image_token_id"].as_u64());
    let message = read(|c| *c = json!({"model_type": "qwen3_vl"})).unwrap_err().to_string();
    assert!(message.contains("out_hidden_size") && message.contains("4096"), "{message}");
    // θ and the image encoder's sizes: the same as said.
    let said = read(|c| {
        *c = json!({
            "model_type": "qwen3_vl",
            "text_config": {"rope_theta": defaults["rope_theta"], "hidden_size": 3584},
            "vision_config": {
                "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "patch_size": 16,
                "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": defaults["out_hidden_size"],
                "num_position_embeddings": 2304, "deepstack_visual_indexes": [8, 16, 24],
                "hidden_act": "gelu_pytorch_tanh", "in_channels": 3,
                "rope_parameters": {"rope_type": "axial", "rope_theta": 10000.0},
            },
        });
    });
    let absent = read(|c| *c = json!({"model_type": "qwen3_vl", "text_config": {"hidden_size": 3584}}));
    assert!(said.unwrap().is_same_network(&absent.unwrap()));
}

#[test]
fn a_processor_of_another_model_is_refused_and_both_spellings_are_read() {
    let config = CausalLmConfig::read_folder(&folder("older")).unwrap();
    let read = |change: fn(&mut Value)| {
        let copy = tempfile::tempdir().unwrap();
        let mut file = json_of(&folder("older").join("preprocessor_config.json"));
        change(&mut file);
        std::fs::write(copy.path().join("preprocessor_config.json"), file.to_string()).unwrap();
        Ok::<_, ModelError>(format!("{:?}", config.image_processor(copy.path())?.unwrap()))
    };
    let edges = read(|file| {
        file["size"] = json!({"shortest_edge": 200, "longest_edge": 2000});
        (file["min_pixels"], file["max_pixels"]) = (Value::Null, Value::Null);
    });
    assert_eq!(edges.unwrap(), read(|_| ()).unwrap());
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 8] = [
        ("patch_size", |f| f["patch_size"] = Value::Null),
        ("merge_size", |f| f["merge_size"] = json!(2)),
        ("temporal_patch_size", |f| f["temporal_patch_size"] = json!(2)),
        ("image_processor_type", |f| f["image_processor_type"] = json!("CLIPImageProcessor")),
        ("do_center_crop", |f| f["do_center_crop"] = json!(true)),
        ("do_resize", |f| f["do_resize"] = json!(false)),
        ("shortest_edge", |f| {
            (f["size"], f["min_pixels"]) = (json!({"height": 9, "width": 9}), Value::Null);
        }),
        ("size", |f| f["min_pixels"] = json!(3000)),
    ];
    for (part, change) in cases {
        let message = read(change).unwrap_err().to_string();
        assert!(message.contains(part), "{part}: {message}");
    }
    let message = config.image_processor(&folder("")).unwrap_err().to_string();
    assert!(message.contains("preprocessor_config.json"), "{message}");
}

#[test]
fn images_that_cannot_be_read_are_refused() {
    let processor = QWEN.processor("new");
    assert!(processor.size((1600, 8)).is_ok());
    for size in [(1601, 8), (8, 1601), (0, 0), (0, 5)] {
        let message = processor.size(size).unwrap_err().to_string();
        assert!(message.contains("200 times"), "{message}");
    }
    assert!(processor.image(&[0; 5], (8, 8)).unwrap_err().to_string().contains("3·8·8"));
    let (config, params) = QWEN.load("new");
    let model = build(&config, &params);
    let odd = ImageInput::new(vec![0.0; 3 * 12 * 8], (12, 8)).unwrap();
    let message = model.see(&[vec![IMAGE]], &[vec![odd]]).unwrap_err().to_string();
    assert!(message.contains("sides that 8 divides") && message.contains("12×8"), "{message}");
    let row = QWEN.rows("new").remove(0);
    let short = Row { ids: row.ids.iter().copied().filter(|id| *id != IMAGE).collect(), ..row };
    let message = model.log_probs(&batch(&[short]), None).unwrap_err().to_string();
    assert!(message.contains("row 0 has 0 image tokens") && message.contains("ask for 8"), "{message}");
}
