//! How much memory a run needs, before it is started.
//!
//! Weights, copies, gradients and moments are counted exactly. Activations are those that the operations keep for the
//! backward, added up over the network for the longest row. What is left to a measurement stands in the constants below;
//! `tools/memory/check.py` prints prediction and measurement side by side, and is how they were found.

mod image;
mod rollout;
mod text;

use crate::front_end::FrontEnd;
use crate::plan::Plan;
use crate::reference::{ReferencePlan, UpdateKind, UpdateRule};
use candle_core::Tensor;
use serde::Serialize;
use std::path::Path;
use votive_model::Params;

/// Bytes of a number: networks, gradients and moments are f32.
pub(crate) const FLOAT: u64 = 4;
/// The program itself: its code, the tokenizer's tables, stacks, and what the allocator keeps at hand. Measured.
const PROGRAM: u64 = 58 << 20;
/// What the allocator loses between buffers of different sizes, relative to all of them but the networks' weights, which
/// come once and stay. Measured.
const ALLOCATOR: f64 = 0.10;
/// Moments of AdamW.
const MOMENTS: u64 = 2;
/// Copies of what is saved, while it is saved: encoded, and laid out as a file.
const SAVED_COPIES: u64 = 2;

/// Something that takes memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What it is.
    pub name: &'static str,
    /// Bytes.
    pub bytes: u64,
}

/// The buffers of a micro-batch.
#[derive(Clone, Debug, Default)]
pub struct Activations {
    /// What is kept from the forward until the backward is done.
    pub kept: Vec<Part>,
    /// The largest sum of what lives for a moment only, in the forward of the reference or in the backward, bytes.
    pub passing: u64,
    /// What the estimate of the divergence takes before the first micro-batch, bytes.
    pub divergence: u64,
}

/// A front end that knows the size of its network's buffers.
pub trait Footprint: FrontEnd {
    /// The buffers of `rows` rows of the greatest length.
    fn activations(&self, plan: &Plan, params: &Params, rows: usize) -> Activations;

    /// What the rows take while they wait, bytes.
    fn data_bytes(&self) -> u64;

    /// What it takes to make the rows ready, beside the weights that are trained, bytes.
    fn preparing(&self) -> u64;
}

/// The memory of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// What lives at the peak of a step.
    pub parts: Vec<Part>,
    /// The peak while model and rows are read, bytes.
    pub loading: u64,
    /// The peak while a checkpoint is written, bytes.
    pub saving: u64,
}

impl Memory {
    /// The peak of a step, bytes.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// The peak of the whole run, bytes.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.step().max(self.loading).max(self.saving)
    }
}

/// The memory of a run whose micro-batches have `rows` rows; `params` is the policy as the recipe starts it.
pub fn of<F: Footprint>(plan: &Plan, front: &F, params: &Params, rows: usize) -> Memory {
    let sizes = Sizes::of(plan, params);
    let Activations { kept, passing, divergence } = front.activations(plan, params, rows);
    let kept_bytes: u64 = kept.iter().map(|part| part.bytes).sum();
    // One sum of each, and the one that is being added.
    let gradients = sizes.trained + sizes.largest_trained;
    let passing = passing.max(divergence.saturating_sub(kept_bytes));
    let standing = [
        Part { name: "program", bytes: PROGRAM },
        Part { name: "data", bytes: front.data_bytes() },
        Part { name: "weights", bytes: sizes.weights },
        Part { name: "copy for the reference", bytes: sizes.reference },
        Part { name: "moving average", bytes: plan.ema.map_or(0, |_| sizes.trained) },
    ];
    let before: u64 = standing.iter().map(|part| part.bytes).sum();
    let moments = Part { name: "moments of the optimizer", bytes: MOMENTS * sizes.trained };
    let saved = if plan.train.steps >= plan.train.save_every { moments.bytes } else { sizes.trained };
    let saving = before + moments.bytes + SAVED_COPIES * saved.max(sizes.trained);
    // One tensor at a time is in memory as the file has it, and as it is kept.
    let loading = PROGRAM + front.data_bytes() + sizes.weights + front.preparing().max(2 * sizes.largest);
    let mut parts = standing.to_vec();
    parts.extend([moments, Part { name: "gradients", bytes: gradients }]);
    parts.extend(kept);
    parts.push(Part { name: "buffers that come and go", bytes: passing });
    let all: u64 = parts.iter().skip(1).map(|part| part.bytes).sum();
    let all = all - sizes.weights - sizes.reference;
    parts.push(Part { name: "held by the allocator", bytes: (ALLOCATOR * all as f64) as u64 });
    Memory { parts, loading, saving }
}

/// The most rows of a micro-batch, among those that divide the batch, with which a run stays within `bytes`; none if one
/// row is too much.
pub fn largest_micro_batch<F: Footprint>(
    plan: &Plan,
    front: &F,
    params: &Params,
    bytes: u64,
) -> Option<usize> {
    let batch = plan.train.batch_size;
    let divisors = (1..=batch).rev().filter(|rows| batch.is_multiple_of(*rows));
    divisors.into_iter().find(|rows| of(plan, front, params, *rows).peak() <= bytes)
}

/// Bytes of what is counted exactly.
struct Sizes {
    weights: u64,
    /// The largest tensor, in f32.
    largest: u64,
    reference: u64,
    trained: u64,
    largest_trained: u64,
}

impl Sizes {
    fn of(plan: &Plan, params: &Params) -> Self {
        let count = |tensors: &mut dyn Iterator<Item = &Tensor>| -> u64 {
            tensors.map(|tensor| tensor.elem_count() as u64 * FLOAT).sum()
        };
        let trainable = params.trainable();
        let trained = count(&mut trainable.iter().map(|(_, tensor)| tensor));
        let largest_trained = trainable.iter().map(|(_, tensor)| tensor.elem_count()).max().unwrap_or(0);
        let largest_trained = largest_trained as u64 * FLOAT;
        let adapter = if params.lora().is_some() { trained } else { 0 };
        let stored: u64 = params.stored().map(|(_, matrix)| matrix.bytes() as u64).sum();
        let whole = count(&mut params.iter().map(|(_, tensor)| tensor)) + adapter;
        let weights = whole + stored;
        let numbers = params.stored().map(|(_, matrix)| matrix.dims().iter().product());
        let numbers = params.iter().map(|(_, tensor)| tensor.elem_count()).chain(numbers);
        let largest = numbers.max().unwrap_or(0) as u64 * FLOAT;
        // The table of a cached reference is two numbers a row, which count with the data.
        let reference = match &plan.reference {
            // What is stored in fewer bytes cannot change, so it is shared.
            ReferencePlan::Frozen | ReferencePlan::Adapter { .. } => whole,
            ReferencePlan::Model { path } => folder_bytes(path),
            // Where it started, where it is, and with BEMA the average beside it.
            ReferencePlan::Updating(UpdateRule { kind: UpdateKind::Mix { .. }, .. }) => 2 * trained,
            ReferencePlan::Updating(UpdateRule { kind: UpdateKind::Bema, .. }) => 3 * trained,
            ReferencePlan::AdapterOff | ReferencePlan::Cached { .. } | ReferencePlan::None => 0,
        };
        Self { weights, largest, reference, trained, largest_trained }
    }
}

/// Whether a step runs the reference's network.
pub(crate) fn runs_reference(plan: &Plan) -> bool {
    !matches!(plan.reference, ReferencePlan::Cached { .. } | ReferencePlan::None)
}

/// Size of the files in a folder; 0 for what cannot be looked at, which fails when it is read.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum()
}
