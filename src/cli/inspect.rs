//! `votive inspect`: what a step of a recipe sees, in words and in numbers.

use super::{Context, Outcome, reward};
use candle_core::DType;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use votive_model::{Params, files};
use votive_train::front_end::FrontEnd;
use votive_train::{Inspection, Plan, Prepared, Run, prepare};

/// Show what a training step sees
///
/// Text is printed with the prompt dim and the trained completion in green; images with side, time and caption.
/// The policy is the model as the recipe starts it. With --dump the tensors are written too: for text input_ids,
/// attention_mask, completion_mask, policy_logps, reference_logps (of a reward model policy_rewards); for images latents, noise, timesteps,
/// prompt_embeds (SDXL: pooled_prompt_embeds and time_ids too), weights (of the times), and policy_error and
/// reference_error times these; for both loss and
/// grad_norm. Rows are chosen first.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The recipe, a TOML file.
    recipe: PathBuf,
    /// Override a setting of the recipe.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// The step, counted from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    step: u64,
    /// Write the step's tensors to this file.
    #[arg(long, value_name = "FILE.safetensors")]
    dump: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, ctx: &Context) -> Outcome {
    let plan = Plan::read(&args.recipe, &args.overrides)?;
    match prepare(&plan, &ctx.device()?, &reward::reward, |_, _| {})? {
        Prepared::Text(front, start, report) => {
            ctx.output.note(&report);
            inspect(args, &plan, front.as_ref(), start, ctx)
        }
        Prepared::Reward(front, start, report) => {
            ctx.output.note(&report);
            inspect(args, &plan, front.as_ref(), start, ctx)
        }
        Prepared::Image(front, start, report) => {
            ctx.output.note(&report);
            inspect(args, &plan, front.as_ref(), start, ctx)
        }
        Prepared::Rollout(front, start, report) => {
            ctx.output.note(&report);
            inspect(args, &plan, front.as_ref(), start, ctx)
        }
    }
}

fn inspect<F: FrontEnd>(args: &Args, plan: &Plan, front: &F, start: Params, ctx: &Context) -> Outcome {
    let run = Run::new(plan, front, start, None, |_, _| {})?;
    let colour = std::io::stdout().is_terminal() && !ctx.output.wants_json();
    let Inspection { lines, tensors } = run.inspect(args.step, colour)?;
    let scalar = |name: &str| -> Outcome<f32> {
        let found = tensors.iter().find(|(key, _)| key == name);
        Ok(found.map(|(_, tensor)| tensor.to_scalar::<f32>()).transpose()?.unwrap_or(f32::NAN))
    };
    let (loss, grad_norm) = (scalar("loss")?, scalar("grad_norm")?);
    if let Some(path) = &args.dump {
        files::write(path, tensors, DType::F32, BTreeMap::new())?;
        ctx.output.note(format!("wrote {}", path.display()));
    }
    if ctx.output.wants_json() {
        let value =
            serde_json::json!({ "step": args.step, "rows": lines, "loss": loss, "grad_norm": grad_norm });
        return ctx.output.json(&value);
    }
    for line in lines {
        ctx.output.line(line)?;
    }
    ctx.output.line(format!("loss {loss:.6}  grad_norm {grad_norm:.6}"))
}
