//! What an adapter is made of: ranks, scales and the modules that get one, chosen as PEFT 0.21.2 chooses them.

use super::LoraLayer;
use crate::error::{ModelError, Result};
use crate::nn::TABLES;
use fancy_regex::Regex;
use std::collections::BTreeMap;

/// Shape and places of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Inner dimension r.
    pub rank: usize,
    /// α; the update is scaled by α/r.
    pub alpha: f64,
    /// Modules that get an adapter.
    pub targets: Targets,
    /// Of those, modules that get none.
    pub exclude: Option<Targets>,
    /// With targets by name: the only layers that get one, counted from 0.
    pub layers: Option<Vec<usize>>,
    /// Other ranks for modules whose name ends in a match of the key, a regular expression.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Other α, likewise.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Modules that are trained whole, as copies: those whose name ends in one of these.
    pub modules_to_save: Vec<String>,
    /// Scale by α/√r instead of α/r: Kalajdzievski, arXiv:2312.03732.
    pub use_rslora: bool,
    /// Train direction and length of the weights' rows apart: DoRA, Liu et al., arXiv:2402.09353.
    pub use_dora: bool,
}

/// Which modules are meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Those whose name is, or ends in `.` and, one of these.
    Names(Vec<String>),
    /// Every linear map but the head: PEFT's `all-linear`.
    AllLinear,
    /// Those whose whole name matches this regular expression.
    Pattern(String),
}

impl Targets {
    /// What a single word means in PEFT: `all-linear`, or a regular expression.
    #[must_use]
    pub fn rule(word: &str) -> Self {
        if word.eq_ignore_ascii_case(ALL_LINEAR) { Self::AllLinear } else { Self::Pattern(word.to_owned()) }
    }
}

/// PEFT's word for [`Targets::AllLinear`].
pub(super) const ALL_LINEAR: &str = "all-linear";

impl LoraConfig {
    /// A plain adapter on the named modules.
    #[must_use]
    pub fn new(rank: usize, alpha: f64, targets: Vec<String>) -> Self {
        Self {
            rank,
            alpha,
            targets: Targets::Names(targets),
            exclude: None,
            layers: None,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            modules_to_save: Vec::new(),
            use_rslora: false,
            use_dora: false,
        }
    }

    /// The configuration that these layers have, which are named in full: the commonest rank and α, and the others by
    /// pattern.
    pub(super) fn of_layers(layers: &BTreeMap<String, LoraLayer>) -> Self {
        let ranks: BTreeMap<&String, usize> =
            layers.iter().map(|(path, layer)| (path, layer.rank())).collect();
        let alpha = |layer: &LoraLayer| layer.scale * layer.rank() as f64;
        let alphas: BTreeMap<&String, f64> =
            layers.iter().map(|(path, layer)| (path, alpha(layer))).collect();
        let rank = commonest(ranks.values().copied()).unwrap_or(1);
        let alpha = commonest(alphas.values().copied()).unwrap_or(1.0);
        let other = |(path, value): (&String, usize)| (value != rank).then(|| (path.clone(), value));
        let rank_pattern = ranks.into_iter().filter_map(other).collect();
        let other = |(path, value): (&String, f64)| (value != alpha).then(|| (path.clone(), value));
        Self {
            rank_pattern,
            alpha_pattern: alphas.into_iter().filter_map(other).collect(),
            use_dora: layers.values().any(|layer| layer.magnitude.is_some()),
            ..Self::new(rank, alpha, layers.keys().cloned().collect())
        }
    }

    /// Whether a module of this path is trained whole. PEFT looks at the end of the name, within a word too.
    pub(super) fn is_saved(&self, path: &str) -> bool {
        self.modules_to_save.iter().any(|name| path.ends_with(name.as_str()))
    }
}

/// The value that comes most often; of several the first.
fn commonest<T: Copy + PartialEq>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: Vec<(T, usize)> = Vec::new();
    for value in values {
        match counts.iter_mut().find(|(known, _)| *known == value) {
            Some((_, count)) => *count += 1,
            None => counts.push((value, 1)),
        }
    }
    let most = counts.iter().map(|(_, count)| *count).max()?;
    counts.into_iter().find(|(_, count)| *count == most).map(|(value, _)| value)
}

/// A configuration with its patterns compiled, ready to be asked about modules.
pub(super) struct Chooser<'a> {
    config: &'a LoraConfig,
    targets: Matcher<'a>,
    exclude: Option<Matcher<'a>>,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

enum Matcher<'a> {
    Names(&'a [String]),
    AllLinear,
    Pattern(Regex),
}

