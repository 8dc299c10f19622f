//! Attention of a few queries over keys and values that are read where they lie, in the room of a cache: copying them
//! for every new token would cost as much as the rest of the layer. There is no backward.

use super::attention::{Attention, Scores};
use crate::kernel::Real;
use crate::vector::{self, multiply_add};
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// Queries of a row up to which this is used.
const MOST: usize = 8;

/// The result, if this is a case for here: few queries, keys and values with gaps between their rows, no segments, no cap
/// on the scores, on the CPU, and no gradient wanted.
///
/// # Shapes
/// As [`attention`](super::attention()).
pub(super) fn attention(op: &Attention, [q, k, v]: [&Tensor; 3]) -> Result<Option<Tensor>> {
    let is_here = |t: &&Tensor| {
        t.device().is_cpu() && matches!(t.dtype(), DType::F32 | DType::F64) && t.dtype() == q.dtype()
    };
    let fits = [q, k, v].iter().all(is_here)
        && ![q, k, v].iter().any(|t| t.track_op())
        && op.scores.softcap.is_none()
        && op.mask.segments.is_none()
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
        // Whoever adds a field must say here what it means.
        let Attention { heads, kv_heads, scores: Scores { scale, softcap: _ }, mask, left: _ } = self.0;
        let (rows, queries, width) = q.1.shape().dims3()?;
        let (_, keys, kv_width) = k.1.shape().dims3()?;
        let head = width / heads;
        let (q_data, k_data, v_data) = (numbers::<R>(q)?, numbers::<R>(k)?, numbers::<R>(v)?);
        let group = heads / kv_heads;
        let task = |index: usize| {
            let (row, kv) = (index / kv_heads, index % kv_heads);
            let streams = mask.streams(row, queries, keys);
            let mut result = vec![R::zero(); queries * group * head];
            let mut scores = Vec::with_capacity(group * keys);
            for (query, out) in result.chunks_mut(group * head).enumerate() {
                let seen = streams[0].visible(query);
                let at = (row * queries + query) * width + kv * group * head;
                let from = |stride: usize| row * stride + seen.start * kv_width + kv * head;
                scores.resize(group * seen.len(), R::zero());
                vector::run(OneGroup {
                    q: &q_data[at..at + group * head],
                    k: &k_data[from(k.1.stride()[0])..],
                    v: &v_data[from(v.1.stride()[0])..],
                    head,
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

/// The queries at one place that share a key head, against the keys that they see.
struct OneGroup<'a, R> {
    /// `(members, head)`.
    q: &'a [R],
    /// From the first key and value on, each `stride` from the next.
    k: &'a [R],
    v: &'a [R],
    head: usize,
    stride: usize,
    scale: R,
    /// `(members, keys)`.
    scores: &'a mut [R],
    /// `(members, head)`.
    out: &'a mut [R],
}

/// Keys that are worked on at the same time, and how far ahead memory is asked for the next ones.
const KEYS: usize = 4;
const AHEAD: usize = 4 * KEYS;

impl<R: Real> vector::Loop for OneGroup<'_, R> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { q, k, v, head, stride, scale, scores, out } = self;
        let keys = scores.len() * head / q.len();
        let key = |at: usize| &k[at * stride..at * stride + head];
        let value = |at: usize| &v[at * stride..at * stride + head];
        for first in (0..keys).step_by(KEYS) {
            (first + AHEAD..keys.min(first + AHEAD + KEYS)).for_each(|at| vector::fetch(key(at)));
            for (q, scores) in q.chunks(head).zip(scores.chunks_mut(keys)) {
                if first + KEYS <= keys {
                    let products =
                        vector::dots::<R, FUSED, 1, KEYS, 0>([q], std::array::from_fn(|i| key(first + i)));
                    for (score, [product]) in scores[first..].iter_mut().zip(products) {
                        *score = product * scale;
                    }
                } else {
                    for (at, score) in scores.iter_mut().enumerate().skip(first) {
                        *score = vector::dots::<R, FUSED, 1, 1, 0>([q], [key(at)])[0][0] * scale;
                    }
                }
            }
        }
        scores.chunks_mut(keys).for_each(soften);
        for first in (0..keys).step_by(KEYS) {
            (first + AHEAD..keys.min(first + AHEAD + KEYS)).for_each(|at| vector::fetch(value(at)));
            for (weights, out) in scores.chunks(keys).zip(out.chunks_mut(head)) {
                if first + KEYS <= keys {
                    let values = std::array::from_fn(|i| value(first + i));
                    let weights = std::array::from_fn(|i| weights[first + i]);
                    add_weighted::<R, FUSED, KEYS>(out, values, weights);
                } else {
                    for (at, weight) in weights.iter().enumerate().skip(first) {
                        add_weighted::<R, FUSED, 1>(out, [value(at)], [*weight]);
                    }
                }
            }
        }
    }
}

/// Softmax.
#[inline(always)]
fn soften<R: Real>(scores: &mut [R]) {
    let most = R::largest(scores);
    scores.iter_mut().for_each(|score| *score = (*score - most).fast_exp());
    let inverse = R::total(scores).recip();
    scores.iter_mut().for_each(|score| *score *= inverse);
}

/// `out += Σ weight · value`.
#[inline(always)]
fn add_weighted<R: Real, const FUSED: bool, const N: usize>(
    out: &mut [R],
    values: [&[R]; N],
    weights: [R; N],
) {
    let values = values.map(|value| &value[..out.len()]);
    for at in 0..out.len() {
        let mut sum = out[at];
        for i in 0..N {
            sum = multiply_add::<R, FUSED>(weights[i], values[i][at], sum);
        }
        out[at] = sum;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::attention::AttentionMask;
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
                    let op = Attention::new((4, 2), 0.6.into(), mask.clone());
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
        let op = Attention::new((4, 2), 0.6.into(), AttentionMask::causal());
        assert!(attention(&op, [&q, &k, &v]).unwrap().is_none());
    }
}
