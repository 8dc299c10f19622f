//! The image encoder: patches of an image of any size, blocks of attention among them, and mergers to vectors of the language
//! model's width.

use super::config::{Qwen3VlConfig, VisionConfig};
use crate::error::{ModelError, Result};
use crate::image_tokens::{ImageInput, ImageTokens};
use crate::language::positions::Positions;
use crate::language::rope::{Angles, Rotary};
use crate::language::vision::ImageEncoder;
use crate::nn::{Embedding, LayerNorm, Linear};
use crate::params::{Init, Scope};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use votive_tensor::Recorder;
use votive_tensor::{Activation, AttentionMask, activate, attention, linear};

/// ε of all its norms.
const EPS: f64 = 1e-6;
/// Deviation of fresh tables and kernels.
const START: Init = Init::Normal(0.02);

/// The image encoder.
#[derive(Debug)]
pub(super) struct VisionTower {
    config: VisionConfig,
    tokens: ImageTokens,
    /// `(width, 3, frames, patch, patch)`.
    patch: Tensor,
    patch_bias: Tensor,
    positions: Embedding,
    rotary: Rotary,
    blocks: Vec<Block>,
    merger: Merger,
    /// Those of deepstack, with the blocks that they read.
    deepstack: Vec<(usize, Merger)>,
}

impl VisionTower {
    /// The network of this place.
    ///
    /// # Errors
    /// Those of [`Scope::get`].
    pub(super) fn new(scope: &Scope, config: &Qwen3VlConfig) -> Result<Self> {
        let (tokens, config) = (config.tokens(), config.vision.clone());
        let VisionConfig { width, patch, frames, side, .. } = config;
        let kernel = scope.sub("patch_embed.proj");
        let block = |index: usize| Block::new(&scope.sub("blocks").sub(index), &config);
        let merger = |(index, block): (usize, &usize)| {
            Ok((*block, Merger::new(&scope.sub("deepstack_merger_list").sub(index), &config, true)?))
        };
        Ok(Self {
            tokens,
            patch: kernel.get("weight", &[width, 3, frames, patch, patch], START)?,
            patch_bias: kernel.get("bias", &[width], Init::Zero)?,
            positions: Embedding::new(&scope.sub("pos_embed"), side * side, width, START)?,
            rotary: Rotary::of_grid(&config.rope, width / config.heads),
            blocks: (0..config.layers).map(block).collect::<Result<_>>()?,
            merger: Merger::new(&scope.sub("merger"), &config, false)?,
            deepstack: config.deepstack.iter().enumerate().map(merger).collect::<Result<_>>()?,
            config,
        })
    }

    /// Images of one size: their vectors and those of deepstack, `(M, N / merge², out)` each.
    fn alike(
        &self,
        images: &[&ImageInput],
        grid: &Grid,
        device: &Device,
        recorder: Option<&Recorder>,
    ) -> Result<Vec<Tensor>> {
        let patches = grid.patches(images, self.config.patch);
        let shape = (images.len(), grid.len(), 3 * self.config.patch.pow(2));
        let patches = Tensor::from_vec(patches, shape, device)?;
        // A picture is a film of equal pictures, so that the kernel's parts for each add up.
        let kernel = self.patch.sum(2)?.flatten_from(1)?;
        let embedded = linear(&patches, &kernel, Some(&self.patch_bias))?;
        let mut x = embedded.broadcast_add(&self.learned_positions(grid)?)?;
        let angles = self.rotary.angles(&Positions::grid(grid.places()), device)?;
        let mut deep = Vec::with_capacity(self.deepstack.len());
        for (index, block) in self.blocks.iter().enumerate() {
            x = match recorder {
                None => block.forward(&x, &angles)?,
                Some(recorder) => {
                    let (block, angles) = (block.clone(), angles.clone());
                    recorder
                        .segment(&x, move |x| block.forward(x, &angles).map_err(candle_core::Error::wrap))?
                }
            };
            if let Some((_, merger)) = self.deepstack.iter().find(|(read, _)| *read == index) {
                deep.push(merger.forward(&x)?);
            }
        }
        let mut all = vec![self.merger.forward(&x)?];
        all.append(&mut deep);
        Ok(all)
    }

