//! Named, ordered parameters, and the views of them that training needs.
//!
//! A network is a cheap reading of [`Params`]: building it again on another view (without the adapter, without
//! gradients, as a frozen copy) gives the reference, the evaluated and the remembered model, with no flag inside.

use crate::error::{ModelError, Result};
use crate::lora::{Lora, LoraConfig, LoraLayer};
use crate::weights::Weights;
use candle_core::{DType, Device, Tensor, Var};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use votive_tensor::random::{Draws, Stream};
use votive_tensor::{StoredMatrix, Weight};

/// The parameters of one network, named as in its checkpoint and ordered by name.
#[derive(Clone, Debug)]
pub struct Params {
    origin: String,
    weights: Weights,
    /// Names of tensors that the network does not compute with: never trained nor adapted, saved as they came.
    unread: BTreeSet<String>,
    lora: Option<Lora>,
    device: Device,
}

impl Params {
    /// Parameters from named tensors; `origin` says in error messages where they come from.
    #[must_use]
    pub fn new(origin: &str, tensors: BTreeMap<String, Tensor>, device: &Device) -> Self {
        let weights = Weights { whole: tensors, ..Weights::default() };
        let unread = BTreeSet::new();
        Self { origin: origin.to_owned(), weights, unread, lora: None, device: device.clone() }
    }

    /// The same with frozen weights of linear maps that are kept in fewer bytes.
    #[must_use]
    pub fn with_stored(self, stored: BTreeMap<String, StoredMatrix>) -> Self {
        Self { weights: Weights { stored, ..self.weights }, ..self }
    }

    /// The same with other tensors added, each in the place of one of its name.
    #[must_use]
    pub(crate) fn with_tensors(mut self, others: Self) -> Self {
        self.weights.whole.extend(others.weights.whole);
        self
    }

    /// Builds a network on these parameters. Every tensor must be asked for, in its shape, and nothing may be
    /// left over.
    ///
    /// # Errors
    /// If tensors are missing, unexpected or misshapen (all are listed), or an adapter layer finds no linear map.
    pub fn build<M>(&self, network: impl FnOnce(&Scope) -> Result<M>) -> Result<M> {
        let reader = Reader::new(Source::Given(self));
        let built = network(&Scope { reader: &reader, path: String::new() })?;
        reader.check(self)?;
        Ok(built)
    }

    /// The same, knowing which of them this network does not compute with, although its checkpoints hold them.
    ///
    /// Whether they fit the network is not asked here, but by [`Params::build`].
    #[must_use]
    pub fn read_by<M>(self, network: impl FnOnce(&Scope) -> Result<M>) -> Self {
        let reader = Reader::new(Source::Given(&self));
        let is_built = network(&Scope { reader: &reader, path: String::new() }).is_ok();
        let used = reader.used_names();
        let is_unread = |name: &String| is_built && !used.contains(name);
        let unread = self.tensor_names().into_iter().filter(is_unread).collect();
        drop(reader);
        Self { unread, ..self }
    }

    /// Builds a network with fresh parameters, drawn from `seed`.
    ///
    /// # Errors
    /// Those of `network`.
    pub fn fresh<M>(
        seed: u64,
        device: &Device,
        network: impl FnOnce(&Scope) -> Result<M>,
    ) -> Result<(M, Self)> {
        let reader = Reader::new(Source::Fresh { seed, device: device.clone() });
        let built = network(&Scope { reader: &reader, path: String::new() })?;
        Ok((built, Self::new("fresh parameters", reader.used.into_inner(), device)))
    }

    /// Name and value of every frozen weight that is kept in fewer bytes, ordered by name.
    pub fn stored(&self) -> impl Iterator<Item = (&str, &StoredMatrix)> {
        self.weights.stored.iter().map(|(name, matrix)| (name.as_str(), matrix))
    }

    /// Name and value of every tensor of the network itself that is kept in full, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.weights.whole.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Names of the network's tensors, however they are kept.
    pub(crate) fn tensor_names(&self) -> Vec<String> {
        self.weights.shapes().into_keys().map(str::to_owned).collect()
    }

