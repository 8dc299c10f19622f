//! The plan of a run: everything resolved, nothing left to decide.

mod data;
mod diffusion;
mod ema;
mod objective;
mod reference;
mod rollout;
mod watching;

pub use diffusion::DiffusionPlan;
pub use rollout::{RewardKind, RolloutPlan};
pub use watching::{Drawing, EvalPlan, EvalRows, PromptSource, SamplePlan};

pub(crate) use watching::is_due;

use crate::ema::EmaPlan;
use crate::error::{Result, TrainError};
use crate::front_end::SaveDtype;
use crate::optimizer::{AdamWConfig, LrSchedule};
use crate::recipe::{NamesOrRule, Resolver, Setting, to_toml};
use crate::reference::ReferencePlan;
use std::path::{Path, PathBuf};
use votive_data::{AugmentationPolicy, ImageDataSource, RowPolicy, TextSource, Traversal};
use votive_model::{LoraConfig, LoraFormat, SCORE, Targets};
use votive_objective::{Mixture, Needs};
use votive_tensor::Storage;

/// Rows of a step, and inner dimensions of an adapter, at most: a misprint does not fill the memory.
const MOST_ROWS: u64 = 1_000_000;
const MOST_RANK: u64 = 4096;

/// What a model folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modality {
    /// A language model: there is a `config.json`.
    Text,
    /// A Stable Diffusion pipeline: there is a `model_index.json`.
    Image,
}

impl Modality {
    /// Looks into a model folder.
    ///
    /// # Errors
    /// If it is neither.
    pub fn of(folder: &Path) -> Result<Self> {
        if folder.join("model_index.json").exists() {
            return Ok(Self::Image);
        }
        if folder.join("config.json").exists() {
            return Ok(Self::Text);
        }
        Err(votive_model::ModelError::NotFound {
            folder: folder.into(),
            expected: "config.json (a language model), model_index.json (Stable Diffusion)".to_owned(),
        }
        .into())
    }
}

/// A resolved recipe.
#[derive(Debug)]
pub struct Plan {
    /// The model's folder.
    pub model: PathBuf,
    /// The adapter; none for full fine-tuning.
    pub adapter: Option<LoraConfig>,
    /// What the adapter is written as.
    pub adapter_format: LoraFormat,
    /// How the linear maps below the adapter are kept in memory; none for f32.
    pub base: Option<Storage>,
    /// The data.
    pub data: DataPlan,
    /// The objective.
    pub objective: Mixture,
    /// What the policy is compared with.
    pub reference: ReferencePlan,
    /// Folder of the model that the first of several rounds started from, for objectives that read it.
    pub base_model: Option<PathBuf>,
    /// The optimizer.
    pub optimizer: OptimizerPlan,
    /// The loop.
    pub train: TrainPlan,
    /// Noise and times of a diffusion model; none for a language model.
    pub diffusion: Option<DiffusionPlan>,
    /// Pictures that the policy draws itself while it is trained; none if it learns from pictures on disk.
    pub rollout: Option<RolloutPlan>,
    /// A moving average of the weights; none if the recipe asks for none.
    pub ema: Option<EmaPlan>,
    /// Evaluation of held-out rows; none if nothing is held out.
    pub eval: Option<EvalPlan>,
    /// Samples of the model while it is trained; none if the recipe asks for none.
    pub sample: Option<SamplePlan>,
    settings: Vec<Setting>,
}

/// Where rows come from and which are kept.
#[derive(Clone, Debug)]
pub struct DataPlan {
    /// The files of text, and how they are read; empty for images.
    pub source: TextSource,
    /// The same for images; none for text.
    pub images: Option<ImagePlan>,
    /// What happens to rows that are too long or faulty.
    pub rows: RowPolicy,
    /// Which side of the data is preferred.
    pub prefer: Prefer,
    /// The order of the rows.
    pub traversal: Traversal,
    /// Rows that join later; none if all are there from the start.
    pub curriculum: Option<CurriculumPlan>,
    /// Share of the prompts that is held out for evaluation, 0 for none.
    pub eval_fraction: f64,
    /// How much single tokens count, for objectives that read it.
    pub token_weights: TokenWeightRule,
    /// How many degrees of copies of completions there are, for objectives that read them.
    pub degrees: usize,
}

