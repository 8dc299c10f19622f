//! The model card: `README.md` of a finished model, in the form that the hub reads.
//!
//! It says what the run itself knows, with its numbers; the licence is for whoever publishes the model to fill in. Paths are
//! cut to their last name, since they say nothing elsewhere, and may say too much.

use crate::checkpoint::at;
use crate::error::Result;
use crate::plan::{Modality, Plan};
use crate::recipe::to_toml;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use votive_model::{Targets, files};

/// The card's name.
pub const FILE: &str = "README.md";
/// The first words of every card's text, by which it is known again.
const MARK: &str = "<!-- Written by votive";

/// What a run knows of its model.
#[derive(Clone, Copy, Debug)]
pub struct RunFacts<'a> {
    /// Everything resolved.
    pub plan: &'a Plan,
    /// Rows that were trained on.
    pub rows: usize,
    /// `metrics.jsonl`.
    pub metrics: &'a Path,
}

/// The library that loads a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// An adapter of a language model.
    Peft,
    /// A language model.
    Transformers,
    /// A Stable Diffusion pipeline, or an adapter for one.
    Diffusers,
    /// A GGUF file.
    Gguf,
}

impl Library {
    fn name(self) -> &'static str {
        match self {
            Self::Peft => "peft",
            Self::Transformers => "transformers",
            Self::Diffusers => "diffusers",
            Self::Gguf => "gguf",
        }
    }

    fn relation(self, is_adapter: bool) -> &'static str {
        match self {
            Self::Peft => "adapter",
            Self::Diffusers if is_adapter => "adapter",
            Self::Gguf => "quantized",
            _ => "finetune",
        }
    }

    fn task(self) -> &'static str {
        if self == Self::Diffusers { "text-to-image" } else { "text-generation" }
    }
}

/// Writes the card of a finished run into its model's folder.
///
/// # Errors
/// If the data or the metrics cannot be read, or the card cannot be written.
pub fn write(folder: &Path, facts: &RunFacts) -> Result<()> {
    let RunFacts { plan, .. } = facts;
    let is_adapter = plan.adapter.is_some();
    let library = match (Modality::of(&plan.model)?, is_adapter) {
        (Modality::Image, _) => Library::Diffusers,
        (Modality::Text, true) => Library::Peft,
        (Modality::Text, false) => Library::Transformers,
    };
    let base = base_name(&plan.model);
    let (method, _) = objective(plan);
    let is_reward_model = plan.trains_reward_model();
    let (task, tag, title) = match is_reward_model {
        true => ("text-classification", "reward-model", format!("A reward model made of {base}")),
        false => (library.task(), "preference-optimization", format!("{base}, aligned with {method}")),
    };
    let mut card = front_matter(&base, library, task, is_adapter, &["votive", tag, &method]);
    // Writing to a String cannot fail.
    let _ = write!(
        card,
        "# {title}\n\n\
         {} of [{base}](#what-went-in){}, trained on preferences with the objective `{method}`.\n\n",
        if is_adapter { "A LoRA adapter" } else { "All weights" },
        if is_reward_model { " with a head that says how good a text is" } else { "" }
    );
    card += &facts.what_went_in()?;
    card += &facts.what_came_out()?;
    card += &facts.how_to_repeat();
    Ok(files::write_bytes(&folder.join(FILE), card.as_bytes())?)
}

/// Writes the card of a model that was made from another one: that one's card if it has one from a run, else what is
/// known without it. `made` says in a sentence what was done.
///
/// # Errors
/// If a file cannot be read or written.
pub fn derive(folder: &Path, from: &Path, base: &Path, library: Library, made: &str) -> Result<()> {
    let old = from.join(FILE);
    let old = if old.is_file() { fs::read_to_string(&old).map_err(at(&old))? } else { String::new() };
    let body = old.find(MARK).and_then(|start| old[start..].split_once("\n\n")).map(|(_, body)| body);
    let name = base_name(base);
    let mut card = front_matter(&name, library, library.task(), library == Library::Peft, &["votive"]);
    let own = format!("# Made from {name}\n");
    let _ = write!(card, "{made}\n\n{}", body.unwrap_or(&own));
    Ok(files::write_bytes(&folder.join(FILE), card.as_bytes())?)
}

