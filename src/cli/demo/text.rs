//! The demo's language model.

use super::super::Outcome;
use super::super::labels::{Label, Labelled, Labeller, share_right};
use super::super::text_model::TextModel;
use super::super::world::{Decoding, answer, as_prompt};
use super::Setting;
use super::rounds::Learner;
use serde_json::json;
use std::path::Path;
use votive_critic::Candidate;
use votive_data::{PreferencePair, write_text_pairs};
use votive_eval::{Outcome as Graded, grade_texts};
use votive_gallery::{Settings, Side};
use votive_playground::{Split, text};

const TRAINING_PROMPTS: usize = 3000;
const SAMPLES_PER_PROMPT: usize = 4;
const TEST_PROMPTS: usize = 600;
/// Samples for labels are drawn as the model is, so that its mistakes show.
const LABEL_TEMPERATURE: f64 = 1.0;
const TEST_TEMPERATURE: f64 = 0.7;

/// Answers instructions of the playground.
pub(super) struct Writer<'a> {
    setting: &'a Setting<'a>,
    tests: Vec<String>,
    decoding: Decoding,
}

impl<'a> Writer<'a> {
    pub(super) fn new(setting: &'a Setting<'a>) -> Self {
        let decoding = Decoding { temperature: TEST_TEMPERATURE, seed: setting.seed + 1 };
        Self { setting, tests: instructions(Split::Test, setting.seed, TEST_PROMPTS), decoding }
    }
}

fn instructions(split: Split, seed: u64, n: usize) -> Vec<String> {
    text::prompts(split, seed, n).iter().map(text::Task::prompt).collect()
}

impl Learner for Writer<'_> {
    type Model = TextModel;
    type Answers = Vec<String>;

    const RECIPE: &'static str = include_str!("../../../examples/recipes/text/dpo.toml");

    fn load(&self, folder: &Path) -> Outcome<TextModel> {
        TextModel::load(folder, None, &self.setting.ctx.device()?)
    }

    fn label(
        &self,
        model: &TextModel,
        (labeller, flipped): (&Labeller, f64),
        seed: u64,
        out: &Path,
    ) -> Outcome<Labelled> {
        let ctx = self.setting.ctx;
        let prompts = instructions(Split::Train, seed, TRAINING_PROMPTS);
        let repeated: Vec<String> =
            prompts.iter().flat_map(|prompt| vec![prompt.clone(); SAMPLES_PER_PROMPT]).collect();
        let decoding = Decoding { temperature: LABEL_TEMPERATURE, seed };
        let answers = answer(model, &repeated, decoding, ctx)?;
        let candidates: Vec<Candidate> = answers.iter().cloned().map(Candidate::Text).collect();
        let mut utilities = labeller.utilities(&repeated, &candidates, ctx)?;
        // An answer that never ended is empty here; there is nothing in it to train on.
        let unended = answers.iter().filter(|answer| answer.is_empty()).count();
        for (utility, answer) in utilities.iter_mut().zip(&answers) {
            utility.take_if(|_| answer.is_empty());
        }
        let labels = labeller.label(&utilities, SAMPLES_PER_PROMPT, flipped, seed);
        let place = |label: &Label, sample: usize| label.prompt * SAMPLES_PER_PROMPT + sample;
        let pair = |(i, label): (usize, &Label)| {
            let of = |sample| answers[place(label, sample)].clone();
            let prompt = as_prompt(&prompts[label.prompt]);
            PreferencePair::plain(i + 1, prompt, of(label.chosen), of(label.rejected))
        };
        let pairs: Vec<PreferencePair> = labels.iter().enumerate().map(pair).collect();
        let file = out.join("pairs.jsonl");
        write_text_pairs(&file, &pairs)?;
        let truth = grade_texts(&repeated, &answers)?;
        let right = share_right(&labels, &truth, SAMPLES_PER_PROMPT);
        ctx.output.note(format!(
            "{} pairs labelled by {} in {}; {right:.1} % are right; {unended} answers without an end left out",
            pairs.len(),
            labeller.name(),
            file.display()
        ));
        Ok(Labelled { file, pairs: pairs.len(), right })
    }

    fn tests(&self) -> &[String] {
        &self.tests
    }

    fn first_test_seed(&self) -> u64 {
        self.decoding.seed
    }

    fn settings(&self) -> Settings {
        [("decoding".to_owned(), json!(self.decoding))].into()
    }

    fn answer(&self, model: &TextModel) -> Outcome<Vec<String>> {
        answer(model, &self.tests, self.decoding, self.setting.ctx)
    }

    fn grade(&self, answers: &Vec<String>) -> Outcome<Vec<Graded>> {
        Ok(grade_texts(&self.tests, answers)?)
    }

    fn candidates(&self, answers: &Vec<String>) -> Outcome<Vec<Candidate>> {
        Ok(answers.iter().cloned().map(Candidate::Text).collect())
    }

    fn show(&self, i: usize, _: bool, answers: &Vec<String>) -> Side {
        Side { text: Some(answers[i].clone()), ..Side::default() }
    }

    /// Texts stand in the report itself.
    fn save(&self, _: usize, _: &Vec<String>, _: &Vec<String>) -> Outcome {
        Ok(())
    }
}
