//! Numbers that are none: exit code 5, and the row or the parameter.

use super::*;

/// Puts a NaN into a tensor of a safetensors file.
fn spoil(file: &str, tensor: &str) {
    let mut bytes = fs::read(file).unwrap();
    let header = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let names: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let start = 8 + header + names[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(file, bytes).unwrap();
}

/// The first step moves every weight by its learning rate; the second finds them out of range.
#[test]
fn a_run_that_explodes_names_the_rows_and_saves_nothing() {
    for trial in [Trial::text(), Trial::image()] {
        let args = trial.training(&["optimizer.lr=1e30"]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        fails(&args, NUMBERS, &["step 1: the log-probability is not finite for data row "]);
        let left: Vec<String> = contents(Path::new(&trial.path("run"))).into_keys().collect();
        assert_eq!(left, ["events.out.tfevents.votive", "metrics.jsonl", "plan.toml"]);
    }
}

#[test]
fn damaged_weights_of_a_language_model_are_noticed_by_every_command() {
    let trial = Trial::text_copy();
    spoil(&trial.path("model/model.safetensors"), "model.norm.weight");
    let (model, data, out) = (trial.path("model"), fixture(TEXT_DATA), trial.path("out"));
    let not_finite = ["step 0: the log-probability is not finite for data row "];
    trial.refused(&[], NUMBERS, &not_finite);
    trial.untouched(&["inspect", &trial.path("recipe.toml"), "--dump", &out], NUMBERS, &not_finite);
    let score = ["score", "--model", &model, "--data", &data, "--out", &out];
    trial.untouched(&score, NUMBERS, &["prefs.jsonl: row 1: its log-probability is NaN", "hint"]);
    for temperature in ["0", "1"] {
        let generate = ["generate", "--model", &model, "--prompt", "a", "--temperature", temperature];
        trial.untouched(&generate, NUMBERS, &["logits of prompt 0, new token 0: not a number"]);
    }
}

#[test]
fn damaged_weights_of_an_image_model_are_noticed_by_every_command() {
    let trial = Trial::image();
    let model = trial.folder.copy("diffusion/sd1");
    replace_in(&trial.path("recipe.toml"), &fixture("diffusion/sd1"), &model);
    spoil(&trial.path("model/unet/diffusion_pytorch_model.safetensors"), "conv_out.bias");
    trial.refused(&[], NUMBERS, &["step 0: the log-probability is not finite for data row "]);
    let sample = ["sample", "--model", &model, "--prompt", "a", "--steps", "2", "--out", &trial.path("out")];
    trial.untouched(&sample, NUMBERS, &["an image that is not a number", "hint"]);
}

/// A weight that is out of range only in the backward is told by its parameter.
#[test]
fn a_gradient_that_is_not_finite_names_its_parameter() {
    let trial = Trial::text();
    let args = trial.training(&["objective.dpo.beta=1e38"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    fails(&args, NUMBERS, &["the gradient is not finite for parameter "]);
}
