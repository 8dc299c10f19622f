//! A reward model as a judge of texts: its reward of an answer, whose differences are log-odds.

use super::grading::{Grade, Graded, Ungraded};
use crate::cli::score::open_reward_model;
use crate::cli::{Context, Outcome};
use std::path::Path;
use votive_critic::Candidate;
use votive_data::{ChatOptions, Completion, LongRows, Message, RowNumbers, RowPolicy, UnpairedExample};
use votive_model::RewardModel;
use votive_train::front_end::{FrontEnd, RewardFrontEnd};

/// Grades answers by a scalar head on a language model (Bradley & Terry 1952; Ouyang et al., arXiv:2203.02155, Eq. 1).
pub(super) struct Rewarder {
    network: RewardModel,
    front: RewardFrontEnd,
    policy: RowPolicy,
}

impl Rewarder {
    /// The reward model of a folder.
    ///
    /// # Errors
    /// If a file is missing or wrong.
    pub(super) fn open(folder: &Path, ctx: &Context) -> Outcome<Self> {
        let (front, params) = open_reward_model(folder, None, ctx)?;
        let policy = RowPolicy {
            max_length: Some(front.max_positions()),
            long_rows: LongRows::Error,
            ..RowPolicy::default()
        };
        Ok(Self { network: front.network(&params)?, front, policy })
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

impl Grade for Rewarder {
    fn grade(&self, prompt: &str, candidate: &Candidate) -> Result<Graded, Ungraded> {
        let Candidate::Text(answer) = candidate else {
            return Err(Ungraded::unreadable("it is an image, and this judge reads texts"));
        };
        let row = self.row(prompt, answer).map_err(Ungraded::Unreadable)?;
        let input_tokens = row.len() as u64;
        let rewards = self.network.rewards(&[row], None).map_err(Ungraded::failed)?;
        let rewards = rewards.to_vec1::<f32>().map_err(Ungraded::failed)?;
        let reward = rewards.first().ok_or_else(|| Ungraded::unreadable("nothing"))?;
        Ok(Graded { input_tokens, ..Graded::number(f64::from(*reward)) })
    }
}
