//! The JSON schema of recipes, from which editors complete and check them.
//!
//! It is made of the same questions that resolve a recipe, and of the tables of methods and wrappers. What depends on
//! several keys, or on files, only `Plan::read` can say.

use crate::error::Result;
use crate::plan::{Modality, describe};
use crate::recipe::Setting;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use votive_objective::{METHODS, MethodSpec, OptionDoc, WITH, WRAPPERS, build};

/// Below this name the keys stand that every objective has.
const ANY_OBJECTIVE: &str = "objective.<id>.";

/// The schema of a recipe for `votive train`, JSON Schema draft 7.
///
/// # Errors
/// None that a caller could cause.
pub fn recipe_schema() -> Result<Value> {
    let mut keys: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for modality in [Modality::Text, Modality::Image] {
        for setting in describe(modality)? {
            let schemas = keys.entry(setting.key.clone()).or_default();
            let schema = of_setting(&setting);
            if !schemas.contains(&schema) {
                schemas.push(schema);
            }
        }
    }
    let mut root = table("A recipe of `votive train`.");
    let mut of_any_objective = Map::new();
    for (key, schemas) in keys {
        let schema = one_of(schemas);
        match key.strip_prefix(ANY_OBJECTIVE) {
            Some(name) => of_any_objective.extend([(name.to_owned(), schema)]),
            None => insert(&mut root, &key, schema),
        }
    }
    let mut objectives = table("What is minimised: one table for each term of the sum.");
    for spec in METHODS {
        objectives["properties"][spec.id] = of_method(spec, &of_any_objective);
    }
    root["properties"]["objective"] = objectives;
    root["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    root["title"] = "Votive recipe".into();
    Ok(root)
}

/// A table that has no other keys than those that are put into it.
fn table(description: &str) -> Value {
    json!({"type": "object", "description": description, "properties": {}, "additionalProperties": false})
}

/// Puts a schema at a dotted key.
fn insert(table_at: &mut Value, key: &str, schema: Value) {
    match key.split_once('.') {
        None => table_at["properties"][key] = schema,
        Some((name, rest)) => {
            let inner = &mut table_at["properties"][name];
            if inner.is_null() {
                *inner = table("");
            }
            insert(inner, rest, schema);
        }
    }
}

/// What either kind of model takes.
fn one_of(mut schemas: Vec<Value>) -> Value {
    match schemas.len() {
        1 => schemas.remove(0),
        _ => json!({"anyOf": schemas}),
    }
}

fn of_setting(setting: &Setting) -> Value {
    let mut schema = of_kind(&setting.kind).unwrap_or_else(|| json!({}));
    schema["description"] = setting.doc.into();
    schema
}

/// The schema of what the resolver calls a kind of value; none if it calls it something new.
fn of_kind(kind: &str) -> Option<Value> {
    let parts: Vec<&str> = kind.split(" | ").flat_map(|part| part.split(", or ")).collect();
    let parts: Vec<&str> = parts.into_iter().flat_map(|part| part.split(" or a list")).collect();
    let words: Vec<&str> =
        parts.iter().filter_map(|part| part.strip_prefix('"')?.strip_suffix('"')).collect();
    let others = parts.iter().filter(|part| !part.starts_with('"')).map(|part| of_one_kind(part));
    let mut schemas: Vec<Value> = others.collect::<Option<_>>()?;
    if !words.is_empty() {
        schemas.insert(0, json!({"enum": words}));
    }
    Some(one_of(schemas))
}

fn of_one_kind(kind: &str) -> Option<Value> {
    let least = |kind: &str| kind.split("≥ ").nth(1)?.parse::<f64>().ok();
    Some(match kind {
        "a string" => json!({"type": "string"}),
        "true or false" => json!({"type": "boolean"}),
        // What is left of "a string or a list of strings".
        "a list of strings" | " of strings" => json!({"type": "array", "items": {"type": "string"}}),
        "two numbers in [0, 1)" => {
            let number = json!({"type": "number", "minimum": 0, "exclusiveMaximum": 1});
            json!({"type": "array", "items": number, "minItems": 2, "maxItems": 2})
        }
        "a number" => json!({"type": "number"}),
        _ if kind.starts_with("a number ≥ ") => json!({"type": "number", "minimum": least(kind)?}),
        _ if kind.starts_with("a whole number ≥ ") => json!({"type": "integer", "minimum": least(kind)?}),
        _ if kind.starts_with("a list of whole numbers ≥ ") => {
            json!({"type": "array", "items": {"type": "integer", "minimum": least(kind)?}})
        }
        _ if kind.starts_with("a table of ") || kind.starts_with('{') => json!({"type": "object"}),
        _ => return None,
    })
}

/// An objective's table: its options, what every objective has, and the wrappers that go around it.
fn of_method(spec: &MethodSpec, of_any_objective: &Map<String, Value>) -> Value {
    let header = spec.header();
    let mut schema = table(&format!("{} Minimises {}", header.summary, header.loss));
    let properties = &mut schema["properties"];
    let refusal = |options| (spec.build)(options).err().map(|error| error.to_string());
    for option in spec.options {
        properties[option.name] = of_option(option, &(spec.defaults)(), &refusal);
    }
    for (name, schema) in of_any_objective {
        properties[name.as_str()] = schema.clone();
    }
    properties["reduction"]["default"] = spec.reduction.name().into();
    let mut with = table("Wrappers around the objective.");
    for wrapper in WRAPPERS {
        let wrapped = |options: Value| {
            let mut all = (spec.defaults)();
            all[WITH] = json!({ wrapper.name: options });
            build(spec, all).err().map(|error| error.to_string())
        };
        let defaults = (wrapper.defaults)();
        if wrapped(defaults.clone()).is_some() {
            continue;
        }
        let header = wrapper.header();
        let mut schema = table(&format!("{} {}", header.summary, header.loss));
        for option in wrapper.options {
            schema["properties"][option.name] = of_option(option, &defaults, &wrapped);
        }
        with["properties"][wrapper.name] = schema;
    }
    if with["properties"].as_object().is_some_and(|wrappers| !wrappers.is_empty()) {
        schema["properties"][WITH] = with;
    }
    schema
}

/// An option: a number in the range that its documentation begins with, or one of the words that its owner takes.
fn of_option(option: &OptionDoc, defaults: &Value, refusal: &dyn Fn(Value) -> Option<String>) -> Value {
    let default = &defaults[option.name];
    let mut schema = match default {
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::String(_) => {
            let mut options = defaults.clone();
            options[option.name] = "?".into();
            json!({"enum": words(&refusal(options).unwrap_or_default())})
        }
        _ => json!({"type": "number"}),
    };
    if let (true, Some(range)) = (default.is_number(), option.range()) {
        for (bound, [allowed, excluded]) in
            [(range.low, ["minimum", "exclusiveMinimum"]), (range.high, ["maximum", "exclusiveMaximum"])]
        {
            if let Some((bound, is_allowed)) = bound {
                schema[if is_allowed { allowed } else { excluded }] = bound.into();
            }
        }
    }
    schema["description"] = option.doc.into();
    schema["default"] = default.clone();
    schema
}

/// The words in backticks that a refusal of another word names as expected.
fn words(refusal: &str) -> Vec<&str> {
    let expected = refusal.split_once("expected ").map_or("", |(_, expected)| expected);
    expected.split('`').skip(1).step_by(2).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_known() {
        for modality in [Modality::Text, Modality::Image] {
            for setting in describe(modality).unwrap() {
                assert!(of_kind(&setting.kind).is_some(), "{}: {}", setting.key, setting.kind);
            }
        }
    }

    #[test]
    fn objectives_have_their_options_with_ranges_and_the_wrappers_that_go_around_them() {
        let schema = recipe_schema().unwrap();
        let objective = |id: &str| schema["properties"]["objective"]["properties"][id]["properties"].clone();
        let dpo = objective("dpo");
        assert_eq!(dpo["beta"]["exclusiveMinimum"], 0.0);
        assert_eq!((&dpo["beta"]["default"], &dpo["reduction"]["default"]), (&json!(0.1), &json!("mean")));
        let with = dpo[WITH]["properties"].as_object().unwrap();
        assert_eq!(with["f_divergence"]["properties"]["kind"]["enum"], json!(["forward_kl", "js", "alpha"]));
        assert_eq!(with["margin_offset"]["properties"]["of"]["enum"], json!(["margin", "log"]));
        assert!(objective("robust")[WITH]["properties"]["label_smoothing"].is_null());
        assert!(objective("sft")[WITH].is_null());
        assert_eq!(objective("odpo")["of"]["enum"], json!(["margin", "log"]));
        assert_eq!(schema["properties"]["train"]["properties"]["steps"]["minimum"], 1.0);
    }
}
