//! Numbers of the tokens of sequences: in rows as long as the longest, and scaled within each sequence.

use crate::error::Result;
use crate::front_end::TokenLikelihood;
use candle_core::{DType, Device, Tensor};

/// Where the tokens of some sequences lie among all, and their places in rows as long as the longest.
pub(super) struct Padding<'a> {
    before: usize,
    counts: &'a [usize],
    width: usize,
}

impl<'a> Padding<'a> {
    pub(super) fn new(before: usize, counts: &'a [usize]) -> Self {
        Self { before, counts, width: counts.iter().copied().max().unwrap_or(0) }
    }

    /// One value for every cell of the rows: `token` of the token that lies there, `empty` behind the end.
    fn cells<T: Copy>(&self, token: impl Fn(usize) -> T, empty: T) -> Vec<T> {
        let mut first = self.before;
        let mut cells = Vec::with_capacity(self.counts.len() * self.width);
        for count in self.counts {
            cells.extend((first..first + count).map(&token));
            cells.resize(cells.len() + self.width - count, empty);
            first += count;
        }
        cells
    }

    /// 1 in the cells of tokens, `(B, L)`.
    pub(super) fn mask(&self, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.cells(|_| 1f32, 0.0), (self.counts.len(), self.width), device)?)
    }

    /// `values (N,)` of all tokens as `(B, L)`, 0 behind the end.
    pub(super) fn rows(&self, values: &Tensor) -> Result<Tensor> {
        let zero = values.dim(0)? as u32;
        let places = Tensor::new(self.cells(|token| token as u32, zero), values.device())?;
        let with_zero = Tensor::cat(&[values, &Tensor::zeros(1, values.dtype(), values.device())?], 0)?;
        Ok(with_zero.index_select(&places, 0)?.reshape((self.counts.len(), self.width))?)
    }
}

/// A model's mean activation at every token, scaled within each sequence, `(N,)`.
pub(super) fn activations(tokens: &TokenLikelihood) -> Result<Tensor> {
    scaled(&tokens.head.hidden.to_dtype(DType::F32)?.detach().mean(1)?, &tokens.counts)
}

/// `values (N,)` of the tokens of sequences, scaled to run from 0 to 1 within each; 1 where all of a sequence are equal.
fn scaled(values: &Tensor, counts: &[usize]) -> Result<Tensor> {
    let all = values.to_vec1::<f32>()?;
    let mut scaled = Vec::with_capacity(all.len());
    let mut first = 0;
    for count in counts {
        let of_one = &all[first..first + count];
        let least = of_one.iter().copied().fold(f32::INFINITY, f32::min);
        let span = of_one.iter().copied().fold(f32::NEG_INFINITY, f32::max) - least;
        scaled.extend(of_one.iter().map(|value| if span > 0.0 { (value - least) / span } else { 1.0 }));
        first += count;
    }
    Ok(Tensor::from_vec(scaled, all.len(), values.device())?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use candle_core::Var;

    #[test]
    fn weights_run_from_0_to_1_within_each_sequence() {
        let values = Tensor::new(&[3f32, -1.0, 1.0, 7.0, 5.0, 5.0], &Device::Cpu).unwrap();
        let found = scaled(&values, &[3, 1, 2]).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(found, [1.0, 0.0, 0.5, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn tokens_lie_in_rows_and_each_gets_its_own_gradient() {
        let values = Var::new(&[1f32, 2.0, 3.0, 4.0, 5.0, 6.0], &Device::Cpu).unwrap();
        // Of sequences with 2, 1 and 3 tokens the last two.
        let padding = Padding::new(2, &[1, 3]);
        let rows = padding.rows(&values).unwrap();
        assert_eq!(rows.to_vec2::<f32>().unwrap(), [[3.0, 0.0, 0.0], [4.0, 5.0, 6.0]]);
        assert_eq!(
            padding.mask(&Device::Cpu).unwrap().to_vec2::<f32>().unwrap(),
            [[1.0, 0.0, 0.0], [1.0; 3]]
        );
        let grads = rows.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(grads.get(&values).unwrap().to_vec1::<f32>().unwrap(), [0.0, 0.0, 6.0, 8.0, 10.0, 12.0]);
    }
}
