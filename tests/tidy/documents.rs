//! Documents that repeat what the code says: generated from it, or compared with it.
//!
//! `VOTIVE_UPDATE=1 cargo test --release --test tidy` writes the generated ones anew.

use crate::{assert_none, files_below, read, relative, root};
use serde_json::Value;
use std::fmt::Write as _;
use votive_data::{FORMATS, IMAGE_FORMATS};
use votive_objective::{Around, Header, METHODS, MethodSpec, OptionDoc, WRAPPERS};
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

fn options(id: &str, documented: &[OptionDoc], defaults: &Value) -> String {
    let Value::Object(defaults) = defaults else { panic!("{id}: defaults are not an object") };
    let mut text = header(["option", "default", "meaning"]);
    for (name, default) in defaults {
        let option = documented.iter().find(|option| option.name == name);
        let doc = option.unwrap_or_else(|| panic!("{id}: option `{name}` is not documented")).doc;
        text += &row([format!("`{name}`").as_str(), &format!("`{default}`"), doc]);
    }
    assert_eq!(defaults.len(), documented.len(), "{id}: an option is documented that does not exist");
    text
}

/// What a method's or wrapper's file says of it.
fn described(said: &Header) -> String {
    let mut text = format!("{}\n\nMinimises {}\n", said.summary, said.loss);
    if let Some((other, difference)) = &said.against {
        let _ = write!(text, "\nAgainst {other}: {difference}\n");
    }
    let _ = write!(text, "\nSource: {} Departures: {}", said.source, said.departures);
    if !said.checked.is_empty() {
        let _ = write!(text, " Checked against: {}", said.checked);
    }
    text + "\n\n"
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
        let _ = write!(text, "\n## {}\n\n{}", spec.id, described(&spec.header()));
        let _ = write!(text, "`[objective.{}]` in a recipe.\n\n", spec.id);
        text += &options(spec.id, spec.options, &(spec.defaults)());
    }
    text += "\n# Wrappers\n\nWhat a wrapper changes is the same around any pair objective that it goes around. A recipe writes\n\
             `[objective.<id>.with.<wrapper>]`, and `votive methods eval` takes `--set with.<wrapper>.<option>=<value>`. Several go on in this\n\
             order, the first one innermost; one that makes no sense around an objective is refused with the reason.\n";
    for spec in WRAPPERS {
        let kind = match spec.around {
            Around::Margin(_) => "losses of a margin",
            Around::Pair(_) => "any pair objective",
        };
        let _ =
            write!(text, "\n## with.{}\n\n{}Goes around {kind}.\n\n", spec.name, described(&spec.header()));
        text += &options(spec.name, spec.options, &(spec.defaults)());
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
        folder of shards. Any row may carry the numbers `weight`, `margin` and\n\
        `uncertainty`, a pair `score_chosen` and `score_rejected`, a completion with a label `score`. `votive data show` shows what becomes of a row.\n\
        A text shows images, to a model that sees them, by the column `images`, a list of paths relative to the file or of `{bytes, path}`\n\
        in Parquet, or `image` with one: TRL's vision format. A prompt that is a string has the model's image token for each, `<image>` in a\n\
        LLaVA, `<|vision_start|><|image_pad|><|vision_end|>` in a Qwen3-VL; a conversation has parts `{\"type\": \"image\"}`, or else its images stand before\n\
        the first turn of the user.\n\n\
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
fn the_schema_of_recipes_is_current() {
    let schema = votive_train::recipe_schema().unwrap();
    check_generated("docs/recipe.schema.json", &(serde_json::to_string_pretty(&schema).unwrap() + "\n"));
}

/// A recipe as JSON.
fn from_toml(item: &toml_edit::Item) -> Value {
    if let Some(table) = item.as_table_like() {
        return table.iter().map(|(name, item)| (name.to_owned(), from_toml(item))).collect();
    }
    let value = item.as_value().unwrap();
    let list = |list: &toml_edit::Array| list.iter().map(|one| from_toml(&one.clone().into())).collect();
    let other = || value.as_float().map_or_else(|| value.as_integer().into(), Value::from);
    match (value.as_array(), value.as_str(), value.as_bool()) {
        (Some(array), ..) => list(array),
        (_, Some(text), _) => text.into(),
        (_, _, Some(flag)) => flag.into(),
        _ => other(),
    }
}

/// What a value has that its schema does not allow, of the words that our schema is made of.
fn misfits(place: &str, value: &Value, schema: &Value) -> Vec<String> {
    if let Some(choices) = schema["anyOf"].as_array() {
        let fits = choices.iter().any(|choice| misfits(place, value, choice).is_empty());
        return if fits { Vec::new() } else { vec![format!("{place}: {value} is none of {choices:?}")] };
    }
    if let Some(words) = schema["enum"].as_array() {
        return if words.contains(value) {
            Vec::new()
        } else {
            vec![format!("{place}: {value} is not of {words:?}")]
        };
    }
    let is_of_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64(),
        Some("number") => value.is_number(),
        _ => true,
    };
    let number = value.as_f64().unwrap_or(f64::NAN);
    let is_below = |key: &str, is_below: fn(f64, f64) -> bool| {
        value.is_number() && schema[key].as_f64().is_some_and(|bound| is_below(number, bound))
    };
    let is_out = is_below("minimum", |x, bound| x < bound)
        || is_below("exclusiveMinimum", |x, bound| x <= bound)
        || is_below("maximum", |x, bound| x > bound)
        || is_below("exclusiveMaximum", |x, bound| x >= bound);
    if !is_of_type || is_out {
        return vec![format!("{place}: {value} is not {schema}")];
    }
    let Some(keys) = value.as_object().filter(|_| schema["properties"].is_object()) else {
        return Vec::new();
    };
    let below = |(name, value): (&String, &Value)| match &schema["properties"][name] {
        Value::Null => vec![format!("{place}.{name}: unknown")],
        schema => misfits(&format!("{place}.{name}"), value, schema),
    };
    keys.iter().flat_map(below).collect()
}

