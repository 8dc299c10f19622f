//! Adds to preference pairs of the text world what methods read beyond the label: scores, a margin and an uncertainty.
//!
//! ```text
//! cargo run --release --example judge_pairs -- examples/data/text-pairs.jsonl 160 > examples/data/text-judged.jsonl
//! ```
//!
//! The exact checker finds the share of a prompt's wishes that each answer meets. Five judges look at the difference, each
//! in their own way sure of it: judge k prefers the first answer with probability `σ(difference/τ_k)`. A completion's score is its
//! win rate against the two of its pair, itself included (a tie); the margin is the difference of the two; the uncertainty is
//! what the judges' identity says of the verdict (mutual information, nats). The better one is called chosen.

#![expect(clippy::print_stdout, reason = "an example writes to its user")]

use serde_json::json;
use votive::data::{PairText, read_pairs};
use votive::eval::grade_texts;

/// How large a difference must be for each judge to be sure.
const JUDGES: [f64; 5] = [0.1, 0.2, 0.4, 0.8, 1.6];

fn entropy(p: f64) -> f64 {
    let term = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
    term(p) + term(1.0 - p)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("give a file of pairs and the number of rows")?;
    let rows: usize = arguments.next().ok_or("give the number of rows")?.parse()?;
    let pairs = read_pairs(file.as_ref())?.rows;
    let mut written = 0;
    for pair in pairs {
        let PairText::Plain { prompt, chosen, rejected } = pair.text else { continue };
        let grades = grade_texts(&[prompt.clone(), prompt.clone()], &[chosen.clone(), rejected.clone()])?;
        let difference = grades[0].utility - grades[1].utility;
        if difference == 0.0 || written == rows {
            continue;
        }
        let (better, worse) = if difference > 0.0 { (chosen, rejected) } else { (rejected, chosen) };
        let verdicts = JUDGES.map(|tau| 1.0 / (1.0 + (-difference.abs() / tau).exp()));
        let mean = |of: fn(f64) -> f64| verdicts.iter().map(|p| of(*p)).sum::<f64>() / JUDGES.len() as f64;
        let wins = mean(|p| p);
        let round = |x: f64| (x * 1e4).round() / 1e4;
        let (score_chosen, score_rejected) = (round(0.25 + wins / 2.0), round(0.75 - wins / 2.0));
        let row = json!({
            "prompt": prompt,
            "chosen": better,
            "rejected": worse,
            "score_chosen": score_chosen,
            "score_rejected": score_rejected,
            "margin": round(score_chosen - score_rejected),
            "uncertainty": round(entropy(wins) - mean(entropy)),
        });
        println!("{row}");
        written += 1;
    }
    Ok(())
}
