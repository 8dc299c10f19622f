//! Adapters of image models against PEFT and diffusers (tests/fixtures/lora_image, written by tools/parity/lora_image.py).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use votive_diffusion::Conditioning;
use votive_model::stable_diffusion::{ClipTextModel, Component, StableDiffusionFolder, UNet2DConditionModel};
use votive_model::{Adaptable, Denoiser, Lora, LoraConfig, LoraFormat, Params, PipelineLora, Targets, files};

const CPU: Device = Device::Cpu;
/// f32 sums in another order, of numbers near 1.
const TOLERANCE: f64 = 1e-5;

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path)
}

fn read(path: &str) -> BTreeMap<String, Tensor> {
    files::read(&fixture(&format!("lora_image/{path}")), &CPU).unwrap().tensors
}

fn pipeline() -> StableDiffusionFolder {
    StableDiffusionFolder::open(&fixture("diffusion/sd1")).unwrap()
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let apart = (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    f64::from(apart.to_scalar::<f32>().unwrap())
}

/// What the networks of a pipeline give on a case's inputs.
fn outputs(networks: &BTreeMap<Adaptable, Params>, given: &BTreeMap<String, Tensor>) -> [Tensor; 2] {
    let folder = pipeline();
    let text = networks[&Adaptable::TextEncoder]
        .build(|scope| ClipTextModel::new(scope, folder.text_encoder_configs()[0]))
        .unwrap();
    let embeds = text.forward(&given["ids"].to_dtype(DType::U32).unwrap()).unwrap();
    let unet = &networks[&Adaptable::UNet];
    let unet = unet.build(|scope| UNet2DConditionModel::new(scope, folder.unet_config())).unwrap();
    let times: Vec<f64> = given["timesteps"].to_dtype(DType::F64).unwrap().to_vec1().unwrap();
    let sample =
        unet.predict(&given["latents"], &times, &Conditioning::new(embeds.detach()).unwrap()).unwrap();
    [embeds, sample]
}

fn adapted(adapters: &PipelineLora) -> BTreeMap<Adaptable, Params> {
    let folder = pipeline();
    let of = |network| (network, folder.adapted(network, adapters, &CPU).unwrap());
    folder.adaptable().map(of).collect()
}

fn load(path: &str) -> PipelineLora {
    PipelineLora::load(&fixture(&format!("lora_image/{path}")), &CPU).unwrap()
}

/// Loads tensors as a file of their own.
fn load_tensors(tensors: BTreeMap<String, Tensor>) -> Result<PipelineLora, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("any.safetensors");
    files::write(&file, tensors, DType::F32, BTreeMap::new()).unwrap();
    PipelineLora::load(&file, &CPU).map_err(|error| error.to_string())
}

#[test]
fn adapters_give_what_peft_gives_and_so_do_the_merged_weights() {
    let files = ["conv", "conv/pytorch_lora_weights.safetensors", "conv/kohya.safetensors", "dora"];
    for file in files {
        let given = read(&format!("{}/expected.safetensors", file.split('/').next().unwrap()));
        let networks = adapted(&load(file));
        let bare = adapted(&PipelineLora::default());
        let merged = networks.iter().map(|(network, params)| (*network, params.merged().unwrap())).collect();
        let (found, merged, bare) =
            (outputs(&networks, &given), outputs(&merged, &given), outputs(&bare, &given));
        for (index, name) in ["prompt_embeds", "sample"].into_iter().enumerate() {
            let expected = &given[name];
            assert!(distance(&found[index], expected) < TOLERANCE, "{file} {name}");
            assert!(distance(&merged[index], expected) < TOLERANCE, "{file} {name}, merged");
            let is_adapted = file != "dora" || name == "sample";
            assert_eq!(distance(&bare[index], expected) > 1e-2, is_adapted, "{file} {name}");
        }
    }
}

