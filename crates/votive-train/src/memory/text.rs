//! Buffers of a language model or a reward model.
//!
//! The parts of a layer are those of Llama; other architectures have a norm more or fewer, which counts little beside the
//! projections.

use super::{Activations, FLOAT, Footprint, Part, runs_reference};
use crate::front_end::{FrontEnd, TextFrontEnd, TextModel, Wanted};
use crate::plan::Plan;
use crate::run::order;
use votive_data::{DataOrder, Phases};
use votive_model::{Params, language::Sizes};
use votive_objective::Needs;

/// Positions, and tokens of the vocabulary, whose logits exist at the same time, as the head of votive-tensor cuts them.
const HEAD: (u64, u64) = (256, 8192);
/// Buffers of the feed-forward part's inner width in a layer's backward: the gradients of the product, the gate and what is
/// gated, and the zeros and the sum that candle makes for each in turn. Measured.
const INNER_BUFFERS: u64 = 5;
/// Buffers of the hidden width around a layer that is computed again: its input, copies, the product with its gradient, and
/// what the layer before leaves. Measured.
const RECOMPUTE_BUFFERS: u64 = 16;
/// Bytes of the file's text and of the records made of it, for each byte of a row's token ids, while rows are read.
const READING: u64 = 6;

/// Widths of a layer, in numbers a token.
struct Widths {
    hidden: u64,
    queries: u64,
    keys: u64,
    inner: u64,
    head_norms: bool,
}

impl Widths {
    fn of(sizes: &Sizes, params: &Params) -> Self {
        let head = sizes.head_dim as u64;
        Self {
            hidden: sizes.hidden_size as u64,
            queries: sizes.num_attention_heads as u64 * head,
            keys: sizes.num_key_value_heads as u64 * head,
            inner: sizes.intermediate_size as u64,
            head_norms: params.iter().any(|(name, _)| name.ends_with("layers.0.self_attn.q_norm.weight")),
        }
    }

    /// What attention makes: its norm, projections, rotations, the mix and the way out.
    fn attention(&self) -> u64 {
        let norms = if self.head_norms { self.queries + self.keys } else { 0 };
        2 * self.hidden + 3 * self.queries + 3 * self.keys + norms
    }

    /// What the feed-forward part makes: its norm, gate, what is gated, their product and the way out.
    fn feed_forward(&self) -> u64 {
        2 * self.hidden + 3 * self.inner
    }

    /// Everything that a layer makes, both sums included, all of which is kept.
    fn kept(&self) -> u64 {
        self.attention() + self.feed_forward() + 2 * self.hidden
    }

    /// The most that lives at a time in a forward that keeps nothing.
    fn forward(&self) -> u64 {
        self.hidden + self.attention().max(self.feed_forward())
    }

    /// The most gradients that live at a time in a layer's backward.
    fn backward(&self) -> u64 {
        2 * self.hidden + (INNER_BUFFERS * self.inner).max(2 * self.queries + 2 * self.keys)
    }
}

/// Tokens of the largest batch that the run will see: all that are computed, and those whose head is read.
struct Shape {
    tokens: u64,
    read: u64,
}

/// Rows that are drawn to find the largest batch at most: a longer run is judged by its beginning.
const MOST_DRAWN: usize = 1 << 20;

impl Shape {
    /// With `rows` rows in a batch, in the order in which the run takes them.
    fn of<M: TextModel>(front: &TextFrontEnd<M>, plan: &Plan, rows: usize) -> Self {
        let train = &plan.train;
        // A prompt is computed once, whatever follows it.
        let sizes: Vec<[usize; 2]> = front
            .lengths_in_all(Wanted::of(plan))
            .into_iter()
            .map(|(prompt, completions)| {
                let read = completions.iter().map(|tokens| front.model().places(*tokens)).sum();
                [prompt + completions.iter().sum::<usize>(), read]
            })
            .collect();
        // A run whose rows lack their margins does not begin.
        let plain =
            || Phases::one(DataOrder::new(train.seed, front.rows(), train.batch_size, plan.data.traversal));
        let order = order(plan, front).unwrap_or_else(|_| plain());
        let steps = train.steps.min(MOST_DRAWN.div_ceil(train.batch_size) as u64);
        let drawn: Vec<usize> = order.rows().take(steps as usize * train.batch_size).collect();
        // `rows` divides the rows of a step, so that no batch reaches into the next one.
        let largest = |i: usize| {
            let tokens = |batch: &[usize]| batch.iter().map(|row| sizes[*row][i]).sum::<usize>();
            drawn.chunks(rows).map(tokens).max().unwrap_or(0) as u64
        };
        Self { tokens: largest(0), read: largest(1) }
    }
}

fn tokens_in_all<M: TextModel>(front: &TextFrontEnd<M>) -> u64 {
    let row = |(prompt, completions): &(usize, Vec<usize>)| prompt + completions.iter().sum::<usize>();
    front.lengths_in_all(Wanted { gold: true, degrees: None }).iter().map(row).sum::<usize>() as u64
}

impl<M: TextModel> Footprint for TextFrontEnd<M> {
    fn activations(&self, plan: &Plan, params: &Params, rows: usize) -> Activations {
        let sizes = self.model().sizes();
        let (widths, layers) = (Widths::of(sizes, params), sizes.num_hidden_layers as u64);
        let Shape { tokens, read } = Shape::of(self, plan, rows);
        // A recomputed layer keeps its result, and the copy that is handed on.
        let (kept, inside) = if plan.train.recompute {
            (2 * widths.hidden * layers, widths.kept() + RECOMPUTE_BUFFERS * widths.hidden)
        } else {
            (widths.kept() * layers, 0)
        };
        let head = 2 * widths.hidden * tokens + (widths.hidden + 1) * read;
        let logits = HEAD.0.min(read) * HEAD.1.min(self.model().outputs() as u64);
        let head_backward = logits + widths.hidden * (read + 2 * tokens);
        let reference = if runs_reference(plan) { widths.forward() * tokens } else { 0 };
        let passing = head_backward.max((inside + widths.backward()) * tokens).max(reference);
        let divergence = if plan.objective.needs().contains(Needs::KL) {
            FLOAT * widths.forward() * Shape::of(self, plan, plan.train.batch_size).tokens
        } else {
            0
        };
        let mut kept = vec![
            Part { name: "activations of the layers", bytes: FLOAT * kept * tokens },
            Part { name: "activations of embedding and head", bytes: FLOAT * head },
        ];
        let seen = rows * self.most_image_vectors();
        if seen > 0 {
            let (layer, layers, others) = self.model().image_activations(seen);
            // A recomputed layer keeps its result, and one layer at a time is there in full.
            let of_layers = if plan.train.recompute { layers * layer / 6 + layer } else { layers * layer };
            let bytes = FLOAT * (of_layers + others) as u64;
            kept.push(Part { name: "activations of the image encoder", bytes });
        }
        Activations { kept, passing: FLOAT * passing, divergence }
    }

    fn data_bytes(&self) -> u64 {
        // Three lists of ids a row, and the table of a cached reference.
        let row = 3 * 24 + 16;
        FLOAT * tokens_in_all(self) + (self.rows() + self.held_out()) as u64 * row
    }

    fn preparing(&self) -> u64 {
        READING * FLOAT * tokens_in_all(self)
    }
}
