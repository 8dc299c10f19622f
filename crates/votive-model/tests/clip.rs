//! CLIP with both towers against transformers and Pillow, on `tests/fixtures/clip`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use candle_core::{DType, Device, Tensor, Var};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use votive_model::clip::{ClipConfig, ClipImageProcessor, ClipModel, cosines};
use votive_model::config::ConfigFile;
use votive_model::files;
use votive_tensor::gradcheck::{gradient_error, sample_tensor};

const CPU: Device = Device::Cpu;
const MODELS: [&str; 2] = ["quick", "gelu"];
/// transformers' own f32 is within 1e-6 of its f64.
const PARITY: f64 = 2e-5;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/clip").join(name)
}

fn expected(name: &str, file: &str) -> BTreeMap<String, Tensor> {
    files::read(&fixture(name).join("expected").join(format!("{file}.safetensors")), &CPU).unwrap().tensors
}

/// Largest difference, relative to the largest value.
#[track_caller]
fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.dims(), expected.dims());
    let double = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
    let largest =
        |t: &Tensor| t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f64>().unwrap();
    let (found, expected) = (double(found), double(expected));
    let error = largest(&(&found - &expected).unwrap()) / largest(&expected);
    assert!(error < tolerance, "off by {error}");
}

#[test]
fn pixels_are_those_of_transformers_image_processor() {
    for name in MODELS {
        let processor = ClipImageProcessor::read(&fixture(name)).unwrap();
        let tensors = expected(name, "images");
        let images = tensors.keys().filter(|key| key.starts_with("image.")).count();
        assert_eq!(images, 5);
        for i in 0..images {
            let image = &tensors[&format!("image.{i}")];
            let (height, width, _) = image.dims3().unwrap();
            let bytes = image.to_dtype(DType::U8).unwrap().flatten_all().unwrap().to_vec1::<u8>().unwrap();
            let found = processor.pixels(&bytes, (width, height)).unwrap();
            let pixels = &tensors[&format!("pixels.{i}")];
            let found = Tensor::from_vec(found, pixels.shape(), &CPU).unwrap();
            // Far below what one byte is worth: every byte is Pillow's.
            assert_close(&found, pixels, 2e-7);
        }
    }
}

#[test]
fn embeddings_and_logits_are_those_of_transformers() {
    for name in MODELS {
        let model = ClipModel::load(&fixture(name), &CPU).unwrap();
        let tensors = expected(name, "embeds");
        let ids = tensors["input_ids"].to_dtype(DType::U32).unwrap();
        let images = expected(name, "images");
        let pixels: Vec<&Tensor> = (0..5).map(|i| &images[&format!("pixels.{i}")]).collect();
        let image = model.image_embeds(&Tensor::stack(&pixels, 0).unwrap()).unwrap();
        let text = model.text_embeds(&ids).unwrap();
        assert_close(&image, &tensors["image_embeds"], PARITY);
        assert_close(&text, &tensors["text_embeds"], PARITY);
        let n = ids.dim(0).unwrap();
        let column = |j: usize| {
            let text = text.narrow(0, j, 1).unwrap().broadcast_as(image.shape()).unwrap();
            (cosines(&image, &text).unwrap() * model.scale().unwrap()).unwrap()
        };
        let logits = Tensor::stack(&(0..n).map(column).collect::<Vec<_>>(), 1).unwrap();
        assert_close(&logits, &tensors["logits_per_image"], PARITY);
    }
}

#[test]
fn the_score_of_a_drawn_image_has_torch_s_gradient_by_its_pixels() {
    for name in MODELS {
        let (model, processor) = (
            ClipModel::load(&fixture(name), &CPU).unwrap(),
            ClipImageProcessor::read(&fixture(name)).unwrap(),
        );
        let tensors = expected(name, "gradient");
        let ids =
            expected(name, "embeds")["input_ids"].narrow(0, 0, 2).unwrap().to_dtype(DType::U32).unwrap();
        let images = Var::from_tensor(&tensors["images"].to_dtype(DType::F32).unwrap()).unwrap();
        let pixels = processor.drawn(&images).unwrap();
        assert_close(&pixels, &tensors["pixels"], PARITY);
        let scores =
            cosines(&model.image_embeds(&pixels).unwrap(), &model.text_embeds(&ids).unwrap()).unwrap();
        assert_close(&scores, &tensors["cosines"], PARITY);
        let file = fixture(name).join("expected/expected.json");
        let made: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let weights: Vec<f32> = serde_json::from_value(made["weights"].clone()).unwrap();
        let sum = (scores * Tensor::new(weights, &CPU).unwrap()).unwrap().sum_all().unwrap();
        let gradients = sum.backward().unwrap();
        assert_close(gradients.get(&images).unwrap(), &tensors["gradient"], 1e-4);
    }
}

#[test]
fn the_gradient_by_the_pixels_is_the_slope() {
    let folder = fixture("gelu");
    let config = ClipConfig::from_file(&ConfigFile::read(&folder.join("config.json")).unwrap()).unwrap();
    let tensors = files::read_folder(&folder, "model", &CPU).unwrap();
    let double = tensors.into_iter().map(|(n, t)| (n, t.to_dtype(DType::F64).unwrap())).collect();
    let params = votive_model::Params::new("double", double, &CPU);
    let model = params.build(|scope| ClipModel::new(scope, &config)).unwrap();
    let processor = ClipImageProcessor::read(&folder).unwrap();
    // Larger than the encoder's 28 pixels on one side and smaller on the other.
    let images = ((sample_tensor(&[1, 3, 12, 18], 3).unwrap() * 0.1).unwrap() + 0.5).unwrap();
    let embeds = |inputs: &[Tensor]| {
        let drawn = processor.drawn(&inputs[0]).map_err(candle_core::Error::wrap)?;
        model.image_embeds(&drawn).map_err(candle_core::Error::wrap)
    };
    let error = gradient_error(&[images], embeds).unwrap();
    assert!(error < 1e-6, "{error}");
}

