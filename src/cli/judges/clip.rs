//! A CLIP folder as a judge of images: the cosine of an image with its prompt, or the points of a head on its embedding.

use super::grading::{Grade, Graded, Ungraded};
use votive_critic::Candidate;
use votive_train::reward::PictureScorer;

impl Grade for PictureScorer {
    fn grade(&self, prompt: &str, candidate: &Candidate) -> Result<Graded, Ungraded> {
        let Candidate::Image(picture) = candidate else {
            return Err(Ungraded::unreadable("it is a text, and this judge sees images"));
        };
        let pixels = picture.decode().map_err(Ungraded::unreadable)?;
        let size = (pixels.width() as usize, pixels.height() as usize);
        let grades = self.of_files(&[prompt], &[(pixels.as_raw(), size)]).map_err(Ungraded::failed)?;
        grades.first().map(|grade| Graded::number(*grade)).ok_or_else(|| Ungraded::unreadable("nothing"))
    }
}
