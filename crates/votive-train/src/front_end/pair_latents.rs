//! Latents of image pairs: what the frozen autoencoder makes of them, and a draw from it for every step.
//!
//! Diffusion-DPO's code encodes at every step. Here an image is encoded once for each of the ways in which it can be seen,
//! as the mean and the variance of its latents, and a step draws from these; only where images are cut at random is the
//! autoencoder asked again. Equal images, of which comparisons have many, are encoded once.

use super::Sample;
use super::encoded::{Encoded, Entry, Key, identity};
use crate::error::Result;
use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use votive_data::{
    Augmentation, AugmentationPolicy, Crop, Frame, FramedPair, ImageBytes, ImageLoader, ImageSize,
};
use votive_model::stable_diffusion::{AutoencoderKl, Component, Posterior, StableDiffusionFolder};
use votive_tensor::random::{Draws, Stream};

/// Images that go through the autoencoder at a time.
pub(crate) const ENCODE_BATCH: usize = 16;

const KIND: &str = "images";
/// What is kept of an image.
const PARTS: &[&str] = &["mean", "log_variance"];
const SIDES: usize = 2;

/// How pairs are seen, and where what was made of them is kept.
#[derive(Clone, Debug, Default)]
pub struct ImageSettings {
    /// What differs from step to step.
    pub augmentation: AugmentationPolicy,
    /// The folder in which encoded images and prompts are kept; none to keep them in memory.
    pub cache: Option<PathBuf>,
}

/// Pairs with the file that they were read from.
pub type PairsOfFile<'a> = (&'a Path, &'a [FramedPair]);

/// Image pairs of which any row can be had as latents at any step.
pub(super) struct PairLatents {
    rows: Vec<(Arc<Path>, FramedPair)>,
    /// Rows that are trained on; those after them are held out and always seen as they are.
    trained: usize,
    sizes: Vec<ImageSize>,
    policy: AugmentationPolicy,
    seed: u64,
    scaling: f64,
    loader: ImageLoader,
    /// What identifies the autoencoder.
    identity: Key,
    /// The autoencoder, if it is asked at every step.
    vae: Option<AutoencoderKl>,
    encoded: Encoded,
    device: Device,
}

/// An image of a row, as it is seen.
#[derive(Clone, Copy)]
struct View {
    row: usize,
    side: usize,
    augmentation: Augmentation,
}

impl PairLatents {
    /// Takes pairs to train on and pairs to hold out, and encodes them. `progress` hears of how many images were
    /// encoded, of how many.
    ///
    /// # Errors
    /// If an image cannot be read, or an entry of the cache is not what the autoencoder gives.
    pub(super) fn new(
        folder: &StableDiffusionFolder,
        [trained, held_out]: [PairsOfFile; 2],
        (settings, seed): (&ImageSettings, u64),
        device: &Device,
        progress: impl Fn(usize, usize),
    ) -> Result<(Self, [usize; 2])> {
        let mut rows = Vec::new();
        for (file, pairs) in [trained, held_out] {
            let file: Arc<Path> = file.into();
            rows.extend(pairs.iter().map(|pair| (Arc::clone(&file), pair.clone())));
        }
        let mut sizes: Vec<ImageSize> = rows.iter().map(|(_, pair)| pair.target).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let params = folder.params(Component::Vae, device)?;
        let vae = params.build(|scope| AutoencoderKl::new(scope, folder.vae_config()))?;
        let mut latents = Self {
            rows,
            trained: trained.1.len(),
            sizes,
            policy: settings.augmentation,
            seed,
            scaling: folder.vae_config().scaling_factor,
            loader: ImageLoader::default(),
            identity: identity(folder.vae_config(), &params)?,
            vae: None,
            encoded: Encoded::open(settings.cache.as_deref(), KIND, PARTS, device)?,
            device: device.clone(),
        };
        let counts = latents.encode_ahead(&vae, progress)?;
        latents.vae = (settings.augmentation.crop == Crop::Random).then_some(vae);
        Ok((latents, counts))
    }

    /// Encodes every view that does not differ from step to step; gives how many were encoded and how many found.
    fn encode_ahead(&mut self, vae: &AutoencoderKl, progress: impl Fn(usize, usize)) -> Result<[usize; 2]> {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for row in 0..self.rows.len() {
            for view in self.views_ahead(row) {
                let key = self.key(&view);
                if seen.insert(key) {
                    let list = if self.encoded.contains(&key) { &mut found } else { &mut missing };
                    list.push((key, view));
                }
            }
        }
        let compute = |view: &View| {
            let entry = self.encode(vae, &mut ImageBytes::new(), &[*view])?.pop();
            Ok(entry.unwrap_or_default())
        };
        self.encoded.verify(&found, compute)?;
        self.encode_missing(vae, &missing, progress)?;
        Ok([missing.len(), found.len()])
    }

    /// Encodes views of equal size together, in the order of the rows.
    fn encode_missing(
        &mut self,
        vae: &AutoencoderKl,
        missing: &[(Key, View)],
        progress: impl Fn(usize, usize),
    ) -> Result<()> {
        let mut bytes = ImageBytes::new();
        let mut waiting: BTreeMap<ImageSize, Vec<(Key, View)>> = BTreeMap::new();
        let mut done = 0;
        for (i, one) in missing.iter().enumerate() {
            let alike = waiting.entry(self.rows[one.1.row].1.target).or_default();
            alike.push(*one);
            let full = alike.len() == ENCODE_BATCH;
            let is_last = i + 1 == missing.len();
            let groups: Vec<_> = match (full, is_last) {
                (_, true) => std::mem::take(&mut waiting).into_values().collect(),
                (true, false) => vec![std::mem::take(alike)],
                (false, false) => continue,
            };
            for group in groups {
                let views: Vec<View> = group.iter().map(|(_, view)| *view).collect();
                for ((key, _), entry) in group.iter().zip(self.encode(vae, &mut bytes, &views)?) {
                    self.encoded.insert(*key, entry)?;
                }
                done += group.len();
                progress(done, missing.len());
            }
        }
        self.encoded.write()
    }

