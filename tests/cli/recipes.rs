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
