//! Edits of candidates: images made anew from themselves, texts written anew.

use super::originals::Original;
use super::report::Report;
use super::{Args, DrawingArgs};
use crate::cli::image_edit::Retouch;
use crate::cli::image_model::{DrawSettings, ImageModel};
use crate::cli::judges::{Critic, Subject};
use crate::cli::{Context, Failure, Outcome, signal};
use image::RgbImage;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use votive_critic::{Candidate, Cost, Edit, Picture, Question, Sampling, Store, revise};
use votive_diffusion::SamplerKind;
use votive_train::Modality;

/// Images that are edited, and stored, at a time.
const BATCH: usize = 8;
const STEPS: usize = 50;
const CFG: f64 = 7.5;

/// What is to be done about an original.
pub(super) struct Plan<'a> {
    pub(super) original: &'a Original,
    /// Who criticised it.
    pub(super) critic: String,
    /// What was said, word by word.
    pub(super) words: String,
    /// What is wrong.
    pub(super) wrong: Vec<String>,
    /// The edit, if it is an image.
    pub(super) edit: Option<Edit>,
}

/// Whoever edits.
pub(super) enum Editor<'a> {
    /// A Stable Diffusion model, which is read when there is something to edit.
    Images { folder: PathBuf, settings: DrawSettings },
    /// A language model, asked by the critic's template.
    Texts { writer: Box<Critic>, critic: &'a Critic, sampling: Sampling },
}

/// An edit that is not in the store yet: its plan and what the store will say of it.
type Open<'p, 'a> = (usize, &'p Plan<'a>, Value);

impl<'a> Editor<'a> {
    /// The editor that the arguments name.
    ///
    /// # Errors
    /// If it edits something else, or the critic's template does not say how.
    pub(super) fn of(args: &Args, subject: Subject, critic: &'a Critic, ctx: &Context) -> Outcome<Self> {
        let DrawingArgs { sampler, steps, cfg } = args.drawing;
        let name = critic.template.name();
        let lacks = |what: &str| {
            Failure::usage(format!("the template {name} has no {what}, and says not what to do"))
        };
        match subject {
            Subject::Images => {
                if !critic.template.edits_images() {
                    return Err(lacks("[edit]"));
                }
                let folder = PathBuf::from(&args.model);
                if Modality::of(&folder)? != Modality::Image {
                    let message = format!("{} edits no images; a Stable Diffusion folder does", args.model);
                    return Err(Failure::usage(message));
                }
                let sampler = sampler.unwrap_or(SamplerKind::Ddim);
                let settings =
                    DrawSettings { sampler, steps: steps.unwrap_or(STEPS), cfg: cfg.unwrap_or(CFG) };
                Ok(Self::Images { folder, settings })
            }
            Subject::Texts => {
                if !critic.template.revises_texts() {
                    return Err(lacks("[[revision]]"));
                }
                let given = [
                    ("--sampler", sampler.is_some()),
                    ("--steps", steps.is_some()),
                    ("--cfg", cfg.is_some()),
                ];
                if let Some((option, _)) = given.iter().find(|(_, is_given)| *is_given) {
                    return Err(Failure::usage(format!("{option} is for edits of images")));
                }
                let template = args.critic_template.as_deref();
                let writer = Box::new(args.judge.critic(&args.model, template, (subject, args.seed), ctx)?);
                Ok(Self::Texts { writer, critic, sampling: args.judge.sampling(args.seed) })
            }
        }
    }

