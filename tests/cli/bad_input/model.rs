//! Model folders: missing, damaged, of another architecture, or put together from two models.

use super::*;

#[test]
fn a_missing_model_or_part_of_one_is_named() {
    let trial = Trial::text();
    let none = trial.path("none");
    let looked_for =
        ["none: found none of config.json (a language model), model_index.json (Stable Diffusion)"];
    trial.refused(&[&format!("model.path={none}")], DATA, &looked_for);
    let (data, out) = (fixture(TEXT_DATA), trial.path("out"));
    trial.untouched(
        &["score", "--model", &none, "--data", &data, "--out", &out],
        DATA,
        &["none/config.json"],
    );
    trial.untouched(&["generate", "--model", &none, "--prompt", "a"], DATA, &["none/config.json"]);
    let sample = ["sample", "--model", &none, "--prompt", "a", "--out", &out];
    trial.untouched(&sample, DATA, &["none/model_index.json"]);

    let trial = Trial::text_copy();
    fs::remove_file(trial.path("model/model.safetensors")).unwrap();
    trial.refused(&[], DATA, &["model: found none of model.safetensors"]);
}

#[test]
fn damaged_weights_are_named() {
    let trial = Trial::text_copy();
    let weights = trial.path("model/model.safetensors");
    let whole = fs::read(&weights).unwrap();
    let not_whole = ["model/model.safetensors: not a whole safetensors file", "download it again"];
    for length in [0, 5, 3000, whole.len() - 1] {
        fs::write(&weights, &whole[..length]).unwrap();
        trial.refused(&[], DATA, &not_whole);
    }
    // The header's length, its first brace, and a digit of an offset.
    let offset = whole.windows(12).position(|window| window == b"data_offsets").unwrap() + 16;
    for at in [3, 8, offset] {
        fs::write(&weights, &whole).unwrap();
        flip(&weights, at);
        trial.refused(&[], DATA, &not_whole);
    }
}

/// Changes fields of the `config.json` at `path`.
fn change(path: &str, fields: &[(&str, Value)]) {
    let mut config: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    fields.iter().for_each(|(field, value)| config[*field] = value.clone());
    fs::write(path, config.to_string()).unwrap();
}

/// Checks what is said of a model whose `config.json` has other fields.
#[track_caller]
fn check_config(fields: &[(&str, Value)], parts: &[&str]) {
    let trial = Trial::text_copy();
    change(&trial.path("model/config.json"), fields);
    trial.refused(&[], DATA, parts);
}

#[test]
fn another_architecture_is_named() {
    check_config(
        &[("model_type", json!("mamba")), ("architectures", json!(["MambaForCausalLM"]))],
        &["model/config.json", "`model_type` = \"mamba\" is not supported", "llama, mistral, qwen2, qwen3"],
    );
    check_config(
        &[("architectures", json!(["LlamaForTokenClassification"]))],
        &["`architectures` = [\"LlamaForTokenClassification\"] is not supported"],
    );
    check_config(&[("hidden_act", json!("gelu"))], &["`hidden_act` = \"gelu\" is not supported"]);
}

#[test]
fn a_configuration_of_other_sizes_is_compared_tensor_by_tensor() {
    check_config(
        &[("hidden_size", json!("wide"))],
        &["field `hidden_size`: expected a whole number", "found \"wide\""],
    );
    check_config(
        &[("vocab_size", json!(300))],
        &["model.embed_tokens.weight: expected [300, 32], found [256, 32]"],
    );
    check_config(&[("num_hidden_layers", json!(3))], &["missing: model.layers.2."]);
    check_config(&[("num_hidden_layers", json!(1))], &["unexpected: model.layers.1."]);
}