fn config_with(change: impl Fn(&mut Value)) -> Result<ClipConfig, String> {
    let text = std::fs::read_to_string(fixture("gelu").join("config.json")).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    change(&mut value);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, value.to_string()).unwrap();
    ClipConfig::from_file(&ConfigFile::read(&path).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn absent_fields_have_transformers_defaults() {
    let config = config_with(|value| *value = json!({"model_type": "clip"})).unwrap();
    // openai/clip-vit-base-patch32.
    assert_eq!((config.text.hidden_size, config.text.num_attention_heads), (512, 8));
    assert_eq!((config.text.projection_dim, config.text.eos_token_id), (512, 49407));
    assert_eq!((config.vision.hidden_size, config.vision.patch_size, config.vision.patches()), (768, 32, 49));
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let refuse = |place: &str, found: Value, named: &str| {
        let change = |value: &mut Value| *value.pointer_mut(place).unwrap() = found.clone();
        let message = config_with(change).unwrap_err();
        assert!(message.contains(named) && message.contains("config.json"), "{message}");
    };
    refuse("/model_type", json!("siglip"), "`model_type` = \"siglip\"");
    refuse("/vision_config/num_channels", json!(1), "`vision_config.num_channels` = 1");
    refuse("/vision_config/hidden_act", json!("relu"), "`vision_config.hidden_act` = \"relu\"");
    refuse("/vision_config/patch_size", json!(29), "`vision_config.patch_size` = 29");
    refuse("/vision_config/hidden_size", json!("wide"), "field `vision_config.hidden_size`: expected");
    refuse("/text_config/num_attention_heads", json!(5), "`text_config.num_attention_heads` = 5");
    refuse("/text_config/eos_token_id", json!([1, 2]), "`text_config.eos_token_id`");
}

fn processor_with(folder: &Path, change: Value) -> Result<ClipImageProcessor, String> {
    let text = std::fs::read_to_string(fixture("quick").join("preprocessor_config.json")).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    for (name, field) in change.as_object().unwrap() {
        value[name] = field.clone();
    }
    std::fs::write(folder.join("preprocessor_config.json"), value.to_string()).unwrap();
    ClipImageProcessor::read(folder).map_err(|error| error.to_string())
}

#[test]
fn image_processors_of_all_versions_are_read_and_others_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let read = |change: Value| processor_with(folder.path(), change);
    let now = read(json!({})).unwrap();
    // transformers 4.20 and before wrote bare numbers.
    assert_eq!(read(json!({"size": 32, "crop_size": 32})).unwrap(), now);
    assert_eq!(now.output_size(), Some((32, 32)));
    let square = read(json!({"size": {"height": 20, "width": 24}, "do_center_crop": false})).unwrap();
    assert_eq!(square.output_size(), Some((24, 20)));
    for (change, named) in [
        (json!({"resample": 0}), "`resample` = 0"),
        (json!({"do_resize": false}), "`do_resize` = false"),
        (json!({"do_normalize": false}), "`do_normalize` = false"),
        (json!({"size": {"longest_edge": 40}}), "`size`"),
        (json!({"size": {"shortest_edge": 31}}), "`crop_size`"),
        (json!({"image_std": [0.5, 0.0, 0.5]}), "`image_std`"),
        (json!({"image_mean": [0.5]}), "`image_mean`"),
    ] {
        let message = read(change).unwrap_err();
        assert!(message.contains(named) && message.contains("preprocessor_config.json"), "{message}");
    }
    let nothing = tempfile::tempdir().unwrap();
    let message = ClipImageProcessor::read(nothing.path()).unwrap_err().to_string();
    assert!(
        message.contains("preprocessor_config.json") && message.contains("processor_config.json"),
        "{message}"
    );
}

#[test]
fn every_parameter_of_both_towers_gets_a_gradient() {
    let folder = fixture("gelu");
    let config = ClipConfig::from_file(&ConfigFile::read(&folder.join("config.json")).unwrap()).unwrap();
    let tensors = files::read_folder(&folder, "model", &CPU).unwrap();
    let params = votive_model::Params::new("trainable", tensors, &CPU).into_trainable().unwrap();
    let model = params.build(|scope| ClipModel::new(scope, &config)).unwrap();
    let ids = expected("gelu", "embeds")["input_ids"].narrow(0, 0, 2).unwrap().to_dtype(DType::U32).unwrap();
    let pixels = expected("gelu", "gradient")["pixels"].to_dtype(DType::F32).unwrap();
    let scores = cosines(&model.image_embeds(&pixels).unwrap(), &model.text_embeds(&ids).unwrap()).unwrap();
    let gradients = scores.sum_all().unwrap().backward().unwrap();
    for (name, tensor) in params.trainable() {
        // A cosine has no scale, and what is added to every key cancels.
        if name == "logit_scale" || name.ends_with("k_proj.bias") {
            continue;
        }
        let gradient = gradients.get_id(tensor.id()).unwrap_or_else(|| panic!("{name} has no gradient"));
        let size = gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(size.is_finite() && size > 0.0, "{name}: {size}");
    }
}
