//! Recipes: every mistake has a place, and all are told at once.

use super::*;

#[test]
fn a_recipe_that_cannot_be_read_is_named() {
    let trial = Trial::text();
    for (recipe, why) in [("none.toml", "No such file"), ("", "Is a directory")] {
        let recipe = trial.path(recipe);
        for command in ["train", "inspect"] {
            trial.untouched(&[command, &recipe], USAGE, &[&recipe, "the recipe cannot be read", why]);
        }
    }
    let trial = trial.with_recipe("[model]\npath = \n");
    trial.refused(&[], USAGE, &["recipe.toml", "line 2, column 8"]);
}

#[test]
fn several_mistakes_are_told_at_once_with_their_places() {
    let model = fixture("text/llama");
    let trial = Trial::text().with_recipe(&format!(
        "[model]\npath = {model:?}\n[data]\nlong_rows = \"shorten\"\n[objective.dpo]\nbetta = 0.1\n\
         [optimizer]\nlr = \"fast\"\n  weigth_decay = 0.1\n[train]\nsteps = 2.5\nbatch_size = 0\n"
    ));
    let places = [
        "recipe.toml: 8 mistakes in the recipe",
        "recipe: data.path is missing",
        "line 4, column 1: data.long_rows: expected \"error\" | \"drop\" | \"truncate\", found \"shorten\"",
        "line 6, column 1: unknown key `objective.dpo.betta`; did you mean `objective.dpo.beta`?",
        "line 8, column 1: optimizer.lr: expected a number ≥ 0, found \"fast\"",
        "line 9, column 3: unknown key `optimizer.weigth_decay`; did you mean `optimizer.weight_decay`?",
        "line 11, column 1: train.steps: expected a whole number ≥ 1, found 2.5",
        "line 12, column 1: train.batch_size: expected a whole number ≥ 1, found 0",
        "--set seed=3: unknown key `seed`",
    ];
    trial.refused(&["seed=3"], USAGE, &places);
}

#[test]
fn an_override_is_told_by_its_words() {
    let trial = Trial::text();
    for (setting, part) in [
        ("train.steps", "expected key=value"),
        ("train.step=3", "unknown key `train.step`; did you mean `train.steps`?"),
        ("train=3", "unknown key `train`"),
        ("train.steps.x=3", "unknown key `train.steps.x`"),
        ("optimizer.lr=nan", "optimizer.lr: expected a number ≥ 0, found nan"),
        ("optimizer.lr=true", "optimizer.lr: expected a number ≥ 0, found true"),
        ("optimizer.betas=[0.9]", "two numbers in [0, 1)"),
        ("model.path=[1]", "model.path: expected a string, found [1]"),
        ("train.micro_batch_size=3", "must divide train.batch_size = 2"),
        ("train.batch_size=1000000000000000", "must be at most 1000000"),
        ("adapter.lora.rank=1000000000", "must be at most 4096"),
        ("adapter.lora.alpha=0", "must be above 0"),
        ("adapter.lora.dropout=0.1", "only 0.0 is implemented"),
        ("diffusion.resolution=64", "unknown key `diffusion.resolution`"),
    ] {
        trial.refused(&[setting], USAGE, &["1 mistake in the recipe", &format!("--set {setting}"), part]);
    }
}

#[test]
fn an_objective_has_a_known_id_and_options_in_range() {
    let trial = Trial::text();
    replace_in(&trial.path("recipe.toml"), "[objective.dpo]", "[objective.simppo]");
    let parts = [
        "line 5, column 12: objective.simppo: ",
        "unknown objective `simppo`; known: alphapo, ",
        ", d3po, ",
        "did you mean `simpo`?",
    ];
    trial.refused(&[], USAGE, &parts);
    replace_in(&trial.path("recipe.toml"), "[objective.simppo]\nbeta = 0.1", "[objective.dpo]\nbeta = -0.1");
    let range = "line 6, column 1: objective.dpo.beta: objective `dpo`: option `beta` = -0.1 must be a finite \
                 number above 0";
    trial.refused(&[], USAGE, &[range]);
    trial.refused(&["objective.dpo.beta=large"], USAGE, &["objective.dpo.beta: expected a number, found"]);
    replace_in(
        &trial.path("recipe.toml"),
        "[objective.dpo]\nbeta = -0.1",
        "[objective.dpo]\nreduction = \"average\"",
    );
    trial.refused(
        &[],
        USAGE,
        &["line 6, column 1: objective.dpo.reduction: expected \"mean\" | \"sum\" | \"tokens\""],
    );
    trial.refused(&["objective.sft.weight=-1"], USAGE, &["objective.sft.weight: expected a number ≥ 0"]);
    trial.refused(&["objective.sft.weight=0"], USAGE, &["objective: every term has weight 0"]);
    replace_in(&trial.path("recipe.toml"), "[objective.dpo]\nreduction = \"average\"", "");
    trial.refused(&[], USAGE, &["objective: is missing; write an [objective.<id>]"]);
}

