//! Sums of models and adapters: preference vectors, extrapolation, and the mixtures that guide away (Diffusion-NPO).
//!
//! Sources: Liang et al., "Adaptive helpfulness-harmlessness alignment with preference vectors", arXiv:2504.20106
//! (θ_base + Σ η·(θ⁺ − θ⁻)); He et al., arXiv:2410.06293 (θ' + α·(θ' − θ)); Wang et al., "Diffusion-NPO",
//! ICLR 2025 (θ + α·Δ⁺ + β·Δ⁻).

use super::model::{Model, Network, Networks};
use super::terms::{Term, Terms};
use super::{Args, check_out};
use crate::cli::{Code, Context, Failure, Outcome};
use candle_core::{DType, Device};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use votive_model::{Adaptable, Lora, LoraFormat, Params, PipelineLora, hub_folder};
use votive_train::model_card::{self, Library};

/// What is said of a sum when it is written.
struct Report {
    /// What was written: `model`, or `adapter`.
    kind: &'static str,
    details: Value,
    lines: Vec<String>,
}

/// Writes the sum, a model if there is one among its parts, and else an adapter.
pub(super) fn write(terms: &Terms, args: &Args, ctx: &Context) -> Outcome {
    check_out(&args.out)?;
    let report = match terms.models.split_first() {
        Some((first, others)) => sum_of_models(first, others, &terms.adapters, args, ctx)?,
        None => sum_of_adapters(&terms.adapters, args, ctx)?,
    };
    if ctx.output.wants_json() {
        let weights: BTreeMap<&str, f64> = terms
            .models
            .iter()
            .chain(&terms.adapters)
            .map(|term| (term.name.as_str(), term.weight))
            .collect();
        let mut value = json!({"out": args.out, "kind": report.kind, "weights": weights});
        if let (Value::Object(value), Value::Object(details)) = (&mut value, report.details) {
            value.extend(details);
        }
        return ctx.output.json(&value);
    }
    ctx.output.line(args.out.display())?;
    report.lines.iter().try_for_each(|line| ctx.output.line(line))
}

fn sum_of_models(
    first: &Term,
    others: &[Term],
    adapters: &[Term],
    args: &Args,
    ctx: &Context,
) -> Outcome<Report> {
    let idle = [("format", args.format.is_some()), ("model", args.sum.is_some() && args.model.is_some())];
    if let Some((option, _)) = idle.iter().find(|(_, is_given)| *is_given) {
        return Err(Failure::usage(format!(
            "--{option} is for sums of adapters alone; here {} is a model",
            first.name
        )));
    }
    let device = ctx.device()?;
    let model = Model::open(&first.path)?;
    let base = model.networks(&device)?;
    let mut sum = base.clone();
    for term in others {
        let other = Model::open(&term.path)?;
        model.check_same(&other, &device)?;
        let other = other.networks(&device).map_err(|failure| failure.at(&term.name))?;
        for (network, params) in &mut sum {
            if let (Some(other), Some(base)) = (other.get(network), base.get(network)) {
                let sum = params.plus_difference(term.weight, other, base);
                *params = sum.map_err(|error| Failure::from(error).at(&term.name))?;
            }
        }
    }
    let adapters = joined(&model, &base, adapters, ctx)?;
    for (network, lora) in adapters {
        if let Some(params) = sum.get_mut(&network) {
            *params = params.with_lora(lora)?.merged()?;
        }
    }
    let float = args.dtype.map_or_else(|| model.stored_dtype(), |dtype| Ok(dtype.to_candle()))?;
    write_model(&model, (&base, &sum), first, (args, float), &device)
}