    /// Makes every edit that the store does not have, and adds (original, edited) as an item; gives the items of all plans whose
    /// edit changed something.
    ///
    /// # Errors
    /// If the editor cannot be read or fails, or the store cannot be written.
    pub(super) fn make<'p>(
        &self,
        plans: &'p [Plan<'a>],
        (editor, seed): (&str, u64),
        (store, report): (&mut Store, &mut Report),
        ctx: &Context,
    ) -> Outcome<Vec<(&'p Plan<'a>, i64)>> {
        let how = self.description(editor);
        let mut known: BTreeMap<String, i64> = BTreeMap::new();
        for (id, _, origin) in store.origins()? {
            if origin.get("revised").is_some() {
                known.insert(origin.to_string(), id);
            }
        }
        let (mut items, mut open) = (vec![None; plans.len()], Vec::new());
        for (number, plan) in plans.iter().enumerate() {
            let origin = origin(plan, &how, seed);
            match known.get(&origin.to_string()) {
                Some(id) => items[number] = Some(*id),
                None => open.push((number, plan, origin)),
            }
        }
        let progress = ctx.output.progress("editing", "candidates", plans.len() as u64);
        let progress = progress.starting_at((plans.len() - open.len()) as u64);
        let shared = Mutex::new((store, &mut *report, &mut items));
        let keep = |made: Vec<(&Open, Candidate)>| -> Outcome {
            let mut held = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let rows: Vec<(Question, Value)> = made
                .iter()
                .map(|((_, plan, origin), edited)| {
                    (plan.original.question.beside(edited.clone()), origin.clone())
                })
                .collect();
            for (id, ((number, ..), _)) in held.0.add_all(&rows)?.into_iter().zip(&made) {
                held.2[*number] = Some(id);
            }
            progress.add(made.len() as u64);
            Ok(())
        };
        match self {
            Self::Images { folder, settings } if !open.is_empty() => {
                let model = ImageModel::load(folder, None, &ctx.device()?)?;
                retouch(&model, *settings, &open, ctx, keep)?;
            }
            Self::Images { .. } => {}
            Self::Texts { writer, critic, sampling } => {
                let one = |open: &Open| -> Outcome {
                    signal::go_on()?;
                    let question = &open.1.original.question;
                    let sampling = Sampling { seed: seed_of(question, seed), ..*sampling };
                    let asked = (question, open.1.words.as_str());
                    let (revised, cost): (_, Cost) =
                        revise(writer.speaker(), &critic.template, asked, &sampling)?;
                    shared.lock().unwrap_or_else(PoisonError::into_inner).1.cost += cost;
                    match revised {
                        Ok(text) => keep(vec![(open, Candidate::Text(text))]),
                        Err(abstention) => {
                            let mut held = shared.lock().unwrap_or_else(PoisonError::into_inner);
                            *held.1.edits.abstentions.entry(abstention.reason()).or_insert(0) += 1;
                            progress.add(1);
                            Ok(())
                        }
                    }
                };
                writer.chosen.at_once(|| open.par_iter().try_for_each(one))?;
            }
        }
        let (store, report, _) = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        progress.finish();
        let mut changed = Vec::new();
        for (plan, item) in plans.iter().zip(items) {
            let Some(item) = item else { continue };
            let outline = store.outline(item)?;
            let is_changed =
                outline.is_some_and(|outline| matches!(&outline.candidates[..], [a, b] if a != b));
            if is_changed {
                changed.push((plan, item));
            } else {
                report.edits.unchanged += 1;
            }
        }
        report.edits.made = changed.len();
        Ok(changed)
    }

    /// How edits are made: equal descriptions give equal edits of equal plans.
    fn description(&self, editor: &str) -> Value {
        match self {
            Self::Images { settings: DrawSettings { sampler, steps, cfg }, .. } => {
                json!({ "model": editor, "sampler": sampler.name(), "steps": steps, "cfg": cfg })
            }
            Self::Texts { critic, sampling: Sampling { temperature, max_tokens, .. }, .. } => {
                let template = critic.template.hash();
                json!({ "model": editor, "template": template, "temperature": temperature, "max_tokens": max_tokens })
            }
        }
    }
}

/// What the store keeps of an edit: who said what of which candidate, and what was done about it.
fn origin(plan: &Plan, editor: &Value, seed: u64) -> Value {
    let Plan { original, critic, words, edit, .. } = plan;
    json!({ "revised": {
        "of": original.question.sha256(),
        "drawn": { "model": original.model, "seed": original.seed },
        "critic": critic,
        "critique": words,
        "edit": edit,
        "editor": editor,
        "seed": seed_of(&original.question, seed),
    } })
}

/// The seed of an edit depends on what is edited, and not on what else is. It is another one than the original's, from whose
/// noise the same flaws would come again.
fn seed_of(question: &Question, seed: u64) -> u64 {
    let hash = question.sha256();
    let of_question = u64::from_str_radix(hash.get(..8).unwrap_or_default(), 16).unwrap_or_default();
    seed.wrapping_add(of_question)
}

/// Edits images in batches of equal strength and size.
fn retouch<'o, 'p: 'o, 'a: 'p>(
    model: &ImageModel,
    settings: DrawSettings,
    open: &'o [Open<'p, 'a>],
    ctx: &Context,
    keep: impl Fn(Vec<(&'o Open<'p, 'a>, Candidate)>) -> Outcome,
) -> Outcome {
    /// What a batch has in common: the bits of the strength, and the size in pixels.
    type Alike = (u64, (u32, u32));
    let mut batches: BTreeMap<Alike, Vec<(&Open, &Edit, RgbImage)>> = BTreeMap::new();
    for one in open {
        let (Some(Candidate::Image(picture)), Some(edit)) = (one.1.original.candidate(), &one.1.edit) else {
            continue;
        };
        let pixels = picture.decode().map_err(|error| Failure::data(error.to_string()))?;
        let key = (edit.strength.to_bits(), pixels.dimensions());
        batches.entry(key).or_default().push((one, edit, pixels));
    }
    for ((strength, _), alike) in batches {
        for batch in alike.chunks(BATCH) {
            signal::go_on()?;
            let jobs: Vec<Retouch> = batch
                .iter()
                .map(|(open, edit, image)| Retouch {
                    image,
                    prompt: &edit.prompt,
                    negative: edit.negative.as_deref(),
                    seed: open.2["revised"]["seed"].as_u64().unwrap_or_default(),
                })
                .collect();
            let made = model.retouch(&jobs, (settings, f64::from_bits(strength)), &ctx.output)?;
            let kept = batch.iter().zip(&made);
            let kept =
                kept.map(|((open, ..), image)| Ok((*open, Candidate::Image(Picture::of_pixels(image)?))));
            keep(kept.collect::<Outcome<_>>()?)?;
        }
    }
    Ok(())
}
