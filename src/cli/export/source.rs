//! What is exported: the model, and the adapter on it if there is one.

use crate::cli::{Failure, Outcome};
use std::path::{Path, PathBuf};
use votive_model::config::ConfigFile;
use votive_train::Plan;
use votive_train::run_directory::{FINAL, PLAN_FILE};

const ADAPTER_FILE: &str = "adapter_config.json";

/// A model's folder, and an adapter's.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The model; where there is no adapter, the one that was asked for.
    pub(super) base: PathBuf,
    pub(super) adapter: Option<PathBuf>,
}

impl Source {
    /// Looks into the folder of a run, a model or an adapter, or at an adapter's file; `model` says what an adapter is for.
    ///
    /// # Errors
    /// If it is none of them, a run is not finished, or an adapter's model is not there.
    pub(super) fn find(folder: &Path, model: Option<&Path>) -> Outcome<Self> {
        let plan = folder.join(PLAN_FILE);
        if !plan.is_file() {
            return Self::at(folder, model, None);
        }
        let made = folder.join(FINAL);
        if !made.is_dir() {
            let unfinished = Failure::data(format!("{}: the run is not finished", folder.display()));
            return Err(unfinished.hint("`votive resume` goes on with it"));
        }
        Self::at(&made, model, Some(&plan))
    }

    /// The same for what is no run; `plan` is that of the run which made it.
    fn at(folder: &Path, model: Option<&Path>, plan: Option<&Path>) -> Outcome<Self> {
        if folder.join(ADAPTER_FILE).is_file() {
            return Self::of_adapter(folder, model);
        }
        if is_image_adapter(folder) {
            let base = match (model, plan) {
                (Some(model), _) => model.to_owned(),
                (None, Some(plan)) => Plan::read(plan, &[])?.model,
                (None, None) => return Err(nameless(folder)),
            };
            return Self::over(&base, folder);
        }
        if let Some(model) = model {
            return Err(Failure::usage(format!(
                "--model {}: {} holds no adapter that a model could be below",
                model.display(),
                folder.display()
            )));
        }
        Ok(Self { base: folder.to_owned(), adapter: None })
    }

    fn of_adapter(adapter: &Path, model: Option<&Path>) -> Outcome<Self> {
        let file = ConfigFile::read(&adapter.join(ADAPTER_FILE))?;
        let named = file.maybe_str("base_model_name_or_path")?.map(PathBuf::from);
        match model.map(Path::to_owned).or(named) {
            Some(base) => Self::over(&base, adapter),
            None => Err(nameless(file.path())),
        }
    }

    fn over(base: &Path, adapter: &Path) -> Outcome<Self> {
        if !base.is_dir() {
            let gone = format!("{}: its model {} is no folder here", adapter.display(), base.display());
            return Err(Failure::data(gone).hint("say with --model where it is"));
        }
        Ok(Self { base: base.to_owned(), adapter: Some(adapter.to_owned()) })
    }
}

fn nameless(adapter: &Path) -> Failure {
    Failure::data(format!("{}: names no model", adapter.display()))
        .hint("say with --model which one it was trained on")
}

/// Whether a path is a safetensors file, or a folder of them that is no model.
pub(crate) fn is_image_adapter(path: &Path) -> bool {
    let is_weights = |path: &Path| path.extension().is_some_and(|ending| ending == "safetensors");
    if path.is_file() {
        return is_weights(path);
    }
    let is_model = ["config.json", "model_index.json"].iter().any(|name| path.join(name).is_file());
    let mut entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    !is_model && entries.any(|entry| is_weights(&entry.path()))
}
