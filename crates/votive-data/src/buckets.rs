//! Sizes that images are cut to, so that wide and high images keep their shape and a batch is of one size.
//!
//! Source: Podell et al., "SDXL", arXiv:2307.01952, section 2.3 and appendix I: multiples of 64 pixels a side with about
//! the area of the training resolution, from 4:1 to 1:4.

use crate::framing::ImageSize;

/// The most that one side of a bucket may be of the other.
const MOST_ASPECT: f64 = 4.0;

/// The sizes that the images of a data set are cut to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    sizes: Vec<ImageSize>,
}

impl Buckets {
    /// One size for all images.
    #[must_use]
    pub fn one(size: ImageSize) -> Self {
        Self { sizes: vec![size] }
    }

    /// All sizes with sides that are multiples of `unit` pixels and with an area of at most `resolution`², the highest
    /// for each width and the widest for each height, narrow ones first. `resolution` is at least `unit`.
    #[must_use]
    pub fn of_area(resolution: u32, unit: u32) -> Self {
        let unit = unit.max(1);
        let area = u64::from(resolution) * u64::from(resolution);
        let mut sizes = Vec::new();
        for side in
            (unit..).step_by(unit as usize).take_while(|side| u64::from(*side) * u64::from(unit) <= area)
        {
            let units = area / u64::from(side) / u64::from(unit);
            let other = u32::try_from(units * u64::from(unit)).unwrap_or(u32::MAX);
            let size = ImageSize { width: side, height: other };
            if (1.0 / MOST_ASPECT..=MOST_ASPECT).contains(&size.aspect()) {
                sizes.extend([size, ImageSize { width: other, height: side }]);
            }
        }
        if sizes.is_empty() {
            sizes.push(ImageSize::square(unit));
        }
        sizes.sort_by(|a, b| a.aspect().total_cmp(&b.aspect()).then(a.cmp(b)));
        sizes.dedup();
        Self { sizes }
    }

    /// The sizes.
    #[must_use]
    pub fn sizes(&self) -> &[ImageSize] {
        &self.sizes
    }

    /// Index of the size whose shape is nearest to that of both images of a pair: the one with the least distance to the
    /// mean of their logarithmic aspects.
    #[must_use]
    pub fn nearest(&self, pair: [ImageSize; 2]) -> usize {
        let aspect = pair.iter().map(|size| size.aspect().ln()).sum::<f64>() / 2.0;
        let distance = |index: &usize| (self.sizes[*index].aspect().ln() - aspect).abs();
        (0..self.sizes.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: u32, height: u32) -> ImageSize {
        ImageSize { width, height }
    }

    #[test]
    fn sizes_are_multiples_within_the_area_and_come_in_both_directions() {
        for (resolution, unit) in [(1024, 64), (512, 64), (64, 16), (100, 64), (64, 64)] {
            let buckets = Buckets::of_area(resolution, unit);
            assert!(!buckets.sizes().is_empty());
            for found in buckets.sizes() {
                assert!(found.width % unit == 0 && found.height % unit == 0, "{found}");
                assert!(found.width * found.height <= resolution * resolution, "{found}");
                assert!(buckets.sizes().contains(&size(found.height, found.width)), "{found}");
            }
        }
        let sdxl = Buckets::of_area(1024, 64);
        // Rows of the paper's appendix I.
        for (width, height) in [(512, 2048), (640, 1600), (832, 1216), (896, 1152), (1024, 1024), (1536, 640)]
        {
            assert!(sdxl.sizes().contains(&size(width, height)), "{width}x{height}");
        }
        assert_eq!((sdxl.sizes()[0], sdxl.sizes().last()), (size(512, 2048), Some(&size(2048, 512))));
    }

    #[test]
    fn a_pair_goes_where_its_shape_is_nearest() {
        let buckets = Buckets::of_area(512, 64);
        let nearest = |pair: [ImageSize; 2]| buckets.sizes()[buckets.nearest(pair)];
        assert_eq!(nearest([size(300, 300); 2]), size(512, 512));
        // Images of different shapes meet in the middle.
        assert_eq!(nearest([size(200, 100), size(100, 200)]), size(512, 512));
        assert_eq!(nearest([size(9000, 10); 2]), size(1024, 256));
        assert!(nearest([size(640, 480); 2]).aspect() > 1.2);
        assert_eq!(Buckets::one(size(7, 9)).nearest([size(1, 1); 2]), 0);
    }
}
