//! Low-rank adapters on linear maps, and copies of whole modules beside them, in the formats of PEFT and diffusers.
//!
//! Source: Hu et al., "LoRA: low-rank adaptation of large language models", arXiv:2106.09685, Eq. 3:
//! `W·x + s·B·A·x`, A random, B zero at the start, so that a new adapter changes nothing. DoRA: Liu et al.,
//! arXiv:2402.09353, Eq. 5, with the norm as a constant for the gradient (Sec. 4.3).

mod config;
mod files;

pub use config::{LoraConfig, Targets};
pub use files::LoraFormat;

use crate::error::{ModelError, Result};
use crate::weights::Weights;
use candle_core::{DType, Device, Tensor, Var};
use config::Chooser;
use std::collections::{BTreeMap, BTreeSet};
use votive_tensor::Weight;
use votive_tensor::random::{Draws, Stream};

/// The adapter of one linear map.
#[derive(Clone, Debug)]
pub(crate) struct LoraLayer {
    /// A, `(r, ins)`.
    pub(crate) a: Tensor,
    /// B, `(outs, r)`.
    pub(crate) b: Tensor,
    /// Length of each row of the adapted weight, `(outs,)` (DoRA).
    pub(crate) magnitude: Option<Tensor>,
    /// s.
    pub(crate) scale: f64,
}

impl LoraLayer {
    /// `W + s·B·A`, without gradient.
    fn direction(&self, weight: &Tensor) -> Result<Tensor> {
        let delta = self.b.detach().matmul(&self.a.detach())?;
        Ok((weight.detach() + (delta * self.scale)?)?)
    }

    /// What DoRA multiplies the outputs of `W + s·B·A` by, `(outs,)`: the magnitude over the length of each row. Gradient
    /// flows to the magnitude alone. None without DoRA.
    pub(crate) fn stretch(&self, weight: &Weight) -> Result<Option<Tensor>> {
        let Some(magnitude) = &self.magnitude else { return Ok(None) };
        Ok(Some((magnitude / row_lengths(&self.direction(&weight.full()?)?)?)?))
    }

    /// The weight that has the adapter in it, without gradient.
    fn merged(&self, weight: &Tensor) -> Result<Tensor> {
        let direction = self.direction(weight)?;
        match self.stretch(&Weight::Whole(weight.clone()))? {
            None => Ok(direction),
            Some(stretch) => Ok(direction.broadcast_mul(&stretch.detach().unsqueeze(1)?)?),
        }
    }

    fn tensors(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        let both = [("lora_A.weight", &self.a), ("lora_B.weight", &self.b)];
        both.into_iter().chain(self.magnitude.iter().map(|magnitude| ("lora_magnitude_vector", magnitude)))
    }
}

fn row_lengths(weight: &Tensor) -> Result<Tensor> {
    Ok(weight.sqr()?.sum(1)?.sqrt()?)
}

/// An adapter: for each module its low-rank matrices, and whole tensors in the place of the network's own.
#[derive(Clone, Debug)]
pub struct Lora {
    config: LoraConfig,
    layers: BTreeMap<String, LoraLayer>,
    /// Tensors of the modules to save, by name.
    saved: BTreeMap<String, Tensor>,
    /// The model that it was made for, as its file says.
    made_for: Option<String>,
}

impl Lora {
    /// Trainable matrices for every linear map that the configuration names, and trainable copies of modules to save.
    pub(crate) fn fresh(config: LoraConfig, network: &Weights, seed: u64, device: &Device) -> Result<Self> {
        let chooser = Chooser::new(&config)?;
        let (mut layers, mut maps) = (BTreeMap::new(), Vec::new());
        let shapes = network.shapes();
        for (index, (name, shape)) in shapes.iter().enumerate() {
            let (Some(path), &[outs, ins]) = (name.strip_suffix(".weight"), shape.as_slice()) else {
                continue;
            };
            maps.push(path);
            if !chooser.takes(path)? {
                continue;
            }
            let (rank, scale) = chooser.shape(path)?;
            // PEFT's default: kaiming uniform with a = √5, which is ±1/√in.
            let mut draws = Draws::new(seed, Stream::Init, 1, index as u64);
            let mut layer = fresh_layer([outs, ins], (rank, scale), &mut draws, device)?;
            if config.use_dora {
                // B is zero, so that the rows of the adapted weight are those of the weight.
                let weight = network.full(name)?;
                let lengths = weight.map(|weight| variable(&row_lengths(&weight.detach())?));
                layer.magnitude = lengths.transpose()?;
            }
            layers.insert(path.to_owned(), layer);
        }
        let paths: Vec<&str> = layers.keys().map(String::as_str).collect();
        let idle = chooser.idle(&maps, &paths)?;
        if let Some(problem) =
            idle.or_else(|| paths.is_empty().then(|| "the targets name nothing".to_owned()))
        {
            let names: BTreeSet<&str> = maps.iter().filter_map(|path| path.rsplit('.').next()).collect();
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            return Err(ModelError::Adapter(format!("{problem}; its linear maps are {names}")));
        }
        let saved = copies(&config, network)?;
        let lora = Self { config, layers, saved, made_for: None };
        lora.check(network)?;
        Ok(lora)
    }

