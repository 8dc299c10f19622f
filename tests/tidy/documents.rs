//! Documents that repeat what the code says: generated from it, or compared with it.
//!
//! `VOTIVE_UPDATE=1 cargo test --release --test tidy` writes the generated ones anew.

use crate::{assert_none, files_below, read, relative, root};
use serde_json::Value;
use std::fmt::Write as _;
use votive_data::{FORMATS, IMAGE_FORMATS};
use votive_objective::{METHODS, MethodSpec};
use votive_train::plan::{Modality, describe};

/// Compares a generated document with the file, or writes the file if that is asked for.
#[track_caller]
fn check_generated(path: &str, text: &str) {
    let path = root().join(path);
    if std::env::var_os("VOTIVE_UPDATE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let is_current = std::fs::read_to_string(&path).is_ok_and(|found| found == text);
    assert!(
        is_current,
        "{} is out of date: VOTIVE_UPDATE=1 cargo test --release --test tidy",
        relative(&path)
    );
}

/// One row of a Markdown table.
fn row<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    let cells: Vec<String> = cells.into_iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

fn header<const N: usize>(names: [&str; N]) -> String {
    row(names) + &row(["---"; N])
}

fn domains(spec: &MethodSpec) -> String {
    spec.domains.iter().map(|domain| domain.name()).collect::<Vec<_>>().join(", ")
}

fn needs(spec: &MethodSpec) -> String {
    spec.needs.names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn options(spec: &MethodSpec) -> String {
    let Value::Object(defaults) = (spec.defaults)() else {
        panic!("{}: defaults are not an object", spec.id)
    };
    let mut text = header(["option", "default", "meaning"]);
    for (name, default) in &defaults {
        let documented = spec.options.iter().find(|option| option.name == name);
        let doc = documented.unwrap_or_else(|| panic!("{}: option `{name}` is not documented", spec.id)).doc;
        text += &row([format!("`{name}`").as_str(), &format!("`{default}`"), doc]);
    }
    assert_eq!(
        defaults.len(),
        spec.options.len(),
        "{}: an option is documented that does not exist",
        spec.id
    );
    text
}

fn methods() -> String {
    let mut text = "# Methods\n\nGenerated from `votive_objective::METHODS`; `votive methods show ID` says what each reads and returns.\n\n".to_owned();
    text += &header(["id", "title", "paper", "domains", "needs"]);
    for spec in METHODS {
        let link = format!("[`{id}`](#{id})", id = spec.id);
        text += &row([link.as_str(), spec.title, spec.paper, &domains(spec), &needs(spec)]);
    }
    for spec in METHODS {
        // Writing to a String cannot fail.
        let _ =
            write!(text, "\n## {}\n\n`[objective.{}]` in a recipe.\n\n{}", spec.id, spec.id, options(spec));
    }
    text
}

#[test]
fn the_table_of_methods() {
    check_generated("docs/methods.md", &methods());
}

fn formats() -> String {
    const COLUMNS: [&str; 4] = ["`data.format`", "published by", "columns", "a row becomes"];
    let mut text = "# Layouts of preference data\n\n\
        Generated from `votive_data::FORMATS` and `IMAGE_FORMATS`. `data.format = \"auto\"` takes the first layout in this order that recognizes\n\
        the first row by its columns; columns in brackets may be missing. Rows stand in `.jsonl`, `.json` or `.parquet` files, in shards or in a\n\
        folder of shards. Any row may carry the numbers `weight` and `margin`. `votive data show` shows what becomes of a row.\n\n\
        ## Texts\n\n"
        .to_owned();
    text += &header(COLUMNS);
    for format in FORMATS {
        text += &row([format!("`{}`", format.name).as_str(), format.origin, format.columns, format.yields]);
    }
    text += "\n## Images\n\n\
        Images are PNG, JPEG or WebP: bytes in a Parquet file, which are read when they are needed, or files, whose paths lie below the folder of\n\
        the table or below `data.images`. Ties are left out and counted, or kept (`data.ties`). The images of a pair may have different sizes:\n\
        each is scaled until it covers the size that the pair is trained at, and cut to it at the same place.\n\n";
    text += &header(COLUMNS);
    for format in IMAGE_FORMATS {
        text += &row([format!("`{}`", format.name).as_str(), format.origin, format.columns, format.yields]);
    }
    text += "\nA folder with the folders `chosen` and `rejected` needs no table: images of a pair have equal names, and a caption is the line\n\
        `{\"file_name\": …, \"text\": …}` of `metadata.jsonl` in the folder, or else the `.txt` file beside the chosen image.\n";
    text
}

#[test]
fn the_table_of_layouts() {
    check_generated("docs/formats.md", &formats());
}

#[test]
fn the_list_of_alarms() {
    let mut text = "# Alarms\n\nGenerated from `votive_train::alarms::ALARMS`. An alarm is raised once in a run: a warning on stderr, a line in\n\
                    `alarms.jsonl` and a place on the run's page; with `--alarms error` it also saves and stops the run (exit code 5).\n\
                    Lines are those of `metrics.jsonl`, one for every `train.log_every` steps.\n\n"
        .to_owned();
    text += &header(["alarm", "raised when", "what to do"]);
    for spec in votive_train::alarms::ALARMS {
        text += &row([format!("`{}`", spec.id).as_str(), &(spec.raised)(), spec.advice]);
    }
    check_generated("docs/alarms.md", &text);
}

#[test]
fn one_test_command_for_readers_and_machines() {
    let command = "cargo test --release --workspace";
    for path in ["README.md", "CONTRIBUTING.md", ".ci/run"] {
        assert!(read(&root().join(path)).contains(command), "{path} does not say `{command}`");
    }
}

#[test]
fn links_lead_somewhere() {
    let mut pages = files_below(&root().join("docs"), &[".md"]);
    pages.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name)));
    let mut found = Vec::new();
    for page in &pages {
        let folder = page.parent().unwrap();
        for link in read(page).split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if !link.contains("://") && !folder.join(link).exists() {
                found.push(format!("{}: {link}", relative(page)));
            }
        }
    }
    assert_none("broken links", &found);
}

/// Keys of one kind of model, except the objective's options.
fn keys(modality: Modality) -> String {
    let mut text = header(["key", "value", "default", "meaning"]);
    for setting in describe(modality).unwrap() {
        let default = setting.value.map_or_else(String::new, |value| format!("`{}`", value.trim()));
        text += &row([&format!("`{}`", setting.key), &setting.kind, &default, setting.doc]);
    }
    text
}

#[test]
fn the_reference_of_recipe_keys_is_current() {
    let mut text = "# Recipe keys\n\nGenerated from the code: every key that a recipe for `votive train` may have, beside the options of its\n\
                    objective ([methods.md](methods.md)). Unknown keys are refused. `--set key=value` overrides.\n\
                    Keys of `adapter.lora`, `ema`, `eval` and `sample` count only if the recipe has one of their table (for `eval`, also with\n\
                    `data.eval_fraction`).\n"
        .to_owned();
    for (title, modality) in [("Language models", Modality::Text), ("Stable Diffusion", Modality::Image)] {
        let _ = write!(text, "\n## {title}\n\n{}", keys(modality));
    }
    check_generated("docs/config.md", &text);
}

#[test]
fn every_recipe_resolves() {
    for folder in ["text", "image"] {
        for path in files_below(&root().join("examples/recipes").join(folder), &[".toml"]) {
            // Recipes name their model and data relative to the root, which is where the test runs.
            let plan = votive_train::Plan::read(&path, &[]).unwrap();
            assert!(!plan.to_toml().is_empty(), "{}", path.display());
        }
    }
}
