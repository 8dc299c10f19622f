//! Which part of an image a network sees: scaled until it covers the target, then cut to it, then mirrored or not.
//!
//! Source: the preprocessing of diffusers' Diffusion-DPO scripts: shorter side scaled to the resolution with bilinear
//! interpolation, centre or random crop, random flip. Time ids: Podell et al., "SDXL", arXiv:2307.01952, section 2.2.
//!
//! Departures: the two images of a pair are cut at the same place and flipped together, where Diffusion-DPO draws each
//! for itself; the offset of a mirrored crop is counted in the mirrored image.

use image::RgbImage;
use image::imageops::{self, FilterType};
use serde::{Deserialize, Serialize};
use votive_tensor::random::{Draws, Stream};

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ImageSize {
    /// Pixels in a row.
    pub width: u32,
    /// Rows of pixels.
    pub height: u32,
}

impl ImageSize {
    /// A square.
    #[must_use]
    pub fn square(side: u32) -> Self {
        Self { width: side, height: side }
    }

    /// Width over height.
    #[must_use]
    pub fn aspect(self) -> f64 {
        f64::from(self.width.max(1)) / f64::from(self.height.max(1))
    }
}

impl std::fmt::Display for ImageSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// How an image is scaled. Both average over the pixels they remove, so neither aliases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResizeFilter {
    /// Linear between neighbours.
    #[default]
    Bilinear,
    /// Windowed sinc over three pixels a side; sharper.
    Lanczos,
}

/// Where an image that is longer than its target is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crop {
    /// In the middle, always.
    #[default]
    Center,
    /// Somewhere else at every step.
    Random,
}

impl Crop {
    /// The choices with their names in a recipe.
    pub const NAMES: [(Self, &'static str); 2] = [(Self::Center, "center"), (Self::Random, "random")];
}

/// How the images of a pair may differ from step to step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AugmentationPolicy {
    /// Mirrored left to right with probability one half. A caption that says "left" is then wrong.
    pub flip: bool,
    /// Where they are cut.
    pub crop: Crop,
}

/// What is done to both images of a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    /// Mirrored left to right.
    pub flip: bool,
    /// Shares of what is cut off that are cut off at the left and at the top.
    pub cut: [f64; 2],
}

impl Default for Augmentation {
    fn default() -> Self {
        Self { flip: false, cut: [0.5; 2] }
    }
}

impl AugmentationPolicy {
    /// What is done to the pair at a place of a step's batch: a function of its arguments.
    #[must_use]
    pub fn draw(self, seed: u64, step: u64, position: u64) -> Augmentation {
        let mut draws = Draws::new(seed, Stream::Augmentation, step, position);
        // Both are drawn whatever the policy is, so that one key moves nothing of the other.
        let (flip, cut) = (draws.chance(0.5), [draws.uniform(), draws.uniform()]);
        Augmentation {
            flip: flip && self.flip,
            cut: if self.crop == Crop::Random { cut } else { Augmentation::default().cut },
        }
    }
}

/// How an image comes to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The image as it is stored.
    pub original: ImageSize,
    /// What it is scaled to; at least the target on either side.
    pub scaled: ImageSize,
    /// What is cut out of it.
    pub target: ImageSize,
    /// Pixels of the scaled image left of what is cut out.
    pub left: u32,
    /// Pixels of the scaled image above what is cut out.
    pub top: u32,
    /// Whether what is cut out is mirrored.
    pub flip: bool,
}

impl Frame {
    /// The frame of an image. An image that has the size of its target keeps its pixels.
    #[must_use]
    pub fn new(original: ImageSize, target: ImageSize, augmentation: Augmentation) -> Self {
        let scaled = covering(original, target);
        let offset = |share: f64, length: u32| (share * f64::from(length)).round_ties_even() as u32;
        Self {
            original,
            scaled,
            target,
            left: offset(augmentation.cut[0], scaled.width - target.width),
            top: offset(augmentation.cut[1], scaled.height - target.height),
            flip: augmentation.flip,
        }
    }

