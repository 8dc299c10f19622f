//! Sums of the parameters of networks of one architecture.
//!
//! Sources: task arithmetic, Ilharco et al., arXiv:2212.04089, Sec. 2; extrapolation as in accelerated preference
//! optimization, He et al., arXiv:2410.06293.

use crate::error::{ModelError, Result};
use crate::params::Params;
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;

impl Params {
    /// `self + weight·(other − base)`, tensor by tensor in f32. Where `other` and `base` hold the same numbers, those of
    /// this network stay bit for bit.
    ///
    /// # Errors
    /// If the networks have other tensors, or tensors that are not numbers with a point and differ; all of the three must
    /// be without adapters.
    pub fn plus_difference(&self, weight: f64, other: &Self, base: &Self) -> Result<Self> {
        self.check_same_tensors(other)?;
        self.check_same_tensors(base)?;
        let mut tensors = BTreeMap::new();
        for (name, tensor) in self.iter() {
            let (Some(other), Some(base)) = (other.get(name), base.get(name)) else { continue };
            let sum = match tensor.dtype().is_float() {
                true => (tensor + ((other - base)? * weight)?)?.detach(),
                false if largest(&(other.to_dtype(DType::F64)? - base.to_dtype(DType::F64)?)?)? == 0.0 => {
                    tensor.clone()
                }
                false => {
                    return Err(ModelError::Shape {
                        what: format!("`{name}`, which is no weight"),
                        expected: "the same numbers in every model".to_owned(),
                        found: "others".to_owned(),
                    });
                }
            };
            tensors.insert(name.to_owned(), sum);
        }
        Ok(Self::new("a sum of models", tensors, self.device()))
    }

    /// How far any number of two networks is apart at most.
    ///
    /// # Errors
    /// If the networks have other tensors.
    pub fn largest_difference(&self, other: &Self) -> Result<f64> {
        self.check_same_tensors(other)?;
        let mut most = 0f64;
        for (name, tensor) in self.iter() {
            if let Some(other) = other.get(name) {
                let apart = largest(&(tensor.to_dtype(DType::F32)? - other.to_dtype(DType::F32)?)?)?;
                // A number that is none is as far away as can be.
                most = if apart.is_nan() { f64::INFINITY } else { most.max(apart) };
            }
        }
        Ok(most)
    }

    /// Checks that two networks have tensors of the same names and shapes; the error names the first that is not.
    ///
    /// # Errors
    /// If they have not.
    pub fn check_same_tensors(&self, other: &Self) -> Result<()> {
        for (name, tensor) in self.iter() {
            let found = other.get(name).map(Tensor::dims);
            if found != Some(tensor.dims()) {
                let found = found.map_or("nothing".to_owned(), |dims| format!("{dims:?}"));
                return Err(ModelError::Shape {
                    what: format!("`{name}`"),
                    expected: format!("{:?}", tensor.dims()),
                    found,
                });
            }
        }
        match other.iter().find(|(name, _)| self.get(name).is_none()) {
            Some((name, tensor)) => Err(ModelError::Shape {
                what: format!("`{name}`"),
                expected: "nothing".to_owned(),
                found: format!("{:?}", tensor.dims()),
            }),
            None => Ok(()),
        }
    }
}

fn largest(tensor: &Tensor) -> Result<f64> {
    match tensor.elem_count() {
        0 => Ok(0.0),
        _ => Ok(tensor.abs()?.flatten_all()?.max(0)?.to_dtype(DType::F64)?.to_scalar::<f64>()?),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use candle_core::Device;

    fn params(values: [f32; 3]) -> Params {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let tensors = [("a", tensor(&values[..2])), ("b", tensor(&values[2..]))];
        Params::new("test", tensors.map(|(name, t)| (name.to_owned(), t)).into(), &Device::Cpu)
    }

    fn values(params: &Params) -> Vec<f32> {
        params.iter().flat_map(|(_, t)| t.to_vec1::<f32>().unwrap()).collect()
    }

    #[test]
    fn sums_are_what_the_formula_says_and_equal_numbers_stay() {
        let (a, b) = (params([0.1, 0.7, 3.0]), params([0.1, 1.7, -1.0]));
        let half = a.plus_difference(0.5, &b, &a).unwrap();
        assert_eq!(values(&half), [0.1, 1.2, 1.0]);
        // Beyond the second model, and back again.
        let beyond = b.plus_difference(1.0, &b, &a).unwrap();
        assert_eq!(values(&beyond)[2], -5.0);
        assert_eq!(values(&a.plus_difference(1.0, &b, &a).unwrap()), values(&b));
        assert_eq!(a.largest_difference(&b).unwrap(), 4.0);
        assert_eq!(a.largest_difference(&params([f32::NAN, 0.7, 3.0])).unwrap(), f64::INFINITY);
    }

    #[test]
    fn other_networks_are_refused_by_the_tensor_that_differs() {
        let a = params([0.0; 3]);
        let tensors = BTreeMap::from([("a".to_owned(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap())]);
        let other = Params::new("test", tensors, &Device::Cpu);
        for (left, right, part) in
            [(&a, &other, "`a`: expected [2], found [3]"), (&other, &a, "expected [3]")]
        {
            let message = left.plus_difference(1.0, right, left).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        let less = Params::new(
            "test",
            BTreeMap::from([("a".to_owned(), Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap())]),
            &Device::Cpu,
        );
        assert!(less.check_same_tensors(&a).unwrap_err().to_string().contains("`b`: expected nothing"));
    }
}