/// Where the weights of single tokens come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TokenWeightRule {
    /// The reference's mean activation where a token is predicted, scaled to run from 0 to 1 within its completion.
    #[default]
    Activations,
    /// 1, but 0 on lines of the rejected completion that the chosen one has, too.
    DifferingLines,
    /// 1 behind the last of these marks, 0 up to it.
    AfterLast(String),
}

impl DataPlan {
    /// The files and folders that rows are read from.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        self.images.as_ref().map_or(&self.source.paths, |images| &images.source.paths)
    }
}

/// Rows that are let in by their margins, the largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurriculumPlan {
    /// Groups of equal size.
    pub groups: usize,
    /// Steps from one group to the next.
    pub every: u64,
}

/// Which side of the data a run prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// What people chose.
    Chosen,
    /// What they rejected: the model is to stand against another one in guidance (Diffusion-NPO).
    Rejected,
}

/// Where image pairs come from, and what is done to their images.
#[derive(Clone, Debug)]
pub struct ImagePlan {
    /// The files, and how they are read.
    pub source: ImageDataSource,
    /// What differs from step to step.
    pub augmentation: AugmentationPolicy,
    /// Whether images keep about their shape; if not, all are cut to a square.
    pub buckets: bool,
    /// The folder in which what the frozen networks make of images and prompts is kept; none to keep it in memory.
    pub cache: Option<PathBuf>,
}

/// The optimizer and its learning rate.
#[derive(Clone, Debug)]
pub struct OptimizerPlan {
    /// Highest learning rate.
    pub lr: f64,
    /// AdamW's options.
    pub adamw: AdamWConfig,
    /// Bound on the gradient's norm; 0 for none.
    pub max_grad_norm: f64,
    /// How the learning rate moves.
    pub schedule: LrSchedule,
    /// Steps until it is reached.
    pub warmup_steps: u64,
}

/// The loop.
#[derive(Clone, Debug)]
pub struct TrainPlan {
    /// Optimizer steps.
    pub steps: u64,
    /// Rows per optimizer step.
    pub batch_size: usize,
    /// Rows that go through the network at a time.
    pub micro_batch_size: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// Steps between lines of the log.
    pub log_every: u64,
    /// Steps between checkpoints.
    pub save_every: u64,
    /// What the whole weights of the last model are written in; checkpoints are in f32.
    pub save_dtype: SaveDtype,
    /// Whether layers are computed again in the backward instead of being kept.
    pub recompute: bool,
}

impl Plan {
    /// Reads a recipe and resolves it.
    ///
    /// # Errors
    /// All mistakes of the recipe together.
    pub fn read(recipe: &Path, overrides: &[String]) -> Result<Self> {
        Self::resolve(Resolver::read(recipe, overrides)?)
    }

    /// Asks for every key, in the order in which a recipe is written.
    ///
    /// # Errors
    /// All mistakes of the recipe together.
    pub fn resolve(mut r: Resolver) -> Result<Self> {
        let model = path(&mut r, "model.path", "Folder of the model, in the hub's layout.");
        // Without a model nobody knows which keys apply, so the modality of a text model is assumed until the end.
        let modality = if model.as_os_str().is_empty() { Ok(Modality::Text) } else { Modality::of(&model) };
        let kind = modality.as_ref().copied().unwrap_or(Modality::Text);
        let (adapter, base) = adapter(&mut r, kind);
        let adapter_format = adapter_format(&mut r, kind);
        let data = data::data(&mut r, kind);
        let objective = objective::objective(&mut r);
        let trains_rewards =
            objective.as_ref().is_some_and(|objective| objective.needs().contains(Needs::REWARDS));
        let adapter = if trains_rewards { adapter.map(with_score) } else { adapter };
        let reference = reference::reference(&mut r, if trains_rewards { "none" } else { "frozen" });
        let base_model = reference::base(&mut r);
        let rollout = if kind == Modality::Image { rollout::rollout(&mut r) } else { None };
        let diffusion = (kind == Modality::Image).then(|| match &rollout {
            Some(_) => diffusion::of_rollouts(&mut r),
            None => diffusion::diffusion(&mut r),
        });
        let optimizer = optimizer(&mut r, kind);
        let train = train(&mut r, kind);
        let ema = ema::ema(&mut r);
        let eval = watching::eval(&mut r, data.eval_fraction, train.save_every);
        let sample = watching::sample(&mut r, kind, train.save_every);
        if let Some(objective) = &objective {
            objective::check(
                &mut r,
                objective,
                (&reference, base_model.is_some()),
                (&data.token_weights, data.degrees),
                kind,
            );
            objective::check_batch(&mut r, objective, &train);
            objective::check_rewards(&mut r, objective, (&model, kind), (&reference, sample.is_some()));
            if let Some(rollout) = &rollout {
                objective::check_rollouts(&mut r, objective, rollout.pairs);
            }
        }
        let settings = r.finish()?;
        modality?;
        // `finish` has refused a recipe whose objective could not be made.
        let objective = objective.ok_or_else(|| TrainError::Plan("no objective".to_owned()))?;
        Ok(Self {
            model,
            adapter,
            adapter_format,
            base,
            data,
            objective,
            reference,
            base_model,
            optimizer,
            train,
            diffusion,
            rollout,
            ema,
            eval,
            sample,
            settings,
        })
    }

