//! `votive merge --sum`, adapters of image models from one format to another, and adapters that guide away.

use crate::*;

/// A language model of the fixtures after two steps of training at this rate: the run's last folder.
fn trained(folder: &Folder, name: &str, model: &str, lr: &str, adapter: &str) -> String {
    let data = fixture("text_steps/prefs.jsonl");
    let recipe = format!(
        "[model]\npath = {model:?}\n{adapter}[data]\npath = {data:?}\n[objective.dpo]\nbeta = 0.1\n\
         [optimizer]\nlr = {lr}\n[train]\nsteps = 2\nbatch_size = 2\n"
    );
    let (recipe, out) = (folder.text(&format!("{name}.toml"), &recipe), folder.path(name));
    ok(&["train", &recipe, "--quiet", "--out", &out]);
    format!("{out}/final")
}

/// The weights of a model's folder.
fn weights(folder: &str) -> BTreeMap<String, Tensor> {
    files::read_folder(Path::new(folder), "model", &Device::Cpu).unwrap()
}

fn unet(folder: &str) -> BTreeMap<String, Tensor> {
    let stem = "diffusion_pytorch_model";
    files::read_folder(&Path::new(folder).join("unet"), stem, &Device::Cpu).unwrap()
}

/// The largest distance of two sets of tensors with the same names.
fn apart(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>) -> f64 {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    a.iter().map(|(name, tensor)| distance(tensor, &b[name])).fold(0.0, f64::max)
}

/// `wₐ·a + w_b·b`, tensor by tensor in f64.
fn combined(
    (wa, a): (f64, &BTreeMap<String, Tensor>),
    (wb, b): (f64, &BTreeMap<String, Tensor>),
) -> BTreeMap<String, Tensor> {
    let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
    let sum = |(name, t): (&String, &Tensor)| {
        (name.clone(), ((wide(t) * wa).unwrap() + (wide(&b[name]) * wb).unwrap()).unwrap())
    };
    a.iter().map(sum).collect()
}

#[test]
fn sums_of_models_are_those_of_their_formula() {
    let folder = Folder::new();
    let base = fixture("text/llama");
    let (a, b) = (trained(&folder, "a", &base, "5e-2", ""), trained(&folder, "b", &base, "2e-2", ""));
    let (named_a, named_b) = (format!("a={a}"), format!("b={b}"));
    let named_base = format!("base={base}");
    let (wa, wb, w0) = (weights(&a), weights(&b), weights(&base));
    assert!(apart(&wa, &wb) > 1e-2);
    let sum = |name: &str, named: &[&str], formula: &str| {
        let out = folder.path(name);
        let args = [&["merge"][..], named, &["--sum", formula, "--out", &out, "--verify", "--dtype", "f32"]];
        let report = rows(&args.concat()).remove(0);
        assert_eq!(report["kind"], "model");
        assert_eq!(report["verify"]["largest_rounding"], 0.0, "f32 rounds nothing");
        (weights(&out), report)
    };
    // Bit for bit: one alone, what cancels out, and what does not change.
    let (same, report) = sum("same", &[&named_a], "1.0*a");
    assert_eq!(apart(&same, &wa), 0.0);
    assert_eq!(report["largest_difference"], 0.0);
    assert_eq!(apart(&sum("other", &[&named_a, &named_b], "a + (b - a)").0, &wb), 0.0);
    let (twice, copy) = (format!("x={a}"), "0.3*a + 0.7*x");
    assert_eq!(apart(&sum("twice", &[&named_a, &twice], copy).0, &wa), 0.0);
    // Between, beyond, and two preference vectors at once.
    let between = sum("between", &[&named_a, &named_b], "0.25*a + 0.75*b").0;
    assert!(apart(&between, &combined((0.25, &wa), (0.75, &wb))) < 1e-6);
    let (beyond, report) = sum("beyond", &[&named_a, &named_b], "b + 0.5*(b - a)");
    assert!(apart(&beyond, &combined((-0.5, &wa), (1.5, &wb))) < 1e-6);
    assert_eq!(report["weights"], json!({"a": -0.5, "b": 1.5}));
    let formula = "base + 0.5*(a - base) + 0.25*(b - base)";
    let both = sum("both", &[&named_base, &named_a, &named_b], formula).0;
    let of_two = combined((0.5, &wa), (0.25, &wb));
    assert!(apart(&both, &combined((1.0, &of_two), (0.25, &w0))) < 1e-6);
    let card = fs::read_to_string(folder.path("both/README.md")).unwrap();
    assert!(card.contains(formula) && !card.contains(env!("CARGO_MANIFEST_DIR")), "{card}");
    // A model of its own, which another command loads.
    ok(&["generate", "--model", &folder.path("both"), "--prompt", "a", "--max-new-tokens", "2"]);
}

