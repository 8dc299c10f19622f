//! `votive methods eval`: an objective's losses, rewards and gradients on given numbers.

use crate::cli::methods::inputs::{self, Input};
use crate::cli::{Context, Failure, Outcome};
use candle_core::{DType, Device, Tensor, Var};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use votive_model::files;
use votive_objective::{
    Denoised, ListInputs, MethodSpec, Needs, Objective, PairInputs, TokenWeights, Tokens, UnpairedInputs,
    WITH, WRAPPERS,
};

/// Evaluate an objective on given numbers, for checking and plotting.
///
/// `votive methods show ID` lists the inputs and outputs. Everything is computed in the type of the inputs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The objective.
    #[arg(value_name = "ID", value_parser = super::method())]
    method: &'static MethodSpec,
    /// Set an option of the objective, or of a wrapper around it as `with.WRAPPER.OPTION`; the others keep their defaults.
    #[arg(long = "set", value_name = "OPTION=VALUE")]
    options: Vec<String>,
    /// Numbers to evaluate on.
    #[arg(long, value_name = "FILE.safetensors")]
    inputs: PathBuf,
    /// Where losses, rewards and gradients go.
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
}

pub(super) fn run(args: &Args, ctx: &Context) -> Outcome {
    let options = options(args.method, &args.options)?;
    let objective = votive_objective::build(args.method, options.clone())?;
    let given = Given::read(&args.inputs, &objective, &ctx.device()?)?;
    let outputs = evaluate(&objective, &given)?;
    let losses = outputs[LOSS].to_dtype(DType::F64)?.to_vec1::<f64>()?;
    let faulty = losses.iter().filter(|loss| !loss.is_finite()).count();
    if faulty > 0 {
        ctx.output.warn(format!("{faulty} of {} losses are not finite", losses.len()));
    }
    let metadata = [("objective", args.method.id.to_owned()), ("options", options.to_string())];
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value)).into();
    // F64 here means: as they are.
    files::write(&args.out, outputs, DType::F64, metadata)?;
    report(args, &options, &losses, ctx)
}

const LOSS: &str = "per_pair_loss";

fn report(args: &Args, options: &Value, losses: &[f64], ctx: &Context) -> Outcome {
    let (id, n, out) = (args.method.id, losses.len(), &args.out);
    let mean = losses.iter().sum::<f64>() / n as f64;
    if ctx.output.wants_json() {
        return ctx
            .output
            .json(&json!({"objective": id, "options": options, "n": n, "mean_loss": mean, "out": out}));
    }
    ctx.output.line(format!("{id}: mean loss {mean} over {n} rows, written to {}", out.display()))
}

/// The method's options: its defaults, changed by each `option=value`.
fn options(method: &MethodSpec, changes: &[String]) -> Outcome<Value> {
    let mut options = (method.defaults)();
    for change in changes {
        let (name, value) = change.split_once('=').ok_or_else(|| {
            Failure::usage(format!("--set {change}: expected OPTION=VALUE, such as beta=0.1"))
        })?;
        let (name, value) = (name.trim(), value.trim());
        let option = match name.strip_prefix(WITH).and_then(|rest| rest.strip_prefix('.')) {
            Some(path) => wrapper_option(&mut options[WITH], path)?,
            None => options.get_mut(name).ok_or_else(|| unknown_option(method, name))?,
        };
        *option = parse(value);
    }
    Ok(options)
}

/// The option `WRAPPER.OPTION` among those of the wrappers so far; a wrapper that is named is put on with its defaults.
fn wrapper_option<'a>(with: &'a mut Value, path: &str) -> Outcome<&'a mut Value> {
    let (name, option) = path.split_once('.').unwrap_or((path, ""));
    let Some(spec) = WRAPPERS.iter().find(|spec| spec.name == name) else {
        let known: Vec<&str> = WRAPPERS.iter().map(|spec| spec.name).collect();
        let failure = Failure::usage(format!("there is no wrapper `{name}`; there are {}", known.join(", ")));
        return Err(suggest(failure, name, known));
    };
    if with[name].is_null() {
        with[name] = (spec.defaults)();
    }
    let known: Vec<&str> = spec.options.iter().map(|option| option.name).collect();
    let message = format!("wrapper `{name}` has no option `{option}`; it has {}", known.join(", "));
    with[name].get_mut(option).ok_or_else(|| suggest(Failure::usage(message), option, known))
}

