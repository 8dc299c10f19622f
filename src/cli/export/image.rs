//! Adapters of image models, from any format to any other.

use super::source::Source;
use super::{Args, Precision, Target};
use crate::cli::merge::check_out;
use crate::cli::{Context, Failure, Outcome};
use serde_json::{Value, json};
use votive_model::stable_diffusion::StableDiffusionFolder;
use votive_model::{Adaptable, LoraFormat, Params, PipelineLora, hub_folder};
use votive_train::model_card::{self, Library};

pub(super) fn write(source: &Source, args: &Args, ctx: &Context) -> Outcome<Value> {
    let format = match args.to {
        Target::Peft => LoraFormat::Peft,
        Target::Diffusers => LoraFormat::Diffusers,
        Target::Kohya => LoraFormat::Kohya,
        Target::Hub | Target::Gguf => {
            let whole =
                Failure::usage("--to: adapters of image models are written for peft, diffusers and kohya");
            return Err(whole.hint("`votive merge` writes a whole pipeline"));
        }
    };
    let Some(adapter) = &source.adapter else {
        return Err(Failure::usage(format!("{}: holds no adapter", args.source.display()))
            .hint("a whole Stable Diffusion folder is what diffusers loads already"));
    };
    if !matches!(args.dtype, None | Some(Precision::F32)) {
        return Err(Failure::usage("--dtype: an adapter is written in f32"));
    }
    check_out(&args.out)?;
    let device = ctx.device()?;
    let (folder, adapters) =
        (StableDiffusionFolder::open(&source.base)?, PipelineLora::load(adapter, &device)?);
    folder.check_networks_of(&adapters)?;
    let networks: Vec<(Adaptable, Params)> = adapters
        .networks()
        .map(|network| Ok((network, folder.adapted(network, &adapters, &device)?)))
        .collect::<Outcome<_>>()?;
    save(args, format, &networks, &folder)?;
    let count = |params: &Params| params.lora().map_or(0, |lora| lora.paths().count());
    let modules: serde_json::Map<String, Value> = networks
        .iter()
        .map(|(network, params)| (network.folder().to_owned(), json!(count(params))))
        .collect();
    Ok(json!({"modules": modules}))
}

/// Writes a file alone, or a folder with a card.
fn save(
    args: &Args,
    format: LoraFormat,
    networks: &[(Adaptable, Params)],
    base: &StableDiffusionFolder,
) -> Outcome {
    let networks: Vec<(Adaptable, &Params)> =
        networks.iter().map(|(network, params)| (*network, params)).collect();
    if format != LoraFormat::Peft && args.out.extension().is_some_and(|ending| ending == "safetensors") {
        return Ok(PipelineLora::save(&args.out, format, &networks, base.root())?);
    }
    hub_folder::write_folder(&args.out, |folder| -> Outcome {
        PipelineLora::save(folder, format, &networks, base.root())?;
        let from = if args.source.is_dir() { &args.source } else { folder };
        let made = format!("A LoRA adapter in the format of {}.", format.name());
        Ok(model_card::derive(folder, from, base.root(), Library::Diffusers, &made)?)
    })
}