#[test]
fn sums_of_adapters_are_adapters_or_go_into_a_model() {
    let folder = Folder::new();
    let base = fixture("text/llama");
    let adapter = "[adapter.lora]\nrank = 2\nalpha = 64.0\n";
    let other = "[adapter.lora]\nrank = 3\nalpha = 30.0\ntargets = [\"q_proj\", \"up_proj\"]\n";
    let (a, b) = (trained(&folder, "a", &base, "5e-2", adapter), trained(&folder, "b", &base, "5e-2", other));
    let (named_a, named_b) = (format!("a={a}"), format!("b={b}"));
    let merged = |name: &str, args: &[&str]| {
        let out = folder.path(name);
        ok(&[&["merge"][..], args, &["--out", &out, "--dtype", "f32"]].concat());
        weights(&out)
    };
    let (one, two) = (
        merged("one", &["--model", &base, "--adapter", &a]),
        merged("two", &["--model", &base, "--adapter", &b]),
    );
    // base + ½·Δa − ¼·Δb, with the adapters in a model's sum and as an adapter of their own.
    let expected = combined((0.5, &one), (-0.25, &two));
    let expected = combined((1.0, &expected), (0.75, &weights(&base)));
    let named_base = format!("base={base}");
    let whole = merged("whole", &[&named_base, &named_a, &named_b, "--sum", "base + 0.5*a - 0.25*b"]);
    assert!(apart(&whole, &expected) < 1e-5);
    let sum = folder.path("sum");
    let args =
        ["merge", &named_a, &named_b, "--sum", "0.5*a - 0.25*b", "--model", &base, "--out", &sum, "--verify"];
    let report = rows(&args).remove(0);
    assert!(report["verify"]["largest_difference"].as_f64().unwrap() < 1e-5, "{report}");
    assert_eq!((report["kind"].as_str(), report["modules"].as_u64()), (Some("adapter"), Some(6)));
    assert!(apart(&merged("added", &["--model", &base, "--adapter", &sum]), &expected) < 1e-5);
    // One adapter alone is what it was.
    let same = folder.path("same");
    ok(&["merge", &named_a, "--sum", "a", "--model", &base, "--out", &same]);
    let file = "adapter_model.safetensors";
    assert_eq!(apart(&tensors(&format!("{same}/{file}")), &tensors(&format!("{a}/{file}"))), 0.0);
}

#[test]
fn mistakes_of_a_sum_are_named_and_leave_nothing() {
    let folder = Folder::new();
    let out = folder.path("out");
    let text = |name: &str, model: &str| format!("{name}={}", fixture(&format!("text/{model}")));
    let (a, b, tied) = (text("a", "llama"), text("b", "qwen2"), text("c", "llama_tied"));
    let lora = format!("l={}", fixture("lora/rslora"));
    let check = |args: &[&str], code: i32, parts: &[&str]| {
        fails(&[&["merge", "--out", &out][..], args].concat(), code, parts);
        assert!(!Path::new(&out).exists());
    };
    check(&[&a, "--sum", "0.5*a"], USAGE, &["(a) add up to 0.5, expected 1"]);
    check(&[&a, &lora, "--sum", "a + 0.5*(l - a)"], USAGE, &["add up to 0.5", "change alone"]);
    check(&[&a, "--sum", "a + x"], USAGE, &["x is not given", "x=PATH"]);
    check(&[&a, &b, "--sum", "a"], USAGE, &["b: is not in the sum"]);
    check(&[&a, &a, "--sum", "a"], USAGE, &["a: given twice"]);
    check(&[&a, "--sum", "a - a"], USAGE, &["every weight is 0"]);
    check(&[&a, "--sum", "a +"], USAGE, &["character 4"]);
    check(&[&a, "--sum", "a", "--adapter", "x"], USAGE, &["--adapter"]);
    check(&[&a, "--sum", "a", "--format", "kohya"], USAGE, &["--format"]);
    check(
        &[&a, "--sum", "a", "--model", "x"],
        USAGE,
        &["--model is for sums of adapters alone", "a is a model"],
    );
    check(&["a", "--sum", "a"], USAGE, &["NAME=PATH"]);
    check(&["a=none", "--sum", "a"], DATA, &["none: is not there"]);
    check(&[&lora, "--sum", "0.5*l"], USAGE, &["--model"]);
    check(&[&a, &b, "--sum", "0.5*a + 0.5*b"], DATA, &["qwen2: another architecture"]);
    check(&[&a, &tied, "--sum", "0.5*a + 0.5*c"], DATA, &["llama_tied: another architecture"]);
    let image = format!("i={}", fixture("diffusion/sd1"));
    check(&[&a, &image, "--sum", "0.5*a + 0.5*i"], DATA, &["another kind of model"]);
    let sd2 = format!("j={}", fixture("diffusion/sd2"));
    check(&[&image, &sd2, "--sum", "0.5*i + 0.5*j"], DATA, &["sd2: another U-Net"]);
    let (dora, gemma) = (format!("d={}", fixture("lora/dora")), format!("g={}", fixture("text/gemma2")));
    check(&[&b, &dora, "--sum", "b + 0.5*d"], DATA, &["is DoRA"]);
    check(&[&gemma, &dora, "--sum", "g + d"], DATA, &["lora/dora", "do not fit"]);
    // The same network, but its words have other numbers.
    let model = folder.copy("text/llama");
    let file = format!("{model}/tokenizer.json");
    let tokenizer = fs::read_to_string(&file).unwrap();
    fs::write(&file, tokenizer.replacen("<|im_start|>", "<|in_start|>", 1)).unwrap();
    let renamed = format!("r={model}");
    check(&[&a, &renamed, "--sum", "0.5*a + 0.5*r"], DATA, &["its tokenizer is another"]);
}

