//! Reading a recipe: TOML with places, overrides, and all mistakes at once.
//!
//! A [`Resolver`] is asked for one key after another, each with its type, default and meaning. From the same calls
//! come the plan, the resolved recipe that a run saves, the configuration reference, and the refusal of keys that
//! nobody asked for.

use crate::error::{Result, TrainError};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml_edit::{Document, InlineTable, Item, TableLike, Value};

/// One key of the configuration reference, and of a resolved recipe.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Dotted path, e.g. `optimizer.lr`.
    pub key: String,
    /// What kind of value it takes.
    pub kind: String,
    /// What it means.
    pub doc: &'static str,
    /// The value in TOML; none if the key is absent and has no default.
    pub value: Option<String>,
    /// Whether the recipe gave the value.
    pub given: bool,
}

struct Given {
    value: Value,
    place: String,
    used: bool,
}

/// A list of names, or one word that is a rule for names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamesOrRule {
    /// The names.
    Names(Vec<String>),
    /// The rule.
    Rule(String),
}

/// Answers questions for keys from a recipe, its overrides and defaults.
pub struct Resolver {
    path: PathBuf,
    given: BTreeMap<String, Given>,
    /// Where tables begin, by dotted path.
    tables: BTreeMap<String, String>,
    settings: Vec<Setting>,
    mistakes: Vec<String>,
}

