//! A language model from nothing on the text world.

use super::super::Outcome;
use super::super::world::as_prompt;
use super::{ELSEWHERE, Job, size};
use candle_core::{DType, Device};
use votive_data::TextTokenizer;
use votive_model::{LlamaConfig, Params, save_causal_lm};
use votive_playground::text;
use votive_train::pretrain::{LanguagePretraining, Schedule, TextExample, text_tokenizer};
use votive_train::recipe::Resolver;

pub(super) fn run(job: &Job, mut r: Resolver) -> Outcome {
    let vocabulary = size(&mut r, "model.vocab_size", 1024, "Entries of the tokenizer.");
    let hidden = size(&mut r, "model.hidden_size", 128, "Width of the model.");
    let inner = size(&mut r, "model.intermediate_size", 352, "Width inside the SwiGLU.");
    let layers = size(&mut r, "model.num_hidden_layers", 5, "Layers.");
    let heads = size(&mut r, "model.num_attention_heads", 4, "Attention heads.");
    let positions = size(&mut r, "model.max_position_embeddings", 256, "Longest row in tokens.");
    let schedule = Schedule::resolve(&mut r);
    job.settle(r)?;
    let world = job.world;
    let example = move |index: u64| {
        let (prompt, answer) = text::training_example(world, index);
        (as_prompt(&prompt), answer)
    };
    let folder = job.out.join("final");
    if !folder.join("tokenizer.json").exists() {
        // Examples far behind those that are trained on: the tokenizer sees the same world, not the same rows.
        let texts = (0..20_000).map(|i| example(ELSEWHERE + i)).flat_map(|(prompt, answer)| [prompt, answer]);
        text_tokenizer(texts, vocabulary, positions, false, &folder)?;
    }
    let tokenizer = TextTokenizer::load(&folder)?;
    let mut config =
        LlamaConfig::llama(tokenizer.vocab_size(), (hidden, inner), layers, (heads, heads), positions);
    config.sizes.tie_word_embeddings = true;
    config.bos_token_id = tokenizer.bos_id();
    config.eos_token_id = vec![tokenizer.eos_id()?];
    config.pad_token_id = Some(tokenizer.pad_id()?);
    let (_, params) = Params::fresh(schedule.seed, &Device::Cpu, |scope| config.build(scope))?;
    let params = params.into_trainable()?;
    let model = params.build(|scope| config.build(scope))?;
    let eos = tokenizer.eos_id()?;
    let encoded = |index: u64| {
        let (prompt, answer) = example(index);
        let mut answer = tokenizer.encode(&answer, false)?;
        answer.push(eos);
        Ok(TextExample { prompt: tokenizer.encode(&prompt, true)?, images: Vec::new(), answer })
    };
    let work = LanguagePretraining { model: &model, examples: &encoded };
    let result = job.train(&schedule, params.trainable(), |examples| work.loss(examples))?;
    save_causal_lm(&folder, &config.into(), &Params::new("pretrained", result, &Device::Cpu), DType::F16)?;
    job.ctx.output.line(folder.display())
}
