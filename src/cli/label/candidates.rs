//! Candidates of prompts, drawn from models of texts or of images.

use super::origin::Origin;
use super::references::Referenced;
use crate::cli::image_model::{DrawSettings, ImageModel};
use crate::cli::judges::Chosen;
use crate::cli::prompts::Prompt;
use crate::cli::sample::sampler;
use crate::cli::text_model::TextModel;
use crate::cli::{Context, Failure, Outcome, signal};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use votive_critic::{Candidate, Finding, Picture, Question, Store, Winner};
use votive_diffusion::SamplerKind;
use votive_model::{GenerateOptions, generate};
use votive_tensor::random::{Draws, Stream};
use votive_train::Modality;

/// Prompts whose candidates are drawn, and stored, at a time.
const BATCH: usize = 8;
const STEPS: usize = 50;
const CFG: f64 = 7.5;
const NEW_TOKENS: usize = 128;

/// How candidates are drawn.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Candidates")]
pub(super) struct DrawingArgs {
    /// Images: how a model gets from noise to latents [default: ddim].
    #[arg(long, value_name = "NAME", value_parser = sampler())]
    sampler: Option<SamplerKind>,
    /// Images: steps of the sampler [default: 50].
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Images: scale of classifier-free guidance [default: 7.5].
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    cfg: Option<f64>,
    /// Texts: tokens of an answer at most [default: 128].
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Texts: divides the logits of answers [default: 1].
    #[arg(long, value_name = "T")]
    sampling_temperature: Option<f64>,
}

impl DrawingArgs {
    /// Refuses options that nothing would read.
    fn check(&self, modality: Modality) -> Outcome {
        let images = [
            ("--sampler", self.sampler.is_some()),
            ("--steps", self.steps.is_some()),
            ("--cfg", self.cfg.is_some()),
        ];
        let texts = [
            ("--max-new-tokens", self.max_new_tokens.is_some()),
            ("--sampling-temperature", self.sampling_temperature.is_some()),
        ];
        let (given, what) = match modality {
            Modality::Text => (images.as_slice(), "images"),
            Modality::Image => (texts.as_slice(), "texts"),
        };
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) => Err(Failure::usage(format!("{option} is for models of {what}"))),
            None => Ok(()),
        }
    }
}

/// What is drawn.
pub(super) struct Candidates<'a> {
    pub(super) models: &'a [PathBuf],
    pub(super) samples: usize,
    pub(super) seed: u64,
    pub(super) drawing: &'a DrawingArgs,
    /// Share of the pairs that are gold: their origin states what the playground's exact checker finds.
    pub(super) gold: f64,
}

/// A model that draws candidates.
enum Drawer {
    Texts(Box<TextModel>),
    Images(Box<ImageModel>),
}