    /// The views of a row that can be encoded before any step.
    fn views_ahead(&self, row: usize) -> Vec<View> {
        let is_trained = row < self.trained;
        if is_trained && self.policy.crop == Crop::Random {
            return Vec::new();
        }
        let flips: &[bool] = if is_trained && self.policy.flip { &[false, true] } else { &[false] };
        let view = |side: usize, flip: bool| {
            let augmentation = Augmentation { flip, ..Augmentation::default() };
            View { row, side, augmentation }
        };
        (0..SIDES).flat_map(|side| flips.iter().map(move |flip| view(side, *flip))).collect()
    }

    /// What a step sees of its rows: first the chosen images, then the rejected ones.
    fn views(&self, step: u64, samples: &[Sample]) -> Vec<View> {
        let view = |side: usize, sample: &Sample| {
            let augmentation = if sample.row < self.trained {
                self.policy.draw(self.seed, step, sample.position as u64)
            } else {
                Augmentation::default()
            };
            View { row: sample.row, side, augmentation }
        };
        (0..SIDES).flat_map(|side| samples.iter().map(move |sample| view(side, sample))).collect()
    }

    fn frame(&self, view: &View) -> Frame {
        let (_, pair) = &self.rows[view.row];
        Frame::new(pair.images[view.side].size, pair.target, view.augmentation)
    }

    /// How a step cuts its images out, first the chosen ones.
    pub(super) fn frames(&self, step: u64, samples: &[Sample]) -> Vec<Frame> {
        self.views(step, samples).iter().map(|view| self.frame(view)).collect()
    }

    fn key(&self, view: &View) -> Key {
        let digest = self.rows[view.row].1.images[view.side].digest;
        let how = format!("{:?} {:?}", self.frame(view), self.loader);
        Sha256::new().chain_update(self.identity).chain_update(digest).chain_update(how).finalize().into()
    }

    /// Which rows have images of one size.
    pub(super) fn bucket(&self, row: usize) -> usize {
        self.sizes.binary_search(&self.rows[row].1.target).unwrap_or(0)
    }

    /// Latents of a step's rows in the U-Net's scale, `(2B, C, h, w)`, the chosen ones first. Which latents are drawn from
    /// an image is decided by the step and the row's place in the batch.
    ///
    /// # Errors
    /// If an image or an entry cannot be read, or the rows are not of one bucket.
    pub(super) fn draw(&self, step: u64, samples: &[Sample]) -> Result<Tensor> {
        let views = self.views(step, samples);
        let entries = match &self.vae {
            Some(vae) if samples.iter().all(|sample| sample.row < self.trained) => {
                let mut bytes = ImageBytes::new();
                let groups = views.chunks(ENCODE_BATCH).map(|views| self.encode(vae, &mut bytes, views));
                groups.collect::<Result<Vec<_>>>()?.concat()
            }
            _ => views.iter().map(|view| self.encoded.get(&self.key(view))).collect::<Result<Vec<_>>>()?,
        };
        let stack =
            |part: usize| Tensor::stack(&entries.iter().map(|entry| &entry[part]).collect::<Vec<_>>(), 0);
        let posterior = Posterior { mean: stack(0)?, log_variance: stack(1)? };
        let size: usize = posterior.mean.dims()[1..].iter().product();
        let noise: Vec<f32> = (0..views.len())
            .flat_map(|i| {
                let (side, sample) = (i / samples.len(), &samples[i % samples.len()]);
                let which = (SIDES * sample.position + side) as u64;
                Draws::new(self.seed, Stream::Posterior, step, which).normals(size)
            })
            .collect();
        let noise = Tensor::from_vec(noise, posterior.mean.shape(), posterior.mean.device())?;
        Ok((posterior.sample(&noise)? * self.scaling)?.detach())
    }

    /// What the autoencoder makes of views of equal size.
    fn encode(&self, vae: &AutoencoderKl, bytes: &mut ImageBytes, views: &[View]) -> Result<Vec<Entry>> {
        let mut images = Vec::with_capacity(views.len());
        for view in views {
            let (file, FramedPair { pair, target, .. }) = &self.rows[view.row];
            let image = self.loader.load_side(bytes, (file, pair), view.side, *target, view.augmentation)?;
            let shape = (3, target.height as usize, target.width as usize);
            images.push(Tensor::from_vec(image.pixels, shape, &self.device)?);
        }
        let posterior = vae.encode(&Tensor::stack(&images, 0)?)?;
        let parts = [posterior.mean.detach(), posterior.log_variance.detach()];
        // A copy of each row, so that an entry does not keep its whole batch in memory.
        let row = |i: usize| parts.iter().map(|part| part.get(i)?.copy()).collect();
        Ok((0..views.len()).map(row).collect::<candle_core::Result<Vec<Entry>>>()?)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The pair of a row.
    pub(super) fn pair(&self, row: usize) -> &FramedPair {
        &self.rows[row].1
    }

    /// Whether the autoencoder is asked at every step.
    pub(super) fn encodes_on_the_way(&self) -> bool {
        self.vae.is_some()
    }

    /// Numbers that are in memory while rows wait.
    pub(super) fn numbers_in_memory(&self) -> usize {
        self.encoded.numbers_in_memory()
    }
}
