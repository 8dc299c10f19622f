//! `votive sample` against diffusers, and with settings that do not fit.

use crate::*;

/// f32 rounding over twenty steps, relative to the largest latent.
const LATENT_TOLERANCE: f64 = 1e-5;

#[test]
fn latents_are_those_of_diffusers() {
    let folder = Folder::new();
    for model in ["sd1", "sd2"] {
        let expected =
            fs::read_to_string(fixture(&format!("diffusion/{model}/expected/expected.json"))).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        let prompts = expected["prompts"].as_array().unwrap();
        let (cfg, root) = (expected["guidance_scale"].to_string(), fixture(&format!("diffusion/{model}")));
        for sampler in ["ddim", "dpmpp", "euler", "pndm"] {
            let recorded = tensors(&format!("{root}/expected/sample.{sampler}.20.safetensors"));
            let start = folder.tensors("start.safetensors", [("latents", recorded["latents"].clone())]);
            let (out, saved) = (folder.path("images"), folder.path("saved.safetensors"));
            let mut args =
                vec!["sample", "--model", &root, "--sampler", sampler, "--steps", "20", "--cfg", &cfg];
            args.extend(["--out", &out, "--latents", &start, "--save-latents", &saved]);
            prompts.iter().for_each(|prompt| args.extend(["--prompt", prompt.as_str().unwrap()]));
            let files: Vec<String> =
                rows(&args).iter().map(|row| row["file"].as_str().unwrap().to_owned()).collect();
            assert_eq!(files, [format!("{out}/00000.png"), format!("{out}/00001.png")]);
            let saved = tensors(&saved);
            assert_eq!(distance(&saved["latents"], &recorded["latents"]), 0.0);
            let final_latents = &recorded["final_latents"];
            let scale = distance(final_latents, &final_latents.zeros_like().unwrap());
            let error = distance(&saved["final_latents"], final_latents) / scale;
            assert!(error < LATENT_TOLERANCE, "{model} {sampler}: off by {error}");
        }
    }
}