#[test]
fn gradients_of_convolutions_are_those_of_peft() {
    let given = read("conv/expected.safetensors");
    let mut networks = adapted(&load("conv"));
    let unet = networks.remove(&Adaptable::UNet).unwrap();
    let trainable = unet.lora().unwrap().clone().into_trainable().unwrap();
    networks.insert(Adaptable::UNet, unet.without_adapter().with_lora(trainable).unwrap());
    let [_, sample] = outputs(&networks, &given);
    let grads = (sample * &given["probe"]).unwrap().sum_all().unwrap().backward().unwrap();
    let trained: BTreeMap<String, Tensor> = networks[&Adaptable::UNet].trainable().into_iter().collect();
    let mut compared = 0;
    for (name, expected) in given.iter().filter_map(|(name, t)| Some((name.strip_prefix("grad.")?, t))) {
        let found = grads.get(&trained[name]).unwrap();
        let scale = distance(expected, &expected.zeros_like().unwrap());
        assert!(scale > 1e-3, "{name}");
        assert!(distance(found, expected) / scale < TOLERANCE, "{name}");
        compared += 1;
    }
    assert_eq!(compared, 8);
    assert!(trained.values().all(|tensor| grads.get(tensor).is_some()));
}

#[test]
fn what_is_written_is_read_back_and_says_what_it_is() {
    for file in ["conv", "conv/kohya.safetensors", "dora"] {
        let given = read(&format!("{}/expected.safetensors", file.split('/').next().unwrap()));
        let networks = adapted(&load(file));
        let expected = outputs(&networks, &given);
        let listed: Vec<(Adaptable, &Params)> =
            networks.iter().map(|(network, params)| (*network, params)).collect();
        for format in LoraFormat::ALL {
            let folder = tempfile::tempdir().unwrap();
            let saved = PipelineLora::save(folder.path(), format, &listed, pipeline().root());
            if format == LoraFormat::Peft && file != "dora" {
                assert!(saved.unwrap_err().to_string().contains("of one network, and here are 2"));
                continue;
            }
            saved.unwrap();
            let again = PipelineLora::load(folder.path(), &CPU).unwrap();
            assert_eq!(again.format(), Some(format));
            let again = adapted(&again);
            let paths = |params: &Params| {
                params.lora().map(|lora| lora.paths().map(str::to_owned).collect::<Vec<_>>())
            };
            assert!(again.iter().all(|(network, params)| paths(params) == paths(&networks[network])));
            let again = outputs(&again, &given);
            assert!((0..2).all(|i| distance(&again[i], &expected[i]) == 0.0), "{file} {format:?}");
        }
    }
}

