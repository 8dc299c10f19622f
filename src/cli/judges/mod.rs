//! Judges that commands name, and the protocol around them.

mod checker;
mod clip;
mod critic;
mod grading;
mod recording;
mod reward_model;

use super::score::is_reward_model;
use super::speaker::LocalSpeaker;
use super::{Context, Failure, Outcome, embedded};
use checker::Checker;
pub(crate) use critic::Critic;
use grading::Grading;
use reward_model::Rewarder;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use votive_critic::protocol::{BothOrders, ByGrade, Calibrated, Debate, Jury, Majority};
use votive_critic::{Asked, Endpoint, EndpointOptions, Form, Judge, Sampling, Speaker, Template};
use votive_model::CausalLmConfig;
use votive_model::config::ConfigFile;
use votive_train::reward::PictureScorer;

/// Difference of the checker's utilities that makes the odds e to 1: any difference that counts is nearly sure.
const CHECKER_SCALE: f64 = 0.01;
/// Difference of rewards that makes the odds e to 1: differences of a Bradley–Terry reward are log-odds.
const REWARD_SCALE: f64 = 1.0;
/// Difference in the probability of a yes that makes the odds e to 1, as `votive eval judge --template picture-fit --select --fit` finds it
/// for the shipped critic.
const FIT_SCALE: f64 = 0.25;
/// The critics that are shipped: of pictures `models/tiny-vlm`, of texts `models/tiny-rm`.
pub(crate) const EMBEDDED: &str = "embedded";
/// The playground's exact checker.
pub(crate) const CHECKER: &str = "checker";
/// Most tokens of an answer in words.
const MAX_TOKENS: usize = 256;

/// A judge that gives grades.
pub(crate) struct Grader {
    pub(crate) judge: Arc<dyn Judge>,
    /// Difference of its grades that makes the odds e to 1.
    pub(crate) scale: f64,
    /// The grade between right and wrong, if grades mean something by themselves.
    pub(crate) origin: Option<f64>,
}

/// A judge by its name that grades candidates one by one: a model that answers is asked whether a candidate fits.
///
/// # Errors
/// If there is no such judge in this process, it does not judge such things, or its files are wrong.
pub(crate) fn grader(name: &str, subject: Subject, ctx: &Context) -> Outcome<Grader> {
    let folder = folder_of(name, subject)?;
    if let Some(grader) = grader_without_words(name, &folder, subject, ctx)? {
        return Ok(grader);
    }
    let template = Template::named(match subject {
        Subject::Images => "picture-fit",
        Subject::Texts => "text-fit",
    })?;
    let speaker = LocalSpeaker::load(&folder, name.to_owned(), &ctx.device()?)?;
    let sampling = Sampling { temperature: 0.0, top_p: 1.0, max_tokens: MAX_TOKENS, seed: 0 };
    Ok(Grader {
        judge: Arc::new(Asked::new(Arc::new(speaker), template, sampling)),
        scale: FIT_SCALE,
        origin: Some(0.5),
    })
}

/// The playground's exact checker.
fn checker() -> Grader {
    Grader { judge: Arc::new(Grading::new(CHECKER, Checker)), scale: CHECKER_SCALE, origin: None }
}

/// Where the model of a name lies.
fn folder_of(name: &str, subject: Subject) -> Outcome<PathBuf> {
    match (name, subject) {
        (EMBEDDED, Subject::Images) => embedded::folder("tiny-vlm"),
        (EMBEDDED, Subject::Texts) => embedded::folder("tiny-rm"),
        _ => Ok(PathBuf::from(name)),
    }
}

/// A judge that grades by numbers of its own; none if the folder holds a model that is asked in words.
fn grader_without_words(
    name: &str,
    folder: &Path,
    subject: Subject,
    ctx: &Context,
) -> Outcome<Option<Grader>> {
    if name == CHECKER {
        return Ok(Some(checker()));
    }
    let only = |wanted: Subject, what: &str| match subject == wanted {
        true => Ok(()),
        false => Err(Failure::usage(format!("{name}: {what}"))),
    };
    if is_reward_model(folder, None, ctx)? {
        only(Subject::Texts, "a reward model reads texts, and images are to be judged")?;
        let judge = Arc::new(Grading::new(name, Rewarder::open(folder, ctx)?));
        // Centring draws the rewards of a prompt's right and wrong answers to either side of 0.
        return Ok(Some(Grader { judge, scale: REWARD_SCALE, origin: Some(0.0) }));
    }
    let config = ConfigFile::read(&folder.join("config.json"))?;
    if config.maybe_str("model_type")?.as_deref() == Some("clip") {
        only(Subject::Images, "a CLIP model looks at images, and texts are to be judged")?;
        let scorer = PictureScorer::open(folder, &ctx.device()?)?;
        // As judges' names show it: six digits are more than the cosines have.
        let scale = format!("{:.5e}", scorer.unit()).parse().unwrap_or_else(|_| scorer.unit());
        return Ok(Some(Grader { judge: Arc::new(Grading::new(name, scorer)), scale, origin: None }));
    }
    if subject == Subject::Images && CausalLmConfig::read(&config)?.image_tokens().is_none() {
        return Err(Failure::usage(format!("{name} sees no images, and images are to be judged")));
    }
    Ok(None)
}

