//! The order in which rows are seen, as a function of the seed and the step.

use std::collections::BTreeMap;

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
/// hold a row twice. Rows may be in buckets, each of which is such a stream of its own: a batch is of one bucket, and in
/// every epoch a bucket has the batches that its rows fill, so that no row is ever left out. There is no state: any step
/// can be asked for at any time, which is what makes a resumed run see the same rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataOrder {
    seed: u64,
    /// Indices of the rows; none of the buckets is empty.
    buckets: Vec<Vec<usize>>,
    batch_size: usize,
    traversal: Traversal,
}

impl DataOrder {
    /// An order over `n_rows` rows in batches of `batch_size`; both are taken to be at least 1.
    #[must_use]
    pub fn new(seed: u64, n_rows: usize, batch_size: usize, traversal: Traversal) -> Self {
        Self::in_buckets(seed, &vec![0; n_rows.max(1)], batch_size, traversal)
    }

    /// An order over rows of which each is in the bucket that `buckets` says, in batches of one bucket.
    #[must_use]
    pub fn in_buckets(seed: u64, buckets: &[usize], batch_size: usize, traversal: Traversal) -> Self {
        let rows: Vec<(usize, usize)> = buckets.iter().copied().enumerate().collect();
        Self::of(seed, &rows, batch_size, traversal)
    }

    /// An order over some rows, each with its bucket.
    pub(crate) fn of(seed: u64, known: &[(usize, usize)], batch_size: usize, traversal: Traversal) -> Self {
        let mut rows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (row, bucket) in known {
            rows.entry(*bucket).or_default().push(*row);
        }
        let buckets = rows.into_values().collect();
        Self { seed, buckets, batch_size: batch_size.max(1), traversal }
    }

    /// Indices of the rows of a step; steps count from 0.
    #[must_use]
    pub fn indices(&self, step: u64) -> Vec<usize> {
        let (bucket, batch) = self.place(step);
        let Some(n_rows) = self.buckets.get(bucket).map(Vec::len) else { return Vec::new() };
        // Wide enough for any step of any batch size.
        let (n_rows, batch_size) = (n_rows as u128, self.batch_size as u128);
        let mut position = batch * batch_size;
        let end = position + batch_size;
        let mut indices = Vec::with_capacity(self.batch_size);
        while position < end {
            let epoch = position / n_rows;
            let until = end.min((epoch + 1) * n_rows);
            let order = self.epoch(bucket, epoch as u64);
            indices.extend((position..until).map(|at| order[(at % n_rows) as usize]));
            position = until;
        }
        indices
    }

    /// The rows of all steps one after another, without end.
    pub fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        // One bucket is a single stream, whose epochs are each drawn once.
        let steps = if self.buckets.len() == 1 { 0..0 } else { 0..u64::MAX };
        let epochs = if self.buckets.len() == 1 { 0..u64::MAX } else { 0..0 };
        epochs.flat_map(|epoch| self.epoch(0, epoch)).chain(steps.flat_map(|step| self.indices(step)))
    }

    /// The bucket that a step's batch is of, and which of the bucket's batches it is.
    fn place(&self, step: u64) -> (usize, u128) {
        if self.buckets.len() == 1 {
            return (0, u128::from(step));
        }
        let epoch = self.epoch_of(step);
        let mut batches = Vec::new();
        for bucket in 0..self.buckets.len() {
            let own = self.batches_before(bucket, epoch)..self.batches_before(bucket, epoch + 1);
            batches.extend(own.map(|batch| (bucket, batch)));
        }
        if self.traversal == Traversal::Shuffled {
            Draws::new(self.seed, Stream::DataOrder, epoch, self.buckets.len() as u64).shuffle(&mut batches);
        }
        let within = u128::from(step) - self.all_before(epoch);
        batches.get(within as usize).copied().unwrap_or((0, 0))
    }

    /// Batches of a bucket that are full before an epoch begins.
    fn batches_before(&self, bucket: usize, epoch: u64) -> u128 {
        u128::from(epoch) * self.buckets[bucket].len() as u128 / self.batch_size as u128
    }

    /// Batches of all buckets before an epoch begins.
    fn all_before(&self, epoch: u64) -> u128 {
        (0..self.buckets.len()).map(|bucket| self.batches_before(bucket, epoch)).sum()
    }

    /// The epoch that a step belongs to: the last one that has begun with it.
    fn epoch_of(&self, step: u64) -> u64 {
        // An epoch is a batch at least once in `batch_size` of them.
        let (mut begun, mut not_begun) =
            (0, (step + 1).saturating_mul(self.batch_size as u64).saturating_add(1));
        while not_begun - begun > 1 {
            let middle = begun + (not_begun - begun) / 2;
            if self.all_before(middle) <= u128::from(step) { begun = middle } else { not_begun = middle }
        }
        begun
    }

    /// The rows of a bucket in the order of one of its epochs.
    fn epoch(&self, bucket: usize, epoch: u64) -> Vec<usize> {
        let mut order = self.buckets[bucket].clone();
        if self.traversal == Traversal::Shuffled {
            Draws::new(self.seed, Stream::DataOrder, epoch, bucket as u64).shuffle(&mut order);
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

    #[test]
    fn a_batch_is_of_one_bucket_and_every_epoch_has_every_row() {
        // Three buckets of 9, 4 and 2 rows, spread over the file.
        let buckets = [0, 0, 1, 0, 2, 0, 0, 1, 0, 1, 0, 0, 1, 0, 2];
        let order = DataOrder::in_buckets(5, &buckets, 3, Traversal::Shuffled);
        let mut seen = vec![0_usize; 15];
        // Three epochs of 15 rows fill batches of three exactly, whatever the sizes of the buckets.
        for step in 0..15 {
            let batch = order.indices(step);
            assert_eq!(batch.len(), 3);
            assert!(batch.iter().all(|row| buckets[*row] == buckets[batch[0]]), "step {step}: {batch:?}");
            batch.iter().for_each(|row| seen[*row] += 1);
        }
        assert_eq!(seen, [3; 15]);
        assert_eq!(order.rows().take(45).collect::<Vec<_>>(), epoch_of(&order, 0..15));
        assert_eq!(
            order.indices(1000),
            DataOrder::in_buckets(5, &buckets, 3, Traversal::Shuffled).indices(1000)
        );
    }

    #[test]
    fn a_bucket_smaller_than_a_batch_is_seen_as_often_as_the_others() {
        let buckets = [0, 0, 0, 0, 0, 0, 0, 1];
        let order = DataOrder::in_buckets(5, &buckets, 4, Traversal::Shuffled);
        let rows = epoch_of(&order, 0..2 * 4 * 10);
        assert_eq!(rows.iter().filter(|row| **row == 7).count(), 40);
        assert_eq!(rows.len(), 320);
    }

    #[test]
    fn one_bucket_is_no_bucket() {
        let plain = DataOrder::new(3, 7, 2, Traversal::Shuffled);
        assert_eq!(plain, DataOrder::in_buckets(3, &[4; 7], 2, Traversal::Shuffled));
    }
}
