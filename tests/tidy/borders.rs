//! "X cannot see Y": what each crate may depend on, as `cargo metadata` tells it.

use crate::{assert_none, root};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Crates of this workspace and outside crates that a crate must not see, through another crate neither.
const UNSEEN: &[(&str, &[&str])] = &[
    (
        "votive-tensor",
        &["votive-objective", "votive-model", "votive-diffusion", "votive-data", "votive-train"],
    ),
    (
        "votive-objective",
        &["votive-model", "votive-diffusion", "votive-data", "votive-train", "safetensors", "image"],
    ),
    ("votive-model", &["votive-objective", "votive-data", "votive-train", "votive-playground"]),
    ("votive-diffusion", &["votive-objective", "votive-model", "votive-data", "votive-train"]),
    (
        "votive-data",
        &["votive-objective", "votive-model", "votive-diffusion", "votive-train", "votive-playground"],
    ),
    (
        "votive-playground",
        &["votive-objective", "votive-model", "votive-diffusion", "votive-data", "votive-train"],
    ),
    ("votive-train", &["votive-eval", "votive-gallery", "votive-playground", "clap", "indicatif"]),
    (
        "votive-critic",
        &[
            "candle-core",
            "votive-objective",
            "votive-model",
            "votive-data",
            "votive-train",
            "votive-playground",
        ],
    ),
    ("votive-eval", &["votive-objective", "votive-train"]),
    (
        "votive-testkit",
        &["candle-core", "votive-objective", "votive-model", "votive-data", "votive-train", "votive-tensor"],
    ),
    ("votive-gallery", &["candle-core", "candle-nn", "candle-transformers", "votive-tensor", "votive-train"]),
];

/// All that an objective is made of.
const OBJECTIVE: &[&str] = &["candle-core", "serde", "serde_json", "thiserror", "votive-tensor"];

/// A package of the workspace, as far as the borders go.
struct Package {
    /// What it is built on; what only its tests or a feature ask for is left out.
    normal: BTreeSet<String>,
    /// Its features, and what each turns on.
    features: BTreeMap<String, Vec<String>>,
}

fn packages() -> BTreeMap<String, Package> {
    // Without --no-deps, cargo would ask for the sources of other platforms' packages too.
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let package = |package: &Value| {
        let is_normal = |dependency: &&Value| dependency["kind"].is_null() && dependency["optional"] == false;
        let normal = package["dependencies"].as_array().unwrap().iter().filter(is_normal).map(name).collect();
        let features = serde_json::from_value(package["features"].clone()).unwrap();
        (name(package), Package { normal, features })
    };
    metadata["packages"].as_array().unwrap().iter().map(package).collect()
}

/// What `name` is built on, directly or through crates of the workspace.
fn seen_by(name: &str, packages: &BTreeMap<String, Package>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![name.to_owned()];
    while let Some(package) = open.pop().and_then(|name| packages.get(&name)) {
        open.extend(package.normal.difference(&seen).cloned());
        seen.extend(package.normal.iter().cloned());
    }
    seen
}

#[test]
fn no_crate_sees_across_a_border() {
    let packages = packages();
    // Data sees candle through the tensor crate alone; if that is not noticed, nothing below means anything.
    assert!(seen_by("votive-data", &packages).contains("candle-core"));
    let mut found = Vec::new();
    for (name, unseen) in UNSEEN {
        assert!(packages.contains_key(*name), "{name} is gone; take its borders out");
        let seen = seen_by(name, &packages);
        found.extend(
            unseen.iter().filter(|other| seen.contains(**other)).map(|other| format!("{name} sees {other}")),
        );
    }
    let drawn: BTreeSet<&str> = UNSEEN.iter().map(|(name, _)| *name).collect();
    let all = packages.keys().map(String::as_str).filter(|name| *name != "votive");
    found.extend(all.filter(|name| !drawn.contains(name)).map(|name| format!("{name} has no borders")));
    assert_none("crossed borders", &found);
}

#[test]
fn nothing_but_tests_is_built_on_the_testkit() {
    let packages = packages();
    let is_built_on = |(_, package): &(&String, &Package)| package.normal.contains("votive-testkit");
    let found: Vec<String> = packages.iter().filter(is_built_on).map(|(name, _)| name.clone()).collect();
    assert_none("built on votive-testkit", &found);
}

#[test]
fn an_objective_is_made_of_tensors_and_nothing_else() {
    let allowed: BTreeSet<String> = OBJECTIVE.iter().map(|name| (*name).to_owned()).collect();
    let found: Vec<String> = packages()["votive-objective"].normal.difference(&allowed).cloned().collect();
    assert_none("votive-objective depends on", &found);
}

#[test]
fn only_the_tensor_crate_is_built_on_candle_nn_and_none_on_its_models() {
    let mut found = Vec::new();
    for (name, package) in packages() {
        let banned = ["candle-nn", "candle-transformers"];
        let uses = banned.into_iter().filter(|other| package.normal.contains(*other));
        let uses = uses.filter(|other| (name.as_str(), *other) != ("votive-tensor", "candle-nn"));
        found.extend(uses.map(|other| format!("{name} depends on {other}")));
    }
    assert_none("whose gradients are not checked here", &found);
}

#[test]
fn devices_are_features_from_the_root_down() {
    let packages = packages();
    let mut found = Vec::new();
    for (name, package) in &packages {
        if !package.normal.contains("candle-core") {
            continue;
        }
        for device in ["cuda", "metal"] {
            match package.features.get(device) {
                None => found.push(format!("{name} has no feature {device}")),
                Some(_) if packages["votive"].features[device].contains(&format!("{name}/{device}")) => {}
                Some(_) if name == "votive" => {}
                Some(_) => {
                    found.push(format!("the root's feature {device} does not turn on {name}/{device}"))
                }
            }
        }
    }
    assert_none("features", &found);
}
