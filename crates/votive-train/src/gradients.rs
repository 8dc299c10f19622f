//! Gradients by parameter name: the gate after the first backward, accumulation and clipping.

use crate::error::{Result, TrainError};
use candle_core::Tensor;
use std::collections::BTreeMap;
use votive_tensor::Recorder;

/// Gradients by parameter name, detached from the graph that made them.
#[derive(Debug, Default)]
pub struct Gradients(BTreeMap<String, Tensor>);

impl<const N: usize> From<[(String, Tensor); N]> for Gradients {
    fn from(named: [(String, Tensor); N]) -> Self {
        Self(BTreeMap::from(named))
    }
}

/// A recorder of the gradients of some parameters.
#[must_use]
pub fn recorder_of(parameters: &[(String, Tensor)]) -> Recorder {
    Recorder::new(&parameters.iter().map(|(_, tensor)| tensor.clone()).collect::<Vec<_>>())
}

impl Gradients {
    /// What a recorder of these parameters has summed, which is empty after it.
    #[must_use]
    pub fn take(recorder: &Recorder, parameters: &[(String, Tensor)]) -> Self {
        let named = parameters.iter().zip(recorder.take());
        Self(named.filter_map(|((name, _), gradient)| Some((name.clone(), gradient?))).collect())
    }

    /// Adds other gradients to these.
    ///
    /// # Errors
    /// Those of candle.
    pub fn add(&mut self, other: Self) -> Result<()> {
        other.0.into_iter().try_for_each(|(name, gradient)| self.add_one(name, gradient))
    }

    fn add_one(&mut self, name: String, gradient: Tensor) -> Result<()> {
        let sum = match self.0.remove(&name) {
            Some(before) => (before + gradient)?,
            None => gradient,
        };
        self.0.insert(name, sum.detach());
        Ok(())
    }

    /// The gradient of one parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// Checks that every parameter has a finite gradient that is not zero everywhere.
    ///
    /// The factor A of a low-rank adapter is excused while its B is zero: its gradient is zero by nature then.
    ///
    /// # Errors
    /// Names the parameters that have none.
    pub fn require_all(&self, parameters: &[(String, Tensor)], step: u64) -> Result<()> {
        let mut missing = Vec::new();
        for (name, _) in parameters {
            let size = match self.0.get(name) {
                Some(gradient) => gradient.abs()?.max_all()?.to_scalar::<f32>()?,
                None => 0.0,
            };
            if !size.is_finite() {
                return Err(TrainError::NotFinite {
                    step,
                    quantity: "gradient",
                    place: format!("parameter {name}"),
                });
            }
            if size == 0.0 && !is_idle_adapter(name, parameters)? {
                missing.push(name.clone());
            }
        }
        match missing.first() {
            None => Ok(()),
            Some(first) => Err(TrainError::NoGradient {
                step,
                count: missing.len(),
                total: parameters.len(),
                first: first.clone(),
            }),
        }
    }

    /// Euclidean norm over all parameters.
    ///
    /// # Errors
    /// If it is not finite; the message names the first parameter whose gradient is not.
    pub fn norm(&self, step: u64) -> Result<f64> {
        let mut total = 0.0;
        for (name, gradient) in &self.0 {
            let square = f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
            if !square.is_finite() {
                return Err(TrainError::NotFinite {
                    step,
                    quantity: "gradient",
                    place: format!("parameter {name}"),
                });
            }
            total += square;
        }
        Ok(total.sqrt())
    }

    /// Scales all gradients so that their norm, which is `norm` now, does not exceed `max_norm`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn clip(&mut self, norm: f64, max_norm: f64) -> Result<()> {
        // The 1e-6 is torch's.
        let scale = max_norm / (norm + 1e-6);
        if scale < 1.0 {
            for gradient in self.0.values_mut() {
                *gradient = (&*gradient * scale)?;
            }
        }
        Ok(())
    }
}

fn is_idle_adapter(name: &str, parameters: &[(String, Tensor)]) -> Result<bool> {
    let Some(module) = name.strip_suffix(".lora_A.weight") else { return Ok(false) };
    let partner = format!("{module}.lora_B.weight");
    match parameters.iter().find(|(name, _)| *name == partner) {
        Some((_, b)) => Ok(b.abs()?.max_all()?.to_scalar::<f32>()? == 0.0),
        None => Ok(false),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn parameters() -> Vec<(String, Tensor)> {
        ["a", "b"]
            .map(|name| (name.to_owned(), Var::new(&[1.0f32, 2.0], &Device::Cpu).unwrap().into_inner()))
            .into()
    }

    #[test]
    fn a_parameter_without_gradient_is_named() {
        let parameters = parameters();
        let recorder = recorder_of(&parameters);
        recorder.backward(&parameters[0].1.sqr().unwrap().sum_all().unwrap()).unwrap();
        let mut gradients = Gradients::take(&recorder, &parameters);
        let message = gradients.require_all(&parameters, 0).unwrap_err().to_string();
        assert!(message.contains("1 of 2") && message.contains("first b"), "{message}");
        recorder.backward(&parameters[1].1.sum_all().unwrap()).unwrap();
        gradients.add(Gradients::take(&recorder, &parameters)).unwrap();
        gradients.require_all(&parameters, 0).unwrap();
    }

    #[test]
    fn clipping_bounds_the_norm_and_leaves_small_gradients() {
        let mut gradients =
            Gradients::from([("a".to_owned(), Tensor::new(&[3.0f32, 4.0], &Device::Cpu).unwrap())]);
        let norm = gradients.norm(0).unwrap();
        assert_eq!(norm, 5.0);
        gradients.clip(norm, 10.0).unwrap();
        assert_eq!(gradients.norm(0).unwrap(), 5.0);
        gradients.clip(norm, 1.0).unwrap();
        assert!((gradients.norm(0).unwrap() - 1.0).abs() < 1e-5);
    }
}