impl<'a> Chooser<'a> {
    /// # Errors
    /// If a number is out of range, a pattern is not a regular expression, or options do not go together.
    pub(super) fn new(config: &'a LoraConfig) -> Result<Self> {
        let ranks = config.rank_pattern.values().chain([&config.rank]);
        if ranks.into_iter().any(|rank| *rank == 0) {
            return Err(ModelError::Adapter("rank must be at least 1".to_owned()));
        }
        if config.layers.is_some() && !matches!(config.targets, Targets::Names(_)) {
            let problem = "layers can be chosen only where targets are a list of names".to_owned();
            return Err(ModelError::Adapter(problem));
        }
        Ok(Self {
            config,
            targets: Matcher::new(&config.targets)?,
            exclude: config.exclude.as_ref().map(Matcher::new).transpose()?,
            ranks: endings(&config.rank_pattern)?,
            alphas: endings(&config.alpha_pattern)?,
        })
    }

    /// Whether a weight of this shape can get an adapter: a matrix, or the kernel of a convolution, which PEFT's
    /// `all-linear` does not mean.
    pub(super) fn can_take(&self, weight: &[usize]) -> bool {
        weight.len() == 2 || (weight.len() == 4 && !matches!(self.targets, Matcher::AllLinear))
    }

    /// Whether the module at `path` gets an adapter.
    ///
    /// # Errors
    /// If a pattern takes too long to match.
    pub(super) fn takes(&self, path: &str) -> Result<bool> {
        let excluded = self.exclude.as_ref().map_or(Ok(false), |exclude| exclude.matches(path))?;
        Ok(!excluded && !self.config.is_saved(path) && self.targets.matches(path)? && self.has_layer(path))
    }

    /// Whether the path lies in a chosen layer; a target that is a whole path does whatever the layer.
    fn has_layer(&self, path: &str) -> bool {
        let (Some(layers), Targets::Names(names)) = (&self.config.layers, &self.config.targets) else {
            return true;
        };
        names.iter().any(|name| name == path) || layer_of(path).is_some_and(|layer| layers.contains(&layer))
    }

    /// Rank and scale at `path`.
    ///
    /// # Errors
    /// If a pattern takes too long to match.
    pub(super) fn shape(&self, path: &str) -> Result<(usize, f64)> {
        let rank = first(&self.ranks, path)?.unwrap_or(self.config.rank);
        let alpha = first(&self.alphas, path)?.unwrap_or(self.config.alpha);
        let divisor = if self.config.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
        Ok((rank, alpha / divisor))
    }

    /// A target that names none of `maps`, or a pattern that names none that is `adapted`: most likely a
    /// misprint.
    ///
    /// # Errors
    /// If a pattern takes too long to match.
    pub(super) fn idle(&self, maps: &[&str], adapted: &[&str]) -> Result<Option<String>> {
        if let Matcher::Names(names) = &self.targets {
            let idle = names.iter().find(|name| !maps.iter().any(|path| is_or_ends_in(path, name)));
            if let Some(name) = idle {
                return Ok(Some(format!(
                    "target `{name}` names no linear map and no convolution of this network"
                )));
            }
        }
        let keys = self.config.rank_pattern.keys().zip(self.ranks.iter().map(|(regex, _)| regex));
        let alphas = self.config.alpha_pattern.keys().zip(self.alphas.iter().map(|(regex, _)| regex));
        for (key, regex) in keys.chain(alphas) {
            if !any(regex, adapted)? {
                return Ok(Some(format!("pattern `{key}` names no module that gets an adapter")));
            }
        }
        Ok(None)
    }
}

impl<'a> Matcher<'a> {
    fn new(targets: &'a Targets) -> Result<Self> {
        Ok(match targets {
            Targets::Names(names) => Self::Names(names),
            Targets::AllLinear => Self::AllLinear,
            Targets::Pattern(pattern) => Self::Pattern(compile(pattern, &format!(r"\A(?:{pattern})\z"))?),
        })
    }

    fn matches(&self, path: &str) -> Result<bool> {
        match self {
            Self::Names(names) => Ok(names.iter().any(|name| is_or_ends_in(path, name))),
            Self::AllLinear => Ok(!TABLES.iter().any(|table| is_or_ends_in(path, table))),
            Self::Pattern(regex) => is_match(regex, path),
        }
    }
}

