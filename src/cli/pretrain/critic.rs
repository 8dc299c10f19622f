//! A critic of pictures from nothing: a tiny LLaVA that learns to describe pictures, to say whether one fits its caption and
//! what is wrong, and which of two fits better and why.

use super::super::speaker::TalkReader;
use super::super::world::stored;
use super::super::{Failure, Outcome};
use super::{ELSEWHERE, Job, image_processor, size};
use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use votive_critic::{Candidate, Part, Question, Role, Silence, Talk, Template, Turn};
use votive_model::config::ConfigFile;
use votive_model::hub_folder::copy_tokenizer;
use votive_model::{CausalLmConfig, LlamaConfig, Params, files, load_causal_lm, save_causal_lm};
use votive_playground::image::{Exercise, SIDE, exercise};
use votive_train::TrainError;
use votive_train::pretrain::{IMAGE, LanguagePretraining, Schedule, TextExample, text_tokenizer};
use votive_train::recipe::Resolver;

/// What a picture's description is asked with.
const DESCRIBE: &str = "\nWhat is shown?";

/// Sizes of the networks.
struct Sizes {
    vocabulary: usize,
    hidden: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    positions: usize,
    vision: VisionSizes,
}

/// Sizes of the image encoder.
struct VisionSizes {
    hidden: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    patch: usize,
}

impl Sizes {
    fn resolve(r: &mut Resolver) -> Self {
        Self {
            vocabulary: size(r, "model.vocab_size", 400, "Entries of the tokenizer."),
            hidden: size(r, "model.hidden_size", 128, "Width of the language model."),
            inner: size(r, "model.intermediate_size", 352, "Width inside the SwiGLU."),
            layers: size(r, "model.num_hidden_layers", 4, "Layers of the language model."),
            heads: size(r, "model.num_attention_heads", 4, "Attention heads of the language model."),
            positions: size(r, "model.max_position_embeddings", 256, "Longest row in tokens."),
            vision: VisionSizes {
                hidden: size(r, "vision.hidden_size", 128, "Width of the image encoder."),
                inner: size(r, "vision.intermediate_size", 256, "Width inside its layers."),
                layers: size(r, "vision.num_hidden_layers", 4, "Layers of the image encoder."),
                heads: size(r, "vision.num_attention_heads", 4, "Attention heads of the image encoder."),
                patch: size(r, "vision.patch_size", 4, "Pixels along a side of a patch."),
            },
        }
    }

    /// Vectors of an image.
    fn patches(&self) -> usize {
        (SIDE / self.vision.patch.max(1)).pow(2)
    }
}

/// How the critic is asked.
struct Templates {
    fit: Template,
    pair: Template,
}

pub(super) fn run(job: &Job, mut r: Resolver) -> Outcome {
    let sizes = Sizes::resolve(&mut r);
    let start_from = r
        .string(
            "model.start_from",
            None,
            "A critic's folder whose weights and tokenizer the run starts from; fresh ones without.",
        )
        .map(PathBuf::from);
    let schedule = Schedule::resolve(&mut r);
    if sizes.vision.patch == 0 || !SIDE.is_multiple_of(sizes.vision.patch) {
        r.mistake("vision.patch_size", &format!("pictures have {SIDE} pixels a side"));
    }
    job.settle(r)?;
    let templates =
        Templates { fit: Template::named("picture-fit")?, pair: Template::named("picture-pair")? };
    let folder = job.out.join("final");
    if let Some(start) = &start_from {
        std::fs::create_dir_all(&folder).map_err(|error| Failure::file(&folder, error))?;
        copy_tokenizer(start, &folder)?;
    } else if !folder.join("tokenizer.json").exists() {
        // Exercises far behind those that are trained on.
        let texts = (0..20_000).flat_map(|i| texts(&exercise(job.world, ELSEWHERE + i), &templates));
        text_tokenizer(texts, sizes.vocabulary, sizes.positions, true, &folder)?;
    }
    write_configuration(&sizes, &folder)?;
    let reader = TalkReader::load(&folder)?;
    let config = CausalLmConfig::read_folder(&folder)?;
    let eos = reader.tokenizer.eos_id()?;
    let example = |index: u64| -> Result<TextExample, TrainError> {
        let wrong = |what: String| TrainError::Plan(format!("exercise {index}: {what}"));
        let (talk, answer) =
            talk_of(exercise(job.world, index), &templates).map_err(|e| wrong(e.message().to_owned()))?;
        let read = reader.read(&talk).map_err(|silence| wrong(in_words(&silence)))?;
        let mut answer = reader.tokenizer.encode(&answer, false)?;
        answer.push(eos);
        Ok(TextExample { prompt: read.ids, images: read.images, answer })
    };
    let params = match &start_from {
        None => Params::fresh(schedule.seed, &Device::Cpu, |scope| config.build(scope))?.1,
        Some(start) => started(start, &config)?,
    };
    let params = params.into_trainable()?;
    let model = params.build(|scope| config.build(scope))?;
    let work = LanguagePretraining { model: &model, examples: &example };
    let mut result = job.train(&schedule, params.trainable(), |examples| work.loss(examples))?;
    // The norm behind the image encoder's last layer, whose output is not read: files of transformers hold it.
    let norm = "model.vision_tower.post_layernorm";
    let width = sizes.vision.hidden;
    result.insert(format!("{norm}.weight"), Tensor::ones(width, DType::F32, &Device::Cpu)?);
    result.insert(format!("{norm}.bias"), Tensor::zeros(width, DType::F32, &Device::Cpu)?);
    save_causal_lm(&folder, &config, &Params::new("pretrained", result, &Device::Cpu), DType::F16)?;
    job.ctx.output.line(folder.display())
}