#[test]
fn kohyas_header_tells_of_model_rank_and_contents() {
    let networks = adapted(&load("conv"));
    let listed: Vec<(Adaptable, &Params)> = networks.iter().map(|(n, params)| (*n, params)).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.safetensors");
    PipelineLora::save(&file, LoraFormat::Kohya, &listed, pipeline().root()).unwrap();
    let found = files::read(&file, &CPU).unwrap();
    for (key, value) in [
        ("ss_network_module", "networks.lora"),
        ("ss_network_dim", "2"),
        ("ss_network_alpha", "6"),
        ("ss_network_args", r#"{"conv_dim":"2","conv_alpha":"6"}"#),
        ("ss_base_model_version", "sd_v1"),
        ("ss_v2", "False"),
        ("modelspec.sai_model_spec", "1.0.0"),
        ("modelspec.architecture", "stable-diffusion-v1/lora"),
        ("modelspec.prediction_type", "epsilon"),
        // Latents of 8 pixels, halved twice by the autoencoder.
        ("modelspec.resolution", "32x32"),
    ] {
        assert_eq!(found.metadata.get(key).map(String::as_str), Some(value), "{key}");
    }
    let hash = &found.metadata["modelspec.hash_sha256"];
    assert!(hash.starts_with("0x") && hash.len() == 66, "{hash}");
    // The same keys as kohya's own file has, and the same numbers.
    let expected = read("conv/kohya.safetensors");
    assert_eq!(found.tensors.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert!(expected.iter().all(|(key, tensor)| distance(&found.tensors[key], tensor) == 0.0));
    assert!(found.tensors["lora_unet_conv_in.alpha"].dims().is_empty());
}

#[test]
fn every_older_spelling_is_the_same_adapter() {
    let given = read("conv/expected.safetensors");
    let expected = outputs(&adapted(&load("conv/kohya.safetensors")), &given);
    let is_alpha = |key: &str| key.ends_with(".alpha");
    let file = files::read(&fixture("lora_image/conv/pytorch_lora_weights.safetensors"), &CPU).unwrap();
    // What diffusers' own spellings lack is α: here it is in the matrices.
    let scaled = |key: &str, t: &Tensor| match (key.contains("lora_B"), key.starts_with("unet.")) {
        (true, true) => (t * 3.0).unwrap(),
        (true, false) => (t * 1.5).unwrap(),
        (false, _) => t.clone(),
    };
    let down_up = |key: &str| {
        key.replace("lora_A.weight", "lora.down.weight").replace("lora_B.weight", "lora.up.weight")
    };
    let processors = |key: &str| {
        let key = down_up(key);
        let maps = [("to_q", "to_q"), ("to_out.0", "to_out"), ("q_proj", "to_q"), ("out_proj", "to_out")];
        let found = maps.iter().find(|(map, _)| key.contains(&format!(".{map}.lora.")));
        match found {
            Some((map, old)) if key.starts_with("unet.") => {
                key.replace(&format!(".{map}.lora."), &format!(".processor.{old}_lora."))
            }
            Some((map, old)) => key.replace(&format!(".{map}.lora."), &format!(".{old}_lora.")),
            None => key.replace("fc1.lora.", "fc1.lora_linear_layer."),
        }
    };
    let spellings: [&dyn Fn(&str) -> String; 3] = [&str::to_owned, &down_up, &processors];
    for (index, spelled) in spellings.into_iter().enumerate() {
        let tensors: BTreeMap<String, Tensor> =
            file.tensors.iter().map(|(key, t)| (spelled(key), scaled(key, t))).collect();
        assert!(!tensors.keys().any(|key| is_alpha(key)));
        let found = outputs(&adapted(&load_tensors(tensors).unwrap()), &given);
        assert!((0..2).all(|i| distance(&found[i], &expected[i]) < TOLERANCE), "spelling {index}");
    }
}

/// A U-Net with modules of these names, one number each, and what kohya's files of SDXL call them.
fn sdxl(shape: &str) -> (Params, BTreeMap<String, (String, usize)>) {
    let names = std::fs::read(fixture("lora_image/sdxl_names.json")).unwrap();
    let names: Value = serde_json::from_slice(&names).unwrap();
    let names: BTreeMap<String, (String, usize)> = serde_json::from_value(names[shape].clone()).unwrap();
    let weight = |(path, dimensions): &(String, usize)| {
        (format!("{path}.weight"), Tensor::zeros(vec![1; *dimensions], DType::F32, &CPU).unwrap())
    };
    (Params::new("unet", names.values().map(weight).collect(), &CPU), names)
}

#[test]
fn sdxls_modules_go_by_the_names_of_sgm_and_by_their_own() {
    for shape in ["one", "two"] {
        let (unet, names) = sdxl(shape);
        let file = |spelled: &dyn Fn(&str, &str) -> String| {
            let mut tensors = BTreeMap::new();
            for (kohya, (path, dimensions)) in &names {
                for part in ["lora_down.weight", "lora_up.weight"] {
                    let one = Tensor::ones(vec![1; *dimensions], DType::F32, &CPU).unwrap();
                    tensors.insert(format!("{}.{part}", spelled(kohya, path)), one);
                }
            }
            load_tensors(tensors).unwrap().put_on(Adaptable::UNet, unet.clone()).unwrap()
        };
        let paths: Vec<&str> = {
            let mut paths: Vec<&str> = names.values().map(|(path, _)| path.as_str()).collect();
            paths.sort_unstable();
            paths
        };
        let of_sgm = file(&|kohya, _| kohya.to_owned());
        let of_diffusers = file(&|_, path| format!("lora_unet_{}", path.replace('.', "_")));
        for params in [&of_sgm, &of_diffusers] {
            assert_eq!(params.lora().unwrap().paths().collect::<Vec<_>>(), paths);
        }
        // And they are written with sgm's, with the header of SDXL.
        let folder = tempfile::tempdir().unwrap();
        let config = |part: &str, value: Value| files::write_json(&folder.path().join(part), &value).unwrap();
        config("unet/config.json", json!({"addition_embed_type": "text_time", "sample_size": 128}));
        config("vae/config.json", json!({"block_out_channels": [128, 256, 512, 512]}));
        config("scheduler/scheduler_config.json", json!({}));
        let out = folder.path().join("out");
        PipelineLora::save(&out, LoraFormat::Kohya, &[(Adaptable::UNet, &of_diffusers)], folder.path())
            .unwrap();
        let written = files::read(&out.join("lora.safetensors"), &CPU).unwrap();
        let found: Vec<&str> = written.tensors.keys().filter_map(|key| key.strip_suffix(".alpha")).collect();
        assert_eq!(found, names.keys().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(written.metadata["ss_base_model_version"], "sdxl_base_v1-0");
        assert_eq!(written.metadata["modelspec.resolution"], "1024x1024");
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let kohya = read("conv/kohya.safetensors");
    let message = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut tensors = kohya.clone();
        change(&mut tensors);
        let folder = pipeline();
        let params = folder.params(Component::UNet, &CPU).unwrap();
        match load_tensors(tensors) {
            Err(message) => message,
            Ok(adapters) => adapters.put_on(Adaptable::UNet, params).unwrap_err().to_string(),
        }
    };
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &CPU).unwrap();
    let unknown = message(&|t| drop(t.insert("lora_unet_conv_in.hada_w1_a".to_owned(), zeros(&[2, 2]))));
    assert!(
        unknown.contains("`lora_unet_conv_in.hada_w1_a`, one of 1") && unknown.contains("LoHa"),
        "{unknown}"
    );
    let lacking = message(&|t| drop(t.remove("lora_unet_conv_in.lora_up.weight")));
    assert!(lacking.contains("`conv_in` lacks"), "{lacking}");
    let shape =
        message(&|t| drop(t.insert("lora_unet_conv_in.lora_down.weight".to_owned(), zeros(&[2, 9, 3, 3]))));
    for part in ["unet", "`conv_in`", "A [2, 9, 3, 3] and B [8, 2, 1, 1] do not fit the weight [8, 4, 3, 3]"]
    {
        assert!(shape.contains(part), "{shape}");
    }
    let other = message(&|t| {
        t.insert("lora_unet_x.lora_down.weight".to_owned(), zeros(&[2, 8]));
        t.insert("lora_unet_x.lora_up.weight".to_owned(), zeros(&[8, 2]));
    });
    assert!(other.contains("`x`: the model has no such module"), "{other}");
    let twice = message(&|t| {
        for part in ["lora_down.weight", "lora_up.weight"] {
            let same = t[&format!("lora_unet_conv_in.{part}")].clone();
            t.insert(format!("lora_unet_input_blocks_0_0.{part}"), same);
        }
    });
    assert!(twice.contains("a second adapter of the module conv_in"), "{twice}");
    let columns =
        message(&|t| drop(t.insert("lora_unet_conv_in.dora_scale".to_owned(), zeros(&[1, 4, 1, 1]))));
    assert!(columns.contains("dora_scale [1, 4, 1, 1]: only lengths of the 8 rows"), "{columns}");
    // Whoever trains a U-Net alone is told of what else there is.
    let both = Lora::load(&fixture("lora_image/conv"), &CPU).unwrap_err().to_string();
    assert!(both.contains("adapters of 6 modules of `text_encoder` too"), "{both}");
    let second = load_tensors(BTreeMap::from([
        ("lora_te2_x.lora_down.weight".to_owned(), zeros(&[2, 8])),
        ("lora_te2_x.lora_up.weight".to_owned(), zeros(&[8, 2])),
    ]));
    let second = pipeline().check_networks_of(&second.unwrap()).unwrap_err().to_string();
    assert!(second.contains("`text_encoder_2`"), "{second}");
}

#[test]
fn a_new_adapter_of_convolutions_changes_nothing_and_all_of_it_can_learn() {
    let given = read("conv/expected.safetensors");
    let mut networks = adapted(&PipelineLora::default());
    let [_, before] = outputs(&networks, &given);
    let targets = Targets::rule(r"conv_in|.*\.(conv1|conv|proj_out|to_q)");
    for use_dora in [false, true] {
        let config = LoraConfig { targets: targets.clone(), use_dora, ..LoraConfig::new(2, 4.0, Vec::new()) };
        let unet = pipeline().params(Component::UNet, &CPU).unwrap().with_new_lora(config, 3).unwrap();
        networks.insert(Adaptable::UNet, unet);
        let [_, sample] = outputs(&networks, &given);
        assert!(distance(&before, &sample) < TOLERANCE);
        let grads = (sample * &given["probe"]).unwrap().sum_all().unwrap().backward().unwrap();
        let trained = networks[&Adaptable::UNet].trainable();
        assert!(trained.iter().any(|(name, _)| name == "conv_in.lora_A.weight"));
        assert!(trained.iter().all(|(name, _)| !name.contains("conv2")));
        for (name, tensor) in trained.iter().filter(|(name, _)| !name.contains("lora_A")) {
            assert!(grads.get(tensor).is_some(), "{name} has no gradient");
            let grad = grads.get(tensor).unwrap();
            assert!(distance(grad, &grad.zeros_like().unwrap()) > 0.0, "{name}");
        }
    }
    // PEFT's `all-linear` means no convolution.
    let config = LoraConfig { targets: Targets::AllLinear, ..LoraConfig::new(2, 4.0, Vec::new()) };
    let unet = pipeline().params(Component::UNet, &CPU).unwrap().with_new_lora(config, 3).unwrap();
    let paths: Vec<&str> = unet.lora().unwrap().paths().collect();
    assert!(paths.contains(&"time_embedding.linear_1") && !paths.contains(&"conv_in"), "{paths:?}");
}

#[test]
fn sums_of_adapters_add_what_they_do() {
    let unet = pipeline().params(Component::UNet, &CPU).unwrap();
    let of = |file: &str| {
        let adapters = load(file);
        let lora = adapters.get(Adaptable::UNet).unwrap().clone();
        unet.with_lora(lora).unwrap()
    };
    let first = of("conv");
    let draw = |seed| {
        let config = LoraConfig::new(3, 1.5, vec!["to_q".to_owned(), "conv1".to_owned(), "to_v".to_owned()]);
        let fresh = unet.with_new_lora(config, seed).unwrap();
        let b: BTreeMap<String, Tensor> = fresh
            .trainable()
            .into_iter()
            .map(|(name, t)| (name, Tensor::ones(t.shape(), DType::F32, &CPU).unwrap()))
            .collect();
        fresh.with_values(&b).unwrap()
    };
    let second = draw(1);
    let (a, b) = (first.lora().unwrap(), second.lora().unwrap());
    let sum = Lora::weighted_sum(&[(0.5, a), (-0.25, b)]).unwrap();
    assert_eq!((sum.config().rank, sum.config().alpha), (2, 2.0), "most modules are in the first alone");
    let found = unet.with_lora(sum).unwrap().merged().unwrap();
    let expected = unet.plus_difference(0.5, &first.merged().unwrap(), &unet).unwrap();
    let expected = expected.plus_difference(-0.25, &second.merged().unwrap(), &unet).unwrap();
    assert!(found.largest_difference(&expected).unwrap() < 1e-5);
    assert!(found.largest_difference(&unet).unwrap() > 0.1);
    // One alone is itself, and a weight is a matter of α.
    let same = Lora::weighted_sum(&[(1.0, a)]).unwrap();
    assert_eq!(
        unet.with_lora(same).unwrap().merged().unwrap().largest_difference(&first.merged().unwrap()).unwrap(),
        0.0
    );
    assert_eq!(Lora::weighted_sum(&[(0.5, a)]).unwrap().config().alpha, 3.0);
    let dora = of("dora");
    let message = Lora::weighted_sum(&[(1.0, a), (1.0, dora.lora().unwrap())]).unwrap_err().to_string();
    assert!(message.contains("is DoRA"), "{message}");
}