    /// Cuts an image out of one that has the frame's original size.
    #[must_use]
    pub fn apply(&self, image: &RgbImage, filter: ResizeFilter) -> RgbImage {
        let filter = match filter {
            ResizeFilter::Bilinear => FilterType::Triangle,
            ResizeFilter::Lanczos => FilterType::Lanczos3,
        };
        let resized;
        let image = if self.original == self.scaled {
            image
        } else {
            resized = imageops::resize(image, self.scaled.width, self.scaled.height, filter);
            &resized
        };
        let (width, height) = (self.target.width, self.target.height);
        let mut cut = imageops::crop_imm(image, self.left, self.top, width, height).to_image();
        if self.flip {
            imageops::flip_horizontal_in_place(&mut cut);
        }
        cut
    }

    /// What SDXL is told of an image: original height and width, offset of the crop from the top and from the left, and
    /// height and width of what it sees, in pixels.
    #[must_use]
    pub fn time_ids(&self) -> [u32; 6] {
        let right = self.scaled.width - self.target.width - self.left;
        let left = if self.flip { right } else { self.left };
        let Self { original, target, .. } = self;
        [original.height, original.width, self.top, left, target.height, target.width]
    }

    /// Share of the image's pixels that is cut off.
    #[must_use]
    pub fn lost(&self) -> f64 {
        let area = |size: ImageSize| f64::from(size.width) * f64::from(size.height);
        1.0 - area(self.target) / area(self.scaled).max(1.0)
    }

    /// Whether the image has fewer pixels than its target needs.
    #[must_use]
    pub fn enlarges(&self) -> bool {
        self.scaled.width > self.original.width || self.scaled.height > self.original.height
    }
}

/// The least size of the same shape that covers the target.
fn covering(original: ImageSize, target: ImageSize) -> ImageSize {
    let [width, height] = [original.width, original.height].map(|side| u64::from(side.max(1)));
    let [wide, high] = [target.width, target.height].map(u64::from);
    let (scaled_width, scaled_height) = if wide * height >= high * width {
        (wide, (height * wide / width).max(high))
    } else {
        ((width * high / height).max(wide), high)
    };
    let side = |length: u64| u32::try_from(length).unwrap_or(u32::MAX);
    ImageSize { width: side(scaled_width), height: side(scaled_height) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: u32, height: u32) -> ImageSize {
        ImageSize { width, height }
    }

    fn frame(original: ImageSize, target: ImageSize, flip: bool, cut: [f64; 2]) -> Frame {
        Frame::new(original, target, Augmentation { flip, cut })
    }

    #[test]
    fn a_frame_covers_its_target_and_lies_within_the_image() {
        for (width, height) in [(1, 1), (1, 9000), (512, 512), (640, 480), (3, 7), (2000, 16)] {
            for (wide, high) in [(64, 64), (64, 128), (128, 64)] {
                let found = frame(size(width, height), size(wide, high), false, [0.999, 0.999]);
                assert!(found.scaled.width == wide || found.scaled.height == high, "{found:?}");
                assert!(found.left + wide <= found.scaled.width, "{found:?}");
                assert!(found.top + high <= found.scaled.height, "{found:?}");
            }
        }
    }

    #[test]
    fn time_ids_are_heights_before_widths_and_mirrored_with_the_image() {
        // 200 wide, 100 high, to 50 x 50: scaled to 100 x 50, of which 10 are cut off at the left.
        let plain = frame(size(200, 100), size(50, 50), false, [0.2, 0.5]);
        assert_eq!(plain.time_ids(), [100, 200, 0, 10, 50, 50]);
        let mirrored = Frame { flip: true, ..plain };
        assert_eq!(mirrored.time_ids(), [100, 200, 0, 40, 50, 50]);
        assert!((plain.lost() - 0.5).abs() < 1e-12 && !plain.enlarges());
        assert!(frame(size(20, 100), size(50, 50), false, [0.5; 2]).enlarges());
    }

    #[test]
    fn draws_are_functions_and_obey_the_policy() {
        let policy = |flip, crop| AugmentationPolicy { flip, crop };
        let both = policy(true, Crop::Random);
        assert_eq!(both.draw(1, 2, 3), both.draw(1, 2, 3));
        assert_ne!(both.draw(1, 2, 3).cut, both.draw(1, 2, 4).cut);
        assert_eq!(both.draw(1, 2, 3).cut, policy(false, Crop::Random).draw(1, 2, 3).cut);
        assert_eq!(policy(false, Crop::Center).draw(1, 2, 3), Augmentation::default());
        let flips = (0..1000).filter(|step| policy(true, Crop::Center).draw(1, *step, 0).flip).count();
        assert!((430..570).contains(&flips), "{flips}");
    }
}
