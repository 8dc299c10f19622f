//! `votive merge` and `votive export`: what they write is the model that they were given, and says what it is.

use crate::*;
use candle_core::quantized::gguf_file;

const ALL: [&str; 5] = ["llama", "llama_tied", "mistral", "qwen2", "qwen3"];

/// A finished run of two steps: its folder.
fn run(folder: &Folder, model: &str, adapter: bool) -> String {
    let adapter = if adapter { "[adapter.lora]\nrank = 2\nalpha = 64.0\n" } else { "" };
    let data = fixture("text_steps/prefs.jsonl");
    let recipe = format!(
        "[model]\npath = {model:?}\n{adapter}[data]\npath = {data:?}\n[objective.dpo]\nbeta = 0.1\n\
         [optimizer]\nlr = 5e-2\n[train]\nsteps = 2\nbatch_size = 2\n"
    );
    let (recipe, out) = (folder.text("recipe.toml", &recipe), folder.path("run"));
    ok(&["train", &recipe, "--quiet", "--out", &out]);
    out
}

/// Greedy tokens of a model on the fixtures' prompts.
fn greedy(model: &str, adapter: Option<&str>) -> Vec<Value> {
    let mut args = vec!["generate", "--model", model, "--temperature", "0", "--max-new-tokens", "16"];
    args.extend(["--prompt", "The cat sat on", "--prompt", "Name a colour:"]);
    if let Some(adapter) = adapter {
        args.extend(["--adapter", adapter]);
    }
    rows(&args).into_iter().map(|row| row["token_ids"].clone()).collect()
}

#[test]
fn a_merged_folder_is_the_model_with_its_adapter() {
    for model in ALL {
        let (folder, model) = (Folder::new(), fixture(&format!("text/{model}")));
        let adapter = format!("{}/final", run(&folder, &model, true));
        let expected = greedy(&model, Some(&adapter));
        assert_ne!(expected, greedy(&model, None), "{model}: the adapter does nothing");
        for dtype in ["f32", "f16", "bf16"] {
            let out = folder.path(dtype);
            let args = [
                "merge",
                "--model",
                &model,
                "--adapter",
                &adapter,
                "--out",
                &out,
                "--dtype",
                dtype,
                "--verify",
            ];
            let report = rows(&[&args[..], &["--shard-mib", "1"]].concat()).remove(0);
            let of = |field: &str| report["verify"][field].as_f64().unwrap();
            assert!(of("max_logit_difference") <= of("bound") && of("tokens") == 512.0, "{report}");
            if dtype == "f32" {
                assert_eq!(greedy(&out, None), expected, "{model}");
                assert!(of("same_top_token") > 508.0, "{report}");
            }
            let config: Value =
                serde_json::from_str(&fs::read_to_string(format!("{out}/config.json")).unwrap()).unwrap();
            let named = config.get("dtype").or_else(|| config.get("torch_dtype")).unwrap();
            let expected = [("f32", "float32"), ("f16", "float16"), ("bf16", "bfloat16")];
            assert!(expected.contains(&(dtype, named.as_str().unwrap())), "{dtype}: {named}");
            let card = fs::read_to_string(format!("{out}/README.md")).unwrap();
            assert!(card.contains("library_name: transformers") && card.contains("| loss |"), "{card}");
        }
    }
}

#[test]
fn mistakes_of_a_merge_are_named_and_leave_nothing() {
    let folder = Folder::new();
    let model = fixture("text/llama");
    let adapter = format!("{}/final", run(&folder, &model, true));
    let out = folder.path("out");
    let check = |model: &str, out: &str, code: i32, parts: &[&str]| {
        fails(&["merge", "--model", model, "--adapter", &adapter, "--out", out], code, parts);
    };
    check(&model, &folder.path("run"), USAGE, &["--out", "already"]);
    check(&fixture("text/qwen3"), &out, DATA, &["do not fit the weight"]);
    check(&fixture("diffusion/sd1"), &out, DATA, &["Stable Diffusion"]);
    check(&folder.path("nothing"), &out, DATA, &["config.json"]);
    assert!(!Path::new(&out).exists());
    let args = ["merge", "--model", &model, "--adapter", &adapter, "--out", &out, "--prompts", "x"];
    fails(&args, USAGE, &["--verify"]);
}

