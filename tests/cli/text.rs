//! `votive generate` and `votive score` against transformers, and on damaged models and data.

use crate::*;

const MODELS: [&str; 13] = [
    "llama",
    "llama_tied",
    "mistral",
    "qwen2",
    "qwen3",
    "smollm",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "phi3_long",
    "olmo2",
    "smollm3",
];
/// f32 sums of some twenty tokens in another order.
const LOGPS_TOLERANCE: f64 = 1e-4;

#[test]
fn scores_are_those_of_transformers() {
    let folder = Folder::new();
    for model in MODELS {
        for data in ["prefs", "prefs_chat"] {
            let expected = tensors(&fixture(&format!("text/{model}/{data}.expected.safetensors")));
            let (model, data) = (fixture(&format!("text/{model}")), fixture(&format!("text/{data}.jsonl")));
            let out = folder.path("scores.jsonl");
            ok(&["score", "--model", &model, "--data", &data, "--out", &out, "--batch", "3"]);
            let scores = fs::read_to_string(&out).unwrap();
            let scores: Vec<Value> = scores.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let column =
                |name: &str| scores.iter().map(move |row| row[name].as_f64().unwrap()).collect::<Vec<_>>();
            let logps = [column("chosen_logps"), column("rejected_logps")].concat();
            let tokens = [column("chosen_tokens"), column("rejected_tokens")].concat();
            let on_cpu = |values: Vec<f64>| Tensor::new(values, &Device::Cpu).unwrap();
            assert!(distance(&on_cpu(logps), &expected["logps"]) < LOGPS_TOLERANCE, "{model} {data}");
            assert_eq!(distance(&on_cpu(tokens), &expected["tokens"]), 0.0, "{model} {data}");
        }
    }
}

/// Pictures of a fixture as PNG files.
fn pictures(folder: &Folder, model: &str) {
    for (name, picture) in tensors(&fixture(&format!("{model}/expected/images.safetensors"))) {
        let Some(number) = name.strip_prefix("image.") else { continue };
        let (height, width, _) = picture.dims3().unwrap();
        let bytes = picture.flatten_all().unwrap().to_vec1::<u8>().unwrap();
        let picture = ::image::RgbImage::from_raw(width as u32, height as u32, bytes).unwrap();
        picture.save(folder.path(&format!("{number}.png"))).unwrap();
    }
}

#[test]
fn greedy_answers_about_images_are_those_of_transformers() {
    let llavas = ["llava/llama", "llava/older", "llava/layers", "llava/gemma3", "llava/siglip"];
    for model in llavas.into_iter().chain(["qwen3_vl/new", "qwen3_vl/older"]) {
        let folder = Folder::new();
        pictures(&folder, model);
        let expected = fs::read_to_string(fixture(&format!("{model}/expected/rows.json"))).unwrap();
        let model = fixture(model);
        for row in serde_json::from_str::<Vec<Value>>(&expected).unwrap() {
            let prompt = row["text"].as_str().unwrap();
            let images: Vec<String> =
                row["images"].as_array().unwrap().iter().map(|n| folder.path(&format!("{n}.png"))).collect();
            let mut args =
                vec!["generate", "--model", &model, "--temperature", "0", "--max-new-tokens", "16"];
            args.extend(["--prompt", prompt]);
            images.iter().for_each(|image| args.extend(["--image", image]));
            assert_eq!(rows(&args)[0]["token_ids"], row["token_ids"], "{model}: {prompt}");
        }
    }
}

