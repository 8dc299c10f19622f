//! The running mean of log-ratios, which some objectives count rewards from.

use serde::{Deserialize, Serialize};

/// Log-ratios of policy and reference over all completions that were trained on so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRatios {
    /// Bits of their sum in nats: a decimal number would not come back exactly, and a resumed run is bit-identical.
    sum: u64,
    count: u64,
}

impl LogRatios {
    /// Counts a step's sum and number.
    pub(super) fn add(&mut self, (sum, count): (f64, usize)) {
        self.sum = (f64::from_bits(self.sum) + sum).to_bits();
        self.count += count as u64;
    }

    /// Their mean, nats; 0 before the first step, where policy and reference agree.
    #[must_use]
    pub fn mean(self) -> f64 {
        f64::from_bits(self.sum) / self.count.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_over_completions_and_not_over_steps() {
        let mut log_ratios = LogRatios::default();
        assert_eq!(log_ratios.mean().to_bits(), 0);
        log_ratios.add((3.0, 1));
        log_ratios.add((-1.0, 3));
        assert_eq!(log_ratios.mean().to_bits(), 0.5f64.to_bits());
    }
}