/// Every recipe says where its schema is, and fits it.
#[test]
fn every_recipe_fits_the_schema() {
    let schema = votive_train::recipe_schema().unwrap();
    let mut found = Vec::new();
    for folder in ["text", "image"] {
        for path in files_below(&root().join("examples/recipes").join(folder), &[".toml"]) {
            let text = read(&path);
            if !text.starts_with("#:schema ../../../docs/recipe.schema.json\n") {
                found.push(format!("{}: does not begin with its schema", relative(&path)));
            }
            let recipe = from_toml(text.parse::<toml_edit::DocumentMut>().unwrap().as_item());
            found.extend(misfits(&relative(&path), &recipe, &schema));
        }
    }
    assert_none("outside of the schema", &found);
    let wrong =
        serde_json::json!({"objective": {"dpo": {"beta": -1.0, "with": {"nl": {}}}}, "train": {"steps": 0}});
    assert_eq!(misfits("", &wrong, &schema).len(), 3);
}

#[test]
fn every_method_has_a_recipe() {
    let recipes: String = ["text", "image"]
        .iter()
        .flat_map(|folder| files_below(&root().join("examples/recipes").join(folder), &[".toml"]))
        .map(|path| read(&path))
        .collect();
    let is_used = |id: &str| {
        let dotted = [format!("objective.{id} "), format!("objective.{id}]")];
        dotted.iter().any(|written| recipes.contains(written.as_str()))
    };
    let without = METHODS.iter().map(|spec| spec.id).filter(|id| !is_used(id)).map(str::to_owned);
    assert_none("without a recipe", &without.collect::<Vec<_>>());
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

#[test]
fn the_page_of_judges_names_what_there_is() {
    let page = read(&root().join("docs/judges.md"));
    let named = |name: &str| page.contains(&format!("`{name}`"));
    let readings = votive::critic::READINGS.iter().map(|reading| reading.id);
    let templates = votive::critic::TEMPLATES.iter().map(|(name, _)| *name);
    let missing: Vec<String> =
        readings.chain(templates).filter(|name| !named(name)).map(str::to_owned).collect();
    assert_none("not in docs/judges.md", &missing);
    let row = |line: &str| Some(line.strip_prefix("| `")?.split_once("` | ")?.0.to_owned());
    let forms = ["| grade |", "| pair |", "| rank |"];
    let rows: Vec<String> =
        page.lines().filter(|line| forms.iter().any(|form| line.contains(form))).filter_map(row).collect();
    assert_eq!(rows, votive::critic::READINGS.iter().map(|reading| reading.id).collect::<Vec<_>>());
}