#[test]
fn images_and_their_places_must_match() {
    let folder = Folder::new();
    pictures(&folder, "llava/llama");
    let (model, image) = (fixture("llava/llama"), folder.path("0.png"));
    let (text, cut) = (fixture("text/llama"), folder.path("cut.png"));
    fs::write(&cut, &fs::read(&image).unwrap()[..60]).unwrap();
    let refused = |args: &[&str], part: &str| {
        let start = ["generate", "--max-new-tokens", "2", "--temperature", "0"];
        fails(&[&start[..], args].concat(), 3, &[part]);
    };
    refused(
        &["--model", &model, "--image", &image, "--prompt", "no place"],
        "0 places for images, and is to show 1",
    );
    refused(&["--model", &model, "--prompt", "<image>"], "1 places for images, and is to show 0");
    refused(&["--model", &text, "--image", &image, "--prompt", "x"], "sees no images");
    refused(&["--model", &model, "--image", &cut, "--prompt", "<image>"], "cut.png");
    // A chat has a place of its own.
    for model in [model, fixture("qwen3_vl/new"), fixture("qwen3_vl/older")] {
        let chat = ["generate", "--model", &model, "--chat", "--image", &image, "--prompt", "What is it?"];
        assert_eq!(rows(&[&chat[..], &["--max-new-tokens", "2"]].concat()).len(), 1);
    }
}

#[test]
fn greedy_completions_are_those_of_transformers() {
    for model in MODELS {
        let expected = fs::read_to_string(fixture(&format!("text/{model}/generate.json"))).unwrap();
        let expected: Vec<Value> = serde_json::from_str(&expected).unwrap();
        let model = fixture(&format!("text/{model}"));
        let mut args = vec!["generate", "--model", &model, "--temperature", "0", "--max-new-tokens", "24"];
        expected.iter().for_each(|row| args.extend(["--prompt", row["prompt"].as_str().unwrap()]));
        for (found, expected) in rows(&args).iter().zip(&expected) {
            for key in ["prompt", "token_ids", "text"] {
                assert_eq!(found[key], expected[key], "{model}");
            }
        }
    }
}

#[test]
fn drawn_completions_depend_on_the_seed_and_not_on_the_batch() {
    let folder = Folder::new();
    let prompts = folder.text("prompts.txt", "The cat sat on\nName a colour:\nQ: is it warm?\n");
    let model = fixture("text/llama");
    let draw = |seed: &str, batch: &str| {
        let args = ["generate", "--model", &model, "--prompts-file", &prompts, "--max-new-tokens", "12"];
        rows(&[&args[..], &["--seed", seed, "--batch", batch, "--top-k", "50", "--top-p", "0.95"]].concat())
    };
    let three = draw("5", "8");
    assert_eq!(three.len(), 3);
    assert_eq!(three, draw("5", "1"));
    assert_ne!(three, draw("6", "8"));
}

#[test]
fn samples_of_a_prompt_are_drawn_apart_and_the_first_is_the_only_one() {
    let model = fixture("text/llama");
    let draw = |extra: &[&str]| {
        let args = [
            "generate",
            "--model",
            &model,
            "--prompt",
            "The cat",
            "--prompt",
            "Name",
            "--max-new-tokens",
            "8",
        ];
        rows(&[&args[..], extra].concat())
    };
    let (single, several) = (draw(&[]), draw(&["--num-samples", "3"]));
    assert_eq!((single.len(), several.len()), (2, 6));
    assert_eq!((&single[0], &single[1]), (&several[0], &several[3]));
    assert_eq!(several, draw(&["--num-samples", "3", "--batch", "4"]));
    assert!(
        several[0]["token_ids"] != several[1]["token_ids"]
            && several[1]["token_ids"] != several[2]["token_ids"]
    );
    assert_eq!(
        several.iter().map(|row| row["sample"].as_u64().unwrap()).collect::<Vec<_>>(),
        [0, 1, 2, 0, 1, 2]
    );
}