#[test]
fn embedded_models_can_be_added_up() {
    let folder = Folder::new();
    let model = |name: &str| format!("{}/models/{name}", env!("CARGO_MANIFEST_DIR"));
    let sum = |name: &str, model: &str| {
        let (a, b, out) = (format!("a={model}"), format!("b={model}"), folder.path(name));
        let report = rows(&["merge", &a, &b, "--sum", "1.5*a - 0.5*b", "--out", &out, "--verify"]).remove(0);
        assert_eq!(report["largest_difference"], 0.0, "{report}");
        out
    };
    let text = sum("text", &model("tiny-lm"));
    assert_eq!(apart(&weights(&text), &weights(&model("tiny-lm"))), 0.0);
    let image = sum("image", &model("tiny-sd"));
    assert_eq!(apart(&unet(&image), &unet(&model("tiny-sd"))), 0.0);
    let file = "text_encoder/model.safetensors";
    let bytes = |folder: &str| fs::read(format!("{folder}/{file}")).unwrap();
    assert_eq!(bytes(&image), bytes(&model("tiny-sd")));
}

/// The finished latents of a few steps on the fixture's pipeline.
fn latents(folder: &Folder, model: &str, extra: &[&str]) -> Tensor {
    let (out, saved) = (folder.path("images"), folder.path("latents.safetensors"));
    let args = ["sample", "--model", model, "--prompt", "a red circle", "--steps", "4", "--out", &out];
    ok(&[&args[..], &["--save-latents", &saved], extra].concat());
    tensors(&saved)["final_latents"].clone()
}

#[test]
fn image_adapters_go_from_any_format_to_any_other() {
    let folder = Folder::new();
    let (model, adapter) = (fixture("diffusion/sd1"), fixture("lora_image/conv"));
    let plain = latents(&folder, &model, &[]);
    let expected = latents(&folder, &model, &["--adapter", &adapter]);
    assert!(distance(&plain, &expected) > 1e-2);
    let (kohya, back) = (folder.path("k.safetensors"), folder.path("back"));
    let args = ["export", &adapter, "--model", &model, "--to", "kohya", "--out", &kohya];
    assert_eq!(rows(&args)[0]["details"]["modules"]["text_encoder"], 6);
    ok(&["export", &kohya, "--model", &model, "--format", "diffusers", "--out", &back]);
    assert!(Path::new(&format!("{back}/pytorch_lora_weights.safetensors")).is_file());
    for path in [&kohya, &back, &format!("{adapter}/kohya.safetensors")] {
        assert_eq!(distance(&latents(&folder, &model, &["--adapter", path]), &expected), 0.0, "{path}");
    }
    // The pipeline with the adapter in it, text encoder included.
    let merged = folder.path("merged");
    let args = ["merge", "--model", &model, "--adapter", &kohya, "--out", &merged, "--verify"];
    assert!(rows(&args)[0]["largest_difference"].as_f64().unwrap() > 1e-2);
    assert!(distance(&latents(&folder, &merged, &[]), &expected) < 1e-4);
    let none = folder.path("none");
    let export = |args: &[&str], code, parts: &[&str]| {
        fails(&[&["export"][..], args, &["--out", &none]].concat(), code, parts);
    };
    export(&[&kohya, "--to", "kohya"], DATA, &["names no model", "--model"]);
    export(
        &[&kohya, "--model", &model, "--to", "hub"],
        USAGE,
        &["peft, diffusers and kohya", "votive merge"],
    );
    export(&[&kohya, "--model", &model, "--to", "peft"], DATA, &["of one network, and here are 2"]);
    export(&[&model, "--to", "kohya"], USAGE, &["holds no adapter"]);
    let sd2 = fixture("diffusion/sd2");
    let parts = ["unet", "the model has no such module", "the adapter was made for sd_v1"];
    export(&[&kohya, "--model", &sd2, "--to", "kohya"], DATA, &parts);
    export(&[&fixture("text/llama"), "--to", "kohya"], USAGE, &["language model", "--to peft"]);
}