/// Runs `votive sample` from recorded latents and compares the finished ones with diffusers'.
#[track_caller]
fn check_latents(folder: &Folder, model: &str, recorded: &str, sampler: &str, extra: &[&str]) -> String {
    let expected = fs::read_to_string(fixture("sdxl/pipeline/expected/expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let (cfg, steps) = (expected["guidance_scale"].to_string(), expected["steps"].to_string());
    let recorded = tensors(&fixture(recorded));
    let start = folder.tensors("start.safetensors", [("latents", recorded["latents"].clone())]);
    let (out, saved) = (folder.path("images"), folder.path("saved.safetensors"));
    let mut args = vec!["sample", "--model", model, "--sampler", sampler, "--steps", &steps, "--cfg", &cfg];
    args.extend(["--out", &out, "--latents", &start, "--save-latents", &saved]);
    let prompts = expected["prompts"].as_array().unwrap();
    prompts.iter().for_each(|prompt| args.extend(["--prompt", prompt.as_str().unwrap()]));
    args.extend(extra);
    let output = votive(&args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    let final_latents = &recorded["final_latents"];
    let scale = distance(final_latents, &final_latents.zeros_like().unwrap());
    let error = distance(&tensors(&saved)["final_latents"], final_latents) / scale;
    // torch's f32 is up to 1.4e-5 from its f64 here (Euler with zero terminal SNR starts at σ = 4096).
    assert!(error < 5e-5, "{model} {sampler} {extra:?}: off by {error}");
    stderr(&output)
}

#[test]
fn latents_of_sdxl_are_those_of_diffusers() {
    let (folder, model) = (Folder::new(), fixture("sdxl/pipeline"));
    for sampler in ["ddim", "dpmpp", "euler"] {
        let file = |case: &str| format!("sdxl/pipeline/expected/sample.{sampler}.9.{case}.safetensors");
        check_latents(&folder, &model, &file("no_prompt"), sampler, &[]);
        check_latents(&folder, &model, &file("negative"), sampler, &["--negative-prompt", "white"]);
    }
}

#[test]
fn latents_with_zero_terminal_snr_are_those_of_diffusers() {
    let folder = Folder::new();
    let model = folder.copy("diffusion/sd2");
    let scheduler = fixture("sdxl/zero_snr/scheduler_config.json");
    fs::copy(scheduler, folder.path("model/scheduler/scheduler_config.json")).unwrap();
    for sampler in ["ddim", "dpmpp", "euler"] {
        let file = format!("sdxl/zero_snr/sample.{sampler}.9.safetensors");
        check_latents(&folder, &model, &file, sampler, &[]);
    }
}

#[test]
fn parts_that_are_not_used_are_named() {
    let folder = Folder::new();
    let model = folder.copy("sdxl/pipeline");
    let index = folder.path("model/model_index.json");
    let text = fs::read_to_string(&index).unwrap();
    let checker = r#""safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "scheduler""#;
    fs::write(&index, text.replace(r#""scheduler""#, checker)).unwrap();
    let file = "sdxl/pipeline/expected/sample.ddim.9.no_prompt.safetensors";
    let remarks = check_latents(&folder, &model, file, "ddim", &[]);
    assert!(remarks.contains("not used: safety_checker"), "{remarks}");
    fs::write(&index, text.replace("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline")).unwrap();
    let args = ["sample", "--model", &model, "--prompt", "a", "--out", &folder.path("none")];
    fails(&args, DATA, &["model_index.json", "StableDiffusionXLImg2ImgPipeline", "supported"]);
}

/// Draws prompts and gives the finished latents.
fn draw(folder: &Folder, prompts: &[&str], extra: &[&str]) -> Tensor {
    let (root, out, saved) =
        (fixture("diffusion/sd1"), folder.path("images"), folder.path("saved.safetensors"));
    let mut args = vec!["sample", "--model", &root, "--steps", "3", "--sampler", "ddpm", "--out", &out];
    args.extend(["--save-latents", &saved]);
    prompts.iter().for_each(|prompt| args.extend(["--prompt", prompt]));
    args.extend(extra);
    assert_eq!(ok(&args).lines().count(), prompts.len());
    tensors(&saved)["final_latents"].clone()
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    // Products of larger matrices round differently.
    const ROUNDING: f64 = 1e-4;
    let folder = Folder::new();
    let prompts = ["a red circle", "a blue square", "two squares"];
    let together = draw(&folder, &prompts, &["--batch", "3", "--seed", "7"]);
    assert!(distance(&together, &draw(&folder, &prompts, &["--batch", "1", "--seed", "7"])) < ROUNDING);
    let second = together.narrow(0, 1, 1).unwrap();
    assert!(distance(&second, &draw(&folder, &prompts[1..2], &["--seed", "8"])) < ROUNDING);
    assert!(distance(&together, &draw(&folder, &prompts, &["--batch", "3", "--seed", "70"])) > 0.1);
    let png = ::image::open(folder.path("images/00002.png")).unwrap();
    assert_eq!((png.width(), png.height()), (32, 32));
}

#[test]
fn a_negative_model_that_is_the_model_changes_nothing_visible() {
    let folder = Folder::new();
    let root = fixture("diffusion/sd1");
    let saved = |name: &str, extra: &[&str]| {
        let (out, saved) = (folder.path("images"), folder.path(name));
        let args = [
            "sample",
            "--model",
            &root,
            "--prompt",
            "a",
            "--steps",
            "4",
            "--out",
            &out,
            "--save-latents",
            &saved,
        ];
        ok(&[&args, extra].concat());
        tensors(&saved)["final_latents"].clone()
    };
    let plain = saved("plain.safetensors", &[]);
    let guided = saved("guided.safetensors", &["--negative-model", &root]);
    assert!(distance(&plain, &guided) < 1e-4);
    let refused =
        ["sample", "--model", &root, "--prompt", "a", "--out", "o", "--cfg", "1", "--negative-model", &root];
    fails(&refused, USAGE, &["no effect", "--cfg above 1"]);
}

const SAMPLERS: [&str; 6] = ["ddim", "ddpm", "dpmpp", "euler", "euler_a", "pndm"];

#[test]
fn every_sampler_draws_and_its_noise_is_its_seeds() {
    let folder = Folder::new();
    let (root, out, saved) =
        (fixture("diffusion/sd1"), folder.path("images"), folder.path("saved.safetensors"));
    let draw = |sampler: &str, extra: &[&str]| {
        let args = ["sample", "--model", &root, "--prompt", "a", "--steps", "3", "--sampler", sampler];
        ok(&[&args[..], &["--out", &out, "--save-latents", &saved], extra].concat());
        tensors(&saved)["final_latents"].clone()
    };
    for sampler in SAMPLERS {
        let first = draw(sampler, &["--seed", "7"]);
        assert_eq!(distance(&first, &draw(sampler, &["--seed", "7"])), 0.0, "{sampler}");
        assert!(distance(&first, &draw(sampler, &["--seed", "8"])) > 0.1, "{sampler}");
    }
    assert!(distance(&draw("ddim", &[]), &draw("ddim", &["--eta", "1"])) > 0.1);
}

#[test]
fn prompts_are_drawn_from_as_many_seeds_as_asked_for() {
    let folder = Folder::new();
    let (root, out) = (fixture("diffusion/sd1"), folder.path("images"));
    let seeds = |extra: &[&str]| -> Vec<(String, u64)> {
        let args =
            ["sample", "--model", &root, "--prompt", "a", "--prompt", "b", "--steps", "2", "--out", &out];
        let row = |row: Value| (row["prompt"].as_str().unwrap().to_owned(), row["seed"].as_u64().unwrap());
        rows(&[&args, extra].concat()).into_iter().map(row).collect()
    };
    let expected = |pairs: [(&str, u64); 4]| pairs.map(|(prompt, seed)| (prompt.to_owned(), seed));
    let given = seeds(&["--seeds", "5,900"]);
    assert_eq!(given, expected([("a", 5), ("a", 900), ("b", 5), ("b", 900)]));
    let counted = seeds(&["--images-per-prompt", "2", "--seed", "7"]);
    assert_eq!(counted, expected([("a", 7), ("a", 8), ("b", 9), ("b", 10)]));
    let alone = draw(&folder, &["b"], &["--seed", "900"]);
    let args = ["--model", &root, "--prompt", "a", "--prompt", "b", "--seeds", "5,900", "--steps", "3"];
    let saved = folder.path("all.safetensors");
    let rest = ["--sampler", "ddpm", "--out", &out, "--save-latents", &saved];
    ok(&[&["sample"], &args[..], &rest[..]].concat());
    assert!(distance(&tensors(&saved)["final_latents"].narrow(0, 3, 1).unwrap(), &alone) < 1e-4);
}

#[test]
fn an_image_is_kept_the_more_the_less_the_strength() {
    let folder = Folder::new();
    let (root, file) = (fixture("diffusion/sd1"), folder.path("start.png"));
    let start = ::image::RgbImage::from_fn(48, 32, |x, y| {
        ::image::Rgb([(x * 5) as u8, (y * 7) as u8, if (x / 8 + y / 8) % 2 == 0 { 220 } else { 30 }])
    });
    start.save(&file).unwrap();
    for sampler in SAMPLERS {
        let drawn = |strength| {
            let out = folder.path("images");
            let args = ["sample", "--model", &root, "--prompt", "a", "--sampler", sampler, "--steps", "20"];
            let rest = ["--image", &file, "--strength", strength, "--out", &out, "--cfg", "1"];
            let latents = folder.path("saved.safetensors");
            ok(&[&args[..], &rest[..], &["--save-latents", &latents]].concat());
            tensors(&latents)["final_latents"].clone()
        };
        let (least, less, all) = (drawn("0.05"), drawn("0.3"), drawn("1"));
        assert!(distance(&less, &least) < distance(&all, &least), "{sampler}");
    }
}

/// The texts of a PNG file, by keyword.
fn texts(file: &str) -> BTreeMap<String, String> {
    let reader =
        png::Decoder::new(std::io::BufReader::new(fs::File::open(file).unwrap())).read_info().unwrap();
    let info = reader.info();
    let latin = info.uncompressed_latin1_text.iter().map(|text| (text.keyword.clone(), text.text.clone()));
    let unicode = info.utf8_text.iter().map(|text| (text.keyword.clone(), text.get_text().unwrap()));
    latin.chain(unicode).collect()
}

#[test]
fn a_png_says_how_it_was_made() {
    let folder = Folder::new();
    let (root, out) = (fixture("diffusion/sd1"), folder.path("images"));
    let args = ["sample", "--model", &root, "--prompt", "a red circle", "--prompt", "猫", "--steps", "3"];
    let rest = ["--negative-prompt", "blue, dark", "--sampler", "euler_a", "--seed", "41", "--out", &out];
    ok(&[&args[..], &rest[..], &["--cfg", "6.5"]].concat());
    // As AUTOMATIC1111's webui writes them; the hash is `sha256sum` of the U-Net's weights.
    let hash = "a6c7caff5b";
    let settings = |seed| {
        let common = "Steps: 3, Sampler: Euler a, CFG scale: 6.5";
        format!("{common}, Seed: {seed}, Size: 32x32, Model hash: {hash}, Model: sd1, Version: votive")
    };
    for (file, prompt, seed) in [("00000.png", "a red circle", 41), ("00001.png", "猫", 42)] {
        let texts = texts(&folder.path(&format!("images/{file}")));
        let expected = format!("{prompt}\nNegative prompt: blue, dark\n{}", settings(seed));
        assert!(texts["parameters"].starts_with(&expected), "{texts:?}");
        let json: Value = serde_json::from_str(&texts["votive"]).unwrap();
        assert_eq!((&json["seed"], &json["sampler"]), (&Value::from(seed), &Value::from("euler_a")));
        assert_eq!((&json["prompt"], &json["model_hash"]), (&Value::from(prompt), &Value::from(hash)));
        assert!(!texts.values().any(|text| text.contains(&root)), "{texts:?}");
    }
}

#[test]
fn latents_that_do_not_fit_are_refused() {
    let folder = Folder::new();
    let (root, out) = (fixture("diffusion/sd1"), folder.path("images"));
    let check = |shape: &[usize], name: &str, parts: &[&str]| {
        let latents = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let file = folder.tensors("latents.safetensors", [(name, latents)]);
        let args =
            ["sample", "--model", &root, "--prompt", "a", "--steps", "2", "--out", &out, "--latents", &file];
        fails(&args, DATA, parts);
    };
    check(&[2, 4, 8, 8], "latents", &["[1, 4, 8, 8]", "[2, 4, 8, 8]"]);
    check(&[1, 3, 8, 8], "latents", &["[1, 3, 8, 8]"]);
    check(&[1, 4, 8, 12], "latents", &["[1, 4, 8, 12]", "--width"]);
    check(&[4, 8, 8], "latents", &["[4, 8, 8]"]);
    check(&[1, 4, 8, 8], "noise", &["no tensor `latents`", "noise"]);
}

#[test]
fn wrong_settings_are_refused_before_anything_is_drawn() {
    let folder = Folder::new();
    let (root, out) = (fixture("diffusion/sd1"), folder.path("images"));
    let check = |extra: &[&str], code, parts: &[&str]| {
        fails(&[&["sample", "--model", &root, "--prompt", "a", "--out", &out], extra].concat(), code, parts);
    };
    check(&["--steps", "2000"], USAGE, &["2000 steps", "1 to 1000"]);
    check(&["--steps", "0"], USAGE, &["0 steps"]);
    check(&["--cfg", "nan"], USAGE, &["cfg", "finite"]);
    check(&["--width", "4000000000"], USAGE, &["4096 a side"]);
    check(&["--width", "17"], USAGE, &["17x", "multiples of"]);
    check(&["--adapter", &folder.path("none")], DATA, &["none"]);
    check(&["--seeds", "1,2", "--seed", "3"], USAGE, &["--seeds", "--seed"]);
    check(&["--seeds", "1,2", "--images-per-prompt", "3"], USAGE, &["--seeds", "--images-per-prompt"]);
    check(&["--strength", "0.5"], USAGE, &["--image"]);
    check(&["--eta", "0.5", "--sampler", "euler"], USAGE, &["eta", "only ddim has it"]);
    check(&["--eta", "-1"], USAGE, &["eta", "between 0 and 1"]);
    let picture = folder.path("picture.png");
    check(&["--image", &picture], DATA, &["picture.png"]);
    fs::write(&picture, "no image").unwrap();
    check(&["--image", &picture], DATA, &["picture.png"]);
    ::image::RgbImage::new(8, 8).save(&picture).unwrap();
    check(&["--image", &picture, "--strength", "0"], USAGE, &["strength", "more than 0"]);
    check(&["--image", &picture, "--strength", "0.01", "--steps", "9"], USAGE, &["is not one step"]);
    assert!(!PathBuf::from(&out).exists());
    let text = fixture("text/llama");
    fails(&["sample", "--model", &text, "--prompt", "a", "--out", &out], DATA, &["model_index.json"]);
}