/// A value as JSON, or a number in any spelling, or else the text itself.
fn parse(value: &str) -> Value {
    let number = |text: &str| serde_json::Number::from_f64(text.parse().ok()?);
    serde_json::from_str(value).unwrap_or_else(|_| number(value).map_or_else(|| value.into(), Value::Number))
}

fn unknown_option(method: &MethodSpec, name: &str) -> Failure {
    let known: Vec<&str> = method.options.iter().map(|option| option.name).collect();
    let failure = Failure::usage(format!(
        "objective `{}` has no option `{name}`; it has {}",
        method.id,
        known.join(", ")
    ));
    suggest(failure, name, known)
}

/// Adds the most similar of the known names, if one is similar.
fn suggest<'a>(failure: Failure, name: &str, known: impl IntoIterator<Item = &'a str>) -> Failure {
    let similarity = |other: &str| strsim::jaro_winkler(name, other);
    let nearest = known.into_iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    match nearest.filter(|other| similarity(other) > 0.7) {
        Some(other) => failure.hint(format!("did you mean `{other}`?")),
        None => failure,
    }
}

/// The inputs that a file holds, in one floating type; those that were floating are variables.
struct Given {
    tensors: BTreeMap<&'static str, Tensor>,
    vars: BTreeMap<&'static str, Var>,
}

impl Given {
    fn read(path: &Path, objective: &Objective, device: &Device) -> Outcome<Self> {
        let mut file = files::read(path, device)?.tensors;
        let known = inputs::of(objective);
        if let Some(name) = file.keys().find(|name| known.iter().all(|input| input.name != name.as_str())) {
            let names: Vec<&str> = known.iter().map(|input| input.name).collect();
            let message = format!("{}: unknown input `{name}`; known: {}", path.display(), names.join(", "));
            return Err(suggest(Failure::data(message), name, names));
        }
        require(path, known, objective.needs(), &file)?;
        let is_double = file.values().any(|tensor| tensor.dtype() == DType::F64);
        let dtype = if is_double { DType::F64 } else { DType::F32 };
        let mut given = Self { tensors: BTreeMap::new(), vars: BTreeMap::new() };
        for Input { name, rank, .. } in known {
            let Some(tensor) = file.remove(*name) else { continue };
            if tensor.elem_count() == 0 {
                return Err(Failure::data(format!("{}: input `{name}` is empty", path.display())));
            }
            // A file may well hold the scalar as one row.
            if tensor.rank() != *rank && *rank > 0 {
                let (file, found) = (path.display(), tensor.dims());
                let expected = if *rank == 1 { "(B,)" } else { "(B, L)" };
                let message = format!("{file}: input `{name}`: expected shape {expected}, found {found:?}");
                return Err(Failure::data(message));
            }
            given.add(name, &tensor, dtype)?;
        }
        Ok(given)
    }

    fn add(&mut self, name: &'static str, tensor: &Tensor, dtype: DType) -> Outcome {
        let converted = tensor.to_dtype(dtype)?;
        if tensor.dtype().is_float() {
            let var = Var::from_tensor(&converted)?;
            self.tensors.insert(name, var.as_tensor().clone());
            self.vars.insert(name, var);
        } else {
            self.tensors.insert(name, converted);
        }
        Ok(())
    }

    fn get(&self, name: &'static str) -> Outcome<Tensor> {
        // Unreachable after `require`, but a message is as short as a panic.
        self.tensors.get(name).cloned().ok_or_else(|| Failure::data(format!("missing input `{name}`")))
    }

