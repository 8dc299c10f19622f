//! `x · Wᵀ (+ b)`. The gradient of a weight that is not trained is neither computed nor stored.

use super::few_rows;
use super::kept::{Form, form_of};
use super::transpose::{is_fast, transpose_all};
use crate::kernel::{Kernel, Matrix, Real, Threads, View, apply, matmul};
use candle_core::{Result, Tensor};
use rayon::prelude::*;

/// A linear map over the last dimension.
///
/// # Shapes
/// `x (…, I)`, `weight (O, I)`, `bias (O,)` → `(…, O)`.
/// # Gradient
/// Flows to those arguments that are tracked. candle would also compute and keep the gradients of frozen weights.
/// # Errors
/// If the sizes don't fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let form = match weight.dims() {
        [outs, ins] if is_turned([*outs, *ins]) => {
            form_of(weight, weight.elem_count() * weight.dtype().size_in_bytes())
        }
        _ => None,
    };
    match bias {
        None => apply(Linear { form }, &[x, weight]),
        Some(bias) => apply(Linear { form }, &[x, weight, bias]),
    }
}

#[derive(Clone)]
struct Linear {
    /// The weight turned round, if it is kept.
    form: Option<Form>,
}

impl Kernel for Linear {
    const NAME: &'static str = "linear";

    fn shape(&self, dims: &[&[usize]]) -> Result<Vec<usize>> {
        let (x, weight) = (dims[0], dims[1]);
        if weight.len() != 2
            || x.last() != weight.last()
            || dims.get(2).is_some_and(|bias| *bias != &weight[..1])
        {
            candle_core::bail!("linear: input {x:?}, weight {weight:?}, bias {:?} don't fit", dims.get(2));
        }
        let mut shape = x.to_vec();
        if let Some(last) = shape.last_mut() {
            *last = weight[0];
        }
        Ok(shape)
    }

    fn forward<R: Real>(&self, inputs: &[View<R>], output: &mut [R]) {
        product_by(inputs[0].data, (inputs[1], self.form.as_ref()), inputs.get(2), output);
    }

    fn backward<R: Real>(
        &self,
        inputs: &[View<R>],
        _: &[R],
        grad: &[R],
        wanted: &[bool],
    ) -> Vec<Option<Vec<R>>> {
        let [outs, ins] = sizes(inputs[1].dims);
        let rows = grad.len() / outs;
        let dy = (grad, Matrix::dense(rows, outs));
        let dx = wanted[0].then(|| {
            let mut dx = vec![R::zero(); rows * ins];
            let weight = (inputs[1].data, Matrix::dense(outs, ins));
            matmul((&mut dx, Matrix::dense(rows, ins)), dy, weight, R::one(), false, Threads::All);
            dx
        });
        let d_weight = wanted[1].then(|| {
            let mut d_weight = vec![R::zero(); outs * ins];
            let x = (inputs[0].data, Matrix::dense(rows, ins));
            matmul(
                (&mut d_weight, Matrix::dense(outs, ins)),
                (dy.0, dy.1.t()),
                x,
                R::one(),
                false,
                Threads::All,
            );
            d_weight
        });
        let mut grads = vec![dx, d_weight];
        if let Some(wanted) = wanted.get(2) {
            grads.push(wanted.then(|| {
                let mut d_bias = vec![R::zero(); outs];
                grad.chunks(outs).for_each(|row| d_bias.iter_mut().zip(row).for_each(|(d, g)| *d += *g));
                d_bias
            }));
        }
        grads
    }

    fn composed(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        // Two dimensions and contiguous: candle 0.11.1 multiplies strided batches wrongly without an error.
        let x = inputs[0].contiguous()?;
        let shape = self.shape(&inputs.iter().map(|t| t.dims()).collect::<Vec<_>>())?;
        let rows = x.elem_count() / inputs[1].dim(1)?;
        let y = x.reshape((rows, inputs[1].dim(1)?))?.matmul(&inputs[1].t()?)?;
        match inputs.get(2) {
            Some(bias) => y.broadcast_add(bias)?.reshape(shape),
            None => y.reshape(shape),
        }
    }
}

