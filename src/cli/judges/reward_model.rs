//! A reward model as a judge of texts: its reward of an answer, whose differences are log-odds.

use crate::cli::score::open_reward_model;
use crate::cli::{Context, Outcome};
use std::path::Path;
use std::time::Instant;
use votive_critic::{
    Abstention, Candidate, Cost, CriticError, Evidence, Finding, Form, Forms, Judge, Judgment, Question,
};
use votive_data::{ChatOptions, Completion, LongRows, Message, RowNumbers, RowPolicy, UnpairedExample};
use votive_model::RewardModel;
use votive_train::front_end::{FrontEnd, RewardFrontEnd};

/// Grades answers by a scalar head on a language model (Bradley & Terry 1952; Ouyang et al., arXiv:2203.02155, Eq. 1).
pub(super) struct Rewarder {
    name: String,
    network: RewardModel,
    front: RewardFrontEnd,
    policy: RowPolicy,
}

impl Rewarder {
    /// The reward model of a folder.
    ///
    /// # Errors
    /// If a file is missing or wrong.
    pub(super) fn open(folder: &Path, name: String, ctx: &Context) -> Outcome<Self> {
        let (front, params) = open_reward_model(folder, None, ctx)?;
        let policy = RowPolicy {
            max_length: Some(front.max_positions()),
            long_rows: LongRows::Error,
            ..RowPolicy::default()
        };
        Ok(Self { name, network: front.network(&params)?, front, policy })
    }

    /// The tokens of an answer behind its prompt, as rows of such data are trained on; or why there are none.
    fn row(&self, prompt: &str, answer: &str) -> Result<Vec<u32>, String> {
        let tokenizer = self.front.tokenizer();
        let text = match tokenizer.has_chat_template() {
            true => Completion::Chat {
                prompt: vec![Message::new("user", prompt)],
                completion: vec![Message::new("assistant", answer)],
                options: ChatOptions::default(),
            },
            false => Completion::Plain { prompt: prompt.to_owned(), completion: answer.to_owned() },
        };
        let (images, numbers) = (Vec::new(), RowNumbers::default());
        let example = UnpairedExample { row: 1, images, text, label: true, numbers };
        let found = tokenizer.examine_unpaired(&example, self.policy).map_err(|e| e.to_string())?;
        match found.problem {
            Some(problem) => Err(format!("{problem}: {}", found.detail)),
            None => {
                Ok([found.prompt_ids, found.completions.into_iter().flat_map(|one| one.ids).collect()]
                    .concat())
            }
        }
    }
}

impl Judge for Rewarder {
    fn name(&self) -> &str {
        &self.name
    }

    fn forms(&self) -> Forms {
        Forms::only(Form::Grade)
    }

    fn judge(&self, question: &Question, draw: u64) -> votive_critic::Result<Judgment> {
        let started = Instant::now();
        let unreadable = |why: String| Finding::Abstention(Abstention::Unreadable(why));
        let failed = |message: String| CriticError::Judge { judge: self.name.clone(), message };
        let mut input_tokens = 0;
        let finding = match question.candidates().first() {
            Some(Candidate::Text(answer)) => match self.row(question.prompt(), answer) {
                Err(why) => unreadable(why),
                Ok(row) => {
                    input_tokens = row.len() as u64;
                    let rewards = self.network.rewards(&[row], None).map_err(|e| failed(e.to_string()))?;
                    let rewards = rewards.to_vec1::<f32>().map_err(|e| failed(e.to_string()))?;
                    match rewards.first() {
                        Some(reward) if reward.is_finite() => Finding::Grade(f64::from(*reward)),
                        _ => unreadable("the reward is not a number".to_owned()),
                    }
                }
            },
            _ => unreadable("it is an image, and this judge reads texts".to_owned()),
        };
        let seconds = started.elapsed().as_secs_f64();
        let cost = Cost { calls: 1, input_tokens, seconds, ..Cost::default() };
        Ok(Judgment::of(Evidence { cost, ..Evidence::new(&self.name, question, draw, finding) }))
    }
}