    /// One tensor of the network.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.weights.whole.get(name)
    }

    /// What a network reads: a module that the adapter has whole, or else the network's own tensor.
    fn effective(&self, name: &str) -> Option<&Tensor> {
        let saved = self.lora.as_ref().and_then(|lora| lora.saved(name));
        saved.or_else(|| self.weights.whole.get(name))
    }

    /// The adapter, if there is one.
    #[must_use]
    pub fn lora(&self) -> Option<&Lora> {
        self.lora.as_ref()
    }

    /// Where the parameters live.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Number of values in the network, adapter not counted.
    #[must_use]
    pub fn count(&self) -> usize {
        self.weights.count()
    }

    /// Everything that is trained, as (name, tensor), ordered by name.
    #[must_use]
    pub fn trainable(&self) -> Vec<(String, Tensor)> {
        let own = self.weights.whole.iter().map(|(name, tensor)| (name.clone(), tensor.clone()));
        // Others may have adapted modules that the network does not compute with.
        let adapter =
            self.lora.iter().flat_map(Lora::named_tensors).filter(|(name, _)| !self.is_on_unread(name));
        own.chain(adapter).filter(|(_, tensor)| tensor.is_variable()).collect()
    }

    /// Whether a tensor is of the adapter of a module that the network does not compute with.
    fn is_on_unread(&self, name: &str) -> bool {
        let module =
            |unread: &String| unread.strip_suffix("weight").is_some_and(|module| name.starts_with(module));
        self.unread.iter().any(module)
    }

    /// The same values as variables of their own: full fine-tuning.
    ///
    /// # Errors
    /// If a weight is kept in fewer bytes; those of candle.
    pub fn into_trainable(mut self) -> Result<Self> {
        if let Some(name) = self.weights.stored.keys().next() {
            let reason = format!("`{name}` is kept in fewer bytes, so it cannot be trained whole");
            return Err(ModelError::Adapter(reason));
        }
        let unread = std::mem::take(&mut self.unread);
        let apart: Vec<_> = unread.iter().filter_map(|name| self.weights.whole.remove_entry(name)).collect();
        let mut trainable = self.map(|tensor| Ok(Var::from_tensor(&tensor.copy()?)?.into_inner()))?;
        trainable.weights.whole.extend(apart);
        Ok(Self { unread, ..trainable })
    }

    /// The same values in memory of their own, without gradients: a frozen copy that no update can reach.
    ///
    /// # Errors
    /// Those of candle.
    pub fn frozen_copy(&self) -> Result<Self> {
        // `detach` shares storage with a variable and would follow it; `copy` does not.
        self.clone().map(|tensor| Ok(tensor.detach().copy()?))
    }

    /// The same values in the same memory, without gradients: for looking at the policy as it is now.
    ///
    /// # Errors
    /// Those of candle.
    pub fn untracked(&self) -> Result<Self> {
        self.clone().map(|tensor| Ok(tensor.detach()))
    }

    /// The same network with other values in the place of what is trained, by name, without gradients; what is not
    /// trained stays in the same memory.
    ///
    /// # Errors
    /// Those of candle.
    pub fn with_values(&self, values: &BTreeMap<String, Tensor>) -> Result<Self> {
        let trained = self.trainable();
        let new = |tensor: &Tensor| {
            let (name, _) = trained.iter().find(|(_, trained)| trained.id() == tensor.id())?;
            values.get(name)
        };
        self.clone().map(|tensor| Ok(new(tensor).unwrap_or(tensor).detach()))
    }

    fn map(mut self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        for tensor in self.weights.whole.values_mut() {
            *tensor = change(tensor)?;
        }
        self.lora = self.lora.map(|lora| lora.map(&change)).transpose()?;
        Ok(self)
    }

    /// The network below the adapter.
    #[must_use]
    pub fn without_adapter(&self) -> Self {
        Self { lora: None, ..self.clone() }
    }

    /// The network, untrained, under a new trainable adapter.
    ///
    /// # Errors
    /// If no linear map fits the targets.
    pub fn with_new_lora(&self, config: LoraConfig, seed: u64) -> Result<Self> {
        let lora = Lora::fresh(config, &self.weights.without(&self.unread), seed, &self.device)?;
        Ok(Self { lora: Some(lora), ..self.untracked()? })
    }

    /// The network under a given adapter.
    ///
    /// # Errors
    /// If a layer of the adapter has no counterpart or another shape.
    pub fn with_lora(&self, lora: Lora) -> Result<Self> {
        let lora = lora.fitted(&self.weights)?;
        Ok(Self { lora: Some(lora), ..self.clone() })
    }

    /// The network under its adapter with the values of one that was saved, trainable. Configuration and scales stay
    /// what they are: a file may hold them with fewer digits.
    ///
    /// # Errors
    /// If there is no adapter, or the saved one is on other modules.
    pub fn with_lora_values(&self, saved: Lora) -> Result<Self> {
        let Some(own) = &self.lora else {
            return Err(ModelError::Adapter("no adapter is trained that could take its values".to_owned()));
        };
        let lora = own.with_values_of(saved.fitted(&self.weights)?)?.into_trainable()?;
        Ok(Self { lora: Some(lora), ..self.without_adapter().untracked()? })
    }

    /// The adapter put into the weights.
    ///
    /// # Errors
    /// Those of candle.
    pub fn merged(&self) -> Result<Self> {
        let merged = self.without_adapter().untracked()?;
        let mut tensors = merged.weights.into_full()?;
        if let Some(lora) = &self.lora {
            lora.merge_into(&mut tensors)?;
        }
        Ok(Self { unread: self.unread.clone(), ..Self::new(&self.origin, tensors, &self.device) })
    }
}

