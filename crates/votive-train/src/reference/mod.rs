//! References: what the policy is compared with. A reference is immutable; nothing that trains can reach it.

use crate::error::{Result, TrainError};
use crate::front_end::{FrontEnd, Layout, Sample};
use candle_core::{Device, Tensor};
use votive_model::Params;

/// Which reference a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceKind {
    /// A copy of the policy as it starts.
    Frozen,
    /// The network under the policy's adapter.
    AdapterOff,
    /// The log-probabilities of a frozen copy, computed once for every row before the first step.
    Cached,
    /// No reference.
    None,
}

impl ReferenceKind {
    /// All kinds with their names in recipes.
    pub const NAMES: [(Self, &'static str); 4] = [
        (Self::Frozen, "frozen"),
        (Self::AdapterOff, "adapter_off"),
        (Self::Cached, "cached"),
        (Self::None, "none"),
    ];
}

/// A reference that can be asked for log-probabilities.
pub enum Reference<N> {
    /// There is none.
    Absent,
    /// A network that is never trained.
    Network(N),
    /// For every row the log-probabilities of its sequences: chosen and rejected, or the one completion.
    Cached(Vec<Vec<f32>>),
}

impl<N> Reference<N> {
    /// Makes the reference of a policy as it starts.
    ///
    /// # Errors
    /// If the kind does not go with the policy or the front end.
    pub fn new<F: FrontEnd<Network = N>>(
        kind: ReferenceKind,
        front: &F,
        policy: &Params,
        batch_size: usize,
        progress: impl Fn(usize, usize),
    ) -> Result<Self> {
        match kind {
            ReferenceKind::None => Ok(Self::Absent),
            ReferenceKind::Frozen => Ok(Self::Network(front.network(&policy.frozen_copy()?)?)),
            ReferenceKind::AdapterOff if policy.lora().is_none() => Err(TrainError::Plan(
                "reference.kind = \"adapter_off\" needs an [adapter.lora]; with full fine-tuning use \"frozen\"".to_owned(),
            )),
            // The weights below an adapter are not trained, so they can be shared.
            ReferenceKind::AdapterOff => Ok(Self::Network(front.network(&policy.without_adapter().untracked()?)?)),
            ReferenceKind::Cached if !front.is_fixed() => Err(TrainError::Plan(
                "reference.kind = \"cached\" needs rows that look the same at every step; a denoiser's time and noise \
                 change, so use \"frozen\" or \"adapter_off\""
                    .to_owned(),
            )),
            ReferenceKind::Cached => {
                let network = front.network(&policy.untracked()?)?;
                Ok(Self::Cached(tabulate(front, &network, batch_size, progress)?))
            }
        }
    }

    /// Log-probabilities of a batch's sequences, `(R,)`, without gradient; none if there is no reference.
    ///
    /// # Errors
    /// Those of the network.
    pub fn logps<F: FrontEnd<Network = N>>(
        &self,
        front: &F,
        samples: &[Sample],
        batch: &F::Batch,
        device: &Device,
    ) -> Result<Option<Tensor>> {
        match self {
            Self::Absent => Ok(None),
            Self::Network(network) => Ok(Some(front.logps(network, batch, None)?.detach())),
            Self::Cached(table) => {
                let sides = table.first().map_or(1, Vec::len);
                let values: Vec<f32> = (0..sides)
                    .flat_map(|side| samples.iter().map(move |sample| table[sample.row][side]))
                    .collect();
                Ok(Some(Tensor::new(values, device)?))
            }
        }
    }
}

fn tabulate<F: FrontEnd>(
    front: &F,
    network: &F::Network,
    batch_size: usize,
    progress: impl Fn(usize, usize),
) -> Result<Vec<Vec<f32>>> {
    let rows: Vec<usize> = (0..front.rows()).collect();
    let mut table = Vec::with_capacity(rows.len());
    for rows in rows.chunks(batch_size.max(1)) {
        let samples: Vec<Sample> = rows.iter().map(|row| Sample { row: *row, position: *row }).collect();
        let batch = front.batch(0, &samples)?;
        let logps = front.logps(network, &batch, None)?.to_vec1::<f32>()?;
        let sides = if front.layout(&batch) == Layout::Pairs { 2 } else { 1 };
        table.extend((0..rows.len()).map(|i| (0..sides).map(|side| logps[side * rows.len() + i]).collect()));
        progress(table.len(), front.rows());
    }
    Ok(table)
}