/// The block that the hub reads, and the mark below it.
fn front_matter(base: &str, library: Library, task: &str, is_adapter: bool, tags: &[&str]) -> String {
    let mut tags: Vec<String> = tags.iter().map(|tag| quoted(tag)).collect();
    if is_adapter {
        tags.push(quoted("lora"));
    }
    format!(
        "---\nlibrary_name: {}\nbase_model: {}\nbase_model_relation: {}\npipeline_tag: {}\ntags: [{}]\n\
         license:  # yours to fill in; the licences of base model and data bind you\n---\n\n{MARK} {}. -->\n\n",
        library.name(),
        quoted(base),
        library.relation(is_adapter),
        task,
        tags.join(", "),
        env!("CARGO_PKG_VERSION"),
    )
}

/// A text as YAML takes it whatever it holds: JSON's strings are YAML's.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The base's name on the hub if its configuration says, else its folder's.
fn base_name(model: &Path) -> String {
    let config = fs::read(model.join("config.json")).ok();
    let config: Option<Value> = config.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let named = config.as_ref().and_then(|config| config["_name_or_path"].as_str()).map(str::to_owned);
    named.filter(|name| is_hub_name(name)).unwrap_or_else(|| last_name(model))
}

/// Whether a name can be one on the hub: an owner and a model.
fn is_hub_name(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    name.split_once('/').is_some_and(|(owner, model)| is_part(owner) && is_part(model))
}

fn last_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The method's id, and its options as `name = value`.
fn objective(plan: &Plan) -> (String, String) {
    let own = plan.settings().iter().filter_map(|setting| {
        let (id, option) = setting.key.strip_prefix("objective.")?.split_once('.')?;
        Some((id, format!("{option} = {}", setting.value.as_ref()?.trim())))
    });
    let (ids, options): (Vec<&str>, Vec<String>) = own.unzip();
    (ids.first().copied().unwrap_or_default().to_owned(), options.join(", "))
}

impl RunFacts<'_> {
    fn what_went_in(&self) -> Result<String> {
        let Self { plan, rows, .. } = self;
        let (method, options) = objective(plan);
        let adapter = plan.adapter.as_ref().map_or("none: all weights were trained".to_owned(), |lora| {
            format!("LoRA, r = {}, α = {}, on {}", lora.rank, lora.alpha, targets(&lora.targets))
        });
        let paths = plan.data.paths();
        let data = paths.iter().map(|path| file_facts(path)).collect::<Result<Vec<_>>>()?.join(", ");
        let train = &plan.train;
        let lines = [
            ("Base model", base_name(&plan.model)),
            ("Data", format!("{data}; {rows} rows trained on")),
            ("Objective", format!("`{method}`: {options}")),
            ("Adapter", adapter),
            (
                "Training",
                format!(
                    "{} steps of {} rows, learning rate {:e}, seed {}",
                    train.steps, train.batch_size, plan.optimizer.lr, train.seed
                ),
            ),
            ("Program", format!("votive {}", env!("CARGO_PKG_VERSION"))),
        ];
        let rows = lines.map(|(what, value)| format!("| {what} | {} |\n", cell(&value)));
        Ok(format!("## What went in\n\n| | |\n| --- | --- |\n{}\n", rows.concat()))
    }

    /// The first and the last line of the metrics.
    fn what_came_out(&self) -> Result<String> {
        let text = fs::read_to_string(self.metrics).map_err(at(self.metrics))?;
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Map<String, Value>>(line).ok());
        let Some(first) = lines.next() else { return Ok(String::new()) };
        let last = lines.next_back().unwrap_or_else(|| first.clone());
        let step = |line: &Map<String, Value>| line.get("step").and_then(Value::as_u64).unwrap_or_default();
        let mut table = format!(
            "## What came out\n\nMeasured on the batches of these steps, not on held-out rows.\n\n\
             | metric | step {} | step {} |\n| --- | --- | --- |\n",
            step(&first),
            step(&last)
        );
        for (name, value) in first.iter().filter(|(name, _)| *name != "step") {
            let pair = (value.as_f64(), last.get(name).and_then(Value::as_f64));
            if let (Some(before), Some(after)) = pair {
                let _ = writeln!(table, "| {} | {} | {} |", cell(name), number(before), number(after));
            }
        }
        table.push('\n');
        Ok(table)
    }

    fn how_to_repeat(&self) -> String {
        let plan = self.plan;
        let mut settings = plan.settings().to_vec();
        // Where files lie on the machine that trained is nobody else's matter.
        let of_files = |key: &str| key.ends_with(".path") || key.ends_with(".file");
        for setting in settings.iter_mut().filter(|setting| of_files(&setting.key)) {
            setting.value = setting.value.as_deref().map(without_folders);
        }
        let toml = to_toml(&settings);
        format!(
            "## How to repeat it\n\nPut base model and data beside this recipe, saved as `plan.toml`:\n\n\
             ```sh\nvotive train plan.toml\n```\n\n```toml\n{}\n```\n",
            toml.trim_end()
        )
    }
}