    /// Whether a reward model is trained, and no model that writes or draws.
    #[must_use]
    pub fn trains_reward_model(&self) -> bool {
        self.objective.needs().contains(Needs::REWARDS)
    }

    /// Every key with its value.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// The plan as a recipe that resolves to it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        to_toml(&self.settings)
    }
}

/// Every key that a recipe for `modality` may have, for the reference documentation.
///
/// # Errors
/// None that a caller could cause; the questions are asked of an empty recipe.
pub fn describe(modality: Modality) -> Result<Vec<Setting>> {
    // A table that is there and says nothing of its own.
    let tables = "[adapter.lora]\nrank = 8\n[eval]\nx = 0\n[sample]\nx = 0\n";
    let mut r = Resolver::parse(Path::new("reference"), tables, &[])?;
    path(&mut r, "model.path", "Folder of the model, in the hub's layout.");
    adapter(&mut r, modality);
    adapter_format(&mut r, modality);
    data::data(&mut r, modality);
    let after_data = r.settings().len();
    reference::reference(&mut r, "frozen");
    reference::base(&mut r);
    let of_one_kind = r.settings().len();
    let before_optimizer = r.settings().len();
    optimizer(&mut r, modality);
    let save_every = train(&mut r, modality).save_every;
    let before_eval = r.settings().len();
    watching::eval(&mut r, 0.0, save_every);
    watching::sample(&mut r, modality, save_every);
    let mut settings = r.settings().to_vec();
    settings.splice(before_eval..before_eval, ema::keys()?);
    if modality == Modality::Image {
        let of_images = rollout::keys()?.into_iter().chain(diffusion::keys()?);
        settings.splice(before_optimizer..before_optimizer, of_images);
    }
    let of_every_kind = objective::keys()?.into_iter().chain(reference::keys()?);
    settings.splice(of_one_kind..of_one_kind, of_every_kind);
    settings.splice(after_data..after_data, data::keys(modality)?);
    Ok(settings)
}

/// A path, made absolute so that a run can be resumed from anywhere.
fn path(r: &mut Resolver, key: &str, doc: &'static str) -> PathBuf {
    let given = r.string(key, None, doc);
    let given = PathBuf::from(r.require(key, given).unwrap_or_default());
    let absolute = std::path::absolute(&given).unwrap_or(given);
    r.settle(key, &absolute.to_string_lossy());
    absolute
}

/// A path that may be left out, made absolute if it is given.
fn optional_path(r: &mut Resolver, key: &str, doc: &'static str) -> Option<PathBuf> {
    let given = PathBuf::from(r.string(key, None, doc)?);
    let absolute = std::path::absolute(&given).unwrap_or(given);
    r.settle(key, &absolute.to_string_lossy());
    Some(absolute)
}

