//! A frozen linear map with a trainable low-rank update, in one operation that keeps nothing but its input.

use super::linear;
use super::stored::{StoredMatrix, Weight};
use crate::kernel::{Kernel, Matrix, Real, Threads, View, apply, matmul};
use candle_core::{Result, Tensor};

/// `x · Wᵀ (+ bias) + scale · (x · Aᵀ) · Bᵀ`.
///
/// # Shapes
/// `x (…, I)`, `weight (O, I)`, `bias (O,)`, `a (R, I)`, `b (O, R)` → `(…, O)`.
/// # Gradient
/// Flows to `x`, `a` and `b`; weight and bias are constants.
/// # Errors
/// If the sizes don't fit.
/// # Source
/// Hu et al., arXiv:2106.09685, Eq. 3.
pub fn low_rank_linear(
    x: &Tensor,
    weight: &Weight,
    bias: Option<&Tensor>,
    (a, b, scale): (&Tensor, &Tensor, f64),
) -> Result<Tensor> {
    let (whole, stored) = match weight {
        Weight::Whole(weight) => (Some(weight), None),
        Weight::Stored(weight) => (None, Some(weight.clone())),
    };
    let constants = whole.into_iter().chain(bias).map(Tensor::detach).collect();
    apply(LowRank { stored, constants, scale }, &[x, a, b])
}

/// Arguments `x`, A, B, and the constants W, unless it is stored, and, if there is one, the bias.
#[derive(Clone)]
struct LowRank {
    stored: Option<StoredMatrix>,
    constants: Vec<Tensor>,
    scale: f64,
}

/// Sizes of one call.
struct Sizes {
    rows: usize,
    ins: usize,
    outs: usize,
    rank: usize,
}

impl LowRank {
    /// Where the bias stands among the constants.
    fn bias(&self) -> usize {
        usize::from(self.stored.is_none())
    }

    fn sizes<R>(inputs: &[View<R>]) -> Sizes {
        let ins = inputs[1].last();
        Sizes { rows: inputs[0].data.len() / ins, ins, outs: inputs[2].dims[0], rank: inputs[2].last() }
    }
}

/// `out (+)= factor · a · b`, on all threads.
fn product<R: Real>(out: (&mut [R], Matrix), a: (&[R], Matrix), b: (&[R], Matrix), factor: R, add: bool) {
    matmul(out, a, b, factor, add, Threads::All);
}

impl Kernel for LowRank {
    const NAME: &'static str = "low-rank linear";

