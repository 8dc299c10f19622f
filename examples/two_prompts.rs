//! Pairs of prompts for one answer, as MAPL (arXiv:2505.12845) trains on: it keeps all instructions of the one and breaks one of
//! the other. Whether it does is counted and not assumed.
//!
//! ```text
//! cargo run --release --example two_prompts -- examples/data/text-pairs.jsonl 160 > examples/data/text-two-prompts.jsonl
//! ```

#![expect(clippy::print_stdout, reason = "an example writes to its user")]

use serde_json::json;
use votive::data::{PairText, read_pairs};
use votive::tensor::random::{Draws, Stream};

/// An instruction that can be checked.
#[derive(Clone, Debug, PartialEq)]
enum Instruction {
    AtMost(usize),
    AtLeast(usize),
    Mention(String),
    Avoid(String),
}

fn words(answer: &str) -> Vec<String> {
    let is_kept = |c: char| c.is_alphanumeric() || c == '\'';
    answer.split_whitespace().map(|word| word.to_lowercase().replace(|c| !is_kept(c), "")).collect()
}

impl Instruction {
    fn text(&self) -> String {
        match self {
            Self::AtMost(n) => format!("Use at most {n} words."),
            Self::AtLeast(n) => format!("Use at least {n} words."),
            Self::Mention(word) => format!("Include {word}."),
            Self::Avoid(word) => format!("Never say {word}."),
        }
    }

    fn is_kept_by(&self, answer: &str) -> bool {
        let words = words(answer);
        match self {
            Self::AtMost(n) => words.len() <= *n,
            Self::AtLeast(n) => words.len() >= *n,
            Self::Mention(word) => words.contains(word),
            Self::Avoid(word) => !words.contains(word),
        }
    }

    /// One instruction that an answer keeps and one of the same kind that it breaks.
    fn draw(draws: &mut Draws, answer: &str, others: &[String]) -> [Self; 2] {
        let words = words(answer);
        let own = words[draws.below(words.len())].clone();
        let absent: Vec<&String> = others.iter().filter(|word| !words.contains(word)).collect();
        let absent = absent[draws.below(absent.len())].clone();
        let (few, many) = (words.len().saturating_sub(1 + draws.below(3)).max(1), words.len());
        let many = many + draws.below(3);
        match draws.below(4) {
            0 if few < words.len() => [Self::AtMost(many), Self::AtMost(few)],
            1 => [Self::AtLeast(few), Self::AtLeast(words.len() + 1)],
            2 => [Self::Mention(own), Self::Mention(absent)],
            _ => [Self::Avoid(absent), Self::Avoid(own)],
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("give a file of pairs and the number of rows")?;
    let rows: usize = arguments.next().ok_or("give the number of rows")?.parse()?;
    let pairs = read_pairs(file.as_ref())?.rows;
    let texts = || {
        pairs.iter().filter_map(|pair| match &pair.text {
            PairText::Plain { prompt, chosen, .. } => Some((prompt, chosen)),
            _ => None,
        })
    };
    let mut vocabulary: Vec<String> = texts().flat_map(|(_, answer)| words(answer)).collect();
    vocabulary.sort_unstable();
    vocabulary.dedup();
    for (index, (prompt, answer)) in texts().take(rows).enumerate() {
        let mut draws = Draws::new(5, Stream::World, 64, index as u64);
        let [first, _] = Instruction::draw(&mut draws, answer, &vocabulary);
        let [kept, broken] = loop {
            let drawn = Instruction::draw(&mut draws, answer, &vocabulary);
            if drawn[0] != first {
                break drawn;
            }
        };
        let with = |last: &Instruction| format!("{} {} {}\n", prompt.trim_end(), first.text(), last.text());
        if !(first.is_kept_by(answer) && kept.is_kept_by(answer) && !broken.is_kept_by(answer)) {
            return Err(format!("{first:?} {kept:?} {broken:?}: {answer}").into());
        }
        let row =
            json!({"prompt_chosen": with(&kept), "prompt_rejected": with(&broken), "completion": answer});
        println!("{row}");
    }
    Ok(())
}
