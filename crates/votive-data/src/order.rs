//! The order in which rows are seen, as a function of the seed and the step.

use votive_tensor::random::{Draws, Stream};

/// How the rows of an epoch are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Traversal {
    /// A new permutation every epoch.
    #[default]
    Shuffled,
    /// The order of the file, every epoch.
    Sequential,
}

/// Which rows each step sees.
///
/// The epochs are laid end to end and cut into batches, so that every batch is full; one that straddles two epochs may
/// hold a row twice. There is no state: any step can be asked for at any time, which is what makes a resumed run see
/// the same rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataOrder {
    seed: u64,
    n_rows: usize,
    batch_size: usize,
    traversal: Traversal,
}

impl DataOrder {
    /// An order over `n_rows` rows in batches of `batch_size`; both are taken to be at least 1.
    #[must_use]
    pub fn new(seed: u64, n_rows: usize, batch_size: usize, traversal: Traversal) -> Self {
        Self { seed, n_rows: n_rows.max(1), batch_size: batch_size.max(1), traversal }
    }

    /// Indices in `0..n_rows` of the rows of a step; steps count from 0.
    #[must_use]
    pub fn indices(&self, step: u64) -> Vec<usize> {
        // Wide enough for any step of any batch size.
        let (n_rows, batch_size) = (self.n_rows as u128, self.batch_size as u128);
        let mut position = u128::from(step) * batch_size;
        let end = position + batch_size;
        let mut indices = Vec::with_capacity(self.batch_size);
        while position < end {
            let epoch = position / n_rows;
            let until = end.min((epoch + 1) * n_rows);
            let order = self.epoch(epoch as u64);
            indices.extend((position..until).map(|at| order[(at % n_rows) as usize]));
            position = until;
        }
        indices
    }

    /// The rows of all steps one after another, without end; each epoch is drawn once.
    pub fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        (0..).flat_map(|epoch| self.epoch(epoch))
    }

    /// All indices in the order of an epoch.
    fn epoch(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.n_rows).collect();
        if self.traversal == Traversal::Shuffled {
            Draws::new(self.seed, Stream::DataOrder, epoch, 0).shuffle(&mut order);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch_of(order: &DataOrder, steps: std::ops::Range<u64>) -> Vec<usize> {
        steps.flat_map(|step| order.indices(step)).collect()
    }

    #[test]
    fn every_epoch_is_a_permutation_and_no_two_are_equal() {
        let order = DataOrder::new(11, 12, 4, Traversal::Shuffled);
        let (first, second) = (epoch_of(&order, 0..3), epoch_of(&order, 3..6));
        for epoch in [&first, &second] {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..12).collect::<Vec<_>>());
        }
        assert_ne!(first, second);
        assert_ne!(first, epoch_of(&DataOrder::new(12, 12, 4, Traversal::Shuffled), 0..3));
    }

    #[test]
    fn batches_do_not_change_the_stream_of_rows() {
        let narrow = DataOrder::new(3, 7, 2, Traversal::Shuffled);
        let wide = DataOrder::new(3, 7, 10, Traversal::Shuffled);
        assert_eq!(epoch_of(&narrow, 0..15), epoch_of(&wide, 0..3));
        assert_eq!(narrow.rows().take(30).collect::<Vec<_>>(), epoch_of(&narrow, 0..15));
    }

    #[test]
    fn sequential_order_is_the_order_of_the_file() {
        let order = DataOrder::new(3, 3, 2, Traversal::Sequential);
        assert_eq!(epoch_of(&order, 0..4), [0, 1, 2, 0, 1, 2, 0, 1]);
    }
}