/// `x · Wᵀ (+ bias)`: whoever computes this map, adapted or not, comes here, so that all get the same bits.
pub(super) fn product<R: Real>(x: &[R], weight: View<R>, bias: Option<&View<R>>, output: &mut [R]) {
    product_by(x, (weight, None), bias, output);
}

fn product_by<R: Real>(
    x: &[R],
    (weight, form): (View<R>, Option<&Form>),
    bias: Option<&View<R>>,
    output: &mut [R],
) {
    let [outs, ins] = sizes(weight.dims);
    let rows = output.len() / outs;
    start_with(bias, output);
    if rows <= few_rows::MOST {
        return few_rows::add_product(x, weight.data, ins, output);
    }
    let (output, x) = ((output, Matrix::dense(rows, outs)), (x, Matrix::dense(rows, ins)));
    let mut product = |weight: &[R], shape: Matrix| {
        matmul((output.0, output.1), x, (weight, shape), R::one(), bias.is_some(), Threads::All);
    };
    let turned = || {
        let mut turned = vec![R::zero(); outs * ins];
        transpose_all(weight.data, [outs, ins], &mut turned);
        turned
    };
    match (is_turned([outs, ins]), form.and_then(|form| form.get(turned))) {
        (true, Some(turned)) => product(turned, Matrix::dense(ins, outs)),
        (true, None) => product(&turned(), Matrix::dense(ins, outs)),
        (false, _) => product(weight.data, Matrix::dense(outs, ins).t()),
    }
}

/// Whether a matrix is small enough to be turned round for the matrix library, which reads the transpose as it is: it would take a column-major
/// one apart number by number, longer than the product with a few hundred rows takes. Large ones would leave the cache on the way.
fn is_turned([outs, ins]: [usize; 2]) -> bool {
    /// Numbers of the largest matrix that is turned.
    const MOST: usize = 1 << 20;
    outs * ins <= MOST && is_fast([outs, ins])
}

/// Rows that begin with the bias, if there is one.
pub(super) fn start_with<R: Real>(bias: Option<&View<R>>, output: &mut [R]) {
    if let Some(bias) = bias {
        output.par_chunks_mut(bias.data.len()).for_each(|row| row.copy_from_slice(bias.data));
    }
}

fn sizes(dims: &[usize]) -> [usize; 2] {
    [dims[0], dims[1]]
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::gradcheck::{sample_tensor, tests::check};
    use candle_core::Var;

    #[test]
    fn gradients() {
        let t = |shape: &[usize], salt| sample_tensor(shape, salt).unwrap();
        check(Linear { form: None }, &[t(&[2, 3, 4], 1), t(&[5, 4], 2)]);
        check(Linear { form: None }, &[t(&[6, 4], 1), t(&[5, 4], 2), t(&[5], 3)]);
    }

    #[test]
    fn a_frozen_weight_gets_no_gradient_and_its_input_gets_all_of_it() {
        let x = Var::from_tensor(&sample_tensor(&[3, 4], 1).unwrap()).unwrap();
        let weight = sample_tensor(&[2, 4], 2).unwrap();
        let y = linear(&x, &weight, None).unwrap();
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&weight).is_none());
        let expected = weight.sum(0).unwrap().to_vec1::<f64>().unwrap();
        for row in grads.get(&x).unwrap().to_vec2::<f64>().unwrap() {
            assert!(row.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12));
        }
    }

    #[test]
    fn a_strided_input_is_read_in_its_own_order() {
        // candle_nn::Linear gives wrong numbers here (candle 0.11.1).
        let x = sample_tensor(&[2, 4, 3], 1).unwrap().transpose(1, 2).unwrap();
        let weight = sample_tensor(&[5, 4], 2).unwrap();
        let strided = linear(&x, &weight, None).unwrap();
        let dense = linear(&x.contiguous().unwrap(), &weight, None).unwrap();
        assert_eq!(
            strided.flatten_all().unwrap().to_vec1::<f64>().unwrap(),
            dense.flatten_all().unwrap().to_vec1::<f64>().unwrap()
        );
    }
}
