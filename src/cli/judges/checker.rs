//! The playground's exact checker as a judge: what all others are measured against.

use super::grading::{Grade, Graded, Ungraded};
use votive_critic::Candidate;
use votive_eval::{Outcome, grade_images, grade_texts};
use votive_playground::PlaygroundError;
use votive_playground::image::Picture;

/// Grades texts and pictures of the playground worlds by their utility.
pub(super) struct Checker;

impl Grade for Checker {
    fn grade(&self, prompt: &str, candidate: &Candidate) -> Result<Graded, Ungraded> {
        let Outcome { utility, parts, .. } = checked(prompt, candidate)?;
        let part = |(name, met): &(String, bool)| format!("{name} {}", if *met { "right" } else { "wrong" });
        let words = parts.iter().map(part).collect::<Vec<_>>().join(", ");
        Ok(Graded { words, ..Graded::number(utility) })
    }
}

fn checked(prompt: &str, candidate: &Candidate) -> Result<Outcome, Ungraded> {
    let prompt = [prompt.to_owned()];
    let first = |graded: Result<Vec<Outcome>, PlaygroundError>| {
        let graded = graded.map_err(Ungraded::unreadable)?;
        graded.into_iter().next().ok_or_else(|| Ungraded::unreadable("nothing"))
    };
    match candidate {
        Candidate::Text(text) => first(grade_texts(&prompt, std::slice::from_ref(text))),
        Candidate::Image(picture) => {
            let pixels = picture.decode().map_err(Ungraded::unreadable)?;
            let (width, height) = (pixels.width() as usize, pixels.height() as usize);
            first(grade_images(&prompt, &[Picture { width, height, rgb: pixels.into_raw() }]))
        }
    }
}
