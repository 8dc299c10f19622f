//! Makes a store of pairs to practise comparing on: `practice_store FILE [PAIRS]`.
//!
//! Every pair has a square of the right colour and one of a wrong one, or a sum that is right and one that is not; so each is
//! a gold item, and the page of results says how often people are right.

use std::path::Path;

use image::{Rgb, RgbImage};
use serde_json::json;
use votive_critic::{Candidate, Picture, Question, Store};

const COLOURS: [(&str, [u8; 3]); 4] =
    [("red", [200, 40, 40]), ("green", [40, 150, 60]), ("blue", [50, 80, 200]), ("yellow", [220, 190, 40])];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("usage: practice_store FILE [PAIRS]")?;
    let pairs: usize = arguments.next().map_or(Ok(24), |pairs| pairs.parse())?;
    let mut store = Store::open(Path::new(&file))?;
    for i in 0..pairs {
        let (prompt, right, wrong) = if i % 3 == 2 { sum(i) } else { square(i)? };
        let is_first_right = i % 2 == 0;
        let (first, second) = if is_first_right { (right, wrong) } else { (wrong, right) };
        let truth = if is_first_right { "first" } else { "second" };
        store.add(&Question::pair(prompt, first, second), &json!({ "truth": truth, "number": i }))?;
    }
    Ok(())
}

/// Two squares on grounds that tell the pairs apart.
fn square(i: usize) -> Result<(String, Candidate, Candidate), Box<dyn std::error::Error>> {
    let draw = |colour: usize| -> Result<Candidate, Box<dyn std::error::Error>> {
        let ground = Rgb([230 - (i / 16) as u8, 230, 220 + (i % 16) as u8]);
        let is_inside = |x: u32, y: u32| (8..24).contains(&x) && (8..24).contains(&y);
        let pixel = |x, y| if is_inside(x, y) { Rgb(COLOURS[colour % COLOURS.len()].1) } else { ground };
        Ok(Candidate::Image(Picture::of_pixels(&RgbImage::from_fn(32, 32, pixel))?))
    };
    Ok((format!("a {} square ({i})", COLOURS[i % COLOURS.len()].0), draw(i)?, draw(i + 1)?))
}

/// A sum with the right and a wrong result.
fn sum(i: usize) -> (String, Candidate, Candidate) {
    let text = |result: usize| Candidate::Text(format!("It is {result}."));
    (format!("What is {i} + {}?", i + 3), text(2 * i + 3), text(2 * i + 4))
}