fn write_model(
    model: &Model,
    (base, sum): (&Networks, &Networks),
    first: &Term,
    (args, float): (&Args, DType),
    device: &Device,
) -> Outcome<Report> {
    let mut moved: BTreeMap<Network, f64> = BTreeMap::new();
    for (network, params) in sum {
        let far = base.get(network).map_or(Ok(0.0), |base| params.largest_difference(base))?;
        if !far.is_finite() {
            return Err(Failure::new(Code::Numbers, "the sum has numbers that are none (NaN or infinity)"));
        }
        moved.insert(*network, far);
    }
    let changed = |network: Network| moved.get(&network).is_some_and(|far| *far > 0.0);
    let mut rounding = None;
    hub_folder::write_folder(&args.out, |folder| -> Outcome {
        model.write(folder, sum, changed, (float, args.shard_mib << 20))?;
        let library = match model {
            Model::Text(..) => Library::Transformers,
            Model::Image(..) => Library::Diffusers,
        };
        let adapter = args.adapter.as_deref().filter(|path| path.is_dir());
        let from = adapter.unwrap_or(&first.path);
        model_card::derive(folder, from, &first.path, library, &args.made())?;
        if args.verify {
            rounding = Some(verified(folder, sum, &changed, float, device)?);
        }
        Ok(())
    })?;
    let farthest = moved.values().copied().fold(0.0, f64::max);
    let tensors: usize = sum.values().map(|params| params.iter().count()).sum();
    let dtype = hub_folder::torch_dtype(float)?;
    let mut lines =
        vec![format!("{tensors} tensors ({dtype}), largest difference from {} {farthest:.3e}", first.name)];
    lines.extend(rounding.map(|most| {
        format!(
            "read back from disk: the sum rounded to {dtype}, which moves no number by more than {most:.3e}"
        )
    }));
    let verify = rounding.map(|most| json!({"largest_rounding": most}));
    let details =
        json!({"dtype": dtype, "tensors": tensors, "largest_difference": farthest, "verify": verify});
    Ok(Report { kind: "model", details, lines })
}

/// Reads a folder back, whose numbers must be those of the sum rounded to the stored type; returns how far rounding moves
/// them at most.
fn verified(
    folder: &Path,
    sum: &Networks,
    changed: &impl Fn(Network) -> bool,
    float: DType,
    device: &Device,
) -> Outcome<f64> {
    let stored = Model::open(folder)?.networks(device)?;
    let mut rounding = 0f64;
    for (network, params) in sum {
        let Some(stored) = stored.get(network) else { continue };
        // A network that nobody changed keeps the type of its own file.
        let is_copy = matches!(network, Network::Of(Adaptable::TextEncoder)) && !changed(*network);
        let round = |(name, tensor): (&str, &candle_core::Tensor)| {
            let float = if is_copy || !tensor.dtype().is_float() { tensor.dtype() } else { float };
            Ok((name.to_owned(), tensor.to_dtype(float)?.to_dtype(tensor.dtype())?))
        };
        let rounded = params.iter().map(round).collect::<candle_core::Result<_>>()?;
        let rounded = Params::new("rounded weights", rounded, device);
        if stored.largest_difference(&rounded)? != 0.0 {
            let other = Failure::new(Code::Numbers, "the folder holds other numbers than were written");
            return Err(other.hint("this is a defect of votive or of the disk; please report it"));
        }
        rounding = rounding.max(params.largest_difference(stored)?);
    }
    Ok(rounding)
}

/// The weighted sum of adapters, by network, in the names of a model's own modules.
fn joined(
    model: &Model,
    networks: &Networks,
    adapters: &[Term],
    ctx: &Context,
) -> Outcome<BTreeMap<Network, Lora>> {
    let device = &ctx.device()?;
    let mut gathered: BTreeMap<Network, Vec<(f64, Lora)>> = BTreeMap::new();
    for term in adapters {
        let at = |failure: Failure| failure.at(term.path.display());
        for (network, lora) in model.adapter(&term.path, device).map_err(at)? {
            let params = networks.get(&network);
            let adapted = params.map(|params| params.with_lora(lora)).transpose();
            let lora = adapted.map_err(|error| at(error.into()))?.and_then(|params| params.lora().cloned());
            gathered.entry(network).or_default().extend(lora.map(|lora| (term.weight, lora)));
        }
    }
    let bases: BTreeSet<&str> = gathered.values().flatten().filter_map(|(_, lora)| lora.made_for()).collect();
    if bases.len() > 1 {
        let bases: Vec<&str> = bases.into_iter().collect();
        ctx.output
            .warn(format!("the adapters were made for models of different names: {}", bases.join(", ")));
    }
    let sum = |(network, terms): (Network, Vec<(f64, Lora)>)| {
        let terms: Vec<(f64, &Lora)> = terms.iter().map(|(weight, lora)| (*weight, lora)).collect();
        Ok((network, Lora::weighted_sum(&terms)?))
    };
    gathered.into_iter().map(sum).collect()
}

