//! Low-rank adapters on linear maps and convolutions, and copies of whole modules beside them, in the formats of PEFT,
//! diffusers and kohya.
//!
//! Source: Hu et al., "LoRA: low-rank adaptation of large language models", arXiv:2106.09685, Eq. 3:
//! `W·x + s·B·A·x`, A random, B zero at the start, so that a new adapter changes nothing. DoRA: Liu et al.,
//! arXiv:2402.09353, Eq. 5, with the norm as a constant for the gradient (Sec. 4.3). A convolution is the linear map of
//! what lies under its kernel: A is a convolution of the same kind with r results, B one of a single pixel.

mod config;
mod keys;
mod kohya;
mod names;
mod peft;
mod pipeline;
mod sgm;
mod sum;

pub use config::{LoraConfig, Targets};
pub use keys::Adaptable;
pub use pipeline::{LoraFormat, PipelineLora};

use crate::error::{ModelError, Result};
use crate::weights::Weights;
use candle_core::{DType, Device, Tensor, Var};
use config::Chooser;
use names::ModuleNames;
use std::collections::{BTreeMap, BTreeSet};
use votive_tensor::Weight;
use votive_tensor::random::{Draws, Stream};

/// The adapter of one linear map or convolution.
#[derive(Clone, Debug)]
pub(crate) struct LoraLayer {
    /// A, `(r, ins)`; of a convolution `(r, ins, k, k)`.
    pub(crate) a: Tensor,
    /// B, `(outs, r)`; of a convolution `(outs, r, 1, 1)`.
    pub(crate) b: Tensor,
    /// Length of each row of the adapted weight, `(outs,)`; of a convolution `(1, outs, 1, 1)` (DoRA).
    pub(crate) magnitude: Option<Tensor>,
    /// s.
    pub(crate) scale: f64,
}

impl LoraLayer {
    /// r.
    fn rank(&self) -> usize {
        self.a.dims().first().copied().unwrap_or(0)
    }

    /// `W + s·B·A` as a matrix, without gradient.
    fn direction(&self, weight: &Tensor) -> Result<Tensor> {
        let delta = self.b.detach().flatten_from(1)?.matmul(&self.a.detach().flatten_from(1)?)?;
        Ok((weight.detach().flatten_from(1)? + (delta * self.scale)?)?)
    }

    /// What DoRA multiplies the outputs of `W + s·B·A` by, `(outs,)`: the magnitude over the length of each row. Gradient
    /// flows to the magnitude alone. None without DoRA.
    pub(crate) fn stretch(&self, weight: &Weight) -> Result<Option<Tensor>> {
        let Some(magnitude) = &self.magnitude else { return Ok(None) };
        Ok(Some((magnitude.flatten_all()? / row_lengths(&self.direction(&weight.full()?)?)?)?))
    }

    /// The weight that has the adapter in it, without gradient.
    fn merged(&self, weight: &Tensor) -> Result<Tensor> {
        let direction = self.direction(weight)?;
        let merged = match self.stretch(&Weight::Whole(weight.clone()))? {
            None => direction,
            Some(stretch) => direction.broadcast_mul(&stretch.detach().unsqueeze(1)?)?,
        };
        Ok(merged.reshape(weight.shape())?)
    }

    /// Whether the matrices are those of a weight of this shape.
    fn fits(&self, weight: &[usize]) -> bool {
        let (a, b) = (self.a.dims(), self.b.dims());
        let [outs, kernel @ ..] = weight else { return false };
        let is_a = matches!(a, [rank, own @ ..] if own == kernel && b.get(1) == Some(rank));
        let is_b = b.len() == weight.len() && b[0] == *outs && b.iter().skip(2).all(|n| *n == 1);
        is_a && is_b && self.magnitude.as_ref().is_none_or(|m| m.elem_count() == *outs)
    }

