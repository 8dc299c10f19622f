//! What the playground's exact checkers say of generated texts and images.

use crate::gain::{Gain, paired_gain};
use serde::Serialize;
use std::collections::BTreeMap;
use votive_playground::image::{self, Picture};
use votive_playground::{PlaygroundError, text};

/// The checker's verdict on one text or image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// What kind of prompt it was.
    pub category: String,
    /// Every constraint (or part) of the prompt and whether it is met.
    pub parts: Vec<(String, bool)>,
    /// Whether all are met.
    pub exact: bool,
    /// Share that is met.
    pub part: f64,
    /// What a labeller would rank by: larger is better.
    pub utility: f64,
    /// How faded, blurred or stained an image is, 0 to 1; none for texts.
    pub ugliness: Option<f64>,
}

/// Grades answers to prompts of the text world.
///
/// # Errors
/// If a prompt is not one of the world's.
pub fn grade_texts(prompts: &[String], answers: &[String]) -> Result<Vec<Outcome>, PlaygroundError> {
    let grade = |(prompt, answer): (&String, &String)| {
        let verdict = text::check(prompt, answer)?;
        Ok(Outcome {
            category: format!("{:?}", verdict.family).to_lowercase(),
            parts: verdict.constraints.iter().map(|(name, met)| ((*name).to_owned(), *met)).collect(),
            exact: verdict.exact,
            part: verdict.part,
            utility: verdict.part,
            ugliness: None,
        })
    };
    prompts.iter().zip(answers).map(grade).collect()
}

/// Grades pictures of captions of the image world.
///
/// # Errors
/// If a caption is not one of the world's, or a picture does not have the world's size.
pub fn grade_images(captions: &[String], pictures: &[Picture]) -> Result<Vec<Outcome>, PlaygroundError> {
    let grade = |(caption, picture): (&String, &Picture)| {
        let verdict = image::check(caption, picture)?;
        let always = [
            ("object", Some(verdict.object)),
            ("colour", Some(verdict.colour)),
            ("count", Some(verdict.count)),
            ("relation", verdict.relation),
            ("size", verdict.size),
            ("background", Some(verdict.background)),
        ];
        Ok(Outcome {
            category: format!("{:?}", verdict.category).to_lowercase(),
            parts: always.into_iter().filter_map(|(name, met)| Some((name.to_owned(), met?))).collect(),
            exact: verdict.exact,
            part: verdict.part,
            utility: verdict.utility,
            ugliness: Some(verdict.ugliness),
        })
    };
    captions.iter().zip(pictures).map(grade).collect()
}

/// The gain in exactness over all prompts (first, under the empty name) and in every category, ordered by name.
#[must_use]
pub fn by_category(base: &[Outcome], aligned: &[Outcome], seed: u64) -> Vec<(String, Gain)> {
    let mut groups: BTreeMap<&str, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for (before, after) in base.iter().zip(aligned) {
        for name in ["", &before.category] {
            let (base, aligned) = groups.entry(name).or_default();
            base.push(f64::from(u8::from(before.exact)));
            aligned.push(f64::from(u8::from(after.exact)));
        }
    }
    groups
        .into_iter()
        .map(|(name, (base, aligned))| (name.to_owned(), paired_gain(&base, &aligned, seed)))
        .collect()
}
