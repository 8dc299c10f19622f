//! Buffers of a language model of the Llama family.

use super::{Activations, FLOAT, Footprint, Part, adapter_floats};
use crate::front_end::{FrontEnd, TextFrontEnd};
use crate::plan::Plan;
use crate::reference::ReferenceKind;
use votive_model::{LlamaConfig, Params};
use votive_objective::Needs;

/// Positions whose logits exist at the same time, as the head of votive-tensor cuts them.
const HEAD_CHUNK: u64 = 256;
/// Buffers of the feed-forward part's inner width in a layer's backward: the gradients of the product, the gate and what is
/// gated, and the zeros and the sum that candle makes for each in turn. Measured.
const INNER_BUFFERS: u64 = 5;
/// The same if the part has adapters, whose own results have gradients too. Measured.
const ADAPTED_INNER_BUFFERS: u64 = 8;
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
    inner_buffers: u64,
}

impl Widths {
    fn of(config: &LlamaConfig, params: &Params) -> Self {
        let is_adapted = adapter_floats(params, "model.layers.0.mlp.") > 0;
        let head = config.head_dim as u64;
        Self {
            hidden: config.hidden_size as u64,
            queries: config.num_attention_heads as u64 * head,
            keys: config.num_key_value_heads as u64 * head,
            inner: config.intermediate_size as u64,
            head_norms: params.get("model.layers.0.self_attn.q_norm.weight").is_some(),
            inner_buffers: if is_adapted { ADAPTED_INNER_BUFFERS } else { INNER_BUFFERS },
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
        2 * self.hidden + (self.inner_buffers * self.inner).max(2 * self.queries + 2 * self.keys)
    }
}

/// The longest sequence and the longest completion, in tokens, which need not belong together.
struct Shape {
    tokens: u64,
    completion: u64,
}

impl Shape {
    fn of(front: &TextFrontEnd) -> Self {
        let lengths = front.lengths_in_all();
        let most = |values: &mut dyn Iterator<Item = usize>| values.max().unwrap_or(0) as u64;
        Self {
            tokens: most(&mut lengths.iter().map(|(prompt, completion)| prompt + completion)),
            completion: most(&mut lengths.iter().map(|(_, completion)| *completion)),
        }
    }
}

fn tokens_in_all(front: &TextFrontEnd) -> u64 {
    front.lengths_in_all().iter().map(|(prompt, completion)| (prompt + completion) as u64).sum()
}

impl Footprint for TextFrontEnd {
    fn activations(&self, plan: &Plan, params: &Params, rows: usize) -> Activations {
        let (config, shape) = (self.config(), Shape::of(self));
        let widths = Widths::of(config, params);
        let layers = config.num_hidden_layers as u64;
        let sequences = (self.sequences_a_row() * rows) as u64;
        // The last token predicts nothing.
        let cells = sequences * shape.tokens.saturating_sub(1);
        let wanted = sequences * shape.completion;
        let layer = |i: u64| widths.kept() + adapter_floats(params, &format!("model.layers.{i}."));
        let whole: u64 = (0..layers).map(layer).sum();
        // A recomputed layer keeps its result, and the copy that is handed on.
        let (kept, inside) = if plan.train.recompute {
            (2 * widths.hidden * layers, layer(0) + RECOMPUTE_BUFFERS * widths.hidden)
        } else {
            (whole, 0)
        };
        let head = 2 * widths.hidden * cells + (widths.hidden + 1) * wanted;
        let logits = HEAD_CHUNK.min(wanted) * config.vocab_size as u64;
        let head_backward = logits + widths.hidden * (wanted + 2 * cells);
        let reference = match plan.reference {
            ReferenceKind::Frozen | ReferenceKind::AdapterOff => widths.forward() * cells,
            ReferenceKind::Cached | ReferenceKind::None => 0,
        };
        let passing = head_backward.max((inside + widths.backward()) * cells).max(reference);
        let all_rows = (plan.train.batch_size * self.sequences_a_row()) as u64 * shape.tokens;
        let has_divergence = plan.objective.needs().contains(Needs::KL);
        Activations {
            kept: vec![
                Part { name: "activations of the layers", bytes: FLOAT * kept * cells },
                Part { name: "activations of embedding and head", bytes: FLOAT * head },
            ],
            passing: FLOAT * passing,
            divergence: if has_divergence { FLOAT * widths.forward() * all_rows } else { 0 },
        }
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