#[test]
fn a_stop_string_ends_a_completion_and_is_cut_off() {
    let model = fixture("text/llama");
    let base = [
        "generate",
        "--model",
        &model,
        "--prompt",
        "The cat sat on",
        "--temperature",
        "0",
        "--max-new-tokens",
        "24",
    ];
    let [whole] = &rows(&base)[..] else { panic!("one line") };
    let text = whole["text"].as_str().unwrap();
    // Some characters from the middle, and where they stand first.
    let stop: String = text.chars().skip(8).take(3).collect();
    let (before, _) = text.split_once(&stop).unwrap();
    let [cut] = &rows(&[&base[..], &["--stop", "never written", "--stop", &stop]].concat())[..] else {
        panic!("one line")
    };
    assert_eq!((&cut["text"], &cut["stop"], &cut["finished"]), (&json!(before), &json!(stop), &json!(true)));
    let (ids, all) = (cut["token_ids"].as_array().unwrap(), whole["token_ids"].as_array().unwrap());
    assert!(ids.len() < all.len() && all.starts_with(ids), "{cut}");
    assert_eq!(whole["stop"], Value::Null);
    let args: Vec<&str> = [&base[..], &["--stop", &stop, "--stream"]].concat();
    assert_eq!(ok(&args), format!("{before}\n"));
}

