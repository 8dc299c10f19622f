//! Every method on the same forty pairs: all example recipes, a few steps each, as examples/tour/README.md tells.
//!
//! `VOTIVE_UPDATE=1 cargo test --release --test cli tour` writes its table anew.

use crate::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Rows of each recipe's data, steps, and pairs of a step.
const ROWS: usize = 40;
const STEPS: usize = 5;
const BATCH: usize = 8;
/// Relative, above 0.1: a table to look at, of numbers after steps of AdamW, which other machines round otherwise. That they are right is
/// what the fixtures of objectives and of training steps say.
const TOLERANCE: f64 = 0.1;
const COLUMNS: &str =
    "| recipe | objective | loss, first step | loss, last step | margin |\n| --- | --- | --- | --- | --- |\n";

fn root(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// What a recipe's text says behind a key that stands once.
fn value<'a>(recipe: &'a str, start: &str) -> &'a str {
    let line =
        recipe.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {recipe}"));
    line.split('"').nth(1).unwrap()
}

/// The methods that a recipe names.
fn objectives(recipe: &str) -> Vec<&str> {
    let names = recipe.lines().filter_map(|line| {
        let rest = line.strip_prefix("objective.").or_else(|| line.strip_prefix("[objective."))?;
        rest.split([' ', ']', '.', '=']).next()
    });
    let mut names: Vec<&str> = names.collect();
    names.dedup();
    names
}

/// Recipes of texts, recipes of images, and Diffusion-DPO's with every other objective that is published for images.
fn recipes(folder: &Folder) -> Vec<(String, PathBuf)> {
    let mut recipes = Vec::new();
    for modality in ["text", "image"] {
        for entry in fs::read_dir(root(&format!("examples/recipes/{modality}"))).unwrap() {
            let path = entry.unwrap().path();
            recipes.push((format!("{modality}/{}", path.file_stem().unwrap().to_string_lossy()), path));
        }
    }
    let texts: Vec<String> = recipes.iter().map(|(_, path)| fs::read_to_string(path).unwrap()).collect();
    let of_images = recipes.iter().zip(&texts).filter(|((name, _), _)| name.starts_with("image/"));
    let used: Vec<&str> = of_images.flat_map(|(_, text)| objectives(text)).collect();
    let dpo = fs::read_to_string(root("examples/recipes/image/dpo.toml")).unwrap();
    let line = dpo.lines().find(|line| line.starts_with("objective.dpo")).unwrap();
    let others: Vec<(String, PathBuf)> = rows(&["methods"])
        .iter()
        .flat_map(|listed| listed.as_array().cloned().unwrap_or_else(|| vec![listed.clone()]))
        .filter(|method| method["domains"].as_array().unwrap().contains(&json!("image")))
        .map(|method| method["id"].as_str().unwrap().to_owned())
        .filter(|id| !used.contains(&id.as_str()))
        .map(|id| {
            let text = dpo.replace(line, &format!("objective.{id} = {{}}"));
            (format!("image/dpo.toml with `{id}`"), folder.text(&format!("{id}.toml"), &text).into())
        })
        .collect();
    recipes.extend(others);
    recipes.sort();
    recipes.sort_by_key(|(name, _)| name.starts_with("image/"));
    recipes
}

/// The first rows of a recipe's data in a file of their own, which images are found from as well.
fn data(folder: &Folder, recipe: &str) -> String {
    let data = recipe.split("[data]").nth(1).unwrap();
    let file = value(data, "path");
    let text = fs::read_to_string(root(file)).unwrap();
    let rows: Vec<String> = text
        .lines()
        .take(ROWS)
        .map(|line| line.replace("\"image-pairs/", &format!("\"{}/", root("examples/data/image-pairs"))))
        .collect();
    folder.text(Path::new(file).file_name().unwrap().to_str().unwrap(), &(rows.join("\n") + "\n"))
}

/// A line of the table: numbers of the first and the last step.
fn line(folder: &Folder, (name, recipe): &(String, PathBuf)) -> String {
    let text = fs::read_to_string(recipe).unwrap();
    let own = Folder::new();
    let out = own.path("run");
    let mut args = vec!["train".to_owned(), recipe.display().to_string(), "--out".to_owned(), out.clone()];
    args.extend(["--quiet", "--threads", "1"].map(str::to_owned));
    let mut settings = vec![
        format!("data.path={}", data(&own, &text)),
        format!("train.steps={STEPS}"),
        format!("train.save_every={STEPS}"),
        format!("train.batch_size={BATCH}"),
        format!("train.micro_batch_size={BATCH}"),
        "optimizer.warmup_steps=0".to_owned(),
    ];
    if name.starts_with("image/") && !text.contains("[rollout]") {
        settings.push(format!("data.cache={}", folder.path("cache")));
    }
    settings.iter().for_each(|setting| args.extend(["--set".to_owned(), setting.clone()]));
    ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let metrics = fs::read_to_string(format!("{out}/metrics.jsonl")).unwrap();
    let steps: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(steps.len(), STEPS, "{name}");
    let (first, last) = (&steps[0], &steps[STEPS - 1]);
    for step in &steps {
        let (loss, norm) = (step["loss"].as_f64().unwrap(), step["grad_norm"].as_f64().unwrap());
        assert!(loss.is_finite() && norm.is_finite(), "{name}: {step}");
    }
    assert!(first["grad_norm"].as_f64().unwrap() > 0.0, "{name}: {first}");
    let number =
        |step: &Value, key: &str| step[key].as_f64().map_or("".to_owned(), |value| format!("{value:.4}"));
    format!(
        "| {name} | {} | {} | {} | {} |",
        objectives(&text).join(", "),
        number(first, "loss"),
        number(last, "loss"),
        number(last, "rewards/margins"),
    )
}

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn every_method_takes_steps_on_the_same_pairs() {
    let folder = Folder::new();
    let recipes = recipes(&folder);
    // The first run of images fills the cache for all others.
    let (next, threads) = (AtomicUsize::new(0), std::thread::available_parallelism().map_or(1, usize::from));
    let lines: Vec<_> = recipes.iter().map(|_| std::sync::Mutex::new(String::new())).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(recipe) = recipes.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let at = recipes.iter().position(|other| other == recipe).unwrap();
                    *lines[at].lock().unwrap() = line(&folder, recipe);
                }
            });
        }
    });
    let found: Vec<String> = lines.into_iter().map(|line| line.into_inner().unwrap()).collect();
    let file = root("examples/tour/README.md");
    let text = fs::read_to_string(&file).unwrap();
    let (before, table) = text.split_once(COLUMNS).expect("the table's head");
    if std::env::var_os("VOTIVE_UPDATE").is_some() {
        fs::write(&file, format!("{before}{COLUMNS}{}\n", found.join("\n"))).unwrap();
        return;
    }
    let expected: Vec<&str> = table.lines().collect();
    assert_eq!(expected.len(), found.len(), "VOTIVE_UPDATE=1 cargo test --release --test cli tour");
    for (expected, found) in expected.iter().zip(&found) {
        let (a, b) = (cells(expected), cells(found));
        assert_eq!(a[..2], b[..2], "VOTIVE_UPDATE=1 cargo test --release --test cli tour");
        for (a, b) in a[2..].iter().zip(&b[2..]) {
            match (a.parse::<f64>(), b.parse::<f64>()) {
                (Ok(a), Ok(b)) => {
                    assert!((a - b).abs() <= TOLERANCE * a.abs().max(0.1), "{expected}\n{found}");
                }
                _ => assert_eq!(a, b, "{expected}\n{found}"),
            }
        }
    }
}
