//! The demo's Stable Diffusion model.

use super::super::Outcome;
use super::super::image_model::ImageModel;
use super::super::labels::{Labelled, Labeller};
use super::super::world::{self, CFG, STEPS, Sampling, draw};
use super::super::world_pairs::{Drawn, save};
use super::Setting;
use super::rounds::Learner;
use serde_json::json;
use std::path::{Path, PathBuf};
use votive_critic::Candidate;
use votive_eval::{Outcome as Graded, grade_images};
use votive_gallery::{Settings, Side};
use votive_playground::Split;
use votive_playground::image::{Picture, prompts};

/// All captions that are kept for testing, if there are no more.
const TEST_PROMPTS: usize = 340;

/// Draws captions of the playground.
pub(super) struct Painter<'a> {
    setting: &'a Setting<'a>,
    tests: Vec<String>,
    sampling: Sampling,
}

impl<'a> Painter<'a> {
    pub(super) fn new(setting: &'a Setting<'a>) -> Self {
        Self {
            setting,
            tests: prompts(Split::Test, setting.seed, TEST_PROMPTS),
            sampling: Sampling { steps: STEPS, cfg: CFG, seed: setting.seed << 32 },
        }
    }

    fn path(&self, i: usize, is_aligned: bool) -> PathBuf {
        let side = if is_aligned { "aligned" } else { "base" };
        self.setting.out.join(format!("samples/{i:04}-{side}.png"))
    }
}

impl Learner for Painter<'_> {
    type Model = ImageModel;
    type Answers = Vec<Picture>;

    const RECIPE: &'static str = include_str!("../../../examples/recipes/image/dpo.toml");

    fn load(&self, folder: &Path) -> Outcome<ImageModel> {
        ImageModel::load(folder, None, &self.setting.ctx.device()?)
    }

    fn label(
        &self,
        model: &ImageModel,
        (labeller, flipped): (&Labeller, f64),
        seed: u64,
        out: &Path,
    ) -> Outcome<Labelled> {
        let ctx = self.setting.ctx;
        let drawn = Drawn::draw(model, seed, ctx)?;
        drawn.label((labeller, &drawn.utilities(labeller, ctx)?), flipped, out, ctx)
    }

    fn tests(&self) -> &[String] {
        &self.tests
    }

    fn first_test_seed(&self) -> u64 {
        self.sampling.seed
    }

    fn settings(&self) -> Settings {
        [("sampler".to_owned(), json!("ddim")), ("sampling".to_owned(), json!(self.sampling))].into()
    }

    fn answer(&self, model: &ImageModel) -> Outcome<Vec<Picture>> {
        draw(model, &self.tests, self.sampling, self.setting.ctx)
    }

    fn grade(&self, answers: &Vec<Picture>) -> Outcome<Vec<Graded>> {
        Ok(grade_images(&self.tests, answers)?)
    }

    fn candidates(&self, answers: &Vec<Picture>) -> Outcome<Vec<Candidate>> {
        world::candidates(answers)
    }

    fn show(&self, i: usize, is_aligned: bool, _: &Vec<Picture>) -> Side {
        let path = self.path(i, is_aligned);
        let relative = path.strip_prefix(self.setting.root).unwrap_or(&path);
        Side { image: Some(relative.to_string_lossy().into_owned()), ..Side::default() }
    }

    fn save(&self, shown: usize, before: &Vec<Picture>, after: &Vec<Picture>) -> Outcome {
        for (i, (before, after)) in before.iter().zip(after).enumerate().take(shown) {
            save(before, &self.path(i, false))?;
            save(after, &self.path(i, true))?;
        }
        Ok(())
    }
}
