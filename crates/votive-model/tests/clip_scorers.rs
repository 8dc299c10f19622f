//! Weights under open_clip's names and LAION's aesthetic head against torch, on `tests/fixtures/clip_scorers`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{DType, Device, Tensor, Var};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use votive_model::clip::{AestheticHead, ClipModel};
use votive_model::files;
use votive_tensor::gradcheck::{gradient_error, sample_tensor};

const CPU: Device = Device::Cpu;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/clip_scorers").join(name)
}

fn numbers(place: &str) -> Vec<Vec<f64>> {
    let text = std::fs::read_to_string(fixture("expected.json")).unwrap();
    let made: Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(made.pointer(place).unwrap().clone()).unwrap()
}

fn tensor(rows: &[Vec<f64>]) -> Tensor {
    let (n, width) = (rows.len(), rows[0].len());
    Tensor::from_vec(rows.concat(), (n, width), &CPU).unwrap()
}

#[track_caller]
fn assert_near(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < tolerance, "{found} for {expected}");
    }
}

/// The folder `hps` with other weights.
fn with_weights(change: impl Fn(&mut BTreeMap<String, Tensor>)) -> Result<ClipModel, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("hps/config.json"), folder.path().join("config.json")).unwrap();
    let mut tensors = files::read(&fixture("hps/model.safetensors"), &CPU).unwrap().tensors;
    change(&mut tensors);
    write(&folder.path().join("model.safetensors"), tensors);
    ClipModel::load(folder.path(), &CPU).map_err(|error| error.to_string())
}

fn write(path: &Path, tensors: BTreeMap<String, Tensor>) {
    files::write(path, tensors, DType::F32, BTreeMap::new()).unwrap();
}

#[test]
fn open_clip_s_names_are_read_and_mistakes_in_them_named() {
    assert!((with_weights(|_| ()).unwrap().scale().unwrap() - 100.0).abs() < 1e-3);
    let layer = "visual.transformer.resblocks.0";
    let message = with_weights(|tensors| {
        let cut = tensors[&format!("{layer}.attn.in_proj_weight")].narrow(0, 0, 71).unwrap();
        tensors.insert(format!("{layer}.attn.in_proj_weight"), cut);
    });
    let message = message.unwrap_err();
    assert!(message.contains(layer) && message.contains("71"), "{message}");
    let message = with_weights(|tensors| {
        let moved = tensors.remove("transformer.resblocks.1.mlp.c_fc.bias").unwrap();
        tensors.insert("transformer.resblocks.1.mlp.c_fcc.bias".to_owned(), moved);
    });
    let message = message.unwrap_err();
    for named in ["text_model.encoder.layers.1.mlp.fc1.bias", "transformer.resblocks.1.mlp.c_fcc.bias"] {
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn points_are_those_of_the_maps_one_after_another() {
    let head = AestheticHead::read(&fixture("aesthetic.safetensors"), &CPU).unwrap();
    let embeds = tensor(&numbers("/aesthetic/embeds"));
    assert_eq!(head.width(), embeds.dim(1).unwrap());
    let text = std::fs::read_to_string(fixture("expected.json")).unwrap();
    let made: Value = serde_json::from_str(&text).unwrap();
    let expected: Vec<f64> = serde_json::from_value(made["aesthetic"]["points"].clone()).unwrap();
    let embeds = Var::from_tensor(&embeds).unwrap();
    let points = head.points(&embeds).unwrap();
    assert_near(&points.to_vec1().unwrap(), &expected, 2e-6);
    let gradients = points.sum_all().unwrap().backward().unwrap();
    let found = gradients.get(&embeds).unwrap().to_vec2::<f64>().unwrap().concat();
    assert_near(&found, &numbers("/aesthetic/gradient").concat(), 2e-6);
    // The length of an embedding says nothing.
    let longer = head.points(&(embeds.as_tensor() * 7.0).unwrap()).unwrap();
    assert_near(&longer.to_vec1().unwrap(), &expected, 2e-6);
    let embeds = sample_tensor(&[3, head.width()], 5).unwrap();
    let points = |inputs: &[Tensor]| head.points(&inputs[0]).map_err(candle_core::Error::wrap);
    let error = gradient_error(&[embeds], points).unwrap();
    assert!(error < 1e-6, "{error}");
}

#[test]
fn heads_of_another_kind_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aesthetic.safetensors");
    let refuse = |change: &dyn Fn(&mut BTreeMap<String, Tensor>), named: &[&str]| {
        let mut tensors = files::read(&fixture("aesthetic.safetensors"), &CPU).unwrap().tensors;
        change(&mut tensors);
        write(&path, tensors);
        let message = AestheticHead::read(&path, &CPU).unwrap_err().to_string();
        for named in [&["aesthetic.safetensors"], named].concat() {
            assert!(message.contains(named), "{message}");
        }
    };
    // Activations between the maps push the later ones to other places.
    let moved = |tensors: &mut BTreeMap<String, Tensor>| {
        for kind in ["weight", "bias"] {
            let map = tensors.remove(&format!("layers.2.{kind}")).unwrap();
            tensors.insert(format!("layers.3.{kind}"), map);
        }
    };
    refuse(&moved, &["missing layers.2.weight", "unexpected layers.3.bias", "activations"]);
    let cut = |tensors: &mut BTreeMap<String, Tensor>| {
        let cut = tensors["layers.4.weight"].narrow(0, 0, 5).unwrap();
        tensors.insert("layers.4.weight".to_owned(), cut);
    };
    refuse(&cut, &["layers.4", "expected 8 rows"]);
    refuse(&|tensors| tensors.retain(|name, _| !name.ends_with("bias")), &["missing layers.7.bias"]);
}