    /// The same matrices in the shapes that a weight of this shape asks for, where only sizes of one tell them apart:
    /// some files have kernels of one pixel for linear maps, or matrices for such kernels.
    fn shaped(self, weight: &[usize]) -> Result<Self> {
        let ones = vec![1; weight.len().saturating_sub(2)];
        let of_pixel = |dims: &[usize]| dims.iter().skip(2).all(|n| *n == 1);
        let (a, b) = (self.a.dims().to_vec(), self.b.dims().to_vec());
        if weight.len() < 2 || a.len() < 2 || b.len() < 2 || !(of_pixel(&b)) {
            return Ok(self);
        }
        let is_pixel = of_pixel(&a) && of_pixel(weight);
        let a = if is_pixel { [&a[..2], &ones].concat() } else { a };
        let along = if weight.len() == 2 { vec![b[0]] } else { [&[1, b[0]][..], &ones].concat() };
        let is_row = |m: &Tensor| m.elem_count() == b[0];
        Ok(Self {
            a: reshaped(&self.a, &a)?,
            b: reshaped(&self.b, &[&b[..2], &ones].concat())?,
            magnitude: self
                .magnitude
                .map(|m| if is_row(&m) { reshaped(&m, &along) } else { Ok(m) })
                .transpose()?,
            scale: self.scale,
        })
    }

    fn tensors(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        let both = [("lora_A.weight", &self.a), ("lora_B.weight", &self.b)];
        both.into_iter().chain(self.magnitude.iter().map(|magnitude| ("lora_magnitude_vector", magnitude)))
    }
}

/// Lengths `(outs,)` of the rows of a weight `(outs, …)`.
fn row_lengths(weight: &Tensor) -> Result<Tensor> {
    Ok(weight.flatten_from(1)?.sqr()?.sum(1)?.sqrt()?)
}

