//! A path with a weight before it, `0.5:runs/mine/final`; without one the weight is 1.

use std::path::PathBuf;
use std::str::FromStr;

/// What is meant by `[WEIGHT:]PATH`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WeightedPath {
    pub(crate) weight: f64,
    pub(crate) path: PathBuf,
}

impl FromStr for WeightedPath {
    type Err = String;

    /// What stands before the first colon is a weight if it is a number, and else part of the path.
    fn from_str(text: &str) -> Result<Self, String> {
        let weighted =
            text.split_once(':').and_then(|(weight, path)| Some((weight.parse::<f64>().ok()?, path)));
        let (weight, path) = weighted.unwrap_or((1.0, text));
        if !weight.is_finite() || path.is_empty() {
            return Err("expected [WEIGHT:]PATH with a finite weight".to_owned());
        }
        Ok(Self { weight, path: path.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_a_number_before_the_first_colon() {
        let of = |weight, path: &str| Ok(WeightedPath { weight, path: path.into() });
        assert_eq!("0.5:a/b".parse(), of(0.5, "a/b"));
        assert_eq!("-1:a:b".parse(), of(-1.0, "a:b"));
        assert_eq!("a/b".parse(), of(1.0, "a/b"));
        assert_eq!("C:\\a".parse(), of(1.0, "C:\\a"));
        assert!("inf:a".parse::<WeightedPath>().is_err() && "2:".parse::<WeightedPath>().is_err());
    }
}