fn adapter(r: &mut Resolver, modality: Modality) -> (Option<LoraConfig>, Option<Storage>) {
    if r.names_below("adapter").is_empty() {
        return (None, None);
    }
    let targets = match modality {
        Modality::Text => ["q_proj", "v_proj"].map(str::to_owned).to_vec(),
        Modality::Image => ["to_q", "to_k", "to_v", "to_out.0"].map(str::to_owned).to_vec(),
    };
    let rank = r.whole("adapter.lora.rank", 1, Some(8), "Inner dimension r of the adapter.").unwrap_or(8);
    let alpha =
        r.float("adapter.lora.alpha", 0.0, Some(2.0 * rank as f64), "α; the update is scaled by α/r.");
    if rank > MOST_RANK {
        r.mistake("adapter.lora.rank", &format!("must be at most {MOST_RANK}"));
    }
    if alpha == Some(0.0) {
        r.mistake("adapter.lora.alpha", "must be above 0, or nothing reaches the adapter");
    }
    let dropout =
        r.float("adapter.lora.dropout", 0.0, Some(0.0), "Dropout before the adapter; only 0 is implemented.");
    if dropout != Some(0.0) {
        r.mistake("adapter.lora.dropout", "only 0.0 is implemented");
    }
    let targets = r.names_or_rule("adapter.lora.targets", Some(targets), TARGETS);
    let exclude = r.names_or_rule("adapter.lora.exclude", None, "Modules among the targets that get none.");
    let ranks = r.numbers_by_name(
        "adapter.lora.rank_pattern",
        &format!("a table of whole numbers from 1 to {MOST_RANK}"),
        "Other ranks, by regular expressions that match the end of a module's name.",
        |v| v.as_integer().filter(|rank| (1..=MOST_RANK as i64).contains(rank)),
    );
    let alphas = r.numbers_by_name(
        "adapter.lora.alpha_pattern",
        "a table of numbers above 0",
        "Other α, likewise.",
        |v| v.as_float().or_else(|| v.as_integer().map(|n| n as f64)).filter(|alpha| *alpha > 0.0),
    );
    let plain = LoraConfig::new(rank as usize, alpha.unwrap_or(1.0), Vec::new());
    let config = LoraConfig {
        targets: targets.map_or(Targets::AllLinear, as_targets),
        exclude: exclude.map(as_targets),
        rank_pattern: ranks.into_iter().map(|(name, rank)| (name, rank as usize)).collect(),
        alpha_pattern: alphas,
        use_rslora: r.flag("adapter.lora.use_rslora", false, "Scale by α/√r instead of α/r (rsLoRA)."),
        ..plain
    };
    match modality {
        Modality::Text => {
            let config = adapter_of_text(r, config);
            (Some(config), base(r))
        }
        Modality::Image => (Some(config), None),
    }
}

/// The files of an image adapter; a language model's is PEFT's folder.
fn adapter_format(r: &mut Resolver, modality: Modality) -> LoraFormat {
    if modality == Modality::Text || r.names_below("adapter").is_empty() {
        return LoraFormat::Peft;
    }
    let formats = [LoraFormat::Diffusers, LoraFormat::Kohya].map(|format| (format, format.name()));
    let doc = "Whose names the adapter's file has: diffusers', or those of kohya's scripts, which other programs read.";
    r.named("adapter.lora.format", &formats, LoraFormat::Diffusers, doc)
}

/// What a recipe calls the ways to keep frozen weights.
const BASES: [(Option<Storage>, &str); 4] = [
    (None, "float32"),
    (Some(Storage::BFloat16), "bfloat16"),
    (Some(Storage::Int8), "int8"),
    (Some(Storage::Nf4), "nf4"),
];

fn base(r: &mut Resolver) -> Option<Storage> {
    r.named(
        "adapter.lora.base",
        &BASES,
        None,
        "How the frozen linear maps below the adapter are kept in memory (QLoRA); what is trained is f32 in any case.",
    )
}

/// What only adapters of language models can have: diffusers' files have no place for it.
fn adapter_of_text(r: &mut Resolver, config: LoraConfig) -> LoraConfig {
    let layers = r.whole_list("adapter.lora.layers", "The only layers that get an adapter, counted from 0.");
    let modules_to_save = r.strings("adapter.lora.modules_to_save", Some(Vec::new()), MODULES_TO_SAVE);
    LoraConfig {
        layers: layers.map(|layers| layers.into_iter().map(|layer| layer as usize).collect()),
        modules_to_save: modules_to_save.unwrap_or_default(),
        use_dora: r.flag("adapter.lora.use_dora", false, "Train length and direction apart (DoRA)."),
        ..config
    }
}

const TARGETS: &str = "Modules that get an adapter: names or endings of names; or one string: `all-linear`, or a \
                       regular expression of whole names.";
const MODULES_TO_SAVE: &str = "Modules that are trained whole and saved with the adapter, by endings of their names; a \
                               reward model's head `score` is one of them in any case.";