fn sum_of_adapters(adapters: &[Term], args: &Args, ctx: &Context) -> Outcome<Report> {
    let Some(base) = &args.model else {
        let nameless =
            Failure::usage("--sum: every part is an adapter, and none says what modules it is about");
        return Err(nameless.hint("give the model below them with --model"));
    };
    if args.dtype.is_some() {
        return Err(Failure::usage("--dtype: an adapter is written in f32"));
    }
    let device = ctx.device()?;
    let model = Model::open(base)?;
    let networks = model.networks(&device)?;
    let joined = joined(&model, &networks, adapters, ctx)?;
    let adapted = |(network, lora): (&Network, &Lora)| {
        networks.get(network).map(|params| Ok((*network, params.with_lora(lora.clone())?)))
    };
    let adapted: Networks = joined.iter().filter_map(adapted).collect::<Outcome<_>>()?;
    let first = adapters.first().map_or(base.as_path(), |term| &term.path);
    write_adapter(&model, &adapted, first, args)?;
    let verify =
        args.verify.then(|| distance(&model, (&networks, &adapted), adapters, &device)).transpose()?;
    let modules: usize = joined.values().map(|lora| lora.paths().count()).sum();
    let rank = joined.values().map(|lora| lora.config().rank).max();
    let mut lines = vec![format!("an adapter of {modules} modules, rank {}", rank.unwrap_or(0))];
    lines
        .extend(verify.map(|far| format!("largest difference from the sum of the single changes {far:.3e}")));
    let verify = verify.map(|far| json!({"largest_difference": far}));
    Ok(Report {
        kind: "adapter",
        details: json!({"modules": modules, "rank": rank, "verify": verify}),
        lines,
    })
}

fn write_adapter(model: &Model, adapted: &Networks, first: &Path, args: &Args) -> Outcome {
    hub_folder::write_folder(&args.out, |folder| -> Outcome {
        let library = match model {
            Model::Text(base, ..) => {
                if args.format.is_some_and(|format| format != LoraFormat::Peft) {
                    return Err(Failure::usage("--format: a language model's adapter is written for peft"));
                }
                for lora in adapted.values().filter_map(Params::lora) {
                    lora.save(folder, &base.to_string_lossy())?;
                }
                hub_folder::copy_tokenizer(base, folder)?;
                Library::Peft
            }
            Model::Image(base, _) => {
                let of = |(network, params)| match network {
                    &Network::Of(network) => Some((network, params)),
                    Network::Language => None,
                };
                let networks: Vec<(Adaptable, &Params)> = adapted.iter().filter_map(of).collect();
                let format = args.format.unwrap_or(LoraFormat::Diffusers);
                PipelineLora::save(folder, format, &networks, base.root())?;
                Library::Diffusers
            }
        };
        let from = if first.is_dir() { first } else { folder };
        Ok(model_card::derive(folder, from, model.folder(), library, &args.made())?)
    })
}

/// How far the adapted weights are from the model's with every single change added to them.
fn distance(
    model: &Model,
    (base, adapted): (&Networks, &Networks),
    adapters: &[Term],
    device: &Device,
) -> Outcome<f64> {
    let mut sum = base.clone();
    for term in adapters {
        for (network, lora) in model.adapter(&term.path, device)? {
            if let (Some(sum), Some(base)) = (sum.get_mut(&network), base.get(&network)) {
                *sum = sum.plus_difference(term.weight, &base.with_lora(lora)?.merged()?, base)?;
            }
        }
    }
    let mut farthest = 0f64;
    for (network, params) in adapted {
        if let Some(sum) = sum.get(network) {
            farthest = farthest.max(params.merged()?.largest_difference(sum)?);
        }
    }
    Ok(farthest)
}
