//! `votive plan`: what it counts exactly, what fits, and a prediction beside a measurement.

use crate::bad_input::Trial;
use crate::*;

fn plan(recipe: &str, more: &[&str]) -> Value {
    let args = [&["plan", recipe, "--quiet"], more].concat();
    let mut found = rows(&args);
    assert_eq!(found.len(), 1);
    found.remove(0)
}

fn part(plan: &Value, name: &str) -> u64 {
    let parts = plan["memory"]["parts"].as_array().unwrap();
    parts.iter().find(|part| part["name"] == name).unwrap_or_else(|| panic!("no {name} in {plan}"))["bytes"]
        .as_u64()
        .unwrap()
}

/// Parameters of each tensor in a model's file.
fn parameters(model: &str) -> Vec<u64> {
    tensors(&fixture(&format!("{model}/model.safetensors"))).values().map(|t| t.elem_count() as u64).collect()
}

#[test]
fn weights_copies_gradients_and_moments_are_counted() {
    let trial = Trial::text();
    let recipe = trial.path("recipe.toml");
    let sizes = parameters("text/llama");
    let (weights, largest) = (4 * sizes.iter().sum::<u64>(), 4 * sizes.iter().max().unwrap());
    let full = plan(&recipe, &[]);
    assert_eq!(part(&full, "weights"), weights);
    assert_eq!(part(&full, "copy for the reference"), weights);
    // One sum of each, and the one that is being added.
    assert_eq!(part(&full, "gradients"), weights + largest);
    assert_eq!(part(&full, "moments of the optimizer"), 2 * weights);
    assert_eq!((&full["trained"]["share"], &full["steps"]), (&json!(1.0), &json!(6)));
    assert_eq!(full["rows"], json!({"train": 20, "held_out": 0, "read": 20, "dropped": 0}));
    let sequences = full["lengths"].as_array().unwrap().iter().map(|bin| bin["sequences"].as_u64().unwrap());
    assert_eq!(sequences.sum::<u64>(), 40);
    let cut = plan(&recipe, &["--set", "train.micro_batch_size=1"]);
    assert_eq!(part(&cut, "gradients"), weights + largest);
    assert!(part(&cut, "activations of the layers") < part(&full, "activations of the layers"));

    let adapter = ["--set", "adapter.lora.rank=2", "--set", "reference.kind=adapter_off"];
    let lora = plan(&recipe, &adapter);
    // Two of 32 inputs for q_proj and v_proj of two layers, and their outputs.
    let trained = lora["trained"]["parameters"].as_u64().unwrap();
    assert_eq!(part(&lora, "weights"), weights + 4 * trained);
    // The largest factor is less than all of them together.
    let gradients = part(&lora, "gradients");
    assert!((4 * trained + 1..8 * trained).contains(&gradients), "{gradients}");
    assert_eq!(part(&lora, "copy for the reference"), 0);
    let modules = lora["trained"]["modules"].as_object().unwrap();
    assert_eq!(modules.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), trained);
    assert!(modules.contains_key("model.layers.*.self_attn.q_proj.lora_A.weight"), "{modules:?}");
}

