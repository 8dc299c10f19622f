//! A CLIP model as a judge of images: the cosine of an image with its prompt.

use crate::cli::Outcome;
use candle_core::Device;
use std::path::Path;
use std::time::Instant;
use votive_critic::{
    Abstention, Candidate, Cost, CriticError, Evidence, Finding, Form, Forms, Judge, Judgment, Question,
};
use votive_train::reward::ClipScorer;

/// Grades images by the cosine of their embedding with their prompt's, −1 to 1.
pub(super) struct Clip {
    name: String,
    scorer: ClipScorer,
}

impl Clip {
    /// The CLIP model of a folder.
    ///
    /// # Errors
    /// If a file is missing or wrong.
    pub(super) fn open(folder: &Path, name: String, device: &Device) -> Outcome<Self> {
        Ok(Self { name, scorer: ClipScorer::open(folder, device)? })
    }
}

impl Judge for Clip {
    fn name(&self) -> &str {
        &self.name
    }

    fn forms(&self) -> Forms {
        Forms::only(Form::Grade)
    }

    fn judge(&self, question: &Question, draw: u64) -> votive_critic::Result<Judgment> {
        let started = Instant::now();
        let failed = |message: String| CriticError::Judge { judge: self.name.clone(), message };
        let unreadable = |why: String| Finding::Abstention(Abstention::Unreadable(why));
        let finding = match question.candidates().first() {
            Some(Candidate::Image(picture)) => match picture.decode() {
                Ok(pixels) => {
                    let size = (pixels.width() as usize, pixels.height() as usize);
                    let texts = self.scorer.texts(&[question.prompt()]).map_err(|e| failed(e.to_string()))?;
                    let cosines = self.scorer.cosines_of_files(&[(pixels.as_raw(), size)], &texts.embeds);
                    let cosines = cosines.map_err(|error| failed(error.to_string()))?;
                    cosines.first().map_or_else(|| unreadable("nothing".to_owned()), |c| Finding::Grade(*c))
                }
                Err(error) => unreadable(error.to_string()),
            },
            _ => unreadable("it is a text, and this judge sees images".to_owned()),
        };
        let cost = Cost { calls: 1, seconds: started.elapsed().as_secs_f64(), ..Cost::default() };
        Ok(Judgment::of(Evidence { cost, ..Evidence::new(&self.name, question, draw, finding) }))
    }
}
