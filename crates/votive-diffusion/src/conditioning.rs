//! What a denoiser is told about the pictures of a batch.
//!
//! Source: Rombach et al., arXiv:2112.10752, Sec. 3.3 (attention to the prompt); Podell et al., "SDXL", arXiv:2307.01952,
//! Sec. 2.1 and 2.2 (pooled prompt; original size, crop and target size). Names are those of diffusers' pipelines.

use candle_core::{Device, Tensor};

use crate::error::{DiffusionError, Result};

/// The sizes that SDXL is told of a picture, each down and across.
///
/// # Units
/// Pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSizes {
    /// Height and width before the picture was scaled.
    pub original: (u32, u32),
    /// Top and left of what was cut out of the scaled picture.
    pub crop: (u32, u32),
    /// Height and width of what was cut out, or is to be drawn.
    pub target: (u32, u32),
}

impl ImageSizes {
    /// A picture that was neither scaled nor cut.
    #[must_use]
    pub fn whole(height: u32, width: u32) -> Self {
        Self { original: (height, width), crop: (0, 0), target: (height, width) }
    }

    /// How many numbers a network is told (`time_ids` in diffusers).
    pub const COUNT: usize = 6;

    fn numbers(&self) -> [f32; Self::COUNT] {
        let Self { original, crop, target } = self;
        [original.0, original.1, crop.0, crop.1, target.0, target.1].map(|pixels| pixels as f32)
    }
}

/// The prompt of each row, and for networks that take them a pooled prompt and sizes.
#[derive(Clone, Debug)]
pub struct Conditioning {
    prompt_embeds: Tensor,
    pooled: Option<Tensor>,
    time_ids: Option<Tensor>,
}

impl Conditioning {
    /// Prompts alone, all that Stable Diffusion 1 and 2 are told.
    ///
    /// # Shapes
    /// `prompt_embeds (B,S,D)`
    /// # Errors
    /// [`DiffusionError::Shape`]
    pub fn new(prompt_embeds: Tensor) -> Result<Self> {
        if prompt_embeds.rank() != 3 {
            return Err(DiffusionError::shape("prompt embeddings", "(B,S,D)", prompt_embeds.dims()));
        }
        Ok(Self { prompt_embeds, pooled: None, time_ids: None })
    }

    /// The same with each prompt in one vector too (`text_embeds` in diffusers).
    ///
    /// # Shapes
    /// `pooled (B,P)`
    /// # Errors
    /// [`DiffusionError::Shape`]
    pub fn with_pooled(mut self, pooled: Tensor) -> Result<Self> {
        self.check_rows("pooled prompt embeddings", &pooled)?;
        self.pooled = Some(pooled);
        Ok(self)
    }

    /// The same with the sizes of each picture.
    ///
    /// # Errors
    /// [`DiffusionError::Shape`] if there are not as many as rows.
    pub fn with_sizes(self, sizes: &[ImageSizes]) -> Result<Self> {
        let numbers: Vec<f32> = sizes.iter().flat_map(ImageSizes::numbers).collect();
        let time_ids = Tensor::from_vec(numbers, (sizes.len(), ImageSizes::COUNT), &Device::Cpu)?;
        let time_ids =
            time_ids.to_device(self.prompt_embeds.device())?.to_dtype(self.prompt_embeds.dtype())?;
        self.with_time_ids(time_ids)
    }

    /// The same with the sizes as a network is told them, in the order of [`ImageSizes`].
    ///
    /// # Shapes
    /// `time_ids (B,6)`
    /// # Units
    /// Pixels.
    /// # Errors
    /// [`DiffusionError::Shape`]
    pub fn with_time_ids(mut self, time_ids: Tensor) -> Result<Self> {
        self.check_rows("time ids", &time_ids)?;
        self.time_ids = Some(time_ids);
        Ok(self)
    }

    fn check_rows(&self, what: &'static str, found: &Tensor) -> Result<()> {
        match found.dims() {
            [rows, _] if *rows == self.rows() => Ok(()),
            dims => Err(DiffusionError::Shape {
                what,
                expected: format!("({}, numbers)", self.rows()),
                found: format!("{dims:?}"),
            }),
        }
    }