impl Resolver {
    /// Reads a recipe file and lays `--set key=value` overrides over it.
    ///
    /// # Errors
    /// If the file is missing or is not TOML, or an override has no `=`.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            TrainError::Plan(format!("{}: the recipe cannot be read: {error}", path.display()))
        })?;
        Self::parse(path, &text, overrides)
    }

    /// The same, of a text that is at hand.
    ///
    /// # Errors
    /// If the text is not TOML, or an override has no `=`.
    pub fn parse(path: &Path, text: &str, overrides: &[String]) -> Result<Self> {
        let refuse = |mistakes| TrainError::Recipe { path: path.into(), mistakes };
        let document = Document::parse(text).map_err(|error| {
            let at = error.span().map_or_else(String::new, |span| format!("{}: ", place(text, &span)));
            refuse(vec![format!("  {at}{}", error.message().trim())])
        })?;
        let mut resolver = Self {
            path: path.into(),
            given: BTreeMap::new(),
            tables: BTreeMap::new(),
            settings: Vec::new(),
            mistakes: Vec::new(),
        };
        resolver.take(document.as_table(), "", text);
        let mut changes = Vec::new();
        for entry in overrides {
            let Some((key, value)) = entry.split_once('=') else {
                return Err(refuse(vec![format!("  --set {entry}: expected key=value")]));
            };
            changes.push((entry, key.trim(), value.trim()));
        }
        resolver.replace_objectives(changes.iter().filter_map(|(_, key, _)| objective_of(key)));
        for (entry, key, value) in changes {
            resolver.set(key, value, &format!("--set {entry}"));
        }
        Ok(resolver)
    }

    /// Notes every key of a table, with its place in `text`.
    fn take(&mut self, table: &dyn TableLike, prefix: &str, text: &str) {
        for (name, item) in table.iter() {
            let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            let span = table.key(name).and_then(toml_edit::Key::span).or_else(|| item.span());
            let place = span.map_or_else(|| "recipe".to_owned(), |span| place(text, &span));
            match item.as_table_like() {
                Some(inner) if !inner.is_empty() => {
                    self.take(inner, &key, text);
                    self.tables.insert(key, place);
                }
                _ => {
                    let value = match item {
                        Item::Value(value) => value.clone(),
                        // A table that is there and says nothing.
                        _ => InlineTable::new().into(),
                    };
                    self.given.insert(key, Given { value, place, used: false });
                }
            }
        }
    }

    /// Another objective on the command line replaces the recipe's, options and all; one that the recipe has does not.
    fn replace_objectives<'a>(&mut self, named: impl Iterator<Item = &'a str>) {
        let named: Vec<&str> = named.collect();
        let known = self.names_below("objective");
        if named.iter().all(|method| known.iter().any(|name| name == method)) {
            return;
        }
        self.given.retain(|key, _| objective_of(key).is_none_or(|method| named.contains(&method)));
    }

    fn set(&mut self, key: &str, value: &str, place: &str) {
        // Whatever is not a TOML value is meant as a string, so that paths need no quotes.
        let value = value.parse::<Value>().unwrap_or_else(|_| Value::from(value));
        self.given.insert(key.to_owned(), Given { value, place: place.to_owned(), used: false });
    }

    /// The names right below `prefix` that the recipe gives, e.g. the objective's id below `objective`.
    #[must_use]
    pub fn names_below(&self, prefix: &str) -> Vec<String> {
        let prefix = format!("{prefix}.");
        let mut names: Vec<String> = Vec::new();
        for key in self.given.keys() {
            if let Some(name) = key.strip_prefix(&prefix).and_then(|rest| rest.split('.').next())
                && !names.iter().any(|known| known == name)
            {
                names.push(name.to_owned());
            }
        }
        names
    }

    /// Puts a table that was taken apart when the recipe was read together again, as the value of its key.
    fn join(&mut self, key: &str) {
        let below = format!("{key}.");
        let parts: Vec<String> = self.given.keys().filter(|name| name.starts_with(&below)).cloned().collect();
        let mut table = InlineTable::new();
        let mut place = self.tables.get(key).cloned();
        for given in parts.iter().map(|name| (name, self.given.remove(name))) {
            if let (name, Some(given)) = given {
                table.insert(&name[below.len()..], given.value);
                place.get_or_insert(given.place);
            }
        }
        if let Some(place) = place.filter(|_| !table.is_empty()) {
            self.given.insert(key.to_owned(), Given { value: table.into(), place, used: false });
        }
    }

    /// Notes a mistake at `key`, a value or a table, with its place if the recipe has it.
    pub fn mistake(&mut self, key: &str, what: &str) {
        let below = format!("{key}.");
        let given = self.given.get(key).map(|given| &given.place);
        let inside =
            self.given.iter().find(|(name, _)| name.starts_with(&below)).map(|(_, given)| &given.place);
        let place = given.or_else(|| self.tables.get(key)).or(inside).map_or("recipe", String::as_str);
        self.mistakes.push(format!("  {place}: {key}: {what}"));
    }

    /// Asks for a key of any type: `read` turns the value into a `T` or says nothing if it cannot.
    fn ask<T: Clone>(
        &mut self,
        key: &str,
        kind: &str,
        default: Option<T>,
        doc: &'static str,
        read: impl Fn(&Value) -> Option<T>,
        show: impl Fn(&T) -> Value,
    ) -> Option<T> {
        let mut value = default;
        let mut is_given = false;
        if let Some(given) = self.given.get_mut(key) {
            given.used = true;
            is_given = true;
            match read(&given.value) {
                Some(read) => value = Some(read),
                None => {
                    let (place, found) = (given.place.clone(), given.value.to_string());
                    self.mistakes.push(format!("  {place}: {key}: expected {kind}, found {}", found.trim()));
                }
            }
        }
        let shown = value.as_ref().map(|value| show(value).to_string());
        self.settings.push(Setting {
            key: key.into(),
            kind: kind.into(),
            doc,
            value: shown,
            given: is_given,
        });
        value
    }

    /// Says that `key` has no default and is missing.
    pub fn require<T>(&mut self, key: &str, value: Option<T>) -> Option<T> {
        if value.is_none() && !self.given.contains_key(key) {
            self.mistakes.push(format!("  recipe: {key} is missing"));
        }
        value
    }

    /// A string.
    pub fn string(&mut self, key: &str, default: Option<&str>, doc: &'static str) -> Option<String> {
        let default = default.map(str::to_owned);
        self.ask(
            key,
            "a string",
            default,
            doc,
            |v| v.as_str().map(str::to_owned),
            |v| Value::from(v.as_str()),
        )
    }

    /// One of a few words.
    pub fn choice(&mut self, key: &str, choices: &[&str], default: &str, doc: &'static str) -> String {
        let kind = choices.iter().map(|choice| format!("\"{choice}\"")).collect::<Vec<_>>().join(" | ");
        let read = |v: &Value| v.as_str().filter(|s| choices.contains(s)).map(str::to_owned);
        let show = |v: &String| Value::from(v.as_str());
        self.ask(key, &kind, Some(default.to_owned()), doc, read, show).unwrap_or_else(|| default.to_owned())
    }

    /// One of a few values by its name; the first one with the name of `default` if the recipe says nothing.
    pub fn named<T: Copy + PartialEq, const N: usize>(
        &mut self,
        key: &str,
        names: &[(T, &'static str); N],
        default: T,
        doc: &'static str,
    ) -> T {
        let own = names.iter().find(|(value, _)| *value == default).map_or("", |(_, name)| name);
        let chosen = self.choice(key, &names.map(|(_, name)| name), own, doc);
        names.iter().find(|(_, name)| *name == chosen).map_or(default, |(value, _)| *value)
    }

    /// A list of strings.
    pub fn strings(
        &mut self,
        key: &str,
        default: Option<Vec<String>>,
        doc: &'static str,
    ) -> Option<Vec<String>> {
        let read = |v: &Value| v.as_array()?.iter().map(|s| s.as_str().map(str::to_owned)).collect();
        self.ask(key, "a list of strings", default, doc, read, |v| v.iter().collect())
    }

    /// A list of strings, or one string by itself.
    pub fn names_or_rule(
        &mut self,
        key: &str,
        default: Option<Vec<String>>,
        doc: &'static str,
    ) -> Option<NamesOrRule> {
        let read = |v: &Value| match v.as_array() {
            Some(list) => list.iter().map(|s| s.as_str().map(str::to_owned)).collect::<Option<_>>(),
            None => None,
        };
        let read = |v: &Value| match v.as_str() {
            Some(rule) => Some(NamesOrRule::Rule(rule.to_owned())),
            None => read(v).map(NamesOrRule::Names),
        };
        let show = |v: &NamesOrRule| match v {
            NamesOrRule::Names(names) => names.iter().collect(),
            NamesOrRule::Rule(rule) => Value::from(rule.as_str()),
        };
        self.ask(key, "a list of strings, or a string", default.map(NamesOrRule::Names), doc, read, show)
    }

    /// A table from any names to numbers, each of at least `least` and accepted by `read`; empty if it is absent.
    pub fn numbers_by_name<T: Clone + Into<Value>>(
        &mut self,
        key: &str,
        kind: &str,
        doc: &'static str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> BTreeMap<String, T> {
        // The table was taken apart when the recipe was read; its names may have dots of their own.
        self.join(key);
        let read = |v: &Value| {
            let pairs = v.as_inline_table()?.iter().map(|(name, v)| Some((name.to_owned(), read(v)?)));
            pairs.collect::<Option<BTreeMap<String, T>>>()
        };
        let show = |numbers: &BTreeMap<String, T>| {
            let pairs = numbers.iter().map(|(name, number)| (name.as_str(), number.clone()));
            Value::InlineTable(pairs.collect())
        };
        self.ask(key, kind, Some(BTreeMap::new()), doc, read, show).unwrap_or_default()
    }

    /// A value of several shapes, one of which may be a table; `read` and `show` say which.
    pub fn shaped<T: Clone>(
        &mut self,
        key: &str,
        kind: &str,
        default: T,
        doc: &'static str,
        (read, show): (impl Fn(&Value) -> Option<T>, impl Fn(&T) -> Value),
    ) -> T {
        const OVERRIDE: &str = "--set";
        if self.given.get(key).is_some_and(|given| given.place.starts_with(OVERRIDE)) {
            // It stands in the place of the recipe's whole table.
            let below = format!("{key}.");
            self.given.retain(|name, part| !name.starts_with(&below) || part.place.starts_with(OVERRIDE));
        } else {
            self.join(key);
        }
        self.ask(key, kind, Some(default.clone()), doc, read, show).unwrap_or(default)
    }

    /// A path or a list of paths, made absolute so that a run can be resumed from anywhere.
    pub fn paths(&mut self, key: &str, doc: &'static str) -> Option<Vec<PathBuf>> {
        let one = |value: &Value| {
            let given = Path::new(value.as_str()?);
            Some(std::path::absolute(given).unwrap_or_else(|_| given.to_owned()))
        };
        let read = |value: &Value| match value.as_array() {
            Some(list) if list.is_empty() => None,
            Some(list) => list.iter().map(one).collect(),
            None => one(value).map(|path| vec![path]),
        };
        let show = |paths: &Vec<PathBuf>| match paths.as_slice() {
            [path] => Value::from(path.to_string_lossy().as_ref()),
            paths => paths.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
        };
        self.ask(key, "a string or a list of strings", None, doc, read, show)
    }

    /// A number of at least `least`.
    pub fn float(&mut self, key: &str, least: f64, default: Option<f64>, doc: &'static str) -> Option<f64> {
        let kind =
            if least == f64::NEG_INFINITY { "a number".to_owned() } else { format!("a number ≥ {least}") };
        let read = move |v: &Value| number(v).filter(|x| x.is_finite() && *x >= least);
        self.ask(key, &kind, default, doc, read, |v| Value::from(*v))
    }

    /// A list of whole numbers, or nothing.
    pub fn whole_list(&mut self, key: &str, doc: &'static str) -> Option<Vec<u64>> {
        self.ask(key, "a list of whole numbers ≥ 0", None, doc, whole_numbers, |v| from_whole_numbers(v))
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &str, default: bool, doc: &'static str) -> bool {
        self.ask(key, "true or false", Some(default), doc, Value::as_bool, |v| Value::from(*v))
            .unwrap_or(default)
    }

    /// Two numbers in [0, 1).
    pub fn betas(&mut self, key: &str, default: [f64; 2], doc: &'static str) -> [f64; 2] {
        let read = |v: &Value| {
            let list: Vec<f64> = v.as_array()?.iter().map(number).collect::<Option<_>>()?;
            <[f64; 2]>::try_from(list).ok().filter(|pair| pair.iter().all(|b| (0.0..1.0).contains(b)))
        };
        let show = |v: &[f64; 2]| v.iter().copied().collect();
        self.ask(key, "two numbers in [0, 1)", Some(default), doc, read, show).unwrap_or(default)
    }

    /// A whole number of at least `least`.
    pub fn whole(&mut self, key: &str, least: u64, default: Option<u64>, doc: &'static str) -> Option<u64> {
        let read =
            move |v: &Value| v.as_integer().and_then(|n| u64::try_from(n).ok()).filter(|n| *n >= least);
        let show = |v: &u64| Value::from(i64::try_from(*v).unwrap_or(i64::MAX));
        self.ask(key, &format!("a whole number ≥ {least}"), default, doc, read, show)
    }

    /// A value of any JSON-like kind, as serde_json sees it: an option of a method.
    pub fn json(&mut self, key: &str, default: serde_json::Value, doc: &'static str) -> serde_json::Value {
        let kind = match default {
            serde_json::Value::Number(_) => "a number",
            serde_json::Value::Bool(_) => "true or false",
            serde_json::Value::String(_) => "a string",
            _ => "a value",
        };
        let same_kind =
            |json: &serde_json::Value| std::mem::discriminant(json) == std::mem::discriminant(&default);
        let read = |v: &Value| to_json(v).filter(same_kind);
        self.ask(key, kind, Some(default.clone()), doc, read, from_json).unwrap_or_else(|| default.clone())
    }

    /// Marks a key as asked for without a setting of its own (an empty table that chooses a method).
    pub fn touch(&mut self, key: &str) {
        if let Some(given) = self.given.get_mut(key) {
            given.used = true;
        }
    }

    /// Marks every key below `prefix` as asked for, because the table itself is the mistake.
    pub fn touch_below(&mut self, prefix: &str) {
        let below = format!("{prefix}.");
        for (key, given) in &mut self.given {
            if key == prefix || key.starts_with(&below) {
                given.used = true;
            }
        }
    }

    /// Settles the value of a key that was asked for: what the plan shows and a resumed run reads.
    pub fn settle(&mut self, key: &str, value: &str) {
        for setting in
            self.settings.iter_mut().filter(|setting| setting.key == key && setting.value.is_some())
        {
            setting.value = Some(Value::from(value).to_string());
        }
    }

    /// Every key that was asked for, in the order of the questions.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// Ends the questions: refuses keys that nobody asked for and returns what was settled.
    ///
    /// # Errors
    /// All mistakes together.
    pub fn finish(mut self) -> Result<Vec<Setting>> {
        for (key, given) in self.given.iter().filter(|(_, given)| !given.used) {
            let near = did_you_mean(key, self.settings.iter().map(|setting| setting.key.as_str()));
            self.mistakes.push(format!("  {}: unknown key `{key}`{near}", given.place));
        }
        if self.mistakes.is_empty() {
            return Ok(self.settings);
        }
        Err(TrainError::Recipe { path: self.path, mistakes: self.mistakes })
    }
}

/// The method that a key below `objective` belongs to.
fn objective_of(key: &str) -> Option<&str> {
    key.strip_prefix("objective.").and_then(|rest| rest.split('.').next())
}

/// Settled keys as a TOML text that resolves to the same plan.
#[must_use]
pub fn to_toml(settings: &[Setting]) -> String {
    // By table, in the order of their first keys: TOML takes each table once.
    let mut tables: Vec<(&str, String)> = Vec::new();
    for setting in settings {
        let (Some(value), Some((table, name))) = (&setting.value, setting.key.rsplit_once('.')) else {
            continue;
        };
        let line = format!("{name} = {}\n", value.trim());
        match tables.iter_mut().find(|(known, _)| *known == table) {
            Some((_, lines)) => lines.push_str(&line),
            None => tables.push((table, line)),
        }
    }
    let tables: Vec<String> =
        tables.into_iter().map(|(table, lines)| format!("[{table}]\n{lines}")).collect();
    tables.join("\n")
}

/// A number, whole or not.
pub(crate) fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|n| n as f64))
}

