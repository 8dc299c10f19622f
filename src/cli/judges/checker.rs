//! The playground's exact checker as a judge: what all others are measured against.

use super::CHECKER;
use votive_critic::{Abstention, Candidate, Evidence, Finding, Form, Forms, Judge, Judgment, Question};
use votive_eval::{Outcome as Graded, grade_images, grade_texts};
use votive_playground::PlaygroundError;
use votive_playground::image::Picture;

/// Grades texts and pictures of the playground worlds by their utility.
pub(super) struct Checker;

impl Judge for Checker {
    fn name(&self) -> &str {
        CHECKER
    }

    fn forms(&self) -> Forms {
        Forms::only(Form::Grade)
    }

    fn judge(&self, question: &Question, draw: u64) -> votive_critic::Result<Judgment> {
        let graded = question.candidates().first().map(|candidate| grade(question.prompt(), candidate));
        let (finding, words) = match graded {
            Some(Ok(graded)) => {
                let part =
                    |(name, met): &(String, bool)| format!("{name} {}", if *met { "right" } else { "wrong" });
                let parts: Vec<String> = graded.parts.iter().map(part).collect();
                (Finding::Grade(graded.utility), parts.join(", "))
            }
            Some(Err(error)) => (Finding::Abstention(Abstention::Unreadable(error)), String::new()),
            None => (Finding::Abstention(Abstention::Unreadable("no candidate".to_owned())), String::new()),
        };
        Ok(Judgment::of(Evidence { words, ..Evidence::new(self.name(), question, draw, finding) }))
    }
}

fn grade(prompt: &str, candidate: &Candidate) -> Result<Graded, String> {
    let prompt = [prompt.to_owned()];
    let first = |graded: Result<Vec<Graded>, PlaygroundError>| {
        graded.map_err(|error| error.to_string())?.into_iter().next().ok_or_else(|| "nothing".to_owned())
    };
    match candidate {
        Candidate::Text(text) => first(grade_texts(&prompt, std::slice::from_ref(text))),
        Candidate::Image(picture) => {
            let pixels = picture.decode().map_err(|error| error.to_string())?;
            let (width, height) = (pixels.width() as usize, pixels.height() as usize);
            first(grade_images(&prompt, &[Picture { width, height, rgb: pixels.into_raw() }]))
        }
    }
}