#[test]
fn a_reference_fits_the_objective_the_adapter_and_the_model() {
    let text = Trial::text();
    text.refused(&["reference.kind=none"], USAGE, &["--set reference.kind=none", "`dpo` needs a reference"]);
    text.refused(
        &["reference.kind=adapter_off"],
        USAGE,
        &["reference.kind = \"adapter_off\"", "[adapter.lora]"],
    );
    text.refused(
        &["reference.kind=old"],
        USAGE,
        &[
            "\"frozen\" | \"adapter_off\" | \"cached\" | ",
            "| \"hard\" | \"bema\" | \"none\"",
            "found \"old\"",
        ],
    );
    // Sums say nothing of single tokens, and a denoiser has none.
    let cached = ["reference.kind=cached", "objective.tdpo.beta=0.1"];
    text.refused(
        &cached,
        USAGE,
        &["`tdpo` looks at single tokens, and a cached reference has only their sums"],
    );
    let single = "objective.ld_dpo: looks at single tokens, which a denoiser does not have";
    Trial::image().refused(&["objective.ld_dpo.alpha=0.5"], USAGE, &[single]);
    // Keys of another kind of reference.
    text.refused(&["reference.every=5"], USAGE, &["reference.every", "unknown key"]);
    text.refused(&["reference.kind=model"], USAGE, &["reference.path"]);
    text.refused(
        &["reference.kind=soft", "reference.alpha=0"],
        USAGE,
        &["reference.alpha", "0, expected more than 0"],
    );
    text.refused(&["reference.kind=cached", "objective.kto.beta=0.1"], USAGE, &["reference.kind", "frozen"]);
    Trial::image().refused(
        &["reference.kind=cached"],
        USAGE,
        &["reference.kind = \"cached\"", "time and noise", "use \"frozen\""],
    );
}

/// Sizes that no memory holds are refused before anything is made in them.
#[test]
fn sizes_that_the_model_cannot_have_are_refused() {
    let (text, image) = (Trial::text(), Trial::image());
    text.refused(&["data.max_length=300"], USAGE, &["data.max_length = 300", "256 positions"]);
    text.refused(
        &["adapter.lora.targets=[\"query\"]"],
        USAGE,
        &["adapter.lora: target `query` names no linear map"],
    );
    for side in ["4000000000", "1"] {
        let parts = ["diffusion.resolution", side, "expected 4 to 4096"];
        image.refused(&[&format!("diffusion.resolution={side}")], USAGE, &parts);
    }
    let outside = ["diffusion.timesteps: timestep 1000 is outside the schedule's 0..1000"];
    image.refused(&["diffusion.timesteps=[3, 1000]"], USAGE, &outside);
    let bins = ["diffusion.timesteps: 1001 bins, expected 1 to 1000"];
    image.refused(&["diffusion.timesteps={ bins = 1001, gamma = 0.9 }"], USAGE, &bins);
    let shape = ["diffusion.timesteps: expected \"uniform\" | a list of whole numbers"];
    image.refused(&["diffusion.timesteps={ bins = 10 }"], USAGE, &shape);
    let weight = ["diffusion.weight_gamma: must be above 0"];
    image.refused(&["diffusion.weight=min_snr", "diffusion.weight_gamma=0"], USAGE, &weight);
    let inversion = ["diffusion.inversion_steps: 1001, expected 0 to 1000"];
    image.refused(&["diffusion.noise=inversion", "diffusion.inversion_steps=1001"], USAGE, &inversion);
    image.refused(&["diffusion.caption_dropout=1.5"], USAGE, &["caption_dropout", "must be at most 1"]);
}
