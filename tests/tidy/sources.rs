//! How source files are kept.

use crate::{assert_none, files_below, read, relative, root};
use std::path::{Path, PathBuf};
use votive_objective::METHODS;

/// Lines that a Rust file may have, tests included.
const MOST_LINES: usize = 600;

/// Names that say nothing about what a module holds.
const EMPTY_NAMES: &[&str] = &["common", "helper", "helpers", "misc", "util", "utils"];

/// What only the program may do, as it is written in source.
const PROGRAM_ONLY: &[&str] =
    &["print!(", "println!(", "dbg!(", "io::stdout", "io::stderr", "std::env", "env::var"];

/// What would tie an objective to a file, a random number or a device.
const NOT_IN_AN_OBJECTIVE: &[&str] = &["random", "Device", "std::fs", "std::path"];

/// Paths of one machine and numbers of one list, which mean nothing to a reader elsewhere.
const FOREIGN: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("help", "er-"),
    concat!("this ses", "sion"),
    concat!("issue", " #"),
];

/// The folders of the crates below `crates/`.
fn crates() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("crates")).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

/// The sources of the library crates.
fn library_sources() -> Vec<PathBuf> {
    crates().iter().flat_map(|folder| files_below(&folder.join("src"), &[".rs"])).collect()
}

/// Every Rust file of the workspace.
fn rust_files() -> Vec<PathBuf> {
    ["src", "crates", "tests", "benches", "examples"]
        .iter()
        .flat_map(|folder| files_below(&root().join(folder), &[".rs"]))
        .collect()
}

/// Code lines with their numbers: no comments, and no unit tests, which stand last in a file.
fn code(path: &Path) -> Vec<(usize, String)> {
    if path.file_stem().is_some_and(|name| name == "tests") {
        return Vec::new();
    }
    let text = read(path);
    let lines = text.lines().map(str::trim).enumerate().take_while(|(_, line)| *line != "#[cfg(test)]");
    lines
        .filter(|(_, line)| !line.starts_with("//"))
        .map(|(index, line)| (index + 1, line.to_owned()))
        .collect()
}

/// Places in the code of `files` that hold one of `patterns`.
fn places(files: &[PathBuf], patterns: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in files {
        for (number, line) in code(path) {
            if patterns.iter().any(|pattern| line.contains(pattern)) {
                found.push(format!("{}:{number}: {line}", relative(path)));
            }
        }
    }
    found
}

#[test]
fn only_the_program_prints_or_reads_the_environment() {
    assert_none("in library code", &places(&library_sources(), PROGRAM_ONLY));
}

#[test]
fn an_objective_knows_no_file_random_number_or_device() {
    let sources = files_below(&root().join("crates/votive-objective/src"), &[".rs"]);
    assert_none("in votive-objective", &places(&sources, NOT_IN_AN_OBJECTIVE));
}

#[test]
fn only_the_tensor_crate_calls_candle_nn() {
    let is_outside = |path: &PathBuf| !path.starts_with(root().join("crates/votive-tensor"));
    let sources: Vec<PathBuf> = library_sources().into_iter().filter(is_outside).collect();
    assert_none("in library code", &places(&sources, &["candle_nn::", "candle_transformers::"]));
}

#[test]
fn only_the_objective_crate_names_a_method() {
    let mut found = Vec::new();
    for path in
        library_sources().iter().filter(|path| !path.starts_with(root().join("crates/votive-objective")))
    {
        for (number, line) in code(path) {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            if let Some(word) = words.find(|word| METHODS.iter().any(|spec| spec.id == *word)) {
                found.push(format!("{}:{number}: {word}", relative(path)));
            }
        }
    }
    assert_none("methods by name", &found);
}

