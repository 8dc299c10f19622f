//! A CLIP model from nothing on the image world: how well a picture fits its caption, in one cosine.

use super::super::Outcome;
use super::{ELSEWHERE, Job, image_processor, pixels, size};
use candle_core::{DType, Device};
use serde_json::{Value, json};
use std::path::Path;
use votive_data::ClipTokenizer;
use votive_model::clip::{ClipConfig, ClipModel};
use votive_model::config::ConfigFile;
use votive_model::{Params, files};
use votive_playground::image::{self, SIDE};
use votive_train::pretrain::{ClipPretraining, Schedule, clip_tokenizer};
use votive_train::recipe::Resolver;
use votive_train::reward::ClipScorer;

/// Sizes of the towers.
struct Sizes {
    projection: usize,
    text: TowerSizes,
    positions: usize,
    vision: TowerSizes,
    patch: usize,
}

struct TowerSizes {
    hidden: usize,
    inner: usize,
    layers: usize,
    heads: usize,
}

impl Sizes {
    fn resolve(r: &mut Resolver) -> Self {
        Self {
            projection: size(r, "model.projection_dim", 64, "Width of the space that both towers end in."),
            text: TowerSizes {
                hidden: size(r, "text.hidden_size", 96, "Width of the text encoder."),
                inner: size(r, "text.intermediate_size", 192, "Width inside its layers."),
                layers: size(r, "text.num_hidden_layers", 3, "Layers of the text encoder."),
                heads: size(r, "text.num_attention_heads", 4, "Attention heads of the text encoder."),
            },
            positions: size(r, "text.max_position_embeddings", 24, "Longest caption in tokens."),
            vision: TowerSizes {
                hidden: size(r, "vision.hidden_size", 128, "Width of the image encoder."),
                inner: size(r, "vision.intermediate_size", 256, "Width inside its layers."),
                layers: size(r, "vision.num_hidden_layers", 4, "Layers of the image encoder."),
                heads: size(r, "vision.num_attention_heads", 4, "Attention heads of the image encoder."),
            },
            patch: size(r, "vision.patch_size", 4, "Pixels along a side of a patch."),
        }
    }
}

pub(super) fn run(job: &Job, mut r: Resolver) -> Outcome {
    let sizes = Sizes::resolve(&mut r);
    let schedule = Schedule::resolve(&mut r);
    if sizes.patch == 0 || !SIDE.is_multiple_of(sizes.patch) {
        r.mistake("vision.patch_size", &format!("pictures have {SIDE} pixels a side"));
    }
    job.settle(r)?;
    let folder = job.out.join("final");
    let world = job.world;
    // Pictures as they are captioned on the web: some do not show what their caption says.
    let example = move |index: u64| {
        let (caption, picture) = image::training_example(world, index);
        (caption, pixels(&picture))
    };
    if !folder.join("vocab.json").exists() {
        clip_tokenizer((0..20_000).map(|i| example(ELSEWHERE + i).0), sizes.positions, &folder)?;
    }
    let tokenizer = ClipTokenizer::load(&folder)?;
    files::write_json(&folder.join("config.json"), &configuration(&sizes, &tokenizer))?;
    files::write_json(&folder.join("preprocessor_config.json"), &image_processor())?;
    let config = ClipConfig::from_file(&ConfigFile::read(&folder.join("config.json"))?)?;
    let build = |params: &Params| params.build(|scope| ClipModel::new(scope, &config));
    let params = Params::fresh(schedule.seed, &Device::Cpu, |scope| ClipModel::new(scope, &config))?.1;
    let params = params.into_trainable()?;
    let model = build(&params)?;
    let work = ClipPretraining { model: &model, tokenizer: &tokenizer, examples: &example };
    let result = job.train(&schedule, params.trainable(), |examples| work.loss(examples))?;
    files::write(&folder.join("model.safetensors"), result, DType::F16, std::collections::BTreeMap::new())?;
    report_pairs(job, &folder)?;
    job.ctx.output.line(folder.display())
}

/// `config.json`, as transformers has it.
fn configuration(sizes: &Sizes, tokenizer: &ClipTokenizer) -> Value {
    let tower = |tower: &TowerSizes| {
        json!({
            "hidden_size": tower.hidden,
            "intermediate_size": tower.inner,
            "num_hidden_layers": tower.layers,
            "num_attention_heads": tower.heads,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
            "projection_dim": sizes.projection,
        })
    };
    let (mut text, mut vision) = (tower(&sizes.text), tower(&sizes.vision));
    let end = tokenizer.end_id();
    text["model_type"] = "clip_text_model".into();
    text["vocab_size"] = tokenizer.vocab_size().into();
    text["max_position_embeddings"] = sizes.positions.into();
    // The tokenizer's last two entries are the start and the end of a caption.
    text["bos_token_id"] = (end - 1).into();
    text["eos_token_id"] = end.into();
    text["pad_token_id"] = end.into();
    vision["model_type"] = "clip_vision_model".into();
    vision["image_size"] = SIDE.into();
    vision["patch_size"] = sizes.patch.into();
    vision["num_channels"] = 3.into();
    json!({
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "dtype": "float32",
        "logit_scale_init_value": 2.6592,
        "projection_dim": sizes.projection,
        "text_config": text,
        "vision_config": vision,
    })
}

/// Says how often the written model finds the better one of two pictures of a held-out caption.
fn report_pairs(job: &Job, folder: &Path) -> Outcome {
    const PAIRS: usize = 400;
    let scorer = ClipScorer::open(folder, &Device::Cpu)?;
    let pairs = image::clear_pairs(votive_playground::Split::Select, job.world, PAIRS);
    let mut right = Vec::with_capacity(pairs.len());
    for pair in &pairs {
        let texts = scorer.texts(&[pair.caption.as_str(), pair.caption.as_str()])?.embeds;
        let pixels =
            [&pair.better, &pair.worse].map(|shown| (shown.rgb.as_slice(), (shown.width, shown.height)));
        let cosines = scorer.cosines_of_files(&pixels, &texts)?;
        right.push(cosines[0] > cosines[1]);
    }
    let share = votive_eval::share(&right);
    let (value, low, high) = (share.value, share.low, share.high);
    job.ctx
        .output
        .note(format!("{value:.1} % [{low:.1}, {high:.1}] of {PAIRS} held-out pairs are told right"));
    Ok(())
}