fn is_or_ends_in(path: &str, name: &str) -> bool {
    path == name || path.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

/// The first number among the names of a path, which is the number of its layer.
fn layer_of(path: &str) -> Option<usize> {
    let names: Vec<&str> = path.split('.').collect();
    let inner = names.len().checked_sub(1)?;
    names.get(2..inner)?.iter().find_map(|name| name.parse().ok())
}

/// Patterns as PEFT reads the keys of `rank_pattern`: they match the end of a name, from its start or behind a dot.
fn endings<T: Copy>(patterns: &BTreeMap<String, T>) -> Result<Vec<(Regex, T)>> {
    let compiled =
        |(key, value): (&String, &T)| Ok((compile(key, &format!(r"\A(?:(?:.*\.)?(?:{key}))\z"))?, *value));
    patterns.iter().map(compiled).collect()
}

fn compile(written: &str, whole: &str) -> Result<Regex> {
    Regex::new(whole)
        .map_err(|error| ModelError::Adapter(format!("`{written}` is not a regular expression: {error}")))
}

fn is_match(regex: &Regex, path: &str) -> Result<bool> {
    regex.is_match(path).map_err(|error| ModelError::Adapter(format!("`{regex}` on `{path}`: {error}")))
}

fn first<T: Copy>(patterns: &[(Regex, T)], path: &str) -> Result<Option<T>> {
    for (regex, value) in patterns {
        if is_match(regex, path)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

fn any(regex: &Regex, paths: &[&str]) -> Result<bool> {
    for path in paths {
        if is_match(regex, path)? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const PATHS: [&str; 5] = [
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
        "model.embed_tokens",
        "lm_head",
    ];

    /// Indices of the paths that get an adapter.
    fn taken(config: &LoraConfig) -> Vec<usize> {
        let chooser = Chooser::new(config).unwrap();
        (0..PATHS.len()).filter(|i| chooser.takes(PATHS[*i]).unwrap()).collect()
    }

    fn named(names: &[&str]) -> LoraConfig {
        LoraConfig::new(4, 8.0, names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn modules_are_chosen_by_ending_rule_layer_and_exclusion() {
        assert_eq!(taken(&named(&["q_proj"])), [0, 1]);
        assert_eq!(taken(&named(&["proj", "lm_head"])), [4]);
        let of = |targets| LoraConfig { targets, ..named(&[]) };
        assert_eq!(taken(&of(Targets::rule("All-Linear"))), [0, 1, 2]);
        assert_eq!(taken(&of(Targets::rule(r"(?!.*mlp).*\.1\..*_proj"))), [1]);
        // A rule must match the whole name.
        assert_eq!(taken(&of(Targets::rule("q_proj"))), [0usize; 0]);
        let layers = LoraConfig { layers: Some(vec![1]), ..named(&["q_proj", PATHS[0]]) };
        assert_eq!(taken(&layers), [0, 1]);
        let exclude = Some(Targets::Names(vec!["up_proj".to_owned()]));
        assert_eq!(taken(&LoraConfig { exclude, ..of(Targets::AllLinear) }), [0, 1]);
        let modules_to_save = vec!["q_proj".to_owned()];
        assert_eq!(taken(&LoraConfig { modules_to_save, ..of(Targets::AllLinear) }), [2]);
    }

    #[test]
    fn ranks_and_scales_follow_their_patterns() {
        let mut config = named(&["q_proj", "up_proj"]);
        config.rank_pattern.insert("q_proj".to_owned(), 16);
        config.alpha_pattern.insert(r"layers\.1\.mlp\..*".to_owned(), 2.0);
        let shapes = |config: &LoraConfig| {
            let chooser = Chooser::new(config).unwrap();
            [0, 2].map(|i| chooser.shape(PATHS[i]).unwrap())
        };
        assert_eq!(shapes(&config), [(16, 0.5), (4, 0.5)]);
        config.use_rslora = true;
        assert_eq!(shapes(&config), [(16, 2.0), (4, 1.0)]);
    }

    #[test]
    fn what_cannot_be_meant_is_said() {
        let message = |config: &LoraConfig| {
            let chooser = Chooser::new(config);
            chooser.map_or_else(|e| e.to_string(), |c| c.idle(&PATHS, &PATHS).unwrap().unwrap_or_default())
        };
        let mut config = named(&["q_proj", "qq_proj"]);
        assert!(message(&config).contains("`qq_proj` names no linear map"), "{}", message(&config));
        config = named(&["q_proj"]);
        assert_eq!(message(&config), "");
        config.alpha_pattern.insert("k_proj".to_owned(), 1.0);
        assert!(message(&config).contains("pattern `k_proj`"), "{}", message(&config));
        config.alpha_pattern = BTreeMap::from([("(".to_owned(), 1.0)]);
        assert!(message(&config).contains("`(` is not a regular expression"), "{}", message(&config));
        config = LoraConfig { layers: Some(vec![0]), targets: Targets::AllLinear, ..named(&[]) };
        assert!(message(&config).contains("layers"), "{}", message(&config));
        config = LoraConfig { rank: 0, ..named(&["q_proj"]) };
        assert!(message(&config).contains("rank"), "{}", message(&config));
    }
}