/// Who judges, and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct JudgeArgs {
    /// Who judges: `embedded` (the shipped critics of the playground), `checker` (its exact checker), the folder of a language
    /// model, with vision or without, of a reward model or of a CLIP model (PickScore, HPSv2, LAION's aesthetic predictor), or a
    /// model of a server with OpenAI's chat completions, as `http://host:8000/v1#model`. Several, by commas, are a jury that votes.
    #[arg(long, value_name = "NAME|DIR|URL", value_delimiter = ',', default_value = EMBEDDED)]
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
    /// Let several judges hear each other's words and answer again, that often at most, before they vote.
    #[arg(long, value_name = "ROUNDS")]
    debate: Option<NonZeroU32>,
    /// Temperature of answers in words; 0 is greedy.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Most tokens of an answer in words.
    #[arg(long, value_name = "N", default_value_t = MAX_TOKENS)]
    max_tokens: usize,
    /// Divide log-odds by this before they become probabilities, e.g. by what `votive eval judge --fit` finds.
    #[arg(long, value_name = "T")]
    calibration: Option<f64>,
    /// Questions that may be open at a server at the same time.
    #[arg(long, value_name = "N", default_value = "8")]
    at_once: NonZeroUsize,
    /// Seconds that a server may take to answer.
    #[arg(long, value_name = "S", default_value_t = 120)]
    timeout: u64,
    /// Variable of the environment with the server's key, if there is one.
    #[arg(long, value_name = "NAME", default_value = "OPENAI_API_KEY")]
    api_key_env: String,
}

/// What is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Subject {
    /// Answers to instructions.
    Texts,
    /// Images of prompts.
    Images,
}

/// A judge as it was asked for.
pub(crate) struct Chosen {
    /// With the protocol around it.
    pub(crate) judge: Arc<dyn Judge>,
    /// Asked once, in the order given.
    pub(crate) bare: Arc<dyn Judge>,
    /// How it is asked.
    pub(crate) templates: Vec<Template>,
    /// Questions that may be open at the same time, where somebody else answers them.
    open_questions: Option<usize>,
}

impl Chosen {
    /// The name of a template that shows an answer that is known to be right, if one does.
    pub(crate) fn template_with_reference(&self) -> Option<&str> {
        self.templates.iter().find(|template| template.shows_reference()).map(Template::name)
    }

    /// Does work in as many threads as questions may be open: those of this machine's cores, or more where they only wait.
    ///
    /// # Errors
    /// Those of the work; if threads cannot be started.
    pub(crate) fn at_once<T: Send>(&self, work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
        let Some(threads) = self.open_questions else { return work() };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.map_err(|error| Failure::resources(error.to_string()))?.install(work)
    }
}

/// A judge of pairs before any protocol.
struct One {
    judge: Arc<dyn Judge>,
    /// The same, if it is asked for a comparison and can be told what others said.
    debater: Option<Arc<Asked>>,
    /// The same, if it is asked by a template.
    asked: Option<Arc<Asked>>,
    template: Option<Template>,
    is_remote: bool,
}

impl JudgeArgs {
    /// The judge, with its protocol; `seed` keys its draws.
    ///
    /// # Errors
    /// If there is no such judge, it does not judge such things, or its files are wrong.
    pub(crate) fn choose(&self, subject: Subject, seed: u64, ctx: &Context) -> Outcome<Chosen> {
        let all =
            self.judge.iter().map(|name| self.one(name, subject, seed, ctx)).collect::<Outcome<Vec<_>>>()?;
        let open_questions = all.iter().any(|one| one.is_remote).then_some(self.at_once.get());
        let (mut judges, mut debaters, mut templates) = (Vec::new(), Vec::new(), Vec::new());
        for one in all {
            judges.push(one.judge);
            debaters.extend(one.debater);
            templates.extend(one.template);
        }
        let bare: Arc<dyn Judge> = match (self.debate, judges.len()) {
            (Some(rounds), several) if debaters.len() == several => Arc::new(Debate::new(debaters, rounds)?),
            (Some(_), _) => {
                return Err(Failure::usage(
                    "--debate: a judge that only gives grades cannot be told what others said",
                ));
            }
            (None, 1) => judges.remove(0),
            (None, _) => Arc::new(Jury::new(judges)?),
        };
        let judge = self.protocol(bare.clone())?;
        Ok(Chosen { judge, bare, templates, open_questions })
    }

