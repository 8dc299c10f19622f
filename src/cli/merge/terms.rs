//! What a sum is made of: names, paths, weights, and whether each is a model or an adapter.

use super::expression;
use crate::cli::export::is_image_adapter;
use crate::cli::{Failure, Outcome};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// `NAME=PATH`.
#[derive(Clone, Debug)]
pub(super) struct Named {
    name: String,
    path: PathBuf,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected NAME=PATH, the name of letters, digits and _".to_owned();
        let (name, path) = text.split_once('=').ok_or_else(expected)?;
        let is_name = name.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        match is_name && !path.is_empty() {
            true => Ok(Self { name: name.to_owned(), path: path.into() }),
            false => Err(expected()),
        }
    }
}

impl fmt::Display for Named {
    /// Name and last part of the path: a card is read elsewhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.path.file_name().unwrap_or(self.path.as_os_str());
        write!(f, "{} = {}", self.name, last.to_string_lossy())
    }
}

/// One thing that is added, with a weight that is not 0.
#[derive(Clone, Debug)]
pub(super) struct Term {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) weight: f64,
}

/// The parts of a sum.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) models: Vec<Term>,
    pub(super) adapters: Vec<Term>,
}

/// How far the weights of models may add up to something else than 1: the rounding of decimal fractions.
const ROUNDING: f64 = 1e-9;

impl Terms {
    /// A model with an adapter.
    pub(super) fn merged(model: &Path, adapter: &Path) -> Self {
        let term =
            |name: &str, path: &Path| Term { name: name.to_owned(), path: path.to_owned(), weight: 1.0 };
        Self { models: vec![term("model", model)], adapters: vec![term("adapter", adapter)] }
    }

    /// Reads a formula about named folders.
    ///
    /// # Errors
    /// If the formula is none, names are not given or not used, or the weights of models do not add up to 1.
    pub(super) fn read(formula: &str, named: &[Named]) -> Outcome<Self> {
        let weights =
            expression::parse(formula).map_err(|problem| Failure::usage(format!("--sum: {problem}")))?;
        for (index, given) in named.iter().enumerate() {
            if named[..index].iter().any(|other| other.name == given.name) {
                return Err(Failure::usage(format!("{}: given twice", given.name)));
            }
            if !weights.iter().any(|(name, _)| *name == given.name) {
                return Err(Failure::usage(format!("{}: is not in the sum {formula}", given.name)));
            }
        }
        let (mut models, mut adapters) = (Vec::new(), Vec::new());
        for (name, weight) in weights {
            let Some(given) = named.iter().find(|given| given.name == name) else {
                let missing = Failure::usage(format!("--sum: {name} is not given"));
                return Err(missing.hint(format!("say what it is: {name}=PATH")));
            };
            // What cancels out is not read.
            if weight != 0.0 {
                let kind = if is_adapter(&given.path)? { &mut adapters } else { &mut models };
                kind.push(Term { name, path: given.path.clone(), weight });
            }
        }
        let terms = Self { models, adapters };
        terms.check()?;
        Ok(terms)
    }

    fn check(&self) -> Outcome {
        if self.models.is_empty() && self.adapters.is_empty() {
            return Err(Failure::usage("--sum: nothing is left of it; every weight is 0"));
        }
        let total: f64 = self.models.iter().map(|term| term.weight).sum();
        if self.models.is_empty() || (total - 1.0).abs() <= ROUNDING {
            return Ok(());
        }
        let names: Vec<&str> = self.models.iter().map(|term| term.name.as_str()).collect();
        let wrong =
            format!("--sum: the weights of the models ({}) add up to {total}, expected 1", names.join(", "));
        Err(Failure::usage(wrong).hint(
            "differences of models add up to 0: base + 0.5*(other - base); an adapter's name is its change alone: base + \
             0.5*adapter",
        ))
    }
}

/// Whether a path leads to an adapter, and not to a model.
fn is_adapter(path: &Path) -> Outcome<bool> {
    if !path.exists() {
        return Err(Failure::data(format!("{}: is not there", path.display())));
    }
    Ok(path.join("adapter_config.json").is_file() || is_image_adapter(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_paths_anything() {
        let parse = |text: &str| text.parse::<Named>();
        assert!(parse("a_1=x/y=z").is_ok_and(|named| named.path == Path::new("x/y=z")));
        for wrong in ["a", "=x", "a=", "1a=x", "a-b=x", "a b=x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
