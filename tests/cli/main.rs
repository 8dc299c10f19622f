//! The program from outside: exit codes, messages and results of its commands on the small models of the fixtures.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod bad_input;
mod bench;
mod chat;
mod chat_server;
mod clip_scorers;
mod critic;
mod data;
mod export;
mod gallery;
mod image;
mod image_data;
mod image_eval;
mod methods;
mod plan;
mod polling;
mod program;
mod recipes;
mod references;
mod revise;
mod rewards;
mod serve;
mod sums;
mod text;
mod tokens;
mod tour;
mod watching;

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;
use tempfile::{TempDir, tempdir};
use votive::model::files;

const USAGE: i32 = 2;
const DATA: i32 = 3;
const RESOURCES: i32 = 4;

fn votive<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_votive"));
    command.args(args).stdin(Stdio::null());
    command
}

fn fixture(path: &str) -> String {
    format!("{}/tests/fixtures/{path}", env!("CARGO_MANIFEST_DIR"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs a command that must work, and returns what it writes to stdout.
#[track_caller]
fn ok(args: &[&str]) -> String {
    let output = votive(args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    stdout(&output)
}

/// The JSON objects that a command writes, one a line.
#[track_caller]
fn rows(args: &[&str]) -> Vec<Value> {
    let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    ok(&args).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// The JSON objects of a file, one a line.
fn lines(file: &str) -> Vec<Value> {
    fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Two steps of ReFL's recipe on a CLIP folder's gradient and a file of prompts.
fn two_steps_of_refl(clip: &str, prompts: &str, out: &str, further: &[&str]) {
    let recipe = format!("{}/examples/recipes/image/refl.toml", env!("CARGO_MANIFEST_DIR"));
    let (clip, prompts) = (format!("rollout.clip={clip}"), format!("data.path={prompts}"));
    let short = ["rollout.steps=2", "rollout.first_step=1", "train.steps=2", "train.batch_size=2"];
    let settings = [&*clip, &*prompts, "train.micro_batch_size=2"].into_iter().chain(short);
    let mut args = vec!["train", &*recipe, "--quiet", "--out", out];
    args.extend(settings.chain(further.iter().copied()).flat_map(|setting| ["--set", setting]));
    ok(&args);
}

/// Checks that a command fails with this exit code and says all of these, and writes no result.
#[track_caller]
fn fails(args: &[&str], code: i32, parts: &[&str]) {
    let output = votive(args).output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{args:?}: no {part:?} in: {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(stdout(&output), "", "{args:?}");
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn text(&self, name: &str, text: &str) -> String {
        fs::write(self.0.path().join(name), text).unwrap();
        self.path(name)
    }

    fn tensors<const N: usize>(&self, name: &str, tensors: [(&str, Tensor); N]) -> String {
        let tensors = tensors.map(|(name, tensor)| (name.to_owned(), tensor));
        files::write(&self.0.path().join(name), tensors, DType::F64, BTreeMap::new()).unwrap();
        self.path(name)
    }

    /// A copy of a model folder, to be damaged.
    fn copy(&self, from: &str) -> String {
        copy_folder(Path::new(&fixture(from)), &self.0.path().join("model"));
        self.path("model")
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn tensors(path: &str) -> BTreeMap<String, Tensor> {
    files::read(Path::new(path), &Device::Cpu).unwrap().tensors
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let difference =
        (a.to_dtype(DType::F64).unwrap() - b.to_dtype(DType::F64).unwrap()).unwrap().abs().unwrap();
    difference.flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}