/// No number in a configuration makes the program allocate what the weights do not hold.
#[cfg(target_os = "linux")]
#[test]
fn absurd_sizes_take_no_memory() {
    const BILLION: u64 = 1_000_000_000;
    let check = |trial: &Trial, file: &str, field: &str, value: u64, part: &str| {
        let whole = fs::read(trial.path(file)).unwrap();
        change(&trial.path(file), &[(field, json!(value))]);
        let output = limited("-v 4000000", &trial.training(&[]));
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(DATA), "{field} {value}: {message}");
        assert!(message.contains(part), "{field} {value}: no {part:?} in {message}");
        assert!(!Path::new(&trial.path("run")).exists());
        fs::write(trial.path(file), whole).unwrap();
    };
    let trial = Trial::text_copy();
    for (field, value, part) in [
        ("hidden_size", BILLION, "model.embed_tokens.weight: expected [256, 1000000000], found [256, 32]"),
        ("intermediate_size", BILLION, "mlp.up_proj.weight: expected [1000000000, 32]"),
        ("vocab_size", BILLION, "model.embed_tokens.weight: expected [1000000000, 32]"),
        ("head_dim", BILLION, "`head_dim` = 1000000000 is not supported"),
        ("head_dim", 1000, "self_attn.q_proj.weight: expected [4000, 32]"),
        ("num_hidden_layers", BILLION, "`num_hidden_layers` = 1000000000 is not supported"),
        ("num_hidden_layers", 9000, "missing: model.layers.2."),
        ("hidden_size", u64::MAX, "field `hidden_size`: expected a whole number up to"),
    ] {
        check(&trial, "model/config.json", field, value, part);
    }
    let trial = Trial::image();
    let model = trial.folder.copy("diffusion/sd1");
    replace_in(&trial.path("recipe.toml"), &fixture("diffusion/sd1"), &model);
    for (file, field, value, part) in [
        ("model/unet/config.json", "layers_per_block", BILLION, "missing: down_blocks.0.resnets.2."),
        (
            "model/unet/config.json",
            "transformer_layers_per_block",
            BILLION,
            "missing: down_blocks.0.attentions",
        ),
        ("model/vae/config.json", "layers_per_block", BILLION, "missing: encoder.down_blocks.0.resnets."),
        ("model/vae/config.json", "latent_channels", BILLION, "`in_channels`: expected 1000000000"),
        (
            "model/text_encoder/config.json",
            "num_hidden_layers",
            BILLION,
            "missing: text_model.encoder.layers.",
        ),
        ("model/text_encoder/config.json", "max_position_embeddings", BILLION, "position_embedding.weight"),
        ("model/tokenizer/tokenizer_config.json", "model_max_length", 10_000_000, "prompt: expected at most"),
    ] {
        check(&trial, file, field, value, part);
    }
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let trial = Trial::text_copy();
    change(&trial.path("model/config.json"), &[("vocab_size", json!(100))]);
    let parts = ["/model: the tokenizer has 256 tokens", "the model's vocabulary has 100"];
    trial.refused(&[], DATA, &parts);
    let model = trial.path("model");
    trial.untouched(&["generate", "--model", &model, "--prompt", "a"], DATA, &parts);
    fs::write(trial.path("model/tokenizer.json"), "{}").unwrap();
    trial.refused(&[], DATA, &["model/tokenizer.json: not a tokenizer"]);
    fs::remove_file(trial.path("model/tokenizer.json")).unwrap();
    trial.refused(&[], DATA, &["/model: no tokenizer found; looked for tokenizer.json"]);
}

#[test]
fn parts_of_a_pipeline_fit_together() {
    let trial = Trial::image();
    let model = trial.folder.copy("diffusion/sd1");
    replace_in(&trial.path("recipe.toml"), &fixture("diffusion/sd1"), &model);
    let check = |file: &str, fields: &[(&str, Value)], parts: &[&str]| {
        let whole = fs::read(trial.path(file)).unwrap();
        change(&trial.path(file), fields);
        trial.refused(&[], DATA, parts);
        fs::write(trial.path(file), whole).unwrap();
    };
    check(
        "model/model_index.json",
        &[("_class_name", json!("FluxPipeline"))],
        &["model_index.json", "`_class_name` = \"FluxPipeline\" is not supported", "StableDiffusionPipeline"],
    );
    check(
        "model/unet/config.json",
        &[("cross_attention_dim", json!(64))],
        &["unet/config.json: field `cross_attention_dim`: expected 32, the text encoder's width, found 64"],
    );
    check(
        "model/scheduler/scheduler_config.json",
        &[("_class_name", json!("FlowMatchEulerDiscreteScheduler"))],
        &["scheduler_config.json", "FlowMatchEulerDiscreteScheduler"],
    );
    fs::remove_dir_all(trial.path("model/vae")).unwrap();
    trial.refused(&[], DATA, &["model/vae/config.json"]);
}