    fn constants(&self) -> &[Tensor] {
        &self.constants
    }

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        let (x, a, b) = (dims[0], dims[1], dims[2]);
        let weight = match &self.stored {
            Some(weight) => weight.dims().to_vec(),
            None => self.constants[0].dims().to_vec(),
        };
        let fits = matches!((a, b), ([r, ins], [outs, rank])
            if r == rank && x.last() == Some(ins) && weight == [*outs, *ins]
                && self.constants.get(self.bias()).is_none_or(|bias| bias.dims() == [*outs]));
        if !fits {
            candle_core::bail!("low-rank linear: input {x:?}, weight {weight:?}, A {a:?}, B {b:?}");
        }
        Ok([&x[..x.len() - 1], &b[..1]].concat())
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        let Sizes { rows, ins, outs, rank } = Self::sizes(inputs);
        let x = (inputs[0].data, Matrix::dense(rows, ins));
        let bias = inputs.get(3 + self.bias());
        match &self.stored {
            Some(weight) => weight.product(inputs[0].data, bias, output),
            None => linear::product(inputs[0].data, inputs[3], bias, output),
        }
        let mut down = vec![R::zero(); rows * rank];
        let a = (inputs[1].data, Matrix::dense(rank, ins).t());
        product((&mut down, Matrix::dense(rows, rank)), x, a, R::one(), false);
        let b = (inputs[2].data, Matrix::dense(outs, rank).t());
        let down = (&*down, Matrix::dense(rows, rank));
        product((output, Matrix::dense(rows, outs)), down, b, R::of(self.scale), true);
    }

    fn backward<R: Real>(
        &self,
        inputs: &[View<R>],
        _: &[R],
        grad: &[R],
        wanted: &[bool],
    ) -> Vec<Option<Vec<R>>> {
        let Sizes { rows, ins, outs, rank } = Self::sizes(inputs);
        let (x, dy) = ((inputs[0].data, Matrix::dense(rows, ins)), (grad, Matrix::dense(rows, outs)));
        let a = (inputs[1].data, Matrix::dense(rank, ins));
        let b = (inputs[2].data, Matrix::dense(outs, rank));
        let scale = R::of(self.scale);
        // The gradient of x · Aᵀ.
        let mut d_down = vec![R::zero(); rows * rank];
        product((&mut d_down, Matrix::dense(rows, rank)), dy, b, scale, false);
        let d_down = (&*d_down, Matrix::dense(rows, rank));
        let dx = wanted[0].then(|| {
            let mut dx = vec![R::zero(); rows * ins];
            match &self.stored {
                Some(weight) => weight.add_back_product(grad, &mut dx),
                None => {
                    let weight = (inputs[3].data, Matrix::dense(outs, ins));
                    product((&mut dx, Matrix::dense(rows, ins)), dy, weight, R::one(), false);
                }
            }
            product((&mut dx, Matrix::dense(rows, ins)), d_down, a, R::one(), true);
            dx
        });
        let da = wanted[1].then(|| {
            let mut da = vec![R::zero(); rank * ins];
            product((&mut da, Matrix::dense(rank, ins)), (d_down.0, d_down.1.t()), x, R::one(), false);
            da
        });
        let db = wanted[2].then(|| {
            let mut down = vec![R::zero(); rows * rank];
            product((&mut down, Matrix::dense(rows, rank)), x, (a.0, a.1.t()), R::one(), false);
            let mut db = vec![R::zero(); outs * rank];
            let down = (&*down, Matrix::dense(rows, rank));
            product((&mut db, Matrix::dense(outs, rank)), (dy.0, dy.1.t()), down, scale, false);
            db
        });
        vec![dx, da, db]
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let shape = self.shape(&inputs.iter().map(|tensor| tensor.dims()).collect::<Vec<_>>())?;
        // Two dimensions and contiguous: candle 0.11.1 multiplies strided batches wrongly without an error.
        let ins = inputs[1].dim(1)?;
        let x = inputs[0].contiguous()?;
        let x = x.reshape((x.elem_count() / ins, ins))?;
        let update = (x.matmul(&inputs[1].t()?)?.matmul(&inputs[2].t()?)? * self.scale)?;
        let weight = match &self.stored {
            Some(weight) => weight.to_tensor()?.to_dtype(x.dtype())?,
            None => self.constants[0].clone(),
        };
        let y = (x.matmul(&weight.t()?)? + update)?;
        match self.constants.get(self.bias()) {
            Some(bias) => y.broadcast_add(bias)?.reshape(shape),
            None => y.reshape(shape),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::gradcheck::{sample_tensor, tests::check};
    use crate::ops::stored::Storage;

    fn t(shape: &[usize], salt: u64) -> Tensor {
        sample_tensor(shape, salt).unwrap()
    }

    #[test]
    fn gradients_with_and_without_a_bias() {
        let arguments = [t(&[2, 3, 4], 1), t(&[2, 4], 2), t(&[5, 2], 3)];
        for constants in [vec![t(&[5, 4], 4)], vec![t(&[5, 4], 4), t(&[5], 5)]] {
            check(LowRank { stored: None, constants, scale: 1.7 }, &arguments);
        }
    }

    #[test]
    fn gradients_over_a_stored_weight() {
        let arguments = [t(&[2, 3, 4], 1), t(&[2, 4], 2), t(&[5, 2], 3)];
        let weight = t(&[5, 4], 4).to_dtype(candle_core::DType::F32).unwrap();
        let stored = Some(StoredMatrix::new(&weight, Storage::Int8).unwrap());
        for constants in [vec![], vec![t(&[5], 5)]] {
            check(LowRank { stored: stored.clone(), constants, scale: 1.7 }, &arguments);
        }
    }

    #[test]
    fn without_an_update_it_is_the_linear_map() {
        let (x, weight, a, bias) = (t(&[7, 4], 1), t(&[5, 4], 2), t(&[2, 4], 3), t(&[5], 4));
        let b = t(&[5, 2], 0).zeros_like().unwrap();
        for bias in [None, Some(&bias)] {
            let adapted = low_rank_linear(&x, &Weight::Whole(weight.clone()), bias, (&a, &b, 2.0)).unwrap();
            let plain = linear::linear(&x, &weight, bias).unwrap();
            assert_eq!(adapted.to_vec2::<f64>().unwrap(), plain.to_vec2::<f64>().unwrap());
        }
    }

    #[test]
    fn misfits_are_refused() {
        let error = low_rank_linear(
            &t(&[3, 4], 1),
            &Weight::Whole(t(&[5, 4], 2)),
            None,
            (&t(&[2, 3], 3), &t(&[5, 2], 4), 1.0),
        );
        assert!(error.unwrap_err().to_string().contains("A [2, 3]"));
    }
}
