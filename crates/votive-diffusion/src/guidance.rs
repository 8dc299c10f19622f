//! Classifier-free guidance, with one network or two.
//!
//! Source: Ho & Salimans 2022, arXiv:2207.12598, Eq. 6 in diffusers' form `ε = ε_u + w (ε_c − ε_u)`. With a second
//! network for ε_u this is the sampler of Diffusion-NPO (ICLR 2025): the negative network was trained to
//! prefer what people reject. Departure from its published code: the negative network sees the same scaled latents
//! as the other one, as samplers of the Euler kind need.

use candle_core::Tensor;

use crate::conditioning::Conditioning;
use crate::error::{BoxError, DiffusionError, Result};
use crate::linear::same_dims;

/// A network as this crate sees it: (latents `(B,C,H,W)`, timesteps of length B, conditioning of B rows) to a prediction
/// `(B,C,H,W)`.
pub type DenoiseFn<'a> = dyn Fn(&Tensor, &[f64], &Conditioning) -> Result<Tensor, BoxError> + 'a;

/// What stands against the prompt: another prompt, and perhaps a network of its own.
struct Negative<'a> {
    scale: f64,
    prompts: Conditioning,
    network: Option<&'a DenoiseFn<'a>>,
}

/// A network with the prompts of a batch, guided or not.
pub struct Guidance<'a> {
    network: &'a DenoiseFn<'a>,
    prompts: Conditioning,
    negative: Option<Negative<'a>>,
}

impl<'a> Guidance<'a> {
    /// The network's prediction as it is.
    ///
    /// # Shapes
    /// `prompts` of B rows
    #[must_use]
    pub fn unguided(network: &'a DenoiseFn<'a>, prompts: &Conditioning) -> Self {
        Self { network, prompts: prompts.clone(), negative: None }
    }

    /// Guidance by `scale`, away from the negative prompts (usually the empty one).
    ///
    /// With a `scale` of 1 or less nothing is guided, as in diffusers, and the negative half is not computed.
    ///
    /// # Shapes
    /// `prompts` of B rows, `negative_prompts` of B, or of one for all
    /// # Errors
    /// [`DiffusionError::Shape`]; [`DiffusionError::Setting`] for a `scale` that is not finite.
    pub fn new(
        network: &'a DenoiseFn<'a>,
        prompts: &Conditioning,
        negative_prompts: &Conditioning,
        scale: f64,
    ) -> Result<Self> {
        if !scale.is_finite() {
            return Err(DiffusionError::Setting {
                setting: "cfg",
                reason: format!("{scale} is not a finite number"),
            });
        }
        let negative_prompts = negative_prompts.like_rows("negative prompt embeddings", prompts)?;
        let negative = (scale > 1.0).then_some(Negative { scale, prompts: negative_prompts, network: None });
        Ok(Self { network, prompts: prompts.clone(), negative })
    }

    /// Lets `network` predict the negative half.
    ///
    /// # Errors
    /// [`DiffusionError::Setting`] without guidance, where it would have no effect.
    pub fn with_negative_network(mut self, network: &'a DenoiseFn<'a>) -> Result<Self> {
        match &mut self.negative {
            Some(negative) => negative.network = Some(network),
            None => {
                let reason = "no effect without guidance; use a guidance scale above 1".to_owned();
                return Err(DiffusionError::Setting { setting: "negative network", reason });
            }
        }
        Ok(self)
    }

    /// The guided prediction, detached from the graph: that of a trainable network would be held on to from step to step.
    ///
    /// # Shapes
    /// `latents (B,C,H,W)`, as the sampler scales them → `(B,C,H,W)`
    /// # Errors
    /// [`DiffusionError::Network`]; [`DiffusionError::Shape`] if a prediction is not shaped like the latents.
    pub fn predict(&self, latents: &Tensor, timestep: f64) -> Result<Tensor> {
        Ok(self.predict_tracked(latents, timestep)?.detach())
    }

    /// The guided prediction with its graph, for training through a step.
    ///
    /// # Shapes
    /// As [`Guidance::predict`].
    /// # Errors
    /// As [`Guidance::predict`].
    pub fn predict_tracked(&self, latents: &Tensor, timestep: f64) -> Result<Tensor> {
        let Some(negative) = &self.negative else {
            return call(self.network, latents, timestep, &self.prompts);
        };
        let (against, towards) = match negative.network {
            Some(network) => (
                call(network, latents, timestep, &negative.prompts)?,
                call(self.network, latents, timestep, &self.prompts)?,
            ),
            None => {
                let both = Tensor::cat(&[latents, latents], 0)?;
                let prompts = Conditioning::cat(&[&negative.prompts, &self.prompts])?;
                let pred = call(self.network, &both, timestep, &prompts)?;
                let rows = latents.dim(0)?;
                (pred.narrow(0, 0, rows)?, pred.narrow(0, rows, rows)?)
            }
        };
        Ok((&against + ((towards - &against)? * negative.scale)?)?)
    }
}