#[test]
fn conversations_need_the_chat_template_and_bad_rows_are_named() {
    let (folder, model) = (Folder::new(), fixture("text/llama"));
    let check = |file: &str, extra: &[&str], code: i32, parts: &[&str]| {
        fails(&[&["generate", "--model", &model, "--prompts", file], extra].concat(), code, parts);
    };
    let talk = folder.text("talk.jsonl", r#"{"prompt": [{"role": "user", "content": "Hello"}]}"#);
    check(&talk, &[], USAGE, &["conversation", "--chat"]);
    let file = folder.text("bad.jsonl", "{\"prompt\": \"a\"}\n{\"text\": \"b\", \"id\": 1}\n");
    check(&file, &[], DATA, &["bad.jsonl", "row 2", "`prompt`", "text, id"]);
    let file = folder.text("roles.jsonl", r#"{"prompt": [{"content": "Hello"}]}"#);
    check(&file, &["--chat"], DATA, &["row 1", "turn 1", "role"]);
    check(&folder.text("empty.txt", "\n\n"), &[], DATA, &["no prompt"]);
}

#[test]
fn the_models_own_generation_config_counts_if_asked_for() {
    let folder = Folder::new();
    let model = folder.copy("text/llama");
    let config = format!("{model}/generation_config.json");
    let write = |value: Value| fs::write(&config, value.to_string()).unwrap();
    let draw = |extra: &[&str]| {
        let args = ["generate", "--model", &model, "--prompt", "The cat", "--max-new-tokens", "8"];
        rows(&[&args[..], extra].concat()).remove(0)["token_ids"].clone()
    };
    write(json!({"do_sample": true, "temperature": 0.4, "top_k": 6}));
    assert_eq!(draw(&["--generation-config"]), draw(&["--temperature", "0.4", "--top-k", "6"]));
    assert_eq!(
        draw(&["--generation-config", "--top-k", "2"]),
        draw(&["--temperature", "0.4", "--top-k", "2"])
    );
    assert_ne!(draw(&["--generation-config"]), draw(&[]));
    write(json!({"temperature": 0.4}));
    assert_eq!(draw(&["--generation-config"]), draw(&["--temperature", "0"]));
    write(json!({"num_beams": 4}));
    draw(&[]);
    let args = ["generate", "--model", &model, "--prompt", "a", "--generation-config"];
    fails(&args, DATA, &["generation_config.json", "num_beams"]);
    fs::remove_file(&config).unwrap();
    fails(&args, DATA, &["generation_config.json"]);
}

#[test]
fn options_without_effect_or_out_of_range_are_refused() {
    let model = fixture("text/llama");
    let check = |extra: &[&str], parts: &[&str]| {
        fails(&[&["generate", "--model", &model, "--prompt", "a"], extra].concat(), USAGE, parts);
    };
    check(&["--temperature", "0", "--top-k", "3"], &["no effect", "temperature above 0"]);
    check(&["--temperature", "-1"], &["--temperature -1"]);
    check(&["--top-p", "1.5"], &["--top-p 1.5"]);
    check(&["--min-p", "-0.1"], &["--min-p -0.1"]);
    check(&["--repetition-penalty", "0"], &["--repetition-penalty 0"]);
    check(&["--temperature", "0", "--min-p", "0.1"], &["--min-p has no effect"]);
    check(&["--stop", ""], &["--stop"]);
    check(&["--stream", "--batch", "2"], &["--stream", "--batch"]);
    check(&["--stream", "--json"], &["--stream", "--json"]);
    check(&["--num-samples", "0"], &["--num-samples"]);
    check(&["--batch", "0"], &["--batch"]);
    check(&["--prompts-file", "b"], &["cannot be used with"]);
    fails(&["generate", "--model", &model], USAGE, &["--prompt"]);
}

#[test]
fn rows_that_cannot_be_scored_are_named_or_dropped() {
    let folder = Folder::new();
    let out = folder.path("scores.jsonl");
    let model = fixture("text/llama");
    let score = |data: &str| ["score", "--model", &model, "--data", data, "--out", &out].map(str::to_owned);
    let check = |rows: &str, extra: &[&str], parts: &[&str]| {
        let data = folder.text("rows.jsonl", rows);
        let args = score(&data);
        let args: Vec<&str> = args.iter().map(String::as_str).chain(extra.iter().copied()).collect();
        fails(&args, DATA, parts);
    };
    let good = r#"{"prompt":"The cat","chosen":" sat","rejected":" ran"}"#;
    check(
        &format!("{good}\n{{\"prompt\":\"a\",\"chosen\":\"\",\"rejected\":\"b\"}}\n"),
        &[],
        &["row 2", "empty completion"],
    );
    check(r#"{"prompt":"a","chosen":"b","rejected":"b"}"#, &[], &["row 1", "the same"]);
    check(r#"{"prompt":"a","chosen":"b"}"#, &[], &["row 1", "rejected"]);
    check("{\n", &[], &["row 1", "not a JSON object"]);
    check("", &[], &["no row"]);
    check(&good.replace("cat", &"cat ".repeat(400)), &[], &["row 1", "context"]);
    let same = r#"{"prompt":"a","chosen":"b","rejected":"b"}"#;
    let data = folder.text("mixed.jsonl", &format!("{good}\n{same}\n"));
    let args = score(&data);
    let args: Vec<&str> = args.iter().map(String::as_str).chain(["--faulty-rows", "drop"]).collect();
    let [summary] = &rows(&args)[..] else { panic!("one line") };
    assert_eq!((&summary["rows"], &summary["data"]["rows_kept"]), (&json!(1), &json!(1)), "{summary}");
    assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 1);
    fails(
        &["score", "--model", &model, "--data", &data, "--out", &out, "--max-length", "9999"],
        USAGE,
        &["256 positions"],
    );
}

#[test]
fn labelled_completions_are_scored_one_by_one() {
    let folder = Folder::new();
    let lines = ["true", "false"]
        .map(|label| format!(r#"{{"prompt":"The cat","completion":" sat","label":{label}}}"#));
    let (data, out) = (folder.text("labelled.jsonl", &lines.join("\n")), folder.path("scores.jsonl"));
    ok(&["score", "--model", &fixture("text/llama"), "--data", &data, "--out", &out]);
    let scores = fs::read_to_string(&out).unwrap();
    let scores: Vec<Value> = scores.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&scores[0]["label"], &scores[1]["label"]), (&json!(true), &json!(false)));
    assert_eq!(scores[0]["logps"], scores[1]["logps"]);
}

#[test]
fn damaged_model_folders_are_named() {
    let folder = Folder::new();
    let model = folder.copy("text/llama");
    let check = |parts: &[&str]| fails(&["generate", "--model", &model, "--prompt", "a"], DATA, parts);
    let (config, weights) = (format!("{model}/config.json"), format!("{model}/model.safetensors"));
    let (whole_config, whole_weights) = (fs::read_to_string(&config).unwrap(), fs::read(&weights).unwrap());

    fs::write(&weights, &whole_weights[..whole_weights.len() / 2]).unwrap();
    check(&["model.safetensors", "not a whole safetensors file"]);
    let mut flipped = whole_weights.clone();
    flipped[3] ^= 0x40;
    fs::write(&weights, flipped).unwrap();
    check(&["model.safetensors", "not a whole safetensors file"]);
    fs::write(&weights, &whole_weights).unwrap();

    let mut changed: Value = serde_json::from_str(&whole_config).unwrap();
    changed["architectures"] = json!(["MambaForCausalLM"]);
    changed["model_type"] = json!("mamba");
    fs::write(&config, changed.to_string()).unwrap();
    check(&["config.json", "mamba"]);
    let mut changed: Value = serde_json::from_str(&whole_config).unwrap();
    changed["vocab_size"] = json!(100);
    fs::write(&config, changed.to_string()).unwrap();
    check(&["vocabulary", "100"]);
    fs::write(&config, "{").unwrap();
    check(&["config.json", "not valid JSON"]);
    fs::write(&config, whole_config).unwrap();

    fs::remove_file(format!("{model}/tokenizer.json")).unwrap();
    check(&["no tokenizer found"]);
    fs::remove_file(&weights).unwrap();
    check(&["model.safetensors"]);
}

#[test]
fn a_model_that_cannot_be_run_is_refused_by_the_field() {
    let folder = Folder::new();
    let model = folder.copy("text/llama");
    let config = format!("{model}/config.json");
    let whole: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    let check = |field: &str, value: Value, parts: &[&str]| {
        let mut changed = whole.clone();
        changed[field] = value;
        fs::write(&config, changed.to_string()).unwrap();
        fails(&["generate", "--model", &model, "--prompt", "a"], DATA, parts);
    };
    check(
        "quantization_config",
        json!({"quant_method": "gptq"}),
        &["config.json", "quantization_config", "gptq"],
    );
    check("model_type", json!("mamba"), &["model_type", "mamba", "llama", "gemma3_text", "phi3", "smollm3"]);
    check("architectures", json!(["LlamaForSequenceClassification"]), &["LlamaForCausalLM"]);
}

#[test]
fn an_adapter_for_another_model_is_refused_by_its_first_module_that_does_not_fit() {
    let (model, adapter) = (fixture("text/llama"), fixture("lora/layers"));
    let args = ["generate", "--model", &model, "--adapter", &adapter, "--prompt", "a"];
    fails(&args, DATA, &["`model.layers.1.mlp.gate_up_proj`", "no such module", "made for phi3_long"]);
}

#[test]
fn final_weights_have_the_type_of_the_checkpoint_or_the_recipes() {
    let folder = Folder::new();
    let model = folder.copy("text/llama");
    let weights = format!("{model}/model.safetensors");
    let f32s = tensors(&weights);
    files::write(Path::new(&weights), f32s, DType::BF16, BTreeMap::new()).unwrap();
    let recipe = folder.text(
        "recipe.toml",
        "[objective.dpo]\n[optimizer]\nlr = 1e-3\n[train]\nsteps = 1\nbatch_size = 2\nsave_every = 1\n",
    );
    let data = format!("data.path={}", fixture("text/prefs.jsonl"));
    let path = format!("model.path={model}");
    for (key, expected) in [("checkpoint", DType::BF16), ("float32", DType::F32), ("float16", DType::F16)] {
        let (run, dtype) = (folder.path(key), format!("train.save_dtype={key}"));
        ok(&["train", &recipe, "--out", &run, "--set", &path, "--set", &data, "--set", &dtype]);
        let stored = |place: &str| files::stored_float(&Path::new(&run).join(place), "model").unwrap();
        assert_eq!((stored("final"), stored("checkpoints/step-000001")), (expected, DType::F32), "{key}");
    }
}
