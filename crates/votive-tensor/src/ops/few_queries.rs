//! Attention of a few queries over keys and values that are read where they lie, in the room of a cache: copying them
//! for every new token would cost as much as the rest of the layer. There is no backward.

use super::attention::{Attention, AttentionMask};
use crate::kernel::Real;
use crate::vector::{self, multiply_add};
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// Queries of a row up to which this is used.
const MOST: usize = 8;

/// The result, if this is a case for here: few queries, keys and values with gaps between their rows, on the CPU, and no
/// gradient wanted.
///
/// # Shapes
/// As [`attention`](super::attention()).
pub(super) fn attention(op: &Attention, [q, k, v]: [&Tensor; 3]) -> Result<Option<Tensor>> {
    let is_here = |t: &&Tensor| {
        t.device().is_cpu() && matches!(t.dtype(), DType::F32 | DType::F64) && t.dtype() == q.dtype()
    };
    let fits = [q, k, v].iter().all(is_here)
        && ![q, k, v].iter().any(|t| t.track_op())
        && q.rank() == 3
        && q.dims()[1] <= MOST
        && [k, v].iter().all(|t| is_room(t));
    match fits {
        true => q.contiguous()?.apply_op3_no_bwd(k, v, &FewQueries(op)).map(Some),
        false => Ok(None),
    }
}

/// Whether a tensor is the first places of rows that have more: each row dense, and a gap behind it.
///
/// Dense keys are left alone even where this would do: a policy, whose gradient is wanted, and its reference must come out
/// of the same arithmetic.
fn is_room(t: &Tensor) -> bool {
    let (dims, stride) = (t.dims(), t.stride());
    t.rank() == 3 && stride[2] == 1 && stride[1] == dims[2] && stride[0] > dims[1] * dims[2]
}

struct FewQueries<'a>(&'a Attention);

impl CustomOp3 for FewQueries<'_> {
    fn name(&self) -> &'static str {
        "attention of a few queries"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        match q {
            CpuStorage::F32(_) => self.forward::<f32>((q, q_layout), (k, k_layout), (v, v_layout)),
            _ => self.forward::<f64>((q, q_layout), (k, k_layout), (v, v_layout)),
        }
    }
}

impl FewQueries<'_> {
    fn forward<R: Real>(
        &self,
        q: (&CpuStorage, &Layout),
        k: (&CpuStorage, &Layout),
        v: (&CpuStorage, &Layout),
    ) -> Result<(CpuStorage, Shape)> {
        // Whoever adds a field to either must say here what it means.
        let Attention { heads, kv_heads, scale, mask } = self.0;
        let AttentionMask { causal, window: _, first_key: _ } = mask;
        let (rows, queries, width) = q.1.shape().dims3()?;
        let (_, keys, kv_width) = k.1.shape().dims3()?;
        let head = width / heads;
        let (q_data, k_data, v_data) = (numbers::<R>(q)?, numbers::<R>(k)?, numbers::<R>(v)?);
        let group = heads / kv_heads;
        let task = |index: usize| {
            let (row, kv) = (index / kv_heads, index % kv_heads);
            let mut result = vec![R::zero(); group * queries * head];
            let mut scores = Vec::with_capacity(keys);
            for (place, out) in result.chunks_mut(head).enumerate() {
                let (query, member) = (place / group, place % group);
                let position = if *causal { keys - queries + query } else { 0 };
                let seen = mask.keys(row, position, keys);
                let at = (row * queries + query) * width + (kv * group + member) * head;
                let from = |stride: usize| row * stride + seen.start * kv_width + kv * head;
                scores.resize(seen.len(), R::zero());
                vector::run(OneQuery {
                    q: &q_data[at..at + head],
                    k: &k_data[from(k.1.stride()[0])..],
                    v: &v_data[from(v.1.stride()[0])..],
                    stride: kv_width,
                    scale: R::of(*scale),
                    scores: &mut scores,
                    out,
                });
            }
            result
        };
        let tasks = rows * kv_heads;
        let least = tasks.div_ceil(2 * rayon::current_num_threads());
        let results: Vec<Vec<R>> = (0..tasks).into_par_iter().with_min_len(least).map(task).collect();
        let mut output = vec![R::zero(); rows * queries * width];
        for (index, result) in results.iter().enumerate() {
            let (row, kv) = (index / kv_heads, index % kv_heads);
            for (query, values) in result.chunks(group * head).enumerate() {
                let at = (row * queries + query) * width + kv * group * head;
                output[at..at + group * head].copy_from_slice(values);
            }
        }
        Ok((R::to_cpu_storage_owned(output), q.1.shape().clone()))
    }
}

