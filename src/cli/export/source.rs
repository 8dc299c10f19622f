//! What is exported: the model, and the adapter on it if there is one.

use crate::cli::{Failure, Outcome};
use std::path::{Path, PathBuf};
use votive_model::config::ConfigFile;
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
    /// Looks into the folder of a run, a model or an adapter; `model` says what an adapter is for.
    ///
    /// # Errors
    /// If it is none of them, a run is not finished, or an adapter's model is not there.
    pub(super) fn find(folder: &Path, model: Option<&Path>) -> Outcome<Self> {
        if folder.join(PLAN_FILE).is_file() {
            let made = folder.join(FINAL);
            if !made.is_dir() {
                let unfinished = Failure::data(format!("{}: the run is not finished", folder.display()));
                return Err(unfinished.hint("`votive resume` goes on with it"));
            }
            return Self::find(&made, model);
        }
        if folder.join(ADAPTER_FILE).is_file() {
            return Self::of_adapter(folder, model);
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
        let Some(base) = model.map(Path::to_owned).or(named) else {
            let nameless = Failure::data(format!("{}: names no model", file.path().display()));
            return Err(nameless.hint("say with --model which one it was trained on"));
        };
        if !base.is_dir() {
            let gone = Failure::data(format!(
                "{}: its model {} is no folder here",
                file.path().display(),
                base.display()
            ));
            return Err(gone.hint("say with --model where it is"));
        }
        Ok(Self { base, adapter: Some(adapter.to_owned()) })
    }
}
