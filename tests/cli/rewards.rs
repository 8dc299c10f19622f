//! Reward models from outside: trained by the example recipe, scored with, ranked by, and asked to choose.

use crate::*;

/// A fixture's reward model with the tokenizer that its numbers came from.
fn reward_model(folder: &Folder) -> String {
    let target = folder.path("reward-model");
    fs::create_dir(&target).unwrap();
    for (from, name) in [
        ("reward_models/llama", "config.json"),
        ("reward_models/llama", "model.safetensors"),
        ("text/llama", "tokenizer.json"),
        ("text/llama", "tokenizer_config.json"),
    ] {
        fs::copy(fixture(&format!("{from}/{name}")), format!("{target}/{name}")).unwrap();
    }
    target
}

fn score(model: &str, folder: &Folder, extra: &[&str]) -> Vec<Value> {
    let (data, out) = (fixture("reward_models/prefs.jsonl"), folder.path("rewards.jsonl"));
    ok(&[&["score", "--model", model, "--data", &data, "--out", &out], extra].concat());
    lines(&out)
}

fn rewards(row: &Value) -> [f64; 2] {
    ["chosen_reward", "rejected_reward"].map(|key| row[key].as_f64().unwrap())
}

/// What TRL's first step saw of the first four rows.
#[test]
fn rewards_are_those_of_transformers() {
    let folder = Folder::new();
    let rows = score(&reward_model(&folder), &folder, &[]);
    let file = fixture("reward_models/full.steps.safetensors");
    let expected = files::read(Path::new(&file), &Device::Cpu).unwrap().tensors;
    let expected = expected["step0.policy_rewards"].to_vec1::<f32>().unwrap();
    for (i, row) in rows.iter().take(4).enumerate() {
        let [chosen, rejected] = rewards(row);
        assert!((chosen - f64::from(expected[i])).abs() < 2e-5, "{row}");
        assert!((rejected - f64::from(expected[4 + i])).abs() < 2e-5, "{row}");
        assert!(row["chosen_tokens"].is_u64() && row.get("chosen_logps").is_none(), "{row}");
    }
}

#[test]
fn an_adapter_of_peft_is_scored_with_over_either_kind_of_model() {
    let folder = Folder::new();
    let (model, adapter) = (reward_model(&folder), fixture("reward_models/lora/step5"));
    let plain = score(&model, &folder, &[]);
    let adapted = score(&model, &folder, &["--adapter", &adapter]);
    let on_body = score(&fixture("text/llama"), &folder, &["--adapter", &adapter]);
    for ((a, b), c) in adapted.iter().zip(&on_body).zip(&plain) {
        let [a, b, c] = [a, b, c].map(rewards);
        assert!((a[0] - b[0]).abs() < 1e-5 && (a[1] - b[1]).abs() < 1e-5, "{a:?} {b:?}");
        assert!((a[0] - c[0]).abs() > 1e-4, "{a:?} {c:?}");
    }
}

/// A merged folder is a reward model, whichever kind of model was below the adapter.
#[test]
fn an_adapter_is_merged_with_its_head() {
    let folder = Folder::new();
    let (reward, adapter) = (reward_model(&folder), fixture("reward_models/lora/step5"));
    let adapted = score(&reward, &folder, &["--adapter", &adapter]);
    for (name, model) in [("over-reward", &reward), ("over-language", &fixture("text/llama"))] {
        let out = folder.path(name);
        let report = rows(&["merge", "--model", model, "--adapter", &adapter, "--out", &out, "--verify"]);
        let [report] = &report[..] else { panic!("one line") };
        assert!(report["verify"]["max_reward_difference"].as_f64().unwrap() < 1e-4, "{report}");
        for (a, b) in score(&out, &folder, &[]).iter().zip(&adapted) {
            let [a, b] = [a, b].map(rewards);
            assert!((a[0] - b[0]).abs() < 1e-4 && (a[1] - b[1]).abs() < 1e-4, "{a:?} {b:?}");
        }
    }
}

#[test]
fn pairs_are_ranked_as_their_rewards_say() {
    let folder = Folder::new();
    let (model, data) = (reward_model(&folder), fixture("reward_models/prefs.jsonl"));
    let margins: Vec<f64> = score(&model, &folder, &[]).iter().map(rewards).map(|[c, r]| c - r).collect();
    let right = margins.iter().filter(|margin| **margin > 0.0).count();
    let rank = ["eval", "rank-accuracy", "--model", &model, "--data", &data];
    let [found] = &rows(&rank)[..] else { panic!("one line") };
    let near = |found: &Value, expected: f64| (found.as_f64().unwrap() - expected).abs() < 1e-5;
    assert!(near(&found["accuracy"]["value"], 100.0 * right as f64 / margins.len() as f64), "{found}");
    let mean = margins.iter().sum::<f64>() / margins.len() as f64;
    assert!(near(&found["margin"], mean), "{found} {mean}");
    assert!(ok(&rank).contains("mean margin"));
    fails(&[&rank[..], &["--reference", &model]].concat(), USAGE, &["--reference", "no other model"]);
    let language = ["eval", "rank-accuracy", "--model", &fixture("text/llama"), "--data", &data];
    fails(&language, USAGE, &["--reference"]);
}

