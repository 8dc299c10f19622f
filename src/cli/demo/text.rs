//! The demo's language model.

use super::super::Outcome;
use super::super::labels::best_against_worst;
use super::super::text_model::TextModel;
use super::super::world::{Decoding, answer, as_prompt};
use super::super::world_pairs::FLIPPED;
use super::{Setting, align, report};
use serde_json::json;
use votive_data::{PreferencePair, write_text_pairs};
use votive_eval::grade_texts;
use votive_gallery::{Labels, ModalityReport, Side};
use votive_playground::{Split, text};

/// The recipe, as it is shipped.
const RECIPE: &str = include_str!("../../../examples/recipes/text/dpo.toml");
const TRAINING_PROMPTS: usize = 3000;
const SAMPLES_PER_PROMPT: usize = 4;
const TEST_PROMPTS: usize = 600;
/// Samples for labels are drawn as the model is, so that its mistakes show.
const LABEL_TEMPERATURE: f64 = 1.0;
const TEST_TEMPERATURE: f64 = 0.7;

pub(super) fn run(setting: &Setting) -> Outcome<ModalityReport> {
    let ctx = setting.ctx;
    let device = ctx.device()?;
    let base = TextModel::load(&setting.model, None, &device)?;
    let instructions = |split, n| -> Vec<String> {
        text::prompts(split, setting.seed, n).iter().map(text::Task::prompt).collect()
    };
    let prompts = instructions(Split::Train, TRAINING_PROMPTS);
    let repeated: Vec<String> = prompts.iter().flat_map(|p| vec![p.clone(); SAMPLES_PER_PROMPT]).collect();
    let answers =
        answer(&base, &repeated, Decoding { temperature: LABEL_TEMPERATURE, seed: setting.seed }, ctx)?;
    let graded = grade_texts(&repeated, &answers)?;
    let labels = best_against_worst(&graded, SAMPLES_PER_PROMPT, FLIPPED, setting.seed);
    let answer_of = |prompt: usize, sample: usize| answers[prompt * SAMPLES_PER_PROMPT + sample].clone();
    // An answer that never ended is empty here; there is nothing in it to train on.
    let ended = labels.iter().filter(|label| {
        [label.chosen, label.rejected].iter().all(|sample| !answer_of(label.prompt, *sample).is_empty())
    });
    let pairs: Vec<PreferencePair> = ended
        .enumerate()
        .map(|(i, label)| {
            let (chosen, rejected) =
                (answer_of(label.prompt, label.chosen), answer_of(label.prompt, label.rejected));
            PreferencePair::plain(i + 1, as_prompt(&prompts[label.prompt]), chosen, rejected)
        })
        .collect();
    let file = setting.out.join("pairs.jsonl");
    write_text_pairs(&file, &pairs)?;
    let unended = labels.len() - pairs.len();
    ctx.output.note(format!(
        "{} labelled pairs in {}; {unended} without an end left out",
        pairs.len(),
        file.display()
    ));
    let run = align(RECIPE, setting, &file)?;
    let aligned = TextModel::load(&run.final_folder(), None, &device)?;
    let tests = instructions(Split::Test, TEST_PROMPTS);
    let decoding = Decoding { temperature: TEST_TEMPERATURE, seed: setting.seed + 1 };
    let (before, after) = (answer(&base, &tests, decoding, ctx)?, answer(&aligned, &tests, decoding, ctx)?);
    let grades = (grade_texts(&tests, &before)?, grade_texts(&tests, &after)?);
    let content = |i: usize, is_aligned: bool| {
        let text = if is_aligned { &after[i] } else { &before[i] };
        Side { text: Some(text.clone()), ..Side::default() }
    };
    let mut part = report::compare(&tests, (&grades.0, &grades.1), decoding.seed, setting.seed, &content);
    part.settings = [("decoding".to_owned(), json!(decoding))].into();
    part.labels = Some(Labels { source: "exact checker".to_owned(), pairs: pairs.len(), flipped: FLIPPED });
    part.training = report::training(run.path())?;
    Ok(part)
}
