//! Rows that are let in one group after another.
//!
//! Source: Croitoru et al., "Curriculum direct preference optimization for diffusion and consistency models",
//! arXiv:2405.13637: pairs from the most clearly preferred to the least.
//! Departure: groups are of equal size, where the paper cuts the range of the margins into equal parts, of which some may be
//! nearly empty.

use crate::order::{DataOrder, Traversal};

/// Orders of rows, each from some step on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phases {
    every: u64,
    orders: Vec<DataOrder>,
}

impl Phases {
    /// One order for all steps.
    #[must_use]
    pub fn one(order: DataOrder) -> Self {
        Self { every: u64::MAX, orders: vec![order] }
    }

    /// A curriculum: rows are ranked by their margins, the largest first, and cut into `groups` of equal size; the first group is
    /// there from the start, and every `every` steps another one joins.
    ///
    /// `rows` holds the bucket and the margin of each row. Rows of equal margin keep their order.
    #[must_use]
    pub fn curriculum(
        seed: u64,
        rows: &[(usize, f64)],
        batch_size: usize,
        (groups, every): (usize, u64),
    ) -> Self {
        let mut ranked: Vec<usize> = (0..rows.len()).collect();
        ranked.sort_by(|one, other| rows[*other].1.total_cmp(&rows[*one].1));
        let groups = groups.clamp(1, rows.len().max(1));
        let order = |group: usize| {
            let mut known = ranked[..(group + 1) * rows.len() / groups].to_vec();
            known.sort_unstable();
            let known: Vec<(usize, usize)> = known.into_iter().map(|row| (row, rows[row].0)).collect();
            DataOrder::of(seed, &known, batch_size, Traversal::Shuffled)
        };
        Self { every: every.max(1), orders: (0..groups).map(order).collect() }
    }

    /// Indices of the rows of a step; steps count from 0.
    #[must_use]
    pub fn indices(&self, step: u64) -> Vec<usize> {
        let phase = (step / self.every).min(self.orders.len() as u64 - 1);
        // A later phase goes on in its own order, so that what is new is not put off to the end of an epoch.
        self.orders[phase as usize].indices(step - phase * self.every)
    }

    /// The rows of all steps one after another, without end.
    pub fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        let only = if self.orders.len() == 1 { self.orders.first() } else { None };
        let steps = if only.is_some() { 0..0 } else { 0..u64::MAX };
        only.into_iter().flat_map(DataOrder::rows).chain(steps.flat_map(|step| self.indices(step)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_clearest_come_first_and_in_the_end_all_are_there() {
        // Row 0 is the least clear, row 11 the clearest.
        let rows: Vec<(usize, f64)> = (0..12).map(|row| (0, f64::from(row))).collect();
        let phases = Phases::curriculum(3, &rows, 4, (3, 2));
        let seen = |steps: std::ops::Range<u64>| -> BTreeSet<usize> {
            steps.flat_map(|step| phases.indices(step)).collect()
        };
        assert_eq!(seen(0..2), (8..12).collect());
        assert_eq!(seen(2..4), (4..12).collect());
        assert_eq!(seen(4..7), (0..12).collect());
        assert_eq!(seen(400..403), (0..12).collect());
        let stream: Vec<usize> = phases.rows().take(40).collect();
        assert_eq!(stream, (0..10).flat_map(|step| phases.indices(step)).collect::<Vec<_>>());
    }

    #[test]
    fn one_group_is_the_plain_order() {
        let rows = vec![(0, 1.0); 7];
        let plain = Phases::one(DataOrder::new(3, 7, 2, Traversal::Shuffled));
        let phases = Phases::curriculum(3, &rows, 2, (1, 5));
        assert!((0..20).all(|step| phases.indices(step) == plain.indices(step)));
        assert_eq!(phases.rows().take(30).collect::<Vec<_>>(), plain.rows().take(30).collect::<Vec<_>>());
    }

    #[test]
    fn batches_stay_in_their_buckets() {
        let rows: Vec<(usize, f64)> = (0..20).map(|row| (row % 2, (row * 7 % 20) as f64)).collect();
        let phases = Phases::curriculum(3, &rows, 3, (4, 3));
        for step in 0..30 {
            let buckets: BTreeSet<usize> = phases.indices(step).into_iter().map(|row| rows[row].0).collect();
            assert_eq!(buckets.len(), 1, "step {step}");
        }
    }
}
