//! Scores token by token, their picture, and how many pairs a model ranks rightly.

use crate::*;

fn list(row: &Value, key: &str) -> Vec<f64> {
    row[key].as_array().expect(key).iter().map(|value| value.as_f64().unwrap()).collect()
}

fn tiny_lm() -> String {
    format!("{}/models/tiny-lm", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn tokens_add_up_to_their_completion_and_their_rewards_to_its_reward() {
    let folder = Folder::new();
    let (model, data) = (fixture("text/llama"), fixture("text/prefs.jsonl"));
    let (reference, out) = (fixture("text/llama_tied"), folder.path("tokens.jsonl"));
    let of_reference = folder.path("reference.jsonl");
    ok(&["score", "--model", &reference, "--data", &data, "--out", &of_reference]);
    let html = folder.path("heat");
    let score = ["score", "--model", &model, "--data", &data, "--out", &out, "--per-token", "--batch", "3"];
    ok(&[&score[..], &["--reference", &reference, "--beta", "0.3", "--html", &html]].concat());
    for (row, other) in lines(&out).iter().zip(lines(&of_reference)) {
        for side in ["chosen", "rejected"] {
            let key = |name: &str| format!("{side}_{name}");
            let (logps, whole) = (list(row, &key("token_logps")), row[key("logps")].as_f64().unwrap());
            assert!((logps.iter().sum::<f64>() - whole).abs() < 1e-4, "{row}");
            assert_eq!(logps.len(), list(row, &key("token_ids")).len());
            assert_eq!(json!(logps.len()), row[key("tokens")]);
            let reward = 0.3 * (whole - other[key("logps")].as_f64().unwrap());
            let rewards = list(row, &key("token_rewards"));
            assert_eq!(rewards.len(), logps.len());
            assert!((rewards.iter().sum::<f64>() - reward).abs() < 1e-4, "{row}");
        }
    }
    let page = fs::read_to_string(format!("{html}/index.html")).unwrap();
    assert!(page.contains("<ruby class=") && page.contains("rejected: "), "{page}");
    // Against itself a model has given and taken nothing.
    ok(&[&score[..], &["--reference", &model]].concat());
    assert!(
        lines(&out).iter().all(|row| list(row, "chosen_token_rewards").iter().all(|reward| *reward == 0.0))
    );
    fails(&[&score[..], &["--reference", &tiny_lm()]].concat(), DATA, &["different tokens"]);
    fails(&[&score[..], &["--reference", &model, "--beta", "0"]].concat(), USAGE, &["--beta"]);
}

#[test]
fn a_corrupted_token_takes_reward_from_its_place_on_and_from_none_before() {
    let folder = Folder::new();
    let model = tiny_lm();
    // One word of six is wrong: another one each time, at another place.
    let right = ["the", "red", "bird", "sings", "every", "day"];
    let rows: Vec<String> = (0..12)
        .map(|i| {
            let mut wrong = right;
            wrong[1 + i % 4] = ["stone", "under", "seven"][i % 3];
            let sentence = |words: [&str; 6]| format!("{}.", words.join(" "));
            let prompt = format!("Sentence {i}:");
            json!({"prompt": prompt, "chosen": sentence(right), "rejected": sentence(wrong)}).to_string()
        })
        .collect();
    let (data, run) = (folder.text("corrupted.jsonl", &rows.join("\n")), folder.path("run"));
    let recipe = format!("{}/examples/recipes/text/dpo.toml", env!("CARGO_MANIFEST_DIR"));
    let data_path = format!("data.path={data}");
    let model_path = format!("model.path={model}");
    let mut train = vec!["train", &recipe, "--out", &run, "--set", &data_path, "--set", &model_path];
    for set in ["train.steps=24", "train.batch_size=6", "train.micro_batch_size=6", "optimizer.lr=3e-4"] {
        train.extend(["--set", set]);
    }
    ok(&train);
    let (trained, out) = (folder.path("run/final"), folder.path("tokens.jsonl"));
    let score = ["score", "--data", &data, "--out", &out, "--per-token", "--reference", &model];
    ok(&[&score[..], &["--model", &trained]].concat());
    for row in lines(&out) {
        let (chosen, rejected) = (list(&row, "chosen_token_ids"), list(&row, "rejected_token_ids"));
        let first = chosen.iter().zip(&rejected).position(|(a, b)| a != b).unwrap();
        let [right, wrong] = ["chosen", "rejected"].map(|side| list(&row, &format!("{side}_token_rewards")));
        assert_eq!(right[..first], wrong[..first], "{row}");
        let mean = |rewards: &[f64]| rewards.iter().sum::<f64>() / rewards.len() as f64;
        assert!(mean(&wrong[first..]) < mean(&right[first..]) - 0.05, "{row}");
        assert!(wrong[first] < right[first], "{row}");
    }
}

#[test]
fn pairs_are_ranked_as_their_scores_say() {
    let folder = Folder::new();
    let (model, reference) = (fixture("text/llama"), fixture("text/llama_tied"));
    let data = fixture("text/prefs.jsonl");
    let scores = [&model, &reference].map(|model| {
        let out = folder.path("scores.jsonl");
        ok(&["score", "--model", model, "--data", &data, "--out", &out]);
        lines(&out)
    });
    let logps =
        |row: &Value| ["chosen", "rejected"].map(|side| row[format!("{side}_logps")].as_f64().unwrap());
    let right = |row: &Value| logps(row)[0] > logps(row)[1];
    let percent =
        |rows: &[Value]| 100.0 * rows.iter().filter(|row| right(row)).count() as f64 / rows.len() as f64;
    let rank = ["eval", "rank-accuracy", "--model", &model, "--reference", &reference, "--data", &data];
    let [found] = &rows(&[&rank[..], &["--beta", "0.5", "--label-share", "0.9"]].concat())[..] else {
        panic!("one line")
    };
    assert_eq!(found["policy"]["value"], json!(percent(&scores[0])));
    assert_eq!(found["reference"]["value"], json!(percent(&scores[1])));
    let ideal = |row: &Value| logps(row)[0] - logps(row)[1] + 9f64.ln() / 0.5 > 0.0;
    let ideals = scores[1].iter().filter(|row| ideal(row)).count() as f64;
    let expected = 100.0 * ideals / scores[1].len() as f64;
    assert_eq!(found["idealised"]["value"], json!(expected));
    let text = ok(&rank);
    assert!(text.contains("model, per token") && !text.contains("optimum"), "{text}");
    fails(&[&rank[..], &["--label-share", "0.5"]].concat(), USAGE, &["--label-share"]);
}