/// A list of whole numbers that is not empty.
pub(crate) fn whole_numbers(value: &Value) -> Option<Vec<u64>> {
    let list = value.as_array().filter(|list| !list.is_empty())?;
    list.iter().map(|n| n.as_integer().and_then(|n| u64::try_from(n).ok())).collect()
}

pub(crate) fn from_whole_numbers(numbers: &[u64]) -> Value {
    numbers.iter().map(|n| i64::try_from(*n).unwrap_or(i64::MAX)).collect()
}

fn to_json(value: &Value) -> Option<serde_json::Value> {
    match value {
        Value::String(s) => Some(s.value().as_str().into()),
        Value::Boolean(b) => Some((*b.value()).into()),
        Value::Integer(_) | Value::Float(_) => serde_json::Number::from_f64(number(value)?).map(Into::into),
        Value::Array(list) => list.iter().map(to_json).collect::<Option<Vec<_>>>().map(Into::into),
        Value::Datetime(_) | Value::InlineTable(_) => None,
    }
}

fn from_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Bool(b) => Value::from(*b),
        serde_json::Value::String(s) => Value::from(s.as_str()),
        serde_json::Value::Array(list) => list.iter().map(from_json).collect(),
        other => Value::from(other.as_f64().unwrap_or(f64::NAN)),
    }
}