    /// B, the number of pictures.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.prompt_embeds.dims()[0]
    }

    /// `(B,S,D)`: what the network attends to.
    #[must_use]
    pub fn prompt_embeds(&self) -> &Tensor {
        &self.prompt_embeds
    }

    /// `(B,P)`: each prompt in one vector.
    #[must_use]
    pub fn pooled(&self) -> Option<&Tensor> {
        self.pooled.as_ref()
    }

    /// `(B,6)`: the sizes.
    #[must_use]
    pub fn time_ids(&self) -> Option<&Tensor> {
        self.time_ids.as_ref()
    }

    /// Numbers of all rows together.
    #[must_use]
    pub fn elem_count(&self) -> usize {
        self.parts().into_iter().flatten().map(Tensor::elem_count).sum()
    }

    fn parts(&self) -> [Option<&Tensor>; 3] {
        [Some(&self.prompt_embeds), self.pooled(), self.time_ids()]
    }

    /// Every part put through `change`.
    fn map(&self, change: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        Ok(Self {
            prompt_embeds: change(&self.prompt_embeds)?,
            pooled: self.pooled.as_ref().map(&change).transpose()?,
            time_ids: self.time_ids.as_ref().map(&change).transpose()?,
        })
    }

    /// `len` rows from `start` on.
    ///
    /// # Errors
    /// If there are not so many.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        self.map(|part| part.narrow(0, start, len))
    }

    /// The rows of all, one after another.
    ///
    /// # Errors
    /// [`DiffusionError::Shape`] if there are none, or they are not of the same parts and widths.
    pub fn cat(all: &[&Self]) -> Result<Self> {
        let Some(first) = all.first() else {
            return Err(DiffusionError::shape("conditionings to put together", "one at least", 0));
        };
        for other in all {
            first.check_widths("conditionings to put together", other)?;
        }
        let part = |read: fn(&Self) -> Option<&Tensor>| -> Result<Option<Tensor>> {
            let parts: Vec<&Tensor> = all.iter().filter_map(|each| read(each)).collect();
            Ok(if parts.is_empty() { None } else { Some(Tensor::cat(&parts, 0)?) })
        };
        let prompts: Vec<&Tensor> = all.iter().map(|each| &each.prompt_embeds).collect();
        Ok(Self {
            prompt_embeds: Tensor::cat(&prompts, 0)?,
            pooled: part(Self::pooled)?,
            time_ids: part(Self::time_ids)?,
        })
    }

    /// This with as many rows as `other`, if it has one or as many, and the same parts and widths.
    ///
    /// # Errors
    /// [`DiffusionError::Shape`]
    pub fn like_rows(&self, what: &'static str, other: &Self) -> Result<Self> {
        other.check_widths(what, self)?;
        let rows = other.rows();
        if self.rows() == rows {
            return Ok(self.clone());
        }
        if self.rows() != 1 {
            return Err(DiffusionError::shape(what, other.shape(), self.shape()));
        }
        self.map(|part| {
            let mut dims = part.dims().to_vec();
            dims[0] = rows;
            part.broadcast_as(dims)?.contiguous()
        })
    }

    /// Zeros in every part: what SDXL is told instead of an empty negative prompt.
    ///
    /// # Errors
    /// Those of candle.
    pub fn zeros_like(&self) -> Result<Self> {
        self.map(Tensor::zeros_like)
    }

    /// The same without the graph that it came from.
    #[must_use]
    pub fn detach(&self) -> Self {
        let detach = |part: &Tensor| part.detach();
        Self {
            prompt_embeds: detach(&self.prompt_embeds),
            pooled: self.pooled.as_ref().map(detach),
            time_ids: self.time_ids.as_ref().map(detach),
        }
    }

    fn check_widths(&self, what: &'static str, found: &Self) -> Result<()> {
        let widths = |each: &Self| each.parts().map(|part| part.map(|part| part.dims()[1..].to_vec()));
        if widths(self) == widths(found) {
            return Ok(());
        }
        Err(DiffusionError::shape(what, self.shape(), found.shape()))
    }

    /// The shapes of the parts that there are.
    fn shape(&self) -> Vec<&[usize]> {
        self.parts().into_iter().flatten().map(Tensor::dims).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn prompts(rows: usize, value: f32) -> Conditioning {
        Conditioning::new(Tensor::full(value, (rows, 2, 3), &Device::Cpu).unwrap()).unwrap()
    }

    fn sized(rows: usize, value: f32) -> Conditioning {
        let part = |width: usize| Tensor::full(value, (rows, width), &Device::Cpu).unwrap();
        prompts(rows, value).with_pooled(part(4)).unwrap().with_time_ids(part(6)).unwrap()
    }

    /// The first number of every row of every part.
    fn firsts(conditioning: &Conditioning) -> Vec<Vec<f32>> {
        let first = |part: &Tensor| part.flatten_from(1).unwrap().narrow(1, 0, 1).unwrap();
        conditioning
            .parts()
            .into_iter()
            .flatten()
            .map(|part| first(part).flatten_all().unwrap().to_vec1().unwrap())
            .collect()
    }

    #[test]
    fn all_parts_go_together() {
        let both = Conditioning::cat(&[&sized(1, 1.0), &sized(2, 2.0)]).unwrap();
        assert_eq!(both.rows(), 3);
        assert_eq!(firsts(&both), vec![vec![1.0, 2.0, 2.0]; 3]);
        assert_eq!(firsts(&both.narrow(1, 2).unwrap()), vec![vec![2.0, 2.0]; 3]);
        let four = sized(1, 5.0).like_rows("negative prompts", &sized(4, 1.0)).unwrap();
        assert_eq!(firsts(&four), vec![vec![5.0; 4]; 3]);
        assert_eq!(both.elem_count(), 3 * (2 * 3 + 4 + 6));
    }

    #[test]
    fn sizes_are_told_down_before_across() {
        let sizes =
            [ImageSizes { original: (300, 200), crop: (7, 0), target: (64, 48) }, ImageSizes::whole(64, 48)];
        let told = prompts(2, 1.0).with_sizes(&sizes).unwrap();
        assert_eq!(
            told.time_ids().unwrap().to_vec2::<f32>().unwrap(),
            [[300.0, 200.0, 7.0, 0.0, 64.0, 48.0], [64.0, 48.0, 0.0, 0.0, 64.0, 48.0]]
        );
        assert!(prompts(3, 1.0).with_sizes(&sizes).is_err());
        assert_eq!(firsts(&sized(1, 5.0).zeros_like().unwrap()), vec![vec![0.0]; 3]);
    }

    #[test]
    fn what_a_model_does_not_take_is_not_there() {
        let both = Conditioning::cat(&[&prompts(1, 1.0), &prompts(1, 2.0)]).unwrap();
        assert!(both.pooled().is_none() && both.time_ids().is_none());
        assert_eq!(firsts(&both), [vec![1.0, 2.0]]);
    }

    #[test]
    fn parts_that_do_not_fit_are_named() {
        let message = |result: Result<Conditioning>| result.unwrap_err().to_string();
        let flat = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(
            message(Conditioning::new(flat.clone())),
            "prompt embeddings: expected \"(B,S,D)\", found [2, 3]"
        );
        assert_eq!(
            message(prompts(1, 0.0).with_pooled(flat.clone())),
            "pooled prompt embeddings: expected (1, numbers), found [2, 3]"
        );
        assert!(message(prompts(1, 0.0).with_time_ids(flat)).starts_with("time ids: "));
        assert_eq!(
            message(Conditioning::cat(&[&sized(1, 0.0), &prompts(1, 0.0)])),
            "conditionings to put together: expected [[1, 2, 3], [1, 4], [1, 6]], found [[1, 2, 3]]"
        );
        assert!(Conditioning::cat(&[]).is_err());
        assert_eq!(
            message(prompts(3, 0.0).like_rows("negative prompts", &prompts(2, 0.0))),
            "negative prompts: expected [[2, 2, 3]], found [[3, 2, 3]]"
        );
    }
}