/// How a parameter starts when there is no checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zero.
    Zero,
    /// All one.
    One,
    /// All this number.
    Constant(f64),
    /// Normal with this standard deviation.
    Normal(f64),
    /// Uniform in ±this bound.
    Uniform(f64),
}

impl Init {
    /// torch's default for linear maps and convolutions with `fan_in` inputs.
    #[must_use]
    pub fn fan_in(fan_in: usize) -> Self {
        Self::Uniform((fan_in.max(1) as f64).powf(-0.5))
    }

    fn draw(self, name: &str, shape: &[usize], seed: u64, device: &Device) -> candle_core::Result<Tensor> {
        // The name keys the draws, so that adding a layer leaves the others as they were.
        let key = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let mut draws = Draws::new(seed ^ key, Stream::Init, 0, 0);
        let n = shape.iter().product();
        let values: Vec<f32> = match self {
            Self::Zero => vec![0.0; n],
            Self::Constant(number) => vec![number as f32; n],
            Self::One => vec![1.0; n],
            Self::Normal(deviation) => (0..n).map(|_| (draws.normal() * deviation) as f32).collect(),
            Self::Uniform(bound) => (0..n).map(|_| draws.between(-bound, bound) as f32).collect(),
        };
        Tensor::from_vec(values, shape, device)
    }
}

enum Source<'a> {
    Given(&'a Params),
    Fresh { seed: u64, device: Device },
}

/// Hands out tensors by name and remembers what was asked for.
struct Reader<'a> {
    source: Source<'a>,
    used: RefCell<BTreeMap<String, Tensor>>,
    used_stored: RefCell<BTreeSet<String>>,
    used_lora: RefCell<BTreeSet<String>>,
    ignored: RefCell<BTreeSet<String>>,
    /// Beginnings of ignored names.
    ignored_places: RefCell<BTreeSet<String>>,
    problems: RefCell<Vec<String>>,
}

impl<'a> Reader<'a> {
    fn new(source: Source<'a>) -> Self {
        Self {
            source,
            used: RefCell::default(),
            used_stored: RefCell::default(),
            used_lora: RefCell::default(),
            ignored: RefCell::default(),
            ignored_places: RefCell::default(),
            problems: RefCell::default(),
        }
    }

