//! The tensors of a network by name, in full or, where they are frozen weights of linear maps, in fewer bytes.

use crate::error::Result;
use candle_core::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use votive_tensor::StoredMatrix;

/// Named tensors. A name is in one of the two maps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weights {
    /// In full.
    pub(crate) whole: BTreeMap<String, Tensor>,
    /// Frozen, in fewer bytes.
    pub(crate) stored: BTreeMap<String, StoredMatrix>,
}

impl Weights {
    /// Name and shape of everything, ordered by name.
    pub(crate) fn shapes(&self) -> BTreeMap<&str, Vec<usize>> {
        let whole = self.whole.iter().map(|(name, tensor)| (name.as_str(), tensor.dims().to_vec()));
        let stored = self.stored.iter().map(|(name, matrix)| (name.as_str(), matrix.dims().to_vec()));
        whole.chain(stored).collect()
    }

    /// The same without some.
    pub(crate) fn without(&self, names: &BTreeSet<String>) -> Self {
        let mut rest = self.clone();
        rest.whole.retain(|name, _| !names.contains(name));
        rest.stored.retain(|name, _| !names.contains(name));
        rest
    }

    /// Whether there is such a name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.whole.contains_key(name) || self.stored.contains_key(name)
    }

    /// One tensor in full.
    ///
    /// # Errors
    /// Those of candle.
    pub(crate) fn full(&self, name: &str) -> Result<Option<Tensor>> {
        let stored = || self.stored.get(name).map(StoredMatrix::to_tensor).transpose();
        Ok(self.whole.get(name).cloned().map_or_else(stored, |tensor| Ok(Some(tensor)))?)
    }

    /// Everything in full.
    ///
    /// # Errors
    /// Those of candle.
    pub(crate) fn into_full(self) -> Result<BTreeMap<String, Tensor>> {
        let mut whole = self.whole;
        for (name, matrix) in self.stored {
            whole.insert(name, matrix.to_tensor()?);
        }
        Ok(whole)
    }

    /// Number of values.
    pub(crate) fn count(&self) -> usize {
        let stored = self.stored.values().map(|matrix| matrix.dims().iter().product::<usize>());
        self.whole.values().map(Tensor::elem_count).chain(stored).sum()
    }
}
