//! Judges that commands name, and the protocol around them.

mod checker;
mod clip;

use super::speaker::LocalSpeaker;
use super::{Context, Failure, Outcome, embedded};
use checker::Checker;
use clip::Clip;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use votive_critic::protocol::{BothOrders, ByGrade, Calibrated, Jury, Majority};
use votive_critic::{Asked, Form, Judge, Sampling, Template};
use votive_model::CausalLmConfig;
use votive_model::config::ConfigFile;

/// The model that is shipped as a critic of pictures.
const EMBEDDED: &str = "tiny-vlm";
/// Difference of the checker's utilities that makes the odds e to 1: any difference that counts is nearly sure.
const CHECKER_SCALE: f64 = 0.01;
/// Difference of CLIP's cosines that makes the odds e to 1: CLIP's own logits are 100 times its cosines.
const CLIP_SCALE: f64 = 0.01;

/// Who judges, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct JudgeArgs {
    /// Who judges: `embedded` (the shipped critic of pictures), `checker` (the playground's exact checker), or the folder of
    /// a language model, with vision or without, or of a CLIP model. Several, by commas, are a jury that votes.
    #[arg(long, value_name = "NAME|DIR", value_delimiter = ',', default_value = "embedded")]
    judge: Vec<String>,
    /// How a model is asked: a template's file, or the name of one that comes with the program [default: by the model].
    #[arg(long, value_name = "FILE|NAME")]
    template: Option<String>,
    /// Ask in the order given only, not in both.
    #[arg(long)]
    one_order: bool,
    /// Ask that often, and take the majority; needs --temperature.
    #[arg(long, value_name = "K", requires = "temperature")]
    majority: Option<NonZeroU64>,
    /// Temperature of answers in words; 0 is greedy.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Most tokens of an answer in words.
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// Divide log-odds by this before they become probabilities, e.g. by what `votive eval judge --fit` finds.
    #[arg(long, value_name = "T")]
    calibration: Option<f64>,
}

/// A judge as it was asked for.
pub(crate) struct Chosen {
    /// With the protocol around it.
    pub(crate) judge: Arc<dyn Judge>,
    /// Asked once, in the order given.
    pub(crate) bare: Arc<dyn Judge>,
    /// Whether it judges images, or else texts.
    pub(crate) sees_images: bool,
}

impl JudgeArgs {
    /// The judge, with its protocol; `seed` keys its draws.
    ///
    /// # Errors
    /// If there is no such judge, or its files are wrong.
    pub(crate) fn choose(&self, seed: u64, ctx: &Context) -> Outcome<Chosen> {
        let mut all = self.judge.iter().map(|name| self.one(name, seed, ctx)).collect::<Outcome<Vec<_>>>()?;
        let sees_images = all.iter().any(|(_, sees_images)| *sees_images);
        let bare = match all.len() {
            1 => all.remove(0).0,
            _ => Arc::new(Jury::new(all.into_iter().map(|(judge, _)| judge).collect())?),
        };
        let mut judge = bare.clone();
        if let Some(draws) = self.majority {
            judge = Arc::new(Majority::new(judge, draws)?);
        }
        if !self.one_order {
            judge = Arc::new(BothOrders::new(judge)?);
        }
        if let Some(temperature) = self.calibration {
            judge = Arc::new(Calibrated::new(judge, temperature)?);
        }
        Ok(Chosen { judge, bare, sees_images })
    }

    /// A judge of pairs by its name, and whether it sees images.
    fn one(&self, name: &str, seed: u64, ctx: &Context) -> Outcome<(Arc<dyn Judge>, bool)> {
        if name == "checker" {
            return Ok((Arc::new(ByGrade::new(Arc::new(Checker), CHECKER_SCALE)?), true));
        }
        let (folder, name) = match name {
            "embedded" => (embedded::folder(EMBEDDED)?, format!("models/{EMBEDDED}")),
            folder => (PathBuf::from(folder), folder.to_owned()),
        };
        let config = ConfigFile::read(&folder.join("config.json"))?;
        if config.maybe_str("model_type")?.as_deref() == Some("clip") {
            let clip = Clip::open(&folder, name, &ctx.device()?)?;
            return Ok((Arc::new(ByGrade::new(Arc::new(clip), CLIP_SCALE)?), true));
        }
        let sees_images = CausalLmConfig::read(&config)?.image_tokens().is_some();
        let template = self.template(&folder, sees_images)?;
        let form = template.form();
        let speaker = Arc::new(LocalSpeaker::load(&folder, name, &ctx.device()?)?);
        let sampling =
            Sampling { temperature: self.temperature, top_p: 1.0, max_tokens: self.max_tokens, seed };
        let asked: Arc<dyn Judge> = Arc::new(Asked::new(speaker, template, sampling));
        match form {
            Form::Pair => Ok((asked, sees_images)),
            Form::Grade => Ok((Arc::new(ByGrade::new(asked, 1.0)?), sees_images)),
            Form::Rank => {
                Err(Failure::usage("the template ranks; one that grades or compares two is needed"))
            }
        }
    }

    /// The template that was asked for, the one in the model's folder, or the one for such models.
    fn template(&self, folder: &Path, sees_images: bool) -> Outcome<Template> {
        let own = folder.join("judge.toml");
        Ok(match &self.template {
            Some(file) if Path::new(file).extension().is_some() => Template::read(Path::new(file))?,
            Some(name) => Template::named(name)?,
            None if own.exists() => Template::read(&own)?,
            None => Template::named(if sees_images { "image-pair" } else { "text-pair" })?,
        })
    }
}
