//! Lists of answers to instructions of the text world with the exact checker's scores, for methods that compare whole lists.
//!
//! ```text
//! cargo run --release --example list_answers -- 160 > examples/data/text-lists.jsonl
//! ```
//!
//! Of every training prompt one answer follows the instruction, the others were flawed on purpose, and none stands twice.
//! A score is the share of the prompt's wishes that an answer meets, so two may have the same.

#![expect(clippy::print_stdout, reason = "an example writes to its user")]

use serde_json::json;
use votive::eval::grade_texts;
use votive::playground::Split;
use votive::playground::text::prompts;
use votive::tensor::random::{Draws, Stream};

/// Answers of a list at most.
const ANSWERS: usize = 4;
const SEED: u64 = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows: usize = std::env::args().nth(1).ok_or("give the number of rows")?.parse()?;
    let mut written = 0;
    for (index, task) in prompts(Split::Train, SEED, 2 * rows).into_iter().enumerate() {
        let mut draws = Draws::new(SEED, Stream::Flaw, 0, index as u64);
        let mut answers: Vec<String> = (0..ANSWERS).map(|i| task.answer(&mut draws, i > 0)).collect();
        answers.sort_unstable();
        answers.dedup();
        draws.shuffle(&mut answers);
        let grades = grade_texts(&vec![task.prompt(); answers.len()], &answers)?;
        let scores: Vec<f64> = grades.iter().map(|grade| (grade.utility * 1e4).round() / 1e4).collect();
        // A list of three or four in which something is better than something else.
        if answers.len() < 3 || scores.iter().all(|score| *score == scores[0]) || written == rows {
            continue;
        }
        println!("{}", json!({"prompt": task.prompt(), "completions": answers, "scores": scores}));
        written += 1;
    }
    Ok(())
}
