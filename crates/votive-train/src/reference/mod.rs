//! References: what the policy is compared with. A network that serves as reference is immutable; nothing that trains
//! can reach it, and a reference that follows the policy is another network after each update.

mod table;
mod updating;

pub use updating::{UpdateKind, UpdateRule};

use crate::error::{Result, TrainError};
use crate::front_end::{FrontEnd, Likelihood, Sample};
use candle_core::{Device, Tensor};
use std::path::PathBuf;
use table::{Table, tabulate};
use updating::{Follower, Named};
use votive_model::{Lora, Params};

/// Which reference a run has.
#[derive(Clone, Debug, PartialEq)]
pub enum ReferencePlan {
    /// A copy of the policy as it starts.
    Frozen,
    /// The network under the policy's adapter.
    AdapterOff,
    /// The log-probabilities of the policy as it starts, computed once for every row before the first step.
    Cached {
        /// Where they are kept for other runs.
        file: Option<PathBuf>,
    },
    /// Another model.
    Model {
        /// Its folder.
        path: PathBuf,
    },
    /// The policy's network under another adapter.
    Adapter {
        /// Its folder.
        path: PathBuf,
    },
    /// The policy as it was some steps ago.
    Updating(UpdateRule),
    /// No reference.
    None,
}

/// A reference that can be asked for log-probabilities.
pub struct Reference<N> {
    source: Source<N>,
    /// How far it may be from the policy before the first step; none if it is another model.
    start_tolerance: Option<f64>,
}

enum Source<N> {
    Absent,
    Network(N),
    Following(Box<Follower>, N),
    Table(Table),
}

impl<N> Reference<N> {
    /// Makes the reference of a policy as the recipe starts it; `saved` is what a checkpoint kept of it.
    ///
    /// # Errors
    /// If the kind does not go with the policy or the front end.
    pub fn new<F: FrontEnd<Network = N>>(
        plan: &ReferencePlan,
        front: &F,
        policy: &Params,
        saved: Option<Named>,
        batch_size: usize,
        progress: impl Fn(usize, usize),
    ) -> Result<Self> {
        let same = |source| Ok(Self { source, start_tolerance: Some(0.0) });
        let other = |network| Ok(Self { source: Source::Network(network), start_tolerance: None });
        match plan {
            ReferencePlan::None => same(Source::Absent),
            ReferencePlan::Frozen => same(Source::Network(front.network(&policy.frozen_copy()?)?)),
            ReferencePlan::AdapterOff if policy.lora().is_none() => Err(TrainError::Plan(
                "reference.kind = \"adapter_off\" needs an [adapter.lora]; with full fine-tuning use \"frozen\"".to_owned(),
            )),
            // The weights below an adapter are not trained, so they can be shared.
            ReferencePlan::AdapterOff => {
                same(Source::Network(front.network(&policy.without_adapter().untracked()?)?))
            }
            ReferencePlan::Cached { .. } if !front.is_fixed() => Err(TrainError::Plan(
                "reference.kind = \"cached\" needs rows that look the same at every step; a denoiser's time and noise \
                 change, so use \"frozen\" or \"adapter_off\""
                    .to_owned(),
            )),
            ReferencePlan::Cached { file } => {
                let table = tabulate(front, policy, batch_size, file.as_deref(), progress)?;
                // The rows were computed in other company than in a step, and products of few rows are summed in
                // another order than those of many; a file may even come from another processor.
                Ok(Self { source: Source::Table(table), start_tolerance: Some(table::TOLERANCE) })
            }
            ReferencePlan::Model { path } => other(front.other_network(path, policy.device())?),
            ReferencePlan::Adapter { path } => {
                let adapter = Lora::load(path, policy.device())?;
                let below = policy.without_adapter().frozen_copy()?;
                other(front.network(&below.with_lora(adapter)?)?)
            }
            ReferencePlan::Updating(rule) => {
                let follower = Follower::new(*rule, policy, saved)?;
                let network = front.network(&follower.params()?)?;
                same(Source::Following(Box::new(follower), network))
            }
        }
    }

    /// What the reference makes of a batch's sequences; none if there is no reference. Of a cached one only sums are known.
    ///
    /// # Errors
    /// Those of the network.
    pub fn likelihood<F: FrontEnd<Network = N>>(
        &self,
        front: &F,
        samples: &[Sample],
        batch: &F::Batch,
        device: &Device,
    ) -> Result<Option<Likelihood>> {
        if let Source::Table(Table { rows, .. }) = &self.source {
            let sides = samples.first().map_or(1, |sample| rows[sample.row].len());
            let values: Vec<f32> = (0..sides)
                .flat_map(|side| samples.iter().map(move |sample| rows[sample.row][side]))
                .collect();
            return Ok(Some(Likelihood::new(Tensor::new(values, device)?)));
        }
        let network = self.network();
        let untracked =
            |likelihood: Likelihood| Likelihood { logps: likelihood.logps.detach(), ..likelihood };
        network.map(|network| front.likelihood(network, batch, None).map(untracked)).transpose()
    }

    /// The network, if the reference is one.
    #[must_use]
    pub fn network(&self) -> Option<&N> {
        match &self.source {
            Source::Network(network) | Source::Following(_, network) => Some(network),
            Source::Absent | Source::Table(_) => None,
        }
    }

    /// How far log-probabilities may be from the policy's before the first step, relative to their size; none if the
    /// reference is another model.
    #[must_use]
    pub fn start_tolerance(&self) -> Option<f64> {
        self.start_tolerance
    }

    /// Rows whose log-probabilities came from a file.
    #[must_use]
    pub fn rows_from_file(&self) -> usize {
        match &self.source {
            Source::Table(table) => table.found,
            _ => 0,
        }
    }

    /// Whether [`Reference::follow`] will ask how far the reference may go after step `done`.
    #[must_use]
    pub fn measures_at(&self, done: u64) -> bool {
        matches!(&self.source, Source::Following(follower, _) if follower.measures_at(done))
    }

    /// Follows the policy after step `done`, counted from 1, if this is a reference that does. `divergence` says how far
    /// a network is from another one, the start; it is asked if there is a limit, and its answer is returned.
    ///
    /// # Errors
    /// Those of candle and of `divergence`.
    pub fn follow<F: FrontEnd<Network = N>>(
        &mut self,
        front: &F,
        policy: &Params,
        done: u64,
        divergence: impl FnOnce(&N, &N) -> Result<f64>,
    ) -> Result<Option<f64>> {
        let Source::Following(follower, network) = &mut self.source else { return Ok(None) };
        let Some(update) = follower.due(policy, done)? else { return Ok(None) };
        let candidate = front.network(&follower.params_after(&update)?)?;
        let mut found = None;
        if let Some(limit) = follower.max_divergence() {
            let distance = divergence(&candidate, &front.network(&follower.start_params()?)?)?;
            found = Some(distance);
            if distance > limit {
                follower.freeze();
                return Ok(found);
            }
        }
        follower.apply(update);
        *network = candidate;
        Ok(found)
    }

    /// What a checkpoint must keep of the reference, by name.
    #[must_use]
    pub fn state(&self) -> Vec<(String, Tensor)> {
        match &self.source {
            Source::Following(follower, _) => follower.state().collect(),
            _ => Vec::new(),
        }
    }
}
