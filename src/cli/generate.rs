//! `votive generate`: text from a language model.

use crate::cli::prompts::Prompts;
use crate::cli::text_model::TextModel;
use crate::cli::{Context, Failure, Outcome};
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use votive_data::{ChatOptions, Message, TextTokenizer};
use votive_model::{GenerateOptions, Generated, generate};

/// Generate text with a language model.
///
/// A prompt's completion depends on its number and on the seed, not on the other prompts or the batch size.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model's folder, in the hub's layout.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A LoRA adapter to put on the model, in PEFT's format.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    prompts: Prompts,
    /// Render each prompt as a user's turn with the model's chat template.
    #[arg(long)]
    chat: bool,
    /// Tokens of a completion at most.
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
    /// Divides the logits; 0 takes the most probable token each time.
    #[arg(long, value_name = "T", default_value_t = 1.0, allow_negative_numbers = true)]
    temperature: f64,
    /// Draw from the K most probable tokens.
    #[arg(long, value_name = "K")]
    top_k: Option<NonZeroUsize>,
    /// Draw from the fewest tokens whose probabilities reach P.
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Seed of the draws.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Prompts that are worked on at once.
    #[arg(long, value_name = "N", default_value = "8")]
    batch: NonZeroUsize,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    let prompts = args.prompts.read()?;
    args.check()?;
    let model = TextModel::load(&args.model, args.adapter.as_deref(), &ctx.device()?)?;
    let ids = prompts
        .iter()
        .map(|prompt| encode(&model.tokenizer, prompt, args.chat))
        .collect::<Outcome<Vec<_>>>()?;
    let progress = ctx.output.progress("generating", "prompts", prompts.len() as u64);
    let mut first = 0;
    for (prompts, ids) in prompts.chunks(args.batch.get()).zip(ids.chunks(args.batch.get())) {
        let options = args.options(&model.tokenizer, first as u64);
        let completions = generate(&model.network, ids, &options)?;
        for (prompt, completion) in prompts.iter().zip(completions) {
            progress.pause(|| show(ctx, &model.tokenizer, prompt, &completion))?;
        }
        first += prompts.len();
        progress.set(first as u64);
    }
    progress.finish();
    Ok(())
}

impl Args {
    /// Refuses options that would have no effect, and numbers out of range.
    fn check(&self) -> Outcome {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(Failure::usage(format!("--temperature {}: expected 0 or more", self.temperature)));
        }
        if let Some(top_p) = self.top_p.filter(|top_p| !(*top_p > 0.0 && *top_p <= 1.0)) {
            return Err(Failure::usage(format!("--top-p {top_p}: expected more than 0 and at most 1")));
        }
        if self.temperature == 0.0 && (self.top_k.is_some() || self.top_p.is_some()) {
            let idle =
                Failure::usage("--top-k and --top-p have no effect at --temperature 0, which draws nothing");
            return Err(idle.hint("leave them out, or use a temperature above 0"));
        }
        Ok(())
    }

    fn options(&self, tokenizer: &TextTokenizer, first_sample: u64) -> GenerateOptions {
        GenerateOptions {
            max_new_tokens: self.max_new_tokens,
            stop: tokenizer.stop_ids().to_vec(),
            temperature: self.temperature,
            top_k: self.top_k.map(NonZeroUsize::get),
            top_p: self.top_p,
            seed: self.seed,
            first_sample,
        }
    }
}

/// Token ids of a prompt, as it stands or as a user's turn.
fn encode(tokenizer: &TextTokenizer, prompt: &str, is_chat: bool) -> Outcome<Vec<u32>> {
    let ids = if is_chat {
        tokenizer.encode_chat(&[Message::new("user", prompt)], true, &ChatOptions::default())?
    } else {
        tokenizer.encode(prompt, true)?
    };
    Ok(ids)
}

fn show(ctx: &Context, tokenizer: &TextTokenizer, prompt: &str, completion: &Generated) -> Outcome {
    let Generated { token_ids, finished } = completion;
    let text = tokenizer.decode(token_ids, true)?;
    if ctx.output.wants_json() {
        let row = json!({"prompt": prompt, "text": text, "token_ids": token_ids, "finished": finished});
        return ctx.output.json(&row);
    }
    ctx.output.note(format!("\n> {prompt}"));
    ctx.output.line(text)
}
