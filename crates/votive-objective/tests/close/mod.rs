//! How near our numbers must be to those of a fixture.

use candle_core::{DType, Tensor};

/// Both sides compute in f64 by different formulas for the same function, so only rounding remains: errors are
/// absolute below 1 and relative above.
const TOLERANCE: f64 = 1e-9;

/// Checks numbers in f64 against those of `source`, row by row.
#[track_caller]
pub(crate) fn assert_close(found: &Tensor, expected: &Tensor, what: &str, source: &str) {
    assert_eq!((found.dims(), found.dtype()), (expected.dims(), DType::F64), "{what}");
    let numbers = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (found, expected) = (numbers(found), numbers(expected));
    for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let error = (found - expected).abs() / expected.abs().max(1.0);
        assert!(error <= TOLERANCE, "{what}, row {row}: {found}, {source} has {expected}");
    }
}