/// A file's name and hash, or a folder's name.
fn file_facts(path: &Path) -> Result<String> {
    let name = last_name(path);
    Ok(if path.is_file() { format!("`{name}`, SHA-256 `{}`", sha256(path)?) } else { format!("`{name}`") })
}

fn targets(targets: &Targets) -> String {
    match targets {
        Targets::Names(names) => names.join(", "),
        Targets::AllLinear => "every linear map but the head".to_owned(),
        Targets::Pattern(pattern) => format!("what matches `{pattern}`"),
    }
}

/// A path, or a list of paths, in TOML, with the last names alone.
fn without_folders(value: &str) -> String {
    let last = |value: &toml_edit::Value| value.as_str().map(|path| last_name(Path::new(path)));
    match value.parse::<toml_edit::Value>() {
        Ok(toml_edit::Value::Array(list)) => {
            list.iter().filter_map(last).collect::<toml_edit::Array>().to_string()
        }
        Ok(one) => {
            last(&one).map_or_else(|| value.to_owned(), |name| toml_edit::Value::from(name).to_string())
        }
        Err(_) => value.to_owned(),
    }
}

/// Four digits are enough for a reader.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        1e-3..1e6 => {
            let digits = (3 - value.abs().log10().floor() as i64).clamp(0, 6) as usize;
            format!("{value:.digits$}")
        }
        _ => format!("{value:.3e}"),
    }
}

/// A value that ends no cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn sha256(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path).map_err(at(path))?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(at(path))? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        let cases =
            [(0.0, "0"), (0.71234, "0.7123"), (-12.3456, "-12.35"), (412.0, "412.0"), (1e-6, "1.000e-6")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(26_500.0), "26500");
    }

    #[test]
    fn names_of_the_hub_and_names_of_folders() {
        assert!(is_hub_name("owner/Model-0.5B") && !is_hub_name("/data/model") && !is_hub_name("a/b/c"));
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("my \"model\"");
        fs::create_dir(&model).unwrap();
        assert_eq!(base_name(&model), "my \"model\"");
        fs::write(model.join("config.json"), r#"{"_name_or_path": "owner/model"}"#).unwrap();
        assert_eq!(base_name(&model), "owner/model");
    }

    #[test]
    fn a_derived_card_keeps_what_the_run_said_and_nothing_of_strangers() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to, base) =
            (folder.path().join("from"), folder.path().join("to"), folder.path().join("base"));
        [&from, &to, &base].into_iter().for_each(|path| fs::create_dir(path).unwrap());
        let card = || fs::read_to_string(to.join(FILE)).unwrap();
        fs::write(from.join(FILE), "somebody's words").unwrap();
        derive(&to, &from, &base, Library::Transformers, "Merged.").unwrap();
        assert!(card().contains("Merged.\n\n# Made from base") && !card().contains("somebody"));
        let old = front_matter("base", Library::Peft, "text-generation", true, &[]) + "# Title\n\nFacts.\n";
        fs::write(from.join(FILE), old).unwrap();
        derive(&to, &from, &base, Library::Transformers, "Merged.").unwrap();
        assert!(
            card().contains("library_name: transformers") && card().contains("base_model_relation: finetune")
        );
        assert!(card().ends_with("Merged.\n\n# Title\n\nFacts.\n") && !card().contains("peft"), "{}", card());
    }
}