/// The numbers of a tensor, from its first on.
fn numbers<'a, R: Real>((storage, layout): (&'a CpuStorage, &Layout)) -> Result<&'a [R]> {
    Ok(&R::cpu_storage_as_slice(storage)?[layout.start_offset()..])
}

/// One query of one head against the keys that it sees.
struct OneQuery<'a, R> {
    q: &'a [R],
    /// From the first key and value on, each `stride` from the next.
    k: &'a [R],
    v: &'a [R],
    stride: usize,
    scale: R,
    /// One for each key.
    scores: &'a mut [R],
    out: &'a mut [R],
}

impl<R: Real> vector::Loop for OneQuery<'_, R> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let head = self.q.len();
        for (score, key) in self.scores.iter_mut().zip(self.k.chunks(self.stride)) {
            *score = vector::dots::<R, FUSED, 1, 1>([self.q], [&key[..head]])[0][0] * self.scale;
        }
        let most = R::largest(self.scores);
        let mut sum = R::zero();
        for (score, value) in self.scores.iter().zip(self.v.chunks(self.stride)) {
            let weight = (*score - most).fast_exp();
            sum += weight;
            for (out, value) in self.out.iter_mut().zip(&value[..head]) {
                *out = multiply_add::<R, FUSED>(weight, *value, *out);
            }
        }
        let inverse = sum.recip();
        self.out.iter_mut().for_each(|out| *out *= inverse);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::gradcheck::sample_tensor;
    use candle_core::Var;

    /// Room for 12 keys, of which 7 are there.
    fn room(salt: u64, dtype: DType) -> Tensor {
        sample_tensor(&[3, 12, 4], salt).unwrap().to_dtype(dtype).unwrap().narrow(1, 0, 7).unwrap()
    }

    #[test]
    fn keys_in_their_room_give_what_dense_keys_give() {
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-6)] {
            let (k, v) = (room(2, dtype), room(3, dtype));
            for queries in [1, 2, 7] {
                let q = sample_tensor(&[3, queries, 8], 1).unwrap().to_dtype(dtype).unwrap();
                for mask in [
                    AttentionMask::full(),
                    AttentionMask::causal(),
                    AttentionMask { window: Some(3), ..AttentionMask::causal() },
                    AttentionMask { first_key: Some(vec![0, 4, 2]), ..AttentionMask::causal() },
                ] {
                    let op = Attention { heads: 4, kv_heads: 2, scale: 0.6, mask: mask.clone() };
                    let found = attention(&op, [&q, &k, &v]).unwrap().unwrap();
                    let (k, v) = (k.contiguous().unwrap(), v.contiguous().unwrap());
                    assert!(attention(&op, [&q, &k, &v]).unwrap().is_none(), "dense keys are read as before");
                    let expected = super::super::attention((&q, &k, &v), 4, 2, 0.6, &mask).unwrap();
                    let distance = (found - expected).unwrap().abs().unwrap().max_all().unwrap();
                    let distance = distance.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
                    assert!(distance < tolerance, "{mask:?}: {distance}");
                }
            }
        }
    }

    #[test]
    fn where_a_gradient_is_wanted_the_operation_with_a_backward_is_taken() {
        let q = Var::from_tensor(&sample_tensor(&[3, 1, 8], 1).unwrap()).unwrap();
        let (k, v) = (room(2, DType::F64), room(3, DType::F64));
        let op = Attention { heads: 4, kv_heads: 2, scale: 0.6, mask: AttentionMask::causal() };
        assert!(attention(&op, [&q, &k, &v]).unwrap().is_none());
    }
}
