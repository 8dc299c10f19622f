//! eˣ for losses: beyond x = 50 it goes on as its tangent, so that nothing overflows.

use crate::error::Result;
use candle_core::Tensor;

/// Where the exponential becomes its tangent.
const LIMIT: f64 = 50.0;

/// eˣ up to x = 50, e⁵⁰·(x − 49) beyond; value and slope are continuous.
///
/// # Shapes
/// `x` any shape → the same shape.
/// # Errors
/// Those of candle.
pub(crate) fn tangent_exp(x: &Tensor) -> Result<Tensor> {
    // The part beyond is a constant times x, by a mask that has no gradient: no op here has a kink.
    let is_beyond = x.detach().gt(LIMIT)?.to_dtype(x.dtype())?;
    let beyond = ((x - LIMIT)? * &is_beyond)?;
    Ok(((x - &beyond)?.exp()? * (beyond + 1.0)?)?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tests::{assert_near, numbers, var};

    #[test]
    fn an_exponential_and_then_its_tangent() {
        let x = var(&[0.0, 2.0, 50.0, 60.0]);
        let y = tangent_exp(&x).unwrap();
        let e50 = 50f64.exp();
        let expected = [1.0, 2f64.exp(), e50, 11.0 * e50];
        numbers(&y).iter().zip(expected).for_each(|(found, expected)| assert_near(*found, expected));
        let gradients = y.sum_all().unwrap().backward().unwrap();
        let expected = [1.0, 2f64.exp(), e50, e50];
        let slopes = numbers(gradients.get(&x).unwrap());
        slopes.iter().zip(expected).for_each(|(found, expected)| assert_near(*found, expected));
    }
}