    fn get(&self, name: String, shape: &[usize], init: Init) -> Result<Tensor> {
        let tensor = match &self.source {
            Source::Fresh { seed, device } => init.draw(&name, shape, *seed, device)?,
            Source::Given(params) => match params.effective(&name) {
                Some(tensor) if tensor.dims() == shape => tensor.clone(),
                Some(tensor) => {
                    let found = tensor.dims();
                    let problem = format!("  shape of {name}: expected {shape:?}, found {found:?}");
                    self.stand_in(problem, shape, params)?
                }
                None => self.stand_in(format!("  missing: {name} {shape:?}"), shape, params)?,
            },
        };
        self.used.borrow_mut().insert(name, tensor.clone());
        Ok(tensor)
    }

    /// Notes a problem, and lets the rest of the network be looked at with zeros of the wanted shape. They take no
    /// memory: the shape may be a misprint.
    /// The weight of a linear map.
    fn linear(&self, name: String, shape: &[usize], init: Init) -> Result<Weight> {
        if let Source::Given(params) = &self.source
            && let Some(matrix) = params.weights.stored.get(&name)
            && params.lora.as_ref().is_none_or(|lora| lora.saved(&name).is_none())
        {
            if matrix.dims() == shape {
                self.used_stored.borrow_mut().insert(name);
                return Ok(Weight::Stored(matrix.clone()));
            }
            let found = matrix.dims();
            let problem = format!("  shape of {name}: expected {shape:?}, found {found:?}");
            return self.stand_in(problem, shape, params).map(Weight::Whole);
        }
        self.get(name, shape, init).map(Weight::Whole)
    }

    fn stand_in(&self, problem: String, shape: &[usize], params: &Params) -> Result<Tensor> {
        let mut problems = self.problems.borrow_mut();
        problems.push(problem);
        if problems.len() >= MOST_PROBLEMS {
            return Err(mismatch(params, problems.clone()));
        }
        Ok(Tensor::zeros((), DType::F32, &params.device)?.broadcast_as(shape)?)
    }

    /// Names of the tensors that were asked for.
    fn used_names(&self) -> BTreeSet<String> {
        self.used.borrow().keys().chain(self.used_stored.borrow().iter()).cloned().collect()
    }

    fn check(self, params: &Params) -> Result<()> {
        let (used, used_lora, ignored) =
            (self.used.into_inner(), self.used_lora.into_inner(), self.ignored.into_inner());
        let places = self.ignored_places.into_inner();
        let is_ignored =
            |name: &String| ignored.contains(name) || places.iter().any(|place| name.starts_with(place));
        let mut problems = self.problems.into_inner();
        let used_stored = self.used_stored.into_inner();
        for (name, matrix) in params.weights.stored.iter().filter(|(name, _)| !used_stored.contains(*name)) {
            // A module that the adapter has whole stands in its place.
            if !used.contains_key(name) && !is_ignored(name) {
                problems.push(format!("  unexpected: {name} {:?}", matrix.dims()));
            }
        }
        for (name, tensor) in &params.weights.whole {
            if !used.contains_key(name) && !is_ignored(name) {
                problems.push(format!("  unexpected: {name} {:?}", tensor.dims()));
            }
        }
        if !problems.is_empty() {
            return Err(mismatch(params, problems));
        }
        let has_no_place = |path: &&str| !used_lora.contains(*path) && !is_ignored(&format!("{path}."));
        match params.lora.iter().flat_map(Lora::paths).find(has_no_place) {
            Some(path) => Err(ModelError::Adapter(format!(
                "`{path}` is no linear map and no convolution of this network"
            ))),
            None => Ok(()),
        }
    }
}

/// Problems after which no further parameter is looked at: the configuration is another model's, or a misprint.
const MOST_PROBLEMS: usize = 1000;
/// Problems that a message lists.
const LISTED_PROBLEMS: usize = 20;

fn mismatch(params: &Params, mut problems: Vec<String>) -> ModelError {
    let more = problems.len().saturating_sub(LISTED_PROBLEMS);
    problems.truncate(LISTED_PROBLEMS);
    if more > 0 {
        problems.push(format!("  … and {more} more"));
    }
    ModelError::Mismatch { origin: params.origin.clone(), problems: problems.join("\n") }
}