    /// Numbers of single tokens: mask, the policy's, the reference's and their divergence.
    fn tokens(&self, [mask, policy, reference, kl]: [&'static str; 4]) -> Outcome<Tokens> {
        Ok(Tokens {
            mask: self.get(mask)?,
            policy_logps: self.tensors.get(policy).cloned(),
            reference_logps: self.tensors.get(reference).cloned(),
            kl: self.tensors.get(kl).cloned(),
        })
    }

    /// How much single tokens count, in the log-ratio and in the divergence.
    fn token_weights(&self, [logratio, kl]: [&'static str; 2]) -> Outcome<TokenWeights> {
        Ok(TokenWeights { logratio: self.get(logratio)?, kl: self.get(kl)? })
    }

    /// What a denoiser's predictions give: the policy's errors, the reference's, and their distance.
    fn denoised(&self, [policy, reference, distances]: [&'static str; 3]) -> Outcome<Denoised> {
        Ok(Denoised {
            policy_errors: self.get(policy)?,
            reference_errors: self.tensors.get(reference).cloned(),
            distances: self.tensors.get(distances).cloned(),
        })
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }
}

/// Refuses a file that lacks inputs. A need that the objective does not have is met wholly or not at all.
fn require(path: &Path, known: &[Input], needs: Needs, file: &BTreeMap<String, Tensor>) -> Outcome {
    let is_begun =
        |need: Needs| known.iter().any(|input| input.need == need && file.contains_key(input.name));
    let is_missing = |input: &&Input| {
        !file.contains_key(input.name) && (needs.contains(input.need) || is_begun(input.need))
    };
    let missing: Vec<&str> = known.iter().filter(is_missing).map(|input| input.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::data(format!("{}: missing input {}", path.display(), missing.join(", "))))
}

/// Losses, rewards, and the gradient of the summed loss by every variable.
fn evaluate(objective: &Objective, given: &Given) -> Outcome<BTreeMap<String, Tensor>> {
    let (loss, rewards) = match objective {
        Objective::Pair(objective) => {
            let result = objective.evaluate(&pair_inputs(given)?)?;
            let rewards = vec![
                ("chosen_rewards", result.chosen_rewards),
                ("rejected_rewards", result.rejected_rewards),
            ];
            (result.per_pair, rewards)
        }
        Objective::Unpaired(objective) => {
            let result = objective.evaluate(&unpaired_inputs(given)?)?;
            (result.per_example, result.rewards.map(|rewards| ("rewards", rewards)).into_iter().collect())
        }
        Objective::List(objective) => {
            let result = objective.evaluate(&list_inputs(given)?)?;
            (result.per_list, vec![("rewards", result.rewards)])
        }
    };
    let gradients = loss.sum_all()?.backward()?;
    let mut outputs: BTreeMap<String, Tensor> =
        rewards.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
    for (name, var) in &given.vars {
        // What the loss does not depend on has no entry: its gradient is zero.
        let gradient =
            gradients.get(var).map_or_else(|| var.zeros_like(), |gradient| Ok(gradient.clone()))?;
        outputs.insert(format!("grad.{name}"), gradient);
    }
    outputs.insert(LOSS.to_owned(), loss.detach());
    Ok(outputs)
}

fn pair_inputs(given: &Given) -> Outcome<PairInputs> {
    let mut pairs = if given.has("policy_chosen_rewards") {
        PairInputs::of_rewards(given.get("policy_chosen_rewards")?, given.get("policy_rejected_rewards")?)?
    } else {
        PairInputs::new(given.get("policy_chosen_logps")?, given.get("policy_rejected_logps")?)
    };
    if given.has("reference_chosen_logps") {
        let (chosen, rejected) =
            (given.get("reference_chosen_logps")?, given.get("reference_rejected_logps")?);
        pairs = pairs.with_reference(chosen, rejected);
    }
    if given.has("chosen_lengths") {
        pairs = pairs.with_lengths(given.get("chosen_lengths")?, given.get("rejected_lengths")?);
    }
    if given.has("policy_chosen_errors") {
        let chosen =
            given.denoised(["policy_chosen_errors", "reference_chosen_errors", "chosen_distances"])?;
        let rejected =
            given.denoised(["policy_rejected_errors", "reference_rejected_errors", "rejected_distances"])?;
        pairs = pairs.with_denoised(chosen, rejected);
    }
    if given.has("margins") {
        pairs = pairs.with_margins(given.get("margins")?);
    }
    if given.has("chosen_alignment") {
        pairs = pairs.with_alignment(given.get("chosen_alignment")?, given.get("rejected_alignment")?);
    }
    if given.has("policy_gold_logps") {
        pairs = pairs.with_gold(given.get("policy_gold_logps")?, given.get("gold_lengths")?);
    }
    if given.has("chosen_scores") {
        pairs = pairs.with_scores(given.get("chosen_scores")?, given.get("rejected_scores")?);
    }
    if given.has("base_chosen_logps") {
        pairs = pairs.with_base(given.get("base_chosen_logps")?, given.get("base_rejected_logps")?);
    }
    if given.has("uncertainties") {
        pairs = pairs.with_uncertainties(given.get("uncertainties")?);
    }
    if given.has("degree_logps") {
        pairs = pairs.with_degree_logps(given.get("degree_logps")?);
    }
    if given.has("chosen_values") {
        pairs = pairs.with_values(given.get("chosen_values")?, given.get("rejected_values")?);
    }
    if given.has("chosen_token_weights") {
        let chosen = given.token_weights(["chosen_token_weights", "chosen_token_kl_weights"])?;
        let rejected = given.token_weights(["rejected_token_weights", "rejected_token_kl_weights"])?;
        pairs = pairs.with_token_weights(chosen, rejected);
    }
    if given.has("chosen_token_mask") {
        let chosen = given.tokens([
            "chosen_token_mask",
            "policy_chosen_token_logps",
            "reference_chosen_token_logps",
            "chosen_token_kl",
        ])?;
        let rejected = given.tokens([
            "rejected_token_mask",
            "policy_rejected_token_logps",
            "reference_rejected_token_logps",
            "rejected_token_kl",
        ])?;
        pairs = pairs.with_tokens(chosen, rejected);
    }
    Ok(pairs)
}

fn list_inputs(given: &Given) -> Outcome<ListInputs> {
    let mut lists = ListInputs::new(given.get("policy_logps")?);
    if given.has("reference_logps") {
        lists = lists.with_reference(given.get("reference_logps")?);
    }
    if given.has("scores") {
        lists = lists.with_scores(given.get("scores")?);
    }
    if given.has("draws") {
        lists = lists.with_draws(given.get("draws")?);
    }
    Ok(lists)
}

fn unpaired_inputs(given: &Given) -> Outcome<UnpairedInputs> {
    let mut completions = UnpairedInputs::new(given.get("policy_logps")?, given.get("labels")?);
    if given.has("reference_logps") {
        completions = completions.with_reference(given.get("reference_logps")?);
    }
    if given.has("lengths") {
        completions = completions.with_lengths(given.get("lengths")?);
    }
    if given.has("scores") {
        completions = completions.with_scores(given.get("scores")?);
    }
    if given.has("token_mask") {
        let names = ["token_mask", "policy_token_logps", "reference_token_logps", "token_kl"];
        completions = completions.with_tokens(given.tokens(names)?);
    }
    // A file may well hold a scalar as one row.
    let scalar = |name| {
        let found = given.get(name)?;
        Ok::<_, Failure>(if found.elem_count() == 1 { found.reshape(())? } else { found })
    };
    if given.has("kl") {
        completions = completions.with_kl(scalar("kl")?);
    }
    if given.has("mean_logratio") {
        completions = completions.with_mean_logratio(scalar("mean_logratio")?);
    }
    Ok(completions)
}