/// The known word that is most like `word`, ready to follow a message; empty if none is.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|known| (strsim::jaro_winkler(known, word), known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.8)
        .map_or_else(String::new, |(_, near)| format!("; did you mean `{near}`?"))
}

fn place(text: &str, span: &Range<usize>) -> String {
    let before = &text[..span.start.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("line {line}, column {column}")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn resolver(text: &str, overrides: &[&str]) -> Resolver {
        let overrides: Vec<String> = overrides.iter().map(|s| (*s).to_owned()).collect();
        Resolver::parse(Path::new("r.toml"), text, &overrides).unwrap()
    }

    #[test]
    fn all_mistakes_are_reported_with_their_places() {
        let mut r = resolver("[optimizer]\nlr = \"fast\"\nweigth_decay = 0.1\n", &["train.steps=-3"]);
        r.float("optimizer.lr", 0.0, None, "");
        r.float("optimizer.weight_decay", 0.0, Some(0.0), "");
        let steps = r.whole("train.steps", 1, None, "");
        r.require("train.steps", steps);
        let model = r.string("model.path", None, "");
        r.require("model.path", model);
        let message = r.finish().unwrap_err().to_string();
        for part in [
            "r.toml: 4 mistakes",
            "line 2, column 1: optimizer.lr: expected a number ≥ 0, found \"fast\"",
            "line 3, column 1: unknown key `optimizer.weigth_decay`; did you mean `optimizer.weight_decay`?",
            "--set train.steps=-3: train.steps: expected a whole number ≥ 1, found -3",
            "model.path is missing",
        ] {
            assert!(message.contains(part), "{part}\n---\n{message}");
        }
    }

    #[test]
    fn overrides_win_and_the_settled_recipe_resolves_to_itself() {
        let ask = |mut r: Resolver| {
            let lr = r.float("optimizer.lr", 0.0, Some(1.0), "").unwrap();
            let path = r.string("model.path", None, "").unwrap();
            let betas = r.betas("optimizer.betas", [0.9, 0.999], "");
            (lr, path, betas, r.finish().unwrap())
        };
        let first = ask(resolver(
            "model.path = \"a\"\n[optimizer]\nlr = 1e-5",
            &["optimizer.lr=2e-5", "model.path=b/c"],
        ));
        let again = ask(resolver(&to_toml(&first.3), &[]));
        assert_eq!((first.0, first.1.as_str(), first.2), (2e-5, "b/c", [0.9, 0.999]));
        assert_eq!((again.0, again.1, again.2), (first.0, first.1, first.2));
    }

    #[test]
    fn tables_of_any_names_and_rules_resolve_to_themselves() {
        let ask = |mut r: Resolver| {
            let whole = |v: &Value| v.as_integer().filter(|n| *n > 0);
            let ranks = r.numbers_by_name("a.ranks", "a table of whole numbers", "", whole);
            let names = r.names_or_rule("a.names", Some(vec!["x".to_owned()]), "");
            let rule = r.names_or_rule("a.rule", None, "");
            ((ranks, names, rule), r.finish())
        };
        let text = "[a]\nranks = { q_proj = 4, 'layers\\.1\\..*' = 8 }\nrule = \"all-linear\"\n";
        let (first, settings) = ask(resolver(text, &["a.ranks.k_proj=2"]));
        let ranks = [("k_proj", 2), (r"layers\.1\..*", 8), ("q_proj", 4)];
        assert_eq!(first.0, ranks.map(|(name, rank)| (name.to_owned(), rank)).into());
        assert_eq!(first.1, Some(NamesOrRule::Names(vec!["x".to_owned()])));
        assert_eq!(first.2, Some(NamesOrRule::Rule("all-linear".to_owned())));
        assert_eq!(ask(resolver(&to_toml(&settings.unwrap()), &[])).0, first);
        let (_, mistakes) = ask(resolver("[a]\nranks = { q_proj = 0 }\n", &[]));
        let message = mistakes.unwrap_err().to_string();
        assert!(message.contains("line 2") && message.contains("a.ranks: expected a table"), "{message}");
    }

    #[test]
    fn a_syntax_error_has_a_place() {
        let message = Resolver::parse(Path::new("r.toml"), "[a]\nb = = 1\n", &[]).err().unwrap().to_string();
        assert!(message.contains("line 2"), "{message}");
    }

    #[test]
    fn another_objective_on_the_command_line_replaces_the_recipes() {
        let r = resolver("[objective.one]\nbeta = 0.1\n", &["objective.two.tau=0.2"]);
        assert_eq!(r.names_below("objective"), ["two"]);
    }
}