/// Gold completions count where an objective reads them, and there alone: as much as lists of the same three answers.
#[test]
fn gold_completions_are_counted() {
    let folder = Folder::new();
    let recipe = |name: &str| format!("{}/examples/recipes/text/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let text =
        fs::read_to_string(format!("{}/examples/data/text-own.jsonl", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let rows: Vec<Value> = text.lines().take(32).map(|line| serde_json::from_str(line).unwrap()).collect();
    let file = |name: &str, row: &dyn Fn(&Value) -> Value| {
        folder.text(name, &rows.iter().map(|one| format!("{}\n", row(one))).collect::<String>())
    };
    let gold = format!("data.path={}", file("gold.jsonl", &Value::clone));
    let list = |row: &Value| {
        let answers = ["chosen", "rejected", "reference"].map(|side| &row[side]);
        json!({"prompt": row["prompt"], "completions": answers, "scores": [3, 1, 2]})
    };
    let lists = format!("data.path={}", file("lists.jsonl", &list));
    let faulty = "data.faulty_rows=drop";
    let plan = |name: &str, data: &str| plan(&recipe(name), &["--set", data, "--set", faulty]);
    let (with, without) = (plan("selm", &gold), plan("dpo", &gold));
    let sequences = |plan: &Value| -> u64 {
        plan["lengths"].as_array().unwrap().iter().map(|bin| bin["sequences"].as_u64().unwrap()).sum()
    };
    let trained = |plan: &Value| plan["rows"]["train"].as_u64().unwrap();
    assert_eq!((sequences(&with), sequences(&without)), (3 * trained(&with), 2 * trained(&without)));
    assert!(part(&with, "activations of the layers") > part(&without, "activations of the layers"));
    let listed = plan("tpo-tree", &lists);
    assert_eq!((trained(&with), &with["lengths"]), (trained(&listed), &listed["lengths"]));
    for name in ["activations of the layers", "activations of embedding and head"] {
        assert_eq!(part(&with, name), part(&listed, name), "{name}");
    }
}

#[test]
fn the_largest_micro_batch_that_fits_is_named() {
    let trial = Trial::text();
    let recipe = trial.path("recipe.toml");
    let sizes = ["--set", "train.batch_size=12"];
    let fitting =
        |memory: &str| plan(&recipe, &[&sizes, &["--memory", memory][..]].concat())["memory"].clone();
    assert_eq!(fitting("1GiB")["micro_batch_that_fits"], json!(12));
    assert_eq!(fitting("1MiB")["micro_batch_that_fits"], Value::Null);
    // Just what four rows at a time take: six is too much.
    let four = plan(&recipe, &[&sizes[..], &["--set", "train.micro_batch_size=4"]].concat());
    let bytes = four["memory"]["peak"].as_u64().unwrap();
    assert_eq!(fitting(&format!("{bytes}B"))["micro_batch_that_fits"], json!(4));
    fails(&["plan", &recipe, "--memory", "8"], USAGE, &["expected a size such as 8GiB"]);
    fails(&["plan", &recipe, "--trial", "1"], USAGE, &["--trial"]);
}

#[test]
fn a_plan_is_shown_in_words_and_trains_nothing() {
    let trial = Trial::image();
    let recipe = trial.path("recipe.toml");
    let said = ok(&["plan", &recipe, "--quiet", "--memory", "8GiB"]);
    for words in [
        "[train]",
        "3 kept",
        "passes over 3 rows",
        "parameters are trained",
        "activations of the U-Net",
        "fits",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    assert!(!Path::new("runs/recipe").exists());
}

/// A random model of eleven million parameters with the embedded one's tokenizer: large enough that the program itself, of
/// whose memory more or less is in use from one start to the next, counts little.
#[cfg(target_os = "linux")]
fn larger_model(folder: &Folder) -> String {
    use candle_core::{DType, Device};
    use votive_model::{CausalLmConfig, LlamaConfig, Params, save_causal_lm};

    let embedded = format!("{}/models/tiny-lm", env!("CARGO_MANIFEST_DIR"));
    let vocabulary = CausalLmConfig::read_folder(Path::new(&embedded)).unwrap().vocab_size();
    let config = CausalLmConfig::from(LlamaConfig::llama(vocabulary, (384, 1024), 6, (6, 6), 256));
    let (_, params) = Params::fresh(1, &Device::Cpu, |scope| config.build(scope)).unwrap();
    let model = folder.path("model");
    fs::create_dir(&model).unwrap();
    save_causal_lm(Path::new(&model), &config, &params, DType::F32).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(format!("{embedded}/{name}"), format!("{model}/{name}")).unwrap();
    }
    model
}

/// Two steps in a trial, whose peak is that of a run; every row is in every step.
#[cfg(target_os = "linux")]
#[test]
fn the_prediction_is_within_fifteen_percent_of_a_trial() {
    const TOLERANCE: f64 = 0.15;
    let folder = Folder::new();
    let root = env!("CARGO_MANIFEST_DIR");
    let pairs = fs::read_to_string(format!("{root}/examples/data/text-pairs.jsonl")).unwrap();
    let few: Vec<&str> = pairs.lines().take(16).collect();
    let data = folder.text("pairs.jsonl", &few.join("\n"));
    let recipe = format!("{root}/examples/recipes/text/dpo.toml");
    let (model, data) = (format!("model.path={}", larger_model(&folder)), format!("data.path={data}"));
    let own = ["--set", &model, "--set", &data, "--trial", "2"];
    let lora = ["--set", "adapter.lora.rank=16", "--set", "reference.kind=adapter_off"];
    for setting in
        [&[][..], &lora, &["--set", "train.micro_batch_size=4"], &["--set", "train.recompute=true"]]
    {
        let found = plan(&recipe, &[&own, setting].concat());
        let predicted = found["memory"]["step"].as_u64().unwrap() as f64 / f64::from(1 << 20);
        let measured = found["trial"]["peak_mib"].as_f64().unwrap();
        assert!((predicted / measured - 1.0).abs() < TOLERANCE, "{setting:?}: {predicted} for {measured}");
        assert!(found["trial"]["seconds_in_all"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn pictures_that_a_policy_draws_are_counted() {
    let recipe = |name: &str| format!("{}/examples/recipes/image/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let folder = Folder::new();
    let data = format!("data.path={}", folder.text("prompts.txt", "a red circle\n"));
    let plan = |name: &str, more: &[&str]| plan(&recipe(name), &[&["--set", data.as_str()], more].concat());
    let unet = |name: &str, more: &[&str]| {
        part(&plan(name, &[&["--set", "rollout.cfg=1.5"], more].concat()), "activations of the U-Net")
    };
    // Guidance asks of two prompts, and two chains are two pictures; steps that are compared share what went before.
    let steps = unet("spo", &[]);
    assert_eq!(unet("spo", &["--set", "rollout.cfg=1"]) * 2, steps);
    assert_eq!(unet("d3po", &[]), 2 * steps);
    let clip = format!("rollout.clip={}", fixture("clip/quick"));
    let more = ["--set", "train.micro_batch_size=16", "--set", clip.as_str()];
    assert_eq!(unet("refl", &more), steps);
    let whole = plan("refl", &more);
    let half = plan("refl", &["--set", "train.micro_batch_size=8", "--set", &clip]);
    let pixels = |plan: &Value| part(plan, "activations of autoencoder and reward");
    assert!(pixels(&half) > 0 && pixels(&whole) == 2 * pixels(&half), "{whole}");
    // A candidate that is moved along its reward's gradient needs the graph of that.
    let passing = |ascent: &str| {
        let reward = ["--set", "rollout.reward=clip", "--set", clip.as_str(), "--set", ascent];
        part(&plan("tailorpo", &reward), "buffers that come and go")
    };
    assert!(passing("rollout.ascent=0.2") > passing("rollout.ascent=0"));
}