/// A method's fixtures, laws, recipe and documentation are asked for where they are; its arithmetic is in its file.
#[test]
fn every_method_is_computed_by_hand() {
    let sources = library_sources().into_iter().map(|path| (read(&path), relative(&path)));
    let methods: Vec<_> = sources.filter(|(text, _)| text.contains("pub static SPEC: MethodSpec")).collect();
    assert_eq!(methods.len(), METHODS.len(), "one method, one file");
    let without = methods.iter().filter(|(text, _)| !text.contains("#[test]\n    fn hand_arithmetic()"));
    assert_none("no arithmetic by hand in", &without.map(|(_, path)| path.clone()).collect::<Vec<_>>());
}

/// A method reads like its paper: half of the files have fewer lines than this without their tests.
#[test]
fn files_of_methods_are_short() {
    let sources = library_sources().into_iter().map(|path| read(&path));
    let methods = sources.filter(|text| text.contains("pub static SPEC: MethodSpec"));
    let lines =
        |text: String| text.split("#[cfg(test)]").next().map_or(0, |code| code.trim_end().lines().count());
    let mut lengths: Vec<usize> = methods.map(lines).collect();
    lengths.sort_unstable();
    assert!(lengths[lengths.len() / 2] < 120, "{lengths:?}");
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let without = |folder: &PathBuf| !read(&folder.join("Cargo.toml")).contains("[lints]\nworkspace = true");
    let folders = crates().into_iter().chain([root().to_path_buf()]);
    assert_none(
        "without lints",
        &folders.filter(without).map(|folder| relative(&folder)).collect::<Vec<_>>(),
    );
}

#[test]
fn every_crate_states_its_invariant() {
    let without = |folder: &PathBuf| {
        let text = read(&folder.join("src/lib.rs"));
        !text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .any(|line| line.starts_with("//! Invariant: "))
    };
    let folders = crates().into_iter().chain([root().to_path_buf()]);
    let found: Vec<String> =
        folders.filter(without).map(|folder| relative(&folder.join("src/lib.rs"))).collect();
    assert_none("no `Invariant:` in the header of", &found);
}

#[test]
fn every_file_says_what_it_holds() {
    let is_test_module = |path: &Path| path.file_stem().is_some_and(|name| name == "tests");
    let without = |path: &PathBuf| !is_test_module(path) && !read(path).starts_with("//! ");
    let sources = library_sources().into_iter().chain(files_below(&root().join("src"), &[".rs"]));
    assert_none("no header in", &sources.filter(without).map(|path| relative(&path)).collect::<Vec<_>>());
}

#[test]
fn names_say_what_a_module_holds() {
    let is_empty = |path: &PathBuf| {
        path.iter().any(|part| {
            let part = part.to_string_lossy();
            EMPTY_NAMES.contains(&part.trim_end_matches(".rs"))
        })
    };
    let files = rust_files().into_iter().map(|path| PathBuf::from(relative(&path)));
    assert_none(
        "empty names",
        &files.filter(is_empty).map(|path| path.display().to_string()).collect::<Vec<_>>(),
    );
}

#[test]
fn files_are_short() {
    let lengths = rust_files().into_iter().map(|path| (read(&path).lines().count(), relative(&path)));
    let long = lengths.filter(|(lines, _)| *lines > MOST_LINES);
    assert_none("too long", &long.map(|(lines, path)| format!("{path}: {lines} lines")).collect::<Vec<_>>());
}

#[test]
fn texts_can_be_read_anywhere() {
    let endings = [".rs", ".toml", ".md", ".sh", ".py", ".html", ".css", ".js", "/run"];
    let folders = [".ci", "benches", "crates", "docs", "examples", "models", "src", "tests", "tools"];
    let mut files: Vec<PathBuf> =
        folders.iter().flat_map(|folder| files_below(&root().join(folder), &endings)).collect();
    let top = std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    files
        .extend(top.filter(|path| path.extension().is_some_and(|ending| ending == "md" || ending == "toml")));
    let mut found = Vec::new();
    for path in &files {
        for (index, line) in read(path).lines().enumerate() {
            if let Some(word) = FOREIGN.iter().find(|word| line.contains(**word)) {
                found.push(format!("{}:{}: {word}", relative(path), index + 1));
            }
        }
    }
    assert_none("means nothing elsewhere", &found);
}
