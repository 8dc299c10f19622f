//! How far the numbers of a batch lie apart, for losses that look at more than one pair.

use crate::error::Result;
use candle_core::Tensor;

/// The variance of `x (B,)` with B − 1 in its denominator, a scalar; 0 for one number.
///
/// # Errors
/// Those of candle.
pub(crate) fn variance(x: &Tensor) -> Result<Tensor> {
    let others = (x.dim(0)?.max(2) - 1) as f64;
    Ok((x.broadcast_sub(&x.mean_all()?)?.sqr()?.sum_all()? / others)?)
}

/// Its square root. Where all numbers are equal the slope is 0.
///
/// # Errors
/// Those of candle.
pub(crate) fn standard_deviation(x: &Tensor) -> Result<Tensor> {
    let variance = variance(x)?;
    // The root's slope at 0 is not finite: there a 1 stands in its place, times 0.
    let is_zero = variance.detach().eq(0.0)?.to_dtype(variance.dtype())?;
    Ok(((variance + &is_zero)?.sqrt()? * (1.0 - is_zero)?)?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tests::{assert_near, numbers, row, var};

    #[test]
    fn of_a_few_numbers() {
        assert_near(numbers(&variance(&row(&[1.0, 2.0, 6.0])).unwrap())[0], 7.0);
        assert_near(numbers(&standard_deviation(&row(&[1.0, 2.0, 6.0])).unwrap())[0], 7f64.sqrt());
        assert_eq!(numbers(&standard_deviation(&row(&[3.0])).unwrap()), [0.0]);
    }

    #[test]
    fn equal_numbers_have_slopes() {
        let x = var(&[2.0, 2.0]);
        let gradients = standard_deviation(&x).unwrap().backward().unwrap();
        assert_eq!(numbers(gradients.get(&x).unwrap()), [0.0, 0.0]);
    }
}