fn call(network: &DenoiseFn, latents: &Tensor, timestep: f64, prompts: &Conditioning) -> Result<Tensor> {
    let rows = latents.dim(0)?;
    if prompts.rows() != rows {
        return Err(DiffusionError::shape("prompt embeddings, one per image", rows, prompts.rows()));
    }
    let pred = network(latents, &vec![timestep; rows], prompts)
        .map_err(|source| DiffusionError::Network { timestep, source })?;
    same_dims("the network's prediction, shaped like the latents", latents, &pred)?;
    Ok(pred)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::RefCell;

    use candle_core::Device;

    use super::*;

    fn embeds(rows: usize, value: f64) -> Conditioning {
        Conditioning::new(Tensor::full(value as f32, (rows, 1, 1), &Device::Cpu).unwrap()).unwrap()
    }

    fn latents() -> Tensor {
        Tensor::ones((2, 1, 1, 1), candle_core::DType::F32, &Device::Cpu).unwrap()
    }

    /// Predicts latents times the prompt's only number.
    fn echo(latents: &Tensor, _: &[f64], prompts: &Conditioning) -> Result<Tensor, BoxError> {
        Ok(latents.broadcast_mul(&prompts.prompt_embeds().unsqueeze(3)?)?)
    }

    #[track_caller]
    fn check(guidance: &Guidance, expected: f32) {
        let pred = guidance.predict(&latents(), 500.0).unwrap();
        assert_eq!(pred.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [expected; 2]);
    }

    #[test]
    fn guidance_extrapolates_from_the_negative_prompt() {
        check(&Guidance::unguided(&echo, &embeds(2, 3.0)), 3.0);
        check(&Guidance::new(&echo, &embeds(2, 3.0), &embeds(1, 1.0), 7.5).unwrap(), 16.0);
        let opposite = |x: &Tensor, t: &[f64], c: &Conditioning| Ok((echo(x, t, c)? * -1.0)?);
        let guidance = Guidance::new(&echo, &embeds(2, 3.0), &embeds(2, 1.0), 2.0).unwrap();
        check(&guidance.with_negative_network(&opposite).unwrap(), 7.0);
    }

    #[test]
    fn one_call_for_both_halves_and_none_for_a_half_that_is_not_used() {
        let rows = RefCell::new(Vec::new());
        let network = |x: &Tensor, t: &[f64], c: &Conditioning| {
            rows.borrow_mut().push((x.dim(0)?, t.len(), c.rows()));
            echo(x, t, c)
        };
        check(&Guidance::new(&network, &embeds(2, 3.0), &embeds(1, 1.0), 2.0).unwrap(), 5.0);
        check(&Guidance::new(&network, &embeds(2, 3.0), &embeds(1, 1.0), 1.0).unwrap(), 3.0);
        assert_eq!(*rows.borrow(), [(4, 4, 4), (2, 2, 2)]);
    }

    #[test]
    fn a_prediction_does_not_keep_the_graph_of_a_trainable_network() {
        let weight = candle_core::Var::from_tensor(&latents()).unwrap();
        let network = |x: &Tensor, _: &[f64], _: &Conditioning| Ok((x * weight.as_tensor())?);
        let pred = Guidance::unguided(&network, &embeds(2, 3.0)).predict(&latents(), 500.0).unwrap();
        assert!(pred.backward().unwrap().get(&weight).is_none());
    }

    #[test]
    fn what_would_have_no_effect_or_does_not_fit_is_refused() {
        let unguided = Guidance::new(&echo, &embeds(2, 3.0), &embeds(1, 1.0), 1.0).unwrap();
        let error = unguided.with_negative_network(&echo).err().unwrap();
        assert!(error.to_string().contains("no effect without guidance"), "{error}");
        let error = Guidance::new(&echo, &embeds(2, 3.0), &embeds(3, 1.0), 2.0).err().unwrap();
        assert_eq!(error.to_string(), "negative prompt embeddings: expected [[2, 1, 1]], found [[3, 1, 1]]");
        let error = Guidance::unguided(&echo, &embeds(3, 3.0)).predict(&latents(), 1.0).unwrap_err();
        assert_eq!(error.to_string(), "prompt embeddings, one per image: expected 2, found 3");
    }
}