    /// What the adapter is made of.
    #[must_use]
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The modules that have low-rank matrices, ordered.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.layers.keys().map(String::as_str)
    }

    pub(crate) fn layer(&self, path: &str) -> Option<&LoraLayer> {
        self.layers.get(path)
    }

    /// The tensor that stands in the place of the network's own of that name.
    pub(crate) fn saved(&self, name: &str) -> Option<&Tensor> {
        self.saved.get(name)
    }

    pub(crate) fn named_tensors(&self) -> impl Iterator<Item = (String, Tensor)> + '_ {
        let of_layer = |(path, layer): (&'_ String, &'_ LoraLayer)| {
            let named = |(part, tensor): (&str, &Tensor)| (format!("{path}.{part}"), tensor.clone());
            layer.tensors().map(named).collect::<Vec<_>>()
        };
        let saved = self.saved.iter().map(|(name, tensor)| (name.clone(), tensor.clone()));
        self.layers.iter().flat_map(of_layer).chain(saved)
    }

    /// Puts the adapter into the weights of the network below it.
    pub(crate) fn merge_into(&self, tensors: &mut BTreeMap<String, Tensor>) -> Result<()> {
        for (path, layer) in &self.layers {
            if let Some(weight) = tensors.get_mut(&format!("{path}.weight")) {
                *weight = layer.merged(weight)?;
            }
        }
        for (name, tensor) in &self.saved {
            tensors.insert(name.clone(), tensor.detach());
        }
        Ok(())
    }

    pub(crate) fn map(mut self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        for layer in self.layers.values_mut() {
            (layer.a, layer.b) = (change(&layer.a)?, change(&layer.b)?);
            layer.magnitude = layer.magnitude.as_ref().map(&change).transpose()?;
        }
        for tensor in self.saved.values_mut() {
            *tensor = change(tensor)?;
        }
        Ok(self)
    }

    /// Checks that the adapter is one for a network with these tensors; the error names the first module that is not.
    pub(crate) fn check(&self, network: &Weights) -> Result<()> {
        let shapes = network.shapes();
        for (path, layer) in &self.layers {
            let weight = shapes.get(format!("{path}.weight").as_str());
            let weight = weight.ok_or_else(|| self.misfit(path, "the model has no such module"))?;
            let (a, b) = (layer.a.dims(), layer.b.dims());
            let magnitude = layer.magnitude.as_ref().is_none_or(|m| m.dims() == [b[0]]);
            if *weight != [b[0], a[1]] || a[0] != b[1] || !magnitude {
                let found = format!("A {a:?} and B {b:?} do not fit the weight {weight:?}");
                return Err(self.misfit(path, &found));
            }
        }
        for (name, tensor) in &self.saved {
            let own = shapes.get(name.as_str());
            let own = own.ok_or_else(|| self.misfit(name, "the model has no such tensor"))?;
            if own != tensor.dims() {
                let found = format!("{:?}, but the model's is {own:?}", tensor.dims());
                return Err(self.misfit(name, &found));
            }
        }
        self.check_tied_head(!shapes.contains_key("lm_head.weight"))
    }

    /// PEFT leaves a head that is tied to a saved embedding as it was; here it would follow.
    fn check_tied_head(&self, is_tied: bool) -> Result<()> {
        match self.saved.keys().find(|name| is_tied && name.ends_with("embed_tokens.weight")) {
            Some(name) => Err(ModelError::Adapter(format!(
                "`{name}` is also the head of this model (tie_word_embeddings), and PEFT would train one without the \
                 other; leave it out of modules_to_save"
            ))),
            None => Ok(()),
        }
    }

    fn misfit(&self, place: &str, problem: &str) -> ModelError {
        let origin = self.made_for.as_ref().map(|base| format!(" (the adapter was made for {base})"));
        ModelError::Adapter(format!("`{place}`: {problem}{}", origin.unwrap_or_default()))
    }

    /// The same values as trainable variables.
    ///
    /// # Errors
    /// Those of candle.
    pub fn into_trainable(self) -> Result<Self> {
        self.map(variable)
    }
}

fn variable(tensor: &Tensor) -> Result<Tensor> {
    Ok(Var::from_tensor(&tensor.to_dtype(DType::F32)?.copy()?)?.into_inner())
}

fn fresh_layer(
    [outs, ins]: [usize; 2],
    (rank, scale): (usize, f64),
    draws: &mut Draws,
    device: &Device,
) -> Result<LoraLayer> {
    let bound = (ins as f64).powf(-0.5);
    let a: Vec<f32> = (0..rank * ins).map(|_| draws.between(-bound, bound) as f32).collect();
    Ok(LoraLayer {
        a: Var::from_vec(a, (rank, ins), device)?.into_inner(),
        b: Var::zeros((outs, rank), DType::F32, device)?.into_inner(),
        magnitude: None,
        scale,
    })
}

/// Trainable copies of everything in the modules to save.
fn copies(config: &LoraConfig, network: &Weights) -> Result<BTreeMap<String, Tensor>> {
    let mut copies = BTreeMap::new();
    for name in network.shapes().into_keys() {
        let module = name.rsplit_once('.').map_or("", |(module, _)| module);
        // Only what is copied is worth turning back from fewer bytes.
        if config.is_saved(module)
            && let Some(tensor) = network.full(name)?
        {
            copies.insert(name.to_owned(), variable(&tensor)?);
        }
    }
    let module = |name: &String| name.rsplit_once('.').map_or(String::new(), |(module, _)| module.to_owned());
    let names_none = |wanted: &&String| !copies.keys().any(|name| module(name).ends_with(wanted.as_str()));
    match config.modules_to_save.iter().find(names_none) {
        Some(wanted) => {
            Err(ModelError::Adapter(format!("modules_to_save: `{wanted}` names no module of this network")))
        }
        None => Ok(copies),
    }
}