/// A place in the tree of parameter names, e.g. `model.layers.0.self_attn`.
#[derive(Clone)]
pub struct Scope<'a> {
    reader: &'a Reader<'a>,
    path: String,
}

impl Scope<'_> {
    /// The place one name further down.
    #[must_use]
    pub fn sub(&self, name: impl std::fmt::Display) -> Self {
        let path = if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) };
        Self { reader: self.reader, path }
    }

    /// The tensor `name` here, with the shape that the architecture gives it.
    ///
    /// # Errors
    /// Those of candle; missing tensors are gathered and reported by [`Params::build`].
    pub fn get(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.reader.get(self.sub(name).path, shape, init)
    }

    /// The weight `(outs, ins)` of the linear map here, which may be kept in fewer bytes.
    ///
    /// # Errors
    /// As [`Scope::get`].
    pub(crate) fn linear(&self, shape: &[usize], init: Init) -> Result<Weight> {
        self.reader.linear(self.sub("weight").path, shape, init)
    }

    /// The adapter of the linear map or convolution here.
    pub(crate) fn lora(&self) -> Option<LoraLayer> {
        let Source::Given(params) = &self.reader.source else { return None };
        let found = params.lora.as_ref()?.layer(&self.path)?.clone();
        self.reader.used_lora.borrow_mut().insert(self.path.clone());
        Some(found)
    }

    /// Whether the checkpoint has a tensor `name` here (false for fresh parameters).
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        matches!(&self.reader.source, Source::Given(params) if params.weights.has(&self.sub(name).path))
    }

    /// Says that a tensor `name` here may be present and carries nothing (a buffer that older versions saved).
    pub fn ignore(&self, name: &str) {
        self.reader.ignored.borrow_mut().insert(self.sub(name).path);
    }

    /// Says that tensors here may be present, and that the network computes nothing with them.
    pub(crate) fn ignore_all(&self) {
        self.reader.ignored_places.borrow_mut().insert(format!("{}.", self.path));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn net(scope: &Scope) -> Result<(Tensor, Tensor)> {
        Ok((scope.sub("a").get("weight", &[2, 3], Init::One)?, scope.sub("b").get("bias", &[3], Init::Zero)?))
    }

    #[test]
    fn missing_unexpected_and_misshapen_tensors_are_all_reported() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let tensors = [("a.weight", zeros(&[2, 2])), ("c.weight", zeros(&[1]))];
        let tensors = tensors.into_iter().map(|(n, t)| (n.to_owned(), t)).collect();
        let message =
            Params::new("net.safetensors", tensors, &Device::Cpu).build(net).unwrap_err().to_string();
        for part in [
            "net.safetensors",
            "a.weight: expected [2, 3], found [2, 2]",
            "missing: b.bias [3]",
            "unexpected: c.weight",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn sizes_that_are_misprints_take_no_memory_and_no_time() {
        let deep = |scope: &Scope| -> Result<Vec<Tensor>> {
            (0..usize::MAX).map(|i| scope.sub(i).get("weight", &[1 << 30, 1 << 30], Init::One)).collect()
        };
        let params = Params::new("net.safetensors", BTreeMap::new(), &Device::Cpu);
        let message = params.build(deep).unwrap_err().to_string();
        for part in ["missing: 0.weight [1073741824, 1073741824]", "… and 980 more"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_frozen_copy_does_not_follow_the_policy_and_an_untracked_view_does() {
        let (_, params) = Params::fresh(1, &Device::Cpu, net).unwrap();
        let policy = params.into_trainable().unwrap();
        let (frozen, view) = (policy.frozen_copy().unwrap(), policy.untracked().unwrap());
        let weight = policy.get("a.weight").unwrap();
        let var = Var::from_tensor(weight).unwrap();
        var.set(&(weight * 3.0).unwrap().detach()).unwrap();
        let first =
            |p: &Params| p.get("a.weight").unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
        assert_eq!((first(&frozen), first(&view)), (1.0, 3.0));
        assert!(frozen.trainable().is_empty() && view.trainable().is_empty());
        assert_eq!(policy.trainable().len(), 2);
    }
}