/// The weights of another critic of the same shape.
fn started(start: &Path, config: &CausalLmConfig) -> Outcome<Params> {
    let (found, params) = load_causal_lm(start, &Device::Cpu)?;
    match found.is_same_network(config) {
        true => Ok(params),
        false => {
            Err(Failure::usage(format!("{}: a network of other sizes than the recipe's", start.display())))
        }
    }
}

/// `config.json` and `processor_config.json`, as transformers has them.
fn write_configuration(sizes: &Sizes, folder: &Path) -> Outcome {
    let tokenizer = votive_data::TextTokenizer::load(folder)?;
    let image = tokenizer.encode(IMAGE, false)?;
    let [image] = image[..] else {
        return Err(Failure::data(format!("{}: {IMAGE} is no token of it", folder.display())));
    };
    let mut text = LlamaConfig::llama(
        tokenizer.vocab_size(),
        (sizes.hidden, sizes.inner),
        sizes.layers,
        (sizes.heads, sizes.heads),
        sizes.positions,
    );
    text.sizes.tie_word_embeddings = true;
    text.bos_token_id = tokenizer.bos_id();
    text.eos_token_id = vec![tokenizer.eos_id()?];
    text.pad_token_id = Some(tokenizer.pad_id()?);
    let vision = json!({
        "model_type": "clip_vision_model",
        "hidden_size": sizes.vision.hidden,
        "intermediate_size": sizes.vision.inner,
        "num_hidden_layers": sizes.vision.layers,
        "num_attention_heads": sizes.vision.heads,
        "patch_size": sizes.vision.patch,
        "image_size": SIDE,
        "num_channels": 3,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": sizes.vision.hidden,
    });
    let config = json!({
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "dtype": "float32",
        "image_token_index": image,
        "image_seq_length": sizes.patches(),
        "multimodal_projector_bias": true,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": true,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "text_config": text.to_json("float32"),
        "vision_config": vision,
    });
    files::write_json(&folder.join("config.json"), &config)?;
    // Read once, so that a size that makes no sense is named before anything is trained.
    CausalLmConfig::read(&ConfigFile::read(&folder.join("config.json"))?)?;
    files::write_json(&folder.join("processor_config.json"), &processor(sizes))?;
    Ok(())
}

fn processor(sizes: &Sizes) -> Value {
    json!({
        "processor_class": "LlavaProcessor",
        "image_token": IMAGE,
        "patch_size": sizes.vision.patch,
        "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": "default",
        "image_processor": image_processor(),
    })
}

/// An exercise as a talk, and what should be said.
fn talk_of(exercise: Exercise, templates: &Templates) -> Outcome<(Talk, String)> {
    match exercise {
        Exercise::Describe { picture, answer } => {
            let parts = vec![Part::Image(stored(&picture)?), Part::Text(DESCRIBE.to_owned())];
            let turns = vec![Turn { role: Role::User, parts }];
            Ok((Talk { turns, next: Role::Assistant }, answer))
        }
        Exercise::Grade { caption, picture, answer } => {
            let question = Question::grade(caption, Candidate::Image(stored(&picture)?));
            Ok((templates.fit.render(&question, &[])?.talk, answer))
        }
        Exercise::Pair { caption, pictures: [a, b], answer } => {
            let [a, b] = [stored(&a)?, stored(&b)?].map(Candidate::Image);
            Ok((templates.pair.render(&Question::pair(caption, a, b), &[])?.talk, answer))
        }
    }
}

/// All words of an exercise, for the tokenizer.
fn texts(exercise: &Exercise, templates: &Templates) -> Vec<String> {
    let Ok((talk, answer)) = talk_of(exercise.clone(), templates) else { return Vec::new() };
    let parts = talk.turns.into_iter().flat_map(|turn| turn.parts);
    let words = parts.filter_map(|part| match part {
        Part::Text(text) => Some(text),
        Part::Image(_) => None,
    });
    words.chain([answer]).collect()
}

fn in_words(silence: &Silence) -> String {
    match silence {
        Silence::Unreadable(why) | Silence::NoAnswer(why) => why.clone(),
        Silence::Fatal(error) => error.to_string(),
    }
}
