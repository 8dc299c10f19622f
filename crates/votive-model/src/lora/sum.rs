//! Adapters with weights: what one does is multiplied, and what several do is added.

use super::{Lora, LoraConfig, LoraLayer};
use crate::error::{ModelError, Result};
use candle_core::Tensor;
use std::collections::BTreeMap;

impl Lora {
    /// The adapter that does `Σ wᵢ·sᵢ·Bᵢ·Aᵢ`. Matrices are put beside each other, so that ranks add up and nothing is
    /// lost; one adapter alone keeps its matrices, and its α is multiplied.
    ///
    /// The adapters must be on the same network ([`crate::Params::with_lora`] names modules alike), whose weights are the
    /// same for all.
    ///
    /// # Errors
    /// If there is none, shapes differ, or an adapter is not a sum of matrices (DoRA, whole modules).
    pub fn weighted_sum(terms: &[(f64, &Self)]) -> Result<Self> {
        if let [(weight, only)] = terms {
            return only.scaled(*weight);
        }
        let Some((_, first)) = terms.first() else {
            return Err(ModelError::Adapter("a sum of no adapters".to_owned()));
        };
        for (_, lora) in terms {
            lora.check_linear()?;
        }
        let mut gathered: BTreeMap<&String, Vec<(f64, &LoraLayer)>> = BTreeMap::new();
        for (weight, lora) in terms {
            for (path, layer) in &lora.layers {
                gathered.entry(path).or_default().push((*weight, layer));
            }
        }
        let join = |(path, layers): (&String, Vec<_>)| Ok((path.clone(), joined(path, &layers)?));
        let layers = gathered.into_iter().map(join).collect::<Result<_>>()?;
        let config = LoraConfig::of_layers(&layers);
        Ok(Self { config, layers, saved: BTreeMap::new(), made_for: first.made_for.clone() })
    }

    /// The adapter that does `weight` times as much.
    ///
    /// # Errors
    /// If that is not a matter of α (DoRA, whole modules) and the weight is not 1.
    pub fn scaled(&self, weight: f64) -> Result<Self> {
        if weight == 1.0 {
            return Ok(self.clone());
        }
        self.check_linear()?;
        let mut scaled = self.clone();
        scaled.layers.values_mut().for_each(|layer| layer.scale *= weight);
        scaled.config.alpha *= weight;
        scaled.config.alpha_pattern.values_mut().for_each(|alpha| *alpha *= weight);
        Ok(scaled)
    }

    fn check_linear(&self) -> Result<()> {
        let dora = self.layers.iter().find(|(_, layer)| layer.magnitude.is_some());
        let what = match (dora, self.saved.keys().next()) {
            (Some((path, _)), _) => format!("`{path}` is DoRA, whose lengths do not add up"),
            (_, Some(name)) => format!("`{name}` is a whole module"),
            (None, None) => return Ok(()),
        };
        Err(ModelError::Adapter(format!(
            "{what}; add the adapter into its model first, and weight the models"
        )))
    }
}

/// One layer for several: their A below each other, their B, multiplied by weight and scale, beside each other.
fn joined(path: &str, layers: &[(f64, &LoraLayer)]) -> Result<LoraLayer> {
    let Some((_, first)) = layers.first() else {
        return Err(ModelError::Adapter(format!("`{path}`: a sum of nothing")));
    };
    let same = |layer: &LoraLayer| {
        layer.a.dims().get(1..) == first.a.dims().get(1..) && layer.b.dims().first() == first.b.dims().first()
    };
    if let Some((_, other)) = layers.iter().find(|(_, layer)| !same(layer)) {
        let (a, b) = ((first.a.dims(), first.b.dims()), (other.a.dims(), other.b.dims()));
        return Err(ModelError::Adapter(format!(
            "`{path}`: A and B {a:?} and {b:?} are of different weights"
        )));
    }
    let scaled = |(weight, layer): &(f64, &LoraLayer)| layer.b.detach() * (weight * layer.scale);
    let b = layers.iter().map(scaled).collect::<candle_core::Result<Vec<_>>>()?;
    let a: Vec<Tensor> = layers.iter().map(|(_, layer)| layer.a.detach()).collect();
    Ok(LoraLayer { a: Tensor::cat(&a, 0)?, b: Tensor::cat(&b, 1)?, magnitude: None, scale: 1.0 })
}
