//! What objectives ask of rows and recipes. All example recipes run in `tour`.

use crate::*;

#[test]
fn what_rows_and_recipes_lack_is_named() {
    let folder = Folder::new();
    let recipe = |name: &str| format!("{}/examples/recipes/text/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let data = format!("data.path={}/examples/data/text-pairs.jsonl", env!("CARGO_MANIFEST_DIR"));
    let check = |name: &str, settings: &[&str], code, parts: &[&str]| {
        let recipe = recipe(name);
        let out = folder.path("out");
        let mut args = vec!["train", &recipe, "--out", &out, "--quiet"];
        settings.iter().for_each(|setting| args.extend(["--set", setting]));
        fails(&args, code, parts);
    };
    check("sppo", &[&data], USAGE, &["`sppo`", "data row 1", "`score_chosen` and `score_rejected`"]);
    check("upo", &[&data], USAGE, &["`upo`", "data row 1", "`uncertainty`"]);
    check("egpo", &[&data], USAGE, &["`egpo`", "data row 1", "`margin`"]);
    check("inpo-nash", &["reference.base="], USAGE, &["reference.base", "`inpo-nash` needs"]);
    check("dpo", &["reference.base=models/tiny-lm"], USAGE, &["reference.base", "no objective"]);
    check("dpo", &["data.token_weights=differing_lines"], USAGE, &["data.token_weights", "no objective"]);
    check("svpo", &[&data], USAGE, &["`svpo`", "data row 1", "`score_chosen` and `score_rejected`"]);
    check("dpo", &["data.degrees=3"], USAGE, &["data.degrees", "no objective"]);
    check("discopop-aql", &["train.micro_batch_size=4"], USAGE, &["micro_batch_size"]);
}

/// A list of two is a pair: losses of lists that are DPO there train as DPO does, bit for bit.
#[test]
fn lists_of_two_train_as_pairs() {
    let folder = Folder::new();
    let recipe = format!("{}/examples/recipes/text/dpo.toml", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&recipe).unwrap();
    let line = text.lines().find(|line| line.starts_with("objective.dpo")).unwrap();
    let data =
        fs::read_to_string(format!("{}/examples/data/text-pairs.jsonl", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let pairs: Vec<Value> = data.lines().take(24).map(|row| serde_json::from_str(row).unwrap()).collect();
    // The better one may stand anywhere, as a score or as a rank.
    let lists = |numbers: &str| {
        let row = |(i, pair): (usize, &Value)| {
            let mut sides = [(&pair["chosen"], 1), (&pair["rejected"], 2)];
            sides.rotate_left(i % 2);
            let number = |rank: i32| if numbers == "ranks" { rank } else { 7 - rank };
            let (texts, numbered) = (sides.map(|side| side.0), sides.map(|side| number(side.1)));
            json!({"prompt": pair["prompt"], "completions": texts, numbers: numbered}).to_string() + "\n"
        };
        pairs.iter().enumerate().map(row).collect::<String>()
    };
    let rows = pairs.iter().map(|pair| pair.to_string() + "\n").collect::<String>();
    let losses = |name: &str, objective: &str, rows: &str| -> Vec<(f64, f64)> {
        let recipe = folder.text(&format!("{name}.toml"), &text.replace(line, objective));
        let path = format!("data.path={}", folder.text(&format!("{name}.jsonl"), rows));
        let out = folder.path(name);
        let mut args = vec!["train", &recipe, "--out", &out, "--quiet", "--set", &path];
        for setting in
            ["train.steps=4", "train.save_every=4", "train.batch_size=8", "train.micro_batch_size=4"]
        {
            args.extend(["--set", setting]);
        }
        ok(&args);
        let metrics = fs::read_to_string(format!("{out}/metrics.jsonl")).unwrap();
        let steps = metrics.lines().map(|step| serde_json::from_str::<Value>(step).unwrap());
        steps.map(|step| (step["loss"].as_f64().unwrap(), step["grad_norm"].as_f64().unwrap())).collect()
    };
    let dpo = losses("dpo", "objective.dpo = { beta = 0.3 }", &rows);
    for (name, objective) in [
        ("all", "objective.mc_po = { beta = 0.3, negatives = \"all\" }"),
        ("kernel", "objective.mc_po = { beta = 0.3, negatives = \"kernel\" }"),
        ("equal", "objective.tpo-tree = { beta = 0.3, weights = \"equal\" }"),
    ] {
        for numbers in ["scores", "ranks"] {
            let found = losses(&format!("{name}-{numbers}"), objective, &lists(numbers));
            for ((loss, norm), (expected, expected_norm)) in found.iter().zip(&dpo) {
                assert!(
                    (loss - expected).abs() < 1e-5 && (norm - expected_norm).abs() < 1e-4 * expected_norm,
                    "{name}: {found:?} {dpo:?}"
                );
            }
        }
    }
}

#[test]
fn rows_that_are_no_lists_and_sums_with_pairs_are_refused() {
    let folder = Folder::new();
    let recipe = format!("{}/examples/recipes/text/mc_po.toml", env!("CARGO_MANIFEST_DIR"));
    let check = |settings: &[&str], code, parts: &[&str]| {
        let out = folder.path("out");
        let mut args = vec!["train", &recipe, "--out", &out, "--quiet"];
        settings.iter().for_each(|setting| args.extend(["--set", setting]));
        fails(&args, code, parts);
    };
    let both = ["objective.dpo.beta=0.1", "objective.mc_po.beta=0.1"];
    check(&both, USAGE, &["objective.dpo", "lists or pairs, not both"]);
    let labelled = folder.text("labelled.jsonl", "{\"prompt\":\"a\",\"completion\":\" b\",\"label\":true}\n");
    check(&[&format!("data.path={labelled}")], DATA, &["labelled.jsonl", "row 1", "completions"]);
    let equal =
        folder.text("equal.jsonl", "{\"prompt\":\"a\",\"completions\":[\" b\",\" c\"],\"scores\":[1,1]}\n");
    check(&[&format!("data.path={equal}")], DATA, &["equal.jsonl", "the scores are equal: 1 (row 1)"]);
}