#[test]
fn a_sum_of_image_adapters_keeps_what_is_for_the_text_encoder() {
    let folder = Folder::new();
    let model = fixture("diffusion/sd1");
    let (a, out) = (format!("a={}", fixture("lora_image/conv")), folder.path("half"));
    ok(&["merge", &a, "--sum", "0.5*a", "--model", &model, "--format", "kohya", "--out", &out, "--verify"]);
    let half = tensors(&format!("{out}/lora.safetensors"));
    assert_eq!(half["lora_unet_conv_in.alpha"].to_scalar::<f32>().unwrap(), 3.0);
    assert!(half.keys().any(|key| key.starts_with("lora_te_")));
    // The same as the model with half of the change.
    let (base, mixed) = (format!("base={model}"), folder.path("mixed"));
    ok(&["merge", &base, &a, "--sum", "base + 0.5*a", "--out", &mixed]);
    let expected = latents(&folder, &mixed, &[]);
    assert!(distance(&latents(&folder, &model, &["--adapter", &out]), &expected) < 1e-4);
}

#[test]
fn an_adapter_guides_away_as_the_model_with_it_does() {
    let folder = Folder::new();
    let (model, adapter) = (fixture("diffusion/sd1"), fixture("lora_image/dora"));
    let plain = latents(&folder, &model, &[]);
    let away = latents(&folder, &model, &["--negative-adapter", &adapter]);
    assert!(distance(&plain, &away) > 1e-2);
    let merged = folder.path("merged");
    ok(&["merge", "--model", &model, "--adapter", &adapter, "--out", &merged]);
    assert!(distance(&latents(&folder, &model, &["--negative-model", &merged]), &away) < 1e-4);
    // Of an adapter for the U-Net alone a part, and nothing.
    let recipe = format!(
        "[model]\npath = {model:?}\n[adapter.lora]\nrank = 2\nformat = \"kohya\"\ntargets = [\"conv1\", \"to_q\"]\n\
         [data]\npath = {:?}\n[objective.dpo]\nbeta = 100.0\n[optimizer]\nlr = 5e-2\n[train]\nsteps = 2\nbatch_size = 2\n",
        image_pairs(&folder)
    );
    let (recipe, run) = (folder.text("recipe.toml", &recipe), folder.path("run"));
    ok(&["train", &recipe, "--quiet", "--out", &run]);
    let file = format!("{run}/final/lora.safetensors");
    assert!(tensors(&file).contains_key("lora_unet_mid_block_resnets_0_conv1.alpha"));
    let with = |weight: &str| latents(&folder, &model, &["--negative-adapter", &format!("{weight}:{file}")]);
    assert!(distance(&with("0"), &plain) < 1e-4);
    assert!(distance(&with("-0.5"), &plain) > 1e-4);
    // What is half and half is one.
    let twice =
        ["--negative-adapter", &format!("0.5:{file}"), "--negative-adapter", &format!("0.5:{run}/final")];
    assert!(distance(&latents(&folder, &model, &twice), &with("1")) < 1e-4);
    let exported = folder.path("d.safetensors");
    ok(&["export", &run, "--to", "diffusers", "--out", &exported]);
    assert!(distance(&latents(&folder, &model, &["--negative-adapter", &exported]), &with("1")) < 1e-6);
    let args = ["sample", "--model", &model, "--prompt", "a", "--out", "o", "--negative-adapter"];
    fails(&[&args[..], &[&file, "--cfg", "1"]].concat(), USAGE, &["--negative-adapter has no effect"]);
    fails(&[&args[..], &["nan:x"]].concat(), USAGE, &["[WEIGHT:]PATH"]);
    fails(&[&args[..], &[&fixture("lora_image/conv")]].concat(), DATA, &["6 modules of `text_encoder`"]);
}

/// Two pairs of images in a folder.
fn image_pairs(folder: &Folder) -> String {
    let rows: Vec<String> = (0..2u8)
        .map(|row| {
            let draw = |side: u8| {
                let name = format!("{row}-{side}.png");
                let pixel =
                    move |x: u32, y: u32| ::image::Rgb([(x * 8) as u8, (y * 7) as u8 ^ side, 90 * row]);
                ::image::RgbImage::from_fn(32, 32, pixel).save(folder.path(&name)).unwrap();
                name
            };
            json!({"prompt": "a red circle", "chosen": draw(0), "rejected": draw(255)}).to_string()
        })
        .collect();
    folder.text("pairs.jsonl", &rows.join("\n"))
}