#[test]
fn what_a_reward_model_cannot_do_is_said() {
    let folder = Folder::new();
    let (model, data, out) =
        (reward_model(&folder), fixture("reward_models/prefs.jsonl"), folder.path("scores.jsonl"));
    let per_token = ["score", "--model", &model, "--data", &data, "--out", &out, "--per-token"];
    fails(&per_token, USAGE, &["--per-token", "one number of a whole completion"]);
    fails(&["generate", "--model", &model, "--prompt", "x"], DATA, &["a reward model, which gives scores"]);
}

/// More completions to choose from never give a smaller reward, and the choice is one of `--num-samples`.
#[test]
fn the_best_of_several_has_the_greatest_reward() {
    let folder = Folder::new();
    let (model, reward) = (fixture("text/llama"), reward_model(&folder));
    let base =
        ["generate", "--model", &model, "--prompt", "The cat", "--prompt", "Name", "--max-new-tokens", "8"];
    let all = rows(&[&base[..], &["--num-samples", "4"]].concat());
    let mut before: Vec<Value> = Vec::new();
    for n in 1..=4 {
        let best =
            rows(&[&base[..], &["--best-of", &n.to_string(), "--reward", &reward, "--batch", "3"]].concat());
        assert_eq!(best.len(), 2);
        for (prompt, row) in best.iter().enumerate() {
            let sample = row["sample"].as_u64().unwrap() as usize;
            let drawn = &all[4 * prompt + sample];
            assert!(
                sample < n && row["token_ids"] == drawn["token_ids"] && row["text"] == drawn["text"],
                "{row}"
            );
            let Some(before) = before.get(prompt) else { continue };
            let [old, new] = [before, row].map(|row| row["reward"].as_f64().unwrap());
            let is_newest = sample == n - 1;
            // In other company a reward is rounded otherwise.
            assert!(if is_newest { new > old } else { (new - old).abs() < 1e-4 }, "{before} {row}");
        }
        before = best;
    }
    let refused = |extra: &[&str], code, parts: &[&str]| fails(&[&base[..], extra].concat(), code, parts);
    refused(&["--best-of", "2"], USAGE, &["--reward"]);
    refused(&["--best-of", "2", "--reward", &model], USAGE, &["says nothing of how good a text is"]);
    refused(&["--best-of", "2", "--reward", &reward, "--stop", "x"], USAGE, &["stop string"]);
}

/// The recipe as it is, shortened: what it leaves is scored with, and ranks pairs that it has not seen better than it began.
#[test]
fn the_example_recipe_makes_a_reward_model() {
    let folder = Folder::new();
    let run = folder.path("run");
    let recipe = format!("{}/examples/recipes/text/reward.toml", env!("CARGO_MANIFEST_DIR"));
    let settings = ["train.steps=60", "train.save_every=60", "eval.every=60", "optimizer.lr=1e-3"];
    let settings = settings.iter().flat_map(|setting| ["--set", setting]).collect::<Vec<_>>();
    let root = env!("CARGO_MANIFEST_DIR");
    let args = [&["train", &recipe, "--out", &run][..], &settings].concat();
    let output = votive(&args).current_dir(root).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let metrics = lines(&format!("{run}/metrics.jsonl"));
    for key in ["accuracy", "margin", "min_reward", "mean_reward", "max_reward", "num_tokens"] {
        assert!(metrics[0][key].is_number(), "{key}: {}", metrics[0]);
    }
    let evaluations = lines(&format!("{run}/evaluations.jsonl"));
    let last = evaluations.last().unwrap();
    let [loss, accuracy] = ["eval_loss", "eval_accuracy"].map(|key| last[key].as_f64().unwrap());
    assert!(loss < 0.68 && accuracy > 0.55, "{last}");
    let model = format!("{run}/final");
    let data =
        folder.text("pairs.jsonl", &first_lines(&format!("{root}/examples/data/text-pairs.jsonl"), 40));
    let [found] = &rows(&["eval", "rank-accuracy", "--model", &model, "--data", &data])[..] else {
        panic!("one line")
    };
    assert_eq!(found["accuracy"]["n"], 40);
    assert!(found["accuracy"]["value"].as_f64().unwrap() > 50.0, "{found}");
}

fn first_lines(file: &str, n: usize) -> String {
    fs::read_to_string(file).unwrap().lines().take(n).map(|line| format!("{line}\n")).collect()
}
