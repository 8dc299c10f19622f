//! What is measured of a model that draws the playground's captions.

use crate::cli::image_model::{ImageModel, as_network};
use crate::cli::world::{CFG, STEPS, Sampling, draw_against};
use crate::cli::{Context, Outcome};
use serde::{Deserialize, Serialize};
use votive_eval::grade_images;
use votive_playground::Split;
use votive_playground::image::{Picture, prompts};

/// Captions whose pictures are drawn several times, to see how different they are.
const REPEATED: usize = 40;
const REPEATS: usize = 4;

/// Which captions are drawn, with which seeds.
pub(super) struct Evaluation {
    pub(super) seed: u64,
    pub(super) prompts: usize,
    pub(super) select: bool,
}

/// The scores of a method with one seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) method: String,
    pub(super) seed: u64,
    /// Wall time of training and evaluation.
    pub(super) seconds: f64,
    /// Share of right labels, points of 100, if it was trained on labels of its own.
    #[serde(default)]
    pub(super) labels_right: Option<f64>,
    #[serde(flatten)]
    pub(super) scores: Scores,
}

/// What the exact checker says of all captions, and how different pictures of one caption are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Scores {
    /// The category of each caption.
    pub(super) categories: Vec<String>,
    /// Whether each picture is exactly what its caption says.
    pub(super) exact: Vec<bool>,
    /// Mean of what is faded, blurred or stained, 0 to 1.
    pub(super) ugliness: f64,
    /// Root mean square distance of the pixels of two pictures of one caption, 0 to 1.
    pub(super) diversity: f64,
}

/// Draws held-out captions and grades the pictures; `negative` predicts what guidance leads away from.
pub(super) fn measure(
    model: &ImageModel,
    negative: Option<&ImageModel>,
    evaluation: &Evaluation,
    ctx: &Context,
) -> Outcome<Scores> {
    let split = if evaluation.select { Split::Select } else { Split::Test };
    let captions = prompts(split, evaluation.seed, evaluation.prompts);
    let negative = negative.map(|negative| as_network(&negative.unet));
    let against = negative.as_ref().map(|network| network as _);
    let sampling = Sampling { steps: STEPS, cfg: CFG, seed: evaluation.seed << 32 };
    let graded = grade_images(&captions, &draw_against(model, against, &captions, sampling, ctx)?)?;
    let repeated: Vec<String> =
        captions.iter().take(REPEATED).flat_map(|caption| vec![caption.clone(); REPEATS]).collect();
    let again = Sampling { seed: sampling.seed + (1 << 21), ..sampling };
    let pictures = draw_against(model, against, &repeated, again, ctx)?;
    let ugliness = graded.iter().filter_map(|one| one.ugliness).sum::<f64>() / graded.len().max(1) as f64;
    Ok(Scores {
        exact: graded.iter().map(|one| one.exact).collect(),
        categories: graded.into_iter().map(|one| one.category).collect(),
        ugliness,
        diversity: diversity(&pictures),
    })
}

/// Mean over captions and pairs of their pictures.
fn diversity(pictures: &[Picture]) -> f64 {
    let mut distances = Vec::new();
    for alike in pictures.chunks(REPEATS) {
        for (i, one) in alike.iter().enumerate() {
            distances.extend(alike[i + 1..].iter().map(|other| distance(one, other)));
        }
    }
    distances.iter().sum::<f64>() / distances.len().max(1) as f64
}

fn distance(one: &Picture, other: &Picture) -> f64 {
    let squares = one.rgb.iter().zip(&other.rgb).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    (squares.sum::<f64>() / one.rgb.len().max(1) as f64).sqrt() / 255.0
}
