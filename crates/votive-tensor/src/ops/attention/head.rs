//! One head of one stream: what it reads, and where its gradients go.

use super::Attention;
use super::mask::Stream;
use crate::kernel::{Matrix, Real, View};
use std::borrow::Cow;
use std::ops::Range;

/// Sizes of one call.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) rows: usize,
    pub(super) queries: usize,
    pub(super) keys: usize,
    pub(super) width: usize,
    pub(super) kv_width: usize,
    pub(super) head: usize,
}

/// One head of a stream's keys or values: key `i` is `data[i · stride..][..head]`.
pub(super) struct Rows<'a, R: Clone> {
    pub(super) data: Cow<'a, [R]>,
    pub(super) stride: usize,
}

impl<'a, R: Real> Rows<'a, R> {
    /// One range is read where it lies, several are gathered.
    fn new(data: &'a [R], stride: usize, head: usize, ranges: &[Range<usize>]) -> Self {
        if let [range] = ranges {
            return Self { data: Cow::Borrowed(&data[range.start * stride..]), stride };
        }
        let rows = ranges.iter().cloned().flatten();
        let mut gathered = Vec::with_capacity(rows.clone().count() * head);
        rows.for_each(|row| gathered.extend_from_slice(&data[row * stride..row * stride + head]));
        Self { data: Cow::Owned(gathered), stride: head }
    }

    /// The rows of `range`, as a matrix (range, head).
    pub(super) fn matrix(&self, range: &Range<usize>, head: usize) -> (&[R], Matrix) {
        (&self.data[range.start * self.stride..], Matrix::strided(range.len(), head, self.stride))
    }
}

/// One query head of a stream; slices begin with the stream's first query.
pub(super) struct Head<'a, R: Clone> {
    pub(super) attention: &'a Attention,
    pub(super) sizes: Sizes,
    pub(super) stream: &'a Stream,
    pub(super) q: &'a [R],
    pub(super) k: Rows<'a, R>,
    pub(super) v: Rows<'a, R>,
}

impl<'a, R: Real> Head<'a, R> {
    /// A query head from the stream's first query on, and its keys and values.
    pub(super) fn new(
        attention: &'a Attention,
        sizes: Sizes,
        (row, stream, head): (usize, &'a Stream, usize),
        inputs: &[View<'a, R>],
    ) -> Self {
        let q_row = sizes.queries * sizes.width;
        let q = &inputs[0].data[..(row + 1) * q_row];
        let q = &q[row * q_row + stream.queries.start * sizes.width + head * sizes.head..];
        let k_row = sizes.keys * sizes.kv_width;
        let kv_head = head / (attention.heads / attention.kv_heads);
        let rows = |input: &View<'a, R>| {
            let data = &input.data[row * k_row + kv_head * sizes.head..(row + 1) * k_row];
            Rows::new(data, sizes.kv_width, sizes.head, &stream.keys)
        };
        Self { attention, sizes, stream, q, k: rows(&inputs[1]), v: rows(&inputs[2]) }
    }

    /// Adds rows of `width` numbers, of which a head's are the first, to those of some of the stream's keys among all keys of the row.
    pub(super) fn add_to_keys(&self, sums: &mut [R], keys: Range<usize>, (rows, width): (&[R], usize)) {
        let head = self.sizes.head;
        let places = self.stream.keys.iter().cloned().flatten().skip(keys.start).take(keys.len());
        for (place, row) in places.zip(rows.chunks(width)) {
            let sums = &mut sums[place * head..(place + 1) * head];
            sums.iter_mut().zip(row).for_each(|(sum, new)| *sum += *new);
        }
    }
}

/// What the forward of a narrow head leaves to the backward for every query: what was taken off its scores, and the sum of their exponentials.
pub(super) type Softmax<R> = [R; 2];

/// What the forward of a head made, and the gradient of it; slices begin with the stream's first query.
pub(super) struct Results<'a, R> {
    pub(super) output: &'a [R],
    pub(super) grad: &'a [R],
    pub(super) softmax: &'a [Softmax<R>],
}

/// Where the gradients of a head are added: `dq` from the stream's first query on, `dk` and `dv` those of the whole row, all dense.
pub(super) struct Gradients<'a, R> {
    pub(super) dq: &'a mut [R],
    pub(super) dk: &'a mut [R],
    pub(super) dv: &'a mut [R],
}