    /// The square of learned positions stretched over a grid, corners on corners, linear between them, `(N, width)`.
    fn learned_positions(&self, grid: &Grid) -> Result<Tensor> {
        let side = self.config.side;
        let (mut entries, mut weights) = (Vec::new(), Vec::new());
        for (row, column) in grid.places() {
            for (down, share_down) in between(row, grid.rows, side) {
                for (across, share_across) in between(column, grid.columns, side) {
                    entries.push((down * side + across) as u32);
                    weights.push(share_down * share_across);
                }
            }
        }
        let table = self.positions.weight();
        let entries = table.index_select(&Tensor::new(entries, table.device())?, 0)?;
        let weights = Tensor::from_vec(weights, (grid.len(), 4, 1), table.device())?;
        Ok(entries.reshape((grid.len(), 4, ()))?.broadcast_mul(&weights)?.sum(1)?)
    }
}

/// The two of `side` learned positions between which place `at` of `count` lies, and how much each counts; in f32, as
/// transformers computes it.
fn between(at: usize, count: usize, side: usize) -> [(usize, f32); 2] {
    let place = at as f32 * (side - 1) as f32 / (count - 1).max(1) as f32;
    let first = place.floor();
    let share = |step: f32| (1.0 - (place - first - step).abs()).max(0.0);
    let last = side - 1;
    [((first as usize).min(last), share(0.0)), ((first as usize + 1).min(last), share(1.0))]
}

impl ImageEncoder for VisionTower {
    fn tokens(&self) -> ImageTokens {
        self.tokens
    }

    fn forward(
        &self,
        images: &[&ImageInput],
        device: &Device,
        recorder: Option<&Recorder>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let mut sizes: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        for (index, image) in images.iter().enumerate() {
            sizes.entry(image.size()).or_default().push(index);
        }
        let mut parts: Vec<Vec<Tensor>> = vec![Vec::new(); images.len()];
        for (size, members) in &sizes {
            let grid = Grid::of(*size, &self.config)?;
            let alike: Vec<&ImageInput> = members.iter().map(|index| images[*index]).collect();
            let found = self.alike(&alike, &grid, device, recorder)?;
            for (place, index) in members.iter().enumerate() {
                parts[*index] =
                    found.iter().map(|tensor| tensor.get(place)).collect::<candle_core::Result<_>>()?;
            }
        }
        let of_all = |kind: usize| -> Result<Tensor> {
            let pieces: Vec<&Tensor> = parts.iter().map(|of_image| &of_image[kind]).collect();
            Ok(Tensor::cat(&pieces, 0)?)
        };
        let added = (1..=self.deepstack.len()).map(of_all).collect::<Result<_>>()?;
        Ok((of_all(0)?, added))
    }
}

/// The patches of an image, in the order in which they are read: square after square of those that are merged.
struct Grid {
    rows: usize,
    columns: usize,
    merge: usize,
}

impl Grid {
    fn of((width, height): (usize, usize), config: &VisionConfig) -> Result<Self> {
        let VisionConfig { patch, merge, .. } = *config;
        let cell = patch * merge;
        if width == 0 || height == 0 || !width.is_multiple_of(cell) || !height.is_multiple_of(cell) {
            return Err(ModelError::Shape {
                what: "an image for the image encoder".to_owned(),
                expected: format!("sides that {cell} divides"),
                found: format!("{width}×{height}"),
            });
        }
        Ok(Self { rows: height / patch, columns: width / patch, merge })
    }

    fn len(&self) -> usize {
        self.rows * self.columns
    }