    /// The protocol that was asked for, around a judge of pairs.
    ///
    /// # Errors
    /// If a setting of it makes no sense.
    pub(crate) fn protocol(&self, mut judge: Arc<dyn Judge>) -> Outcome<Arc<dyn Judge>> {
        if let Some(draws) = self.majority {
            judge = Arc::new(Majority::new(judge, draws)?);
        }
        if !self.one_order {
            judge = Arc::new(BothOrders::new(judge)?);
        }
        if let Some(temperature) = self.calibration {
            judge = Arc::new(Calibrated::new(judge, temperature)?);
        }
        Ok(judge)
    }

    /// A judge of pairs by its name.
    fn one(&self, name: &str, subject: Subject, seed: u64, ctx: &Context) -> Outcome<One> {
        if name.starts_with("http://") || name.starts_with("https://") {
            let template = self.template(None, subject)?;
            return self.asked(Arc::new(self.endpoint(name)?), template, seed, true);
        }
        let folder = folder_of(name, subject)?;
        if let Some(Grader { judge, scale, .. }) = grader_without_words(name, &folder, subject, ctx)? {
            let judge = Arc::new(ByGrade::new(judge, scale)?);
            return Ok(One { judge, debater: None, asked: None, template: None, is_remote: false });
        }
        let template = self.template(Some(&folder), subject)?;
        let speaker = LocalSpeaker::load(&folder, name.to_owned(), &ctx.device()?)?;
        self.asked(Arc::new(speaker), template, seed, false)
    }

    /// A speaker that is asked by a template.
    fn asked(
        &self,
        speaker: Arc<dyn Speaker>,
        template: Template,
        seed: u64,
        is_remote: bool,
    ) -> Outcome<One> {
        let sampling =
            Sampling { temperature: self.temperature, top_p: 1.0, max_tokens: self.max_tokens, seed };
        let kept = Template::parse(template.name(), template.text())?;
        let form = template.form();
        let asked = Arc::new(Asked::new(speaker, template, sampling));
        let (judge, debater): (Arc<dyn Judge>, _) = match form {
            Form::Pair => (asked.clone(), Some(asked.clone())),
            Form::Grade => (Arc::new(ByGrade::new(asked.clone(), 1.0)?), None),
            Form::Rank => {
                return Err(Failure::usage("the template ranks; one that grades or compares two is needed"));
            }
        };
        Ok(One { judge, debater, asked: Some(asked), template: Some(kept), is_remote })
    }

    /// `http://host/v1#model`
    fn endpoint(&self, name: &str) -> Outcome<Endpoint> {
        let (base, model) = name.split_once('#').filter(|(_, model)| !model.is_empty()).ok_or_else(|| {
            Failure::usage(format!("{name} names no model"))
                .hint("write it behind the address: http://host:8000/v1#model")
        })?;
        let api_key = std::env::var(&self.api_key_env).ok().filter(|key| !key.is_empty());
        let timeout = std::time::Duration::from_secs(self.timeout);
        let options =
            EndpointOptions { api_key, timeout, at_once: self.at_once.get(), ..EndpointOptions::default() };
        Ok(Endpoint::new(base, model, options)?)
    }

    /// The template that was asked for, the one in the model's folder, or the one for such things.
    fn template(&self, folder: Option<&Path>, subject: Subject) -> Outcome<Template> {
        let own = folder.map(|folder| folder.join("judge.toml")).filter(|file| file.exists());
        Ok(match (&self.template, own) {
            (Some(file), _) if Path::new(file).extension().is_some() => Template::read(Path::new(file))?,
            (Some(name), _) => Template::named(name)?,
            (None, Some(own)) if subject == Subject::Images => Template::read(&own)?,
            (None, _) => Template::named(match subject {
                Subject::Images => "image-pair",
                Subject::Texts => "text-pair",
            })?,
        })
    }
}