/// The adapter of a reward model, which has the head whole.
fn with_score(mut config: LoraConfig) -> LoraConfig {
    if config.modules_to_save.iter().all(|module| module != SCORE) {
        config.modules_to_save.push(SCORE.to_owned());
    }
    config
}

fn as_targets(given: NamesOrRule) -> Targets {
    match given {
        NamesOrRule::Names(names) => Targets::Names(names),
        NamesOrRule::Rule(rule) => Targets::rule(&rule),
    }
}

fn optimizer(r: &mut Resolver, modality: Modality) -> OptimizerPlan {
    r.choice("optimizer.kind", &["adamw"], "adamw", "The optimizer.");
    let lr = match modality {
        Modality::Text => 1e-6,
        Modality::Image => 1e-5,
    };
    OptimizerPlan {
        lr: r.float("optimizer.lr", 0.0, Some(lr), "Highest learning rate.").unwrap_or(lr),
        adamw: AdamWConfig {
            betas: r.betas("optimizer.betas", [0.9, 0.999], "Decay rates of the two moments."),
            eps: r
                .float("optimizer.eps", 0.0, Some(1e-8), "Added to the root of the second moment.")
                .unwrap_or(1e-8),
            weight_decay: r
                .float(
                    "optimizer.weight_decay",
                    0.0,
                    Some(0.0),
                    "Decoupled weight decay, on every trained parameter.",
                )
                .unwrap_or(0.0),
        },
        max_grad_norm: r
            .float("optimizer.max_grad_norm", 0.0, Some(1.0), "Bound on the gradient's norm; 0 for none.")
            .unwrap_or(1.0),
        schedule: match r
            .choice(
                "optimizer.schedule",
                &["constant", "linear", "cosine"],
                "constant",
                "How the learning rate moves after the warm-up.",
            )
            .as_str()
        {
            "linear" => LrSchedule::Linear,
            "cosine" => LrSchedule::Cosine,
            _ => LrSchedule::Constant,
        },
        warmup_steps: r.whole("optimizer.warmup_steps", 0, Some(0), "Steps of linear warm-up.").unwrap_or(0),
    }
}

const MICRO_BATCH: &str = "Rows that go through the network at a time, by default one pair of images, or all rows of text: more take more \
                           memory, and no time off a CPU; on a GPU, as many as `votive plan` says fit.";
const SAVE_DTYPE: &str = "Type of the weights in final/, if they are whole: that of the model's own files, or another; \
                          fewer bits lose the smallest changes.";

fn train(r: &mut Resolver, modality: Modality) -> TrainPlan {
    let steps = r.whole("train.steps", 1, None, "Optimizer steps.");
    let steps = r.require("train.steps", steps).unwrap_or(1);
    let batch_size = r.whole("train.batch_size", 1, Some(4), "Rows (pairs) per optimizer step.").unwrap_or(4);
    // A pair of images fills a CPU; rows of text are laid side by side, which is worth more the more there are.
    let usual = if modality == Modality::Image { 1 } else { batch_size };
    let micro = r.whole("train.micro_batch_size", 1, Some(usual), MICRO_BATCH);
    let micro_batch_size = micro.unwrap_or(usual);
    if batch_size > MOST_ROWS {
        r.mistake("train.batch_size", &format!("must be at most {MOST_ROWS}"));
    }
    if !batch_size.is_multiple_of(micro_batch_size) {
        r.mistake("train.micro_batch_size", &format!("must divide train.batch_size = {batch_size}"));
    }
    let seed = r.whole("train.seed", 0, Some(0), "Seed of everything random.").unwrap_or(0);
    let log_every =
        r.whole("train.log_every", 1, Some(1), "Steps between lines of metrics.jsonl.").unwrap_or(1);
    let save_every = r.whole("train.save_every", 1, Some(50), "Steps between checkpoints.").unwrap_or(50);
    let save_dtype = r.named("train.save_dtype", &SaveDtype::NAMES, SaveDtype::Checkpoint, SAVE_DTYPE);
    let recompute = modality == Modality::Text
        && r.flag("train.recompute", false, "Compute layers again in the backward instead of keeping them.");
    TrainPlan {
        steps,
        batch_size: batch_size as usize,
        micro_batch_size: micro_batch_size as usize,
        seed,
        log_every,
        save_every,
        save_dtype,
        recompute,
    }
}