/// The same numbers in another shape; what is trainable stays so.
fn reshaped(tensor: &Tensor, shape: &[usize]) -> Result<Tensor> {
    match tensor.dims() == shape {
        true => Ok(tensor.clone()),
        false if tensor.is_variable() => variable(&tensor.detach().reshape(shape)?),
        false => Ok(tensor.reshape(shape)?),
    }
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
    /// Trainable matrices for every linear map and convolution that the configuration names, and trainable copies of
    /// modules to save.
    pub(crate) fn fresh(config: LoraConfig, network: &Weights, seed: u64, device: &Device) -> Result<Self> {
        let chooser = Chooser::new(&config)?;
        let (mut layers, mut maps) = (BTreeMap::new(), Vec::new());
        let shapes = network.shapes();
        for (index, (name, shape)) in shapes.iter().enumerate() {
            let Some(path) = name.strip_suffix(".weight").filter(|_| chooser.can_take(shape)) else {
                continue;
            };
            maps.push(path);
            if !chooser.takes(path)? {
                continue;
            }
            let (rank, scale) = chooser.shape(path)?;
            // PEFT's default: kaiming uniform with a = √5, which is ±1/√in.
            let mut draws = Draws::new(seed, Stream::Init, 1, index as u64);
            let mut layer = fresh_layer(shape, (rank, scale), &mut draws, device)?;
            if config.use_dora {
                // B is zero, so that the rows of the adapted weight are those of the weight.
                let weight = network.full(name)?;
                let lengths = weight.map(|weight| variable(&row_lengths(&weight.detach())?));
                layer.magnitude = lengths.transpose()?;
            }
            layers.insert(path.to_owned(), layer.shaped(shape)?);
        }
        let paths: Vec<&str> = layers.keys().map(String::as_str).collect();
        let idle = chooser.idle(&maps, &paths)?;
        if let Some(problem) =
            idle.or_else(|| paths.is_empty().then(|| "the targets name nothing".to_owned()))
        {
            let names: BTreeSet<&str> = maps.iter().filter_map(|path| path.rsplit('.').next()).collect();
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            return Err(ModelError::Adapter(format!("{problem}; what can be adapted is called {names}")));
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

    /// The model that the adapter was made for, as its file says.
    #[must_use]
    pub fn made_for(&self) -> Option<&str> {
        self.made_for.as_deref()
    }

    /// The modules that have low-rank matrices, ordered.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.layers.keys().map(String::as_str)
    }

    /// Whether it has the module of this path whole.
    #[must_use]
    pub fn has_whole(&self, path: &str) -> bool {
        self.saved.keys().any(|name| name.rsplit_once('.').is_some_and(|(module, _)| module == path))
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
            if !layer.fits(weight) {
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
        let has_head = ["lm_head.weight", "score.weight"].iter().any(|head| shapes.contains_key(head));
        self.check_tied_head(!has_head)
    }

    /// The same adapter with the paths and shapes of this network's modules in the place of a file's.
    ///
    /// # Errors
    /// If a module is not one of the network's, or has another shape.
    pub(crate) fn fitted(mut self, network: &Weights) -> Result<Self> {
        let shapes = network.shapes();
        if self.layers.keys().any(|path| !shapes.contains_key(format!("{path}.weight").as_str())) {
            self = self.renamed(&ModuleNames::new(shapes.keys().copied()))?;
        }
        for (path, layer) in &mut self.layers {
            if let Some(weight) = shapes.get(format!("{path}.weight").as_str()) {
                *layer = layer.clone().shaped(weight)?;
            }
        }
        self.check(network)?;
        Ok(self)
    }

    fn renamed(mut self, names: &ModuleNames) -> Result<Self> {
        let mut layers = BTreeMap::new();
        for (name, layer) in &self.layers {
            let path = names.find(name).map_err(|problem| self.misfit(name, problem))?;
            if layers.insert(path.to_owned(), layer.clone()).is_some() {
                return Err(self.misfit(name, &format!("a second adapter of the module {path}")));
            }
        }
        self.config = LoraConfig {
            modules_to_save: std::mem::take(&mut self.config.modules_to_save),
            ..LoraConfig::of_layers(&layers)
        };
        Ok(Self { layers, ..self })
    }

    /// The values of an adapter that was saved, with the configuration and the scales of this one.
    ///
    /// # Errors
    /// If the two are not on the same modules, or have other shapes.
    pub(crate) fn with_values_of(&self, saved: Self) -> Result<Self> {
        let shapes = |lora: &Self| -> BTreeMap<String, Vec<usize>> {
            lora.named_tensors().map(|(name, tensor)| (name, tensor.dims().to_vec())).collect()
        };
        if shapes(self) != shapes(&saved) {
            let problem =
                "the saved adapter has other modules or ranks than the one that is trained".to_owned();
            return Err(ModelError::Adapter(problem));
        }
        let scaled = |(path, layer): (String, LoraLayer)| {
            let scale = self.layers.get(&path).map_or(layer.scale, |own| own.scale);
            (path, LoraLayer { scale, ..layer })
        };
        Ok(Self {
            config: self.config.clone(),
            layers: saved.layers.into_iter().map(scaled).collect(),
            saved: saved.saved,
            made_for: self.made_for.clone(),
        })
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

/// The adapter of a weight `(outs, …)`.
fn fresh_layer(
    weight: &[usize],
    (rank, scale): (usize, f64),
    draws: &mut Draws,
    device: &Device,
) -> Result<LoraLayer> {
    let (outs, inner) = weight.split_first().map_or((0, weight), |(outs, inner)| (*outs, inner));
    let ins: usize = inner.iter().product();
    let bound = (ins as f64).powf(-0.5);
    let a: Vec<f32> = (0..rank * ins).map(|_| draws.between(-bound, bound) as f32).collect();
    let ones = vec![1; inner.len().saturating_sub(1)];
    Ok(LoraLayer {
        a: Var::from_vec(a, [&[rank], inner].concat(), device)?.into_inner(),
        b: Var::zeros([&[outs, rank][..], &ones].concat(), DType::F32, device)?.into_inner(),
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