impl Candidates<'_> {
    /// Draws the candidates of all prompts that the store does not have yet, and adds every two of each prompt as an item.
    ///
    /// # Errors
    /// If a model cannot be read or cannot draw, models draw different things, or the store cannot be written.
    pub(super) fn draw(&self, prompts: &[Referenced], store: &mut Store, ctx: &Context) -> Outcome {
        if self.models.len() * self.samples < 2 {
            return Err(Failure::usage("one candidate of a prompt is nothing to compare; raise --samples"));
        }
        let modalities =
            self.models.iter().map(|folder| Modality::of(folder)).collect::<Result<Vec<_>, _>>()?;
        let modality = modalities[0];
        if modalities.iter().any(|other| *other != modality) {
            return Err(Failure::usage("the models draw texts and images; label them apart"));
        }
        self.drawing.check(modality)?;
        let drawn = self.description(modality);
        let known: BTreeSet<(String, String)> = store
            .origins()?
            .into_iter()
            .filter_map(|(_, prompt, origin)| Some((prompt, origin.get("drawn")?.to_string())))
            .collect();
        let is_known =
            |one: &Referenced| known.contains(&(one.prompt.clone(), one.drawn_so(&drawn).to_string()));
        let open: Vec<(usize, &Referenced)> =
            prompts.iter().enumerate().filter(|(_, prompt)| !is_known(prompt)).collect();
        if open.is_empty() {
            return Ok(());
        }
        let device = ctx.device()?;
        let load = |folder: &PathBuf| -> Outcome<Drawer> {
            Ok(match modality {
                Modality::Text => Drawer::Texts(Box::new(TextModel::load(folder, None, &device)?)),
                Modality::Image => Drawer::Images(Box::new(ImageModel::load(folder, None, &device)?)),
            })
        };
        let drawers = self.models.iter().map(load).collect::<Outcome<Vec<_>>>()?;
        let progress = ctx.output.progress("drawing candidates", "prompts", prompts.len() as u64);
        let progress = progress.starting_at((prompts.len() - open.len()) as u64);
        for batch in open.chunks(BATCH) {
            signal::go_on()?;
            let mut of_models = Vec::with_capacity(drawers.len());
            for drawer in &drawers {
                of_models.push(self.draw_batch(drawer, batch, ctx)?);
            }
            for (row, (_, prompt)) in batch.iter().enumerate() {
                let all: Vec<&(Candidate, u64, bool)> = of_models.iter().flat_map(|of| &of[row]).collect();
                let mut pairs = self.pairs(prompt, &all, &drawn);
                self.mark_gold(&mut pairs, (batch[row].0 * all.len() * all.len()) as u64)?;
                store.add_all(&pairs)?;
            }
            progress.add(batch.len() as u64);
        }
        progress.finish();
        Ok(())
    }

    /// How candidates are drawn: equal descriptions give equal candidates of equal prompts.
    fn description(&self, modality: Modality) -> Value {
        let models: Vec<String> = self.models.iter().map(|folder| folder.display().to_string()).collect();
        let how = match modality {
            Modality::Text => {
                json!({ "max_new_tokens": self.new_tokens(), "temperature": self.temperature() })
            }
            Modality::Image => {
                let DrawSettings { sampler, steps, cfg } = self.settings();
                json!({ "sampler": sampler.name(), "steps": steps, "cfg": cfg })
            }
        };
        json!({ "models": models, "samples": self.samples, "seed": self.seed, "how": how })
    }

    fn settings(&self) -> DrawSettings {
        DrawSettings {
            sampler: self.drawing.sampler.unwrap_or(SamplerKind::Ddim),
            steps: self.drawing.steps.unwrap_or(STEPS),
            cfg: self.drawing.cfg.unwrap_or(CFG),
        }
    }

    fn new_tokens(&self) -> usize {
        self.drawing.max_new_tokens.unwrap_or(NEW_TOKENS)
    }

    fn temperature(&self) -> f64 {
        self.drawing.sampling_temperature.unwrap_or(1.0)
    }

    /// The candidates of each prompt, with their seeds and whether the prompt is a turn of a conversation.
    fn draw_batch(
        &self,
        drawer: &Drawer,
        batch: &[(usize, &Referenced)],
        ctx: &Context,
    ) -> Outcome<Vec<Vec<(Candidate, u64, bool)>>> {
        let samples = self.samples as u64;
        let tasks: Vec<(&String, u64)> = batch
            .iter()
            .flat_map(|(number, prompt)| {
                let first = self.seed + *number as u64 * samples;
                (first..first + samples).map(move |seed| (&prompt.prompt, seed))
            })
            .collect();
        let drawn: Vec<(Candidate, u64, bool)> = match drawer {
            Drawer::Images(model) => {
                let prompts: Vec<String> = tasks.iter().map(|(prompt, _)| (*prompt).clone()).collect();
                let seeds: Vec<u64> = tasks.iter().map(|(_, seed)| *seed).collect();
                let images = model.draw((&prompts, &seeds), self.settings(), &ctx.output)?;
                let kept = images.iter().zip(seeds);
                kept.map(|(image, seed)| Ok((Candidate::Image(Picture::of_pixels(image)?), seed, false)))
                    .collect::<Outcome<_>>()?
            }
            Drawer::Texts(model) => {
                let is_chat = model.tokenizer.has_chat_template();
                let encode = |(prompt, _): &(&String, u64)| {
                    Prompt::Text((*prompt).clone()).encode(&model.tokenizer, is_chat, &[])
                };
                let ids = tasks.iter().map(encode).collect::<Outcome<Vec<_>>>()?;
                let mut texts = Vec::with_capacity(tasks.len());
                for ((_, seed), ids) in tasks.iter().zip(ids) {
                    let options = GenerateOptions {
                        first_sample: 0,
                        ..GenerateOptions::sampled(
                            self.new_tokens(),
                            model.tokenizer.stop_ids().to_vec(),
                            self.temperature(),
                            *seed,
                        )
                    };
                    let made = generate(&model.network, &[ids], &options)?;
                    let ids = made.into_iter().next().map(|made| made.token_ids).unwrap_or_default();
                    texts.push((Candidate::Text(model.tokenizer.decode(&ids, true)?), *seed, is_chat));
                }
                texts
            }
        };
        Ok(drawn.chunks(self.samples).map(<[_]>::to_vec).collect())
    }

    /// Every two different candidates of a prompt.
    fn pairs(
        &self,
        prompt: &Referenced,
        all: &[&(Candidate, u64, bool)],
        drawn: &Value,
    ) -> Vec<(Question, Value)> {
        let model = |place: usize| self.models[place / self.samples].display().to_string();
        let mut pairs = Vec::new();
        for (i, (first, first_seed, is_chat)) in all.iter().enumerate() {
            for (j, (second, second_seed, _)) in all.iter().enumerate().skip(i + 1) {
                if first == second {
                    continue;
                }
                let origin = Origin {
                    drawn: prompt.drawn_so(drawn),
                    places: [i, j],
                    models: [model(i), model(j)],
                    seeds: [*first_seed, *second_seed],
                    is_chat: *is_chat,
                };
                let question = Question::pair(&prompt.prompt, first.clone(), second.clone());
                pairs.push((prompt.beside_reference(question), origin.to_value()));
            }
        }
        pairs
    }

    /// Writes the exact checker's verdict into the origins of some pairs, where it finds one better; `first` is the number of the first of
    /// them.
    fn mark_gold(&self, pairs: &mut [(Question, Value)], first: u64) -> Outcome {
        if self.gold == 0.0 {
            return Ok(());
        }
        let checker = Chosen::exact()?;
        for (number, (question, origin)) in (first..).zip(pairs) {
            if !Draws::new(self.seed, Stream::LabelFlip, 1, number).chance(self.gold) {
                continue;
            }
            let finding = checker.judge.judge(question, 0)?.finding;
            if let Finding::Abstention(why) = &finding {
                let message =
                    format!("--gold: the exact checker knows the playground only: {}", why.reason());
                return Err(Failure::usage(message).hint("votive data playground prints its prompts"));
            }
            if let Some(winner @ (Winner::First | Winner::Second)) = finding.winner() {
                origin["truth"] = json!(winner);
            }
        }
        Ok(())
    }
}

/// The name of a folder, for tables.
pub(super) fn short(model: &str) -> String {
    Path::new(model).file_name().map_or_else(|| model.to_owned(), |name| name.to_string_lossy().into_owned())
}
