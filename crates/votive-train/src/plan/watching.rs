//! What a run looks at besides its training batches: held-out rows, and samples of the model.

use super::{Modality, optional_path};
use crate::recipe::Resolver;
use std::path::PathBuf;
use votive_diffusion::SamplerKind;

/// Evaluation of rows that are not trained on.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalPlan {
    /// Which rows.
    pub rows: EvalRows,
    /// Steps between evaluations.
    pub every: u64,
}

/// Which rows are held out.
#[derive(Clone, Debug, PartialEq)]
pub enum EvalRows {
    /// Those of another file or folder.
    File(PathBuf),
    /// A share of the prompts of `data.path`, above 0 and below 1.
    Share(f64),
}

/// Samples of the model while it is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplePlan {
    /// Where the prompts come from.
    pub prompts: PromptSource,
    /// How they are answered.
    pub drawing: Drawing,
    /// Seed of the draws, the same at every step.
    pub seed: u64,
    /// Steps between samples.
    pub every: u64,
}

/// Where the prompts of samples come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromptSource {
    /// The recipe.
    Given(Vec<String>),
    /// A file: one prompt a line, or the column `prompt` of JSON lines.
    File(PathBuf),
}

/// How a sample is drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Drawing {
    /// By a language model.
    Text {
        /// Tokens of a completion at most.
        max_new_tokens: usize,
        /// Divides the logits; 0 takes the most probable token each time.
        temperature: f64,
        /// Whether a prompt is rendered as a user's turn with the chat template.
        chat: bool,
    },
    /// By a diffusion model.
    Image {
        /// How to get from noise to latents.
        sampler: SamplerKind,
        /// Calls of the network.
        steps: usize,
        /// Scale of classifier-free guidance.
        cfg: f64,
    },
}

/// Whether something that happens every so many steps, and at the end, happens once `step` of `steps` are done.
pub(crate) fn is_due(step: u64, every: u64, steps: u64) -> bool {
    step.is_multiple_of(every) || step == steps
}

/// Asks what is held out: `share` is the recipe's `data.eval_fraction`, 0 for none.
pub(super) fn eval(r: &mut Resolver, share: f64, save_every: u64) -> Option<EvalPlan> {
    if share == 0.0 && r.names_below("eval").is_empty() {
        return None;
    }
    let path = optional_path(r, "eval.path", "File or folder of rows to evaluate, like those of data.path.");
    let every = r
        .whole("eval.every", 1, Some(save_every), "Steps between evaluations; the end has one too.")
        .unwrap_or(save_every);
    let rows = match path {
        Some(_) if share > 0.0 => {
            r.mistake("eval.path", "is given beside data.eval_fraction; choose one of the two");
            return None;
        }
        Some(path) => EvalRows::File(path),
        None if share > 0.0 => EvalRows::Share(share),
        None => {
            r.mistake("eval", "has no rows; give eval.path or data.eval_fraction");
            return None;
        }
    };
    Some(EvalPlan { rows, every })
}

/// Asks which samples are drawn.
pub(super) fn sample(r: &mut Resolver, modality: Modality, save_every: u64) -> Option<SamplePlan> {
    if r.names_below("sample").is_empty() {
        return None;
    }
    let given =
        r.strings("sample.prompts", None, "Prompts that the model answers at step 0 and every so often.");
    let path = optional_path(
        r,
        "sample.path",
        "File of prompts in the place of sample.prompts: one a line, or the column `prompt` of JSON lines.",
    );
    let prompts = match (given, path) {
        (Some(prompts), None) if !prompts.is_empty() => Some(PromptSource::Given(prompts)),
        (None, Some(path)) => Some(PromptSource::File(path)),
        _ => {
            r.mistake("sample", "expected one of sample.prompts (not empty) and sample.path");
            None
        }
    };
    let drawing = match modality {
        Modality::Text => text_drawing(r),
        Modality::Image => image_drawing(r),
    };
    let seed =
        r.whole("sample.seed", 0, Some(0), "Seed of the samples, the same at every step.").unwrap_or(0);
    let every = r
        .whole(
            "sample.every",
            1,
            Some(save_every),
            "Steps between samples; the start and the end have some too.",
        )
        .unwrap_or(save_every);
    Some(SamplePlan { prompts: prompts?, drawing, seed, every })
}

fn text_drawing(r: &mut Resolver) -> Drawing {
    let most = r.whole("sample.max_new_tokens", 1, Some(64), "Tokens of a completion at most.").unwrap_or(64);
    let temperature = r
        .float(
            "sample.temperature",
            0.0,
            Some(0.0),
            "Divides the logits; 0 takes the most probable token each time.",
        )
        .unwrap_or(0.0);
    let chat = r.flag("sample.chat", false, "Render each prompt as a user's turn with the chat template.");
    Drawing::Text { max_new_tokens: most as usize, temperature, chat }
}

fn image_drawing(r: &mut Resolver) -> Drawing {
    let names: Vec<&str> = SamplerKind::ALL.iter().map(|kind| kind.name()).collect();
    let name =
        r.choice("sample.sampler", &names, SamplerKind::Ddim.name(), "How to get from noise to latents.");
    let steps = r.whole("sample.steps", 1, Some(20), "Calls of the network per image.").unwrap_or(20);
    let cfg = r
        .float("sample.cfg", 0.0, Some(7.5), "Scale of classifier-free guidance; 1 or less guides nothing.")
        .unwrap_or(7.5);
    let sampler = SamplerKind::ALL.iter().find(|kind| kind.name() == name);
    Drawing::Image { sampler: sampler.copied().unwrap_or(SamplerKind::Ddim), steps: steps as usize, cfg }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::path::Path;

    fn resolver(text: &str) -> Resolver {
        Resolver::parse(Path::new("r.toml"), text, &[]).unwrap()
    }

    #[track_caller]
    fn refused(text: &str, part: &str) {
        let mut r = resolver(text);
        eval(&mut r, 0.0, 50);
        sample(&mut r, Modality::Text, 50);
        let message = r.finish().unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }

    #[test]
    fn nothing_is_looked_at_unless_asked_for() {
        let mut r = resolver("");
        assert_eq!((eval(&mut r, 0.0, 50), sample(&mut r, Modality::Image, 50)), (None, None));
        assert!(r.finish().unwrap().is_empty());
        let share = eval(&mut resolver(""), 0.25, 50).unwrap();
        assert_eq!(share, EvalPlan { rows: EvalRows::Share(0.25), every: 50 });
    }

    #[test]
    fn tables_without_what_they_are_about_are_refused() {
        refused("[eval]\nevery = 5\n", "give eval.path or data.eval_fraction");
        refused("[sample]\nseed = 5\n", "one of sample.prompts");
        refused("[sample]\nprompts = []\n", "one of sample.prompts");
        refused("[sample]\nprompts = [\"a\"]\npath = \"b\"\n", "one of sample.prompts");
        refused("[sample]\nprompts = [\"a\"]\nsteps = 3\n", "unknown key `sample.steps`");
        let mut r = resolver("eval.path = \"held-out.jsonl\"\n");
        eval(&mut r, 0.5, 50);
        assert!(r.finish().unwrap_err().to_string().contains("choose one of the two"));
    }

    #[test]
    fn the_end_is_always_due() {
        let due: Vec<u64> = (0..=10).filter(|step| is_due(*step, 4, 10)).collect();
        assert_eq!(due, [0, 4, 8, 10]);
    }
}
