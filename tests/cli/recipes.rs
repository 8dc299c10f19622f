//! The example recipes of texts as they stand, and what objectives ask of rows and recipes.

use crate::*;

/// The recipes of texts by their names.
fn text_recipes() -> Vec<(String, String)> {
    let folder = format!("{}/examples/recipes/text", env!("CARGO_MANIFEST_DIR"));
    let mut recipes: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), path.display().to_string()))
        .collect();
    recipes.sort();
    recipes
}

#[test]
fn every_recipe_of_texts_takes_a_step() {
    let folder = Folder::new();
    for (name, recipe) in text_recipes() {
        let out = folder.path(&name);
        let few = ["--set", "train.steps=1", "--set", "train.save_every=1"];
        ok(&[&["train", &recipe, "--out", &out, "--quiet"], &few[..]].concat());
        let metrics = fs::read_to_string(format!("{out}/metrics.jsonl")).unwrap();
        let step: Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
        let (loss, norm) = (step["loss"].as_f64().unwrap(), step["grad_norm"].as_f64().unwrap());
        assert!(loss.is_finite() && norm > 0.0, "{name}: {step}");
    }
}

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
    check("svpo", &["objective.svpo.value_weight=1.0"], USAGE, &["objective.svpo", "value head"]);
    check("discopop-aql", &["train.micro_batch_size=4"], USAGE, &["micro_batch_size"]);
}

#[test]
fn lists_are_evaluated_and_not_trained_with() {
    let folder = Folder::new();
    let recipe = format!("{}/examples/recipes/text/dpo.toml", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&recipe).unwrap();
    let line = text.lines().find(|line| line.starts_with("objective.dpo")).unwrap();
    let recipe = folder.text("list.toml", &text.replace(line, "objective.tpo-tree = { beta = 0.5 }"));
    let parts = ["objective.tpo-tree", "lists of completions", "votive methods eval"];
    fails(&["train", &recipe, "--out", &folder.path("out")], USAGE, &parts);
}