    /// Row and column of each patch.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let Self { rows, columns, merge } = *self;
        let squares =
            (0..rows / merge).flat_map(move |row| (0..columns / merge).map(move |column| (row, column)));
        squares.flat_map(move |(row, column)| {
            (0..merge * merge).map(move |at| (row * merge + at / merge, column * merge + at % merge))
        })
    }

    /// The numbers of each patch of each image: channel, line, pixel.
    fn patches(&self, images: &[&ImageInput], patch: usize) -> Vec<f32> {
        let (width, height) = (self.columns * patch, self.rows * patch);
        let mut numbers = Vec::with_capacity(images.len() * 3 * width * height);
        for image in images {
            for (row, column) in self.places() {
                for channel in 0..3 {
                    for line in 0..patch {
                        let first = (channel * height + row * patch + line) * width + column * patch;
                        numbers.extend_from_slice(&image.pixels()[first..first + patch]);
                    }
                }
            }
        }
        numbers
    }
}

/// Attention among the patches of an image and a feed-forward net, each normalised first and added.
#[derive(Clone, Debug)]
struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    linear_fc1: Linear,
    linear_fc2: Linear,
    heads: usize,
    activation: Activation,
}

impl Block {
    fn new(scope: &Scope, config: &VisionConfig) -> Result<Self> {
        let VisionConfig { width, inner, heads, activation, .. } = *config;
        let linear = |name: &str, ins, outs| Linear::with_init(&scope.sub(name), ins, outs, true, START);
        Ok(Self {
            norm1: LayerNorm::new(&scope.sub("norm1"), width, EPS)?,
            qkv: linear("attn.qkv", width, 3 * width)?,
            proj: linear("attn.proj", width, width)?,
            norm2: LayerNorm::new(&scope.sub("norm2"), width, EPS)?,
            linear_fc1: linear("mlp.linear_fc1", width, inner)?,
            linear_fc2: linear("mlp.linear_fc2", inner, width)?,
            heads,
            activation,
        })
    }

    /// `x (M, N, width)` → the same shape.
    fn forward(&self, x: &Tensor, angles: &Angles) -> Result<Tensor> {
        let (heads, width) = (self.heads, x.dim(2)?);
        let qkv = self.qkv.forward(&self.norm1.forward(x)?)?;
        let part = |index: usize| qkv.narrow(2, index * width, width)?.contiguous();
        let (q, k) = (angles.rotate(&part(0)?, heads)?, angles.rotate(&part(1)?, heads)?);
        let scale = ((width / heads) as f64).powf(-0.5);
        let mixed = attention((&q, &k, &part(2)?), heads, heads, scale, &AttentionMask::full())?;
        let x = (x + self.proj.forward(&mixed)?)?;
        let h = activate(&self.linear_fc1.forward(&self.norm2.forward(&x)?)?, self.activation)?;
        Ok((x + self.linear_fc2.forward(&h)?)?)
    }
}

/// Squares of patches to vectors of the language model's width.
#[derive(Clone, Debug)]
struct Merger {
    norm: LayerNorm,
    /// The norm is of a whole square, not of each patch.
    norms_squares: bool,
    linear_fc1: Linear,
    linear_fc2: Linear,
    /// Patches of a square.
    patches: usize,
}

impl Merger {
    fn new(scope: &Scope, config: &VisionConfig, norms_squares: bool) -> Result<Self> {
        let patches = config.merge * config.merge;
        let square = config.width * patches;
        let linear = |name: &str, outs| Linear::with_init(&scope.sub(name), square, outs, true, START);
        Ok(Self {
            norm: LayerNorm::new(&scope.sub("norm"), if norms_squares { square } else { config.width }, EPS)?,
            norms_squares,
            linear_fc1: linear("linear_fc1", square)?,
            linear_fc2: linear("linear_fc2", config.out)?,
            patches,
        })
    }

    /// `x (M, N, width)` → `(M, N / merge², out)`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (images, patches, width) = x.dims3()?;
        let squares = (images, patches / self.patches, width * self.patches);
        let x = match self.norms_squares {
            true => self.norm.forward(&x.reshape(squares)?)?,
            false => self.norm.forward(x)?.reshape(squares)?,
        };
        self.linear_fc2.forward(&activate(&self.linear_fc1.forward(&x)?, Activation::GeluErf)?)
    }
}