#[test]
fn a_run_is_exported_as_adapter_and_as_model() {
    let (folder, model) = (Folder::new(), fixture("text/qwen2"));
    let run = run(&folder, &model, true);
    let expected = greedy(&model, Some(&format!("{run}/final")));
    let (peft, hub) = (folder.path("peft"), folder.path("hub"));
    ok(&["export", &run, "--to", "peft", "--out", &peft]);
    assert_eq!(greedy(&model, Some(&peft)), expected);
    ok(&["export", &run, "--to", "hub", "--out", &hub]);
    assert_eq!(greedy(&hub, None), expected);
    let again = folder.path("again");
    ok(&["export", &peft, "--model", &model, "--to", "hub", "--out", &again]);
    assert_eq!(greedy(&again, None), expected);
    fails(&["export", &hub, "--to", "peft", "--out", &folder.path("x")], USAGE, &["no adapter", "--to hub"]);
    fails(&["export", &hub, "--to", "hub", "--dtype", "q8_0", "--out", &folder.path("x")], USAGE, &["GGUF"]);
    fails(
        &["export", &hub, "--model", &model, "--to", "hub", "--out", &folder.path("x")],
        USAGE,
        &["--model"],
    );
    fails(
        &["export", &peft, "--to", "hub", "--model", "gone", "--out", &folder.path("x")],
        DATA,
        &["gone", "--model"],
    );
}

#[test]
fn a_gguf_file_holds_sizes_tensors_and_vocabulary() {
    let folder = Folder::new();
    for (model, dtype, architecture) in [
        ("llama", "f32", "llama"),
        ("llama_tied", "f16", "llama"),
        ("qwen2", "q8_0", "qwen2"),
        ("qwen3", "bf16", "qwen3"),
    ] {
        let out = folder.path(&format!("{model}.gguf"));
        ok(&["export", &fixture(&format!("text/{model}")), "--to", "gguf", "--dtype", dtype, "--out", &out]);
        let content = gguf_file::Content::read(&mut fs::File::open(&out).unwrap()).unwrap();
        let of = |key: &str| content.metadata.get(key).unwrap_or_else(|| panic!("{model}: no {key}"));
        assert_eq!(of("general.architecture").to_string().unwrap(), architecture);
        assert_eq!(of(&format!("{architecture}.block_count")).to_u32().unwrap(), 2);
        assert_eq!(of("tokenizer.ggml.model").to_string().unwrap(), "gpt2");
        assert_eq!(of("tokenizer.ggml.pre").to_string().unwrap(), "gpt-2");
        assert_eq!(of("tokenizer.ggml.eos_token_id").to_u32().unwrap(), 2);
        assert_eq!(of("tokenizer.ggml.add_bos_token").to_bool().unwrap(), model == "llama");
        assert!(of("tokenizer.chat_template").to_string().unwrap().contains("im_start"));
        let rows = of(&format!("{architecture}.vocab_size")).to_u32().unwrap() as usize;
        assert_eq!(of("tokenizer.ggml.tokens").to_vec().unwrap().len(), rows);
        assert_eq!(content.tensor_infos["token_embd.weight"].shape.dims(), [rows, 32]);
        assert_eq!(content.tensor_infos.contains_key("rope_freqs.weight"), model == "llama");
        fails(&["export", &fixture("text/llama"), "--to", "gguf", "--out", &out], USAGE, &["already"]);
    }
    let out = folder.path("mistral.gguf");
    let mistral = fixture("text/mistral");
    fails(&["export", &mistral, "--to", "gguf", "--out", &out], DATA, &["sliding window of 8"]);
    let model = folder.copy("text/llama");
    let file = format!("{model}/tokenizer.json");
    let mut tokenizer: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    tokenizer["pre_tokenizer"]["add_prefix_space"] = json!(true);
    fs::write(&file, tokenizer.to_string()).unwrap();
    fails(&["export", &model, "--to", "gguf", "--out", &out], DATA, &["llama.cpp", "pattern"]);
    assert!(!Path::new(&out).exists());
}

#[test]
fn the_card_of_a_run_has_its_numbers_and_no_paths() {
    let (folder, model) = (Folder::new(), fixture("text/llama"));
    let run = run(&folder, &model, true);
    let card = fs::read_to_string(format!("{run}/final/README.md")).unwrap();
    let metrics = fs::read_to_string(format!("{run}/metrics.jsonl")).unwrap();
    let first: Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    let loss = format!("| loss | {:.4} |", first["loss"].as_f64().unwrap());
    for part in [
        "---\nlibrary_name: peft\nbase_model: \"llama\"\n",
        "license:",
        "\"dpo\"",
        "\"lora\"",
        &loss,
        "| rewards/margins |",
        "`prefs.jsonl`, SHA-256 `",
        "; 20 rows trained on",
        "`dpo`: beta = 0.1",
        "r = 2, α = 64",
        "path = \"prefs.jsonl\"",
        "votive train",
    ] {
        assert!(card.contains(part), "no {part:?} in {card}");
    }
    assert!(!card.contains(env!("CARGO_MANIFEST_DIR")), "{card}");
}
