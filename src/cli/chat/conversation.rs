//! The turns of a chat, and the model's answers to them.

use crate::cli::decoding::Decoding;
use crate::cli::text_model::TextModel;
use crate::cli::{Failure, Outcome};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use votive_data::{ChatOptions, Message, TextStream};
use votive_model::{CausalLm, Request, generate_watched};

/// How turns become a text for the model.
#[derive(Debug)]
pub(super) enum Style {
    /// By the model's chat template, with this system turn if there is one.
    Template(Option<String>),
    /// As they stand, one after the other.
    Plain,
}

/// What the model says.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) text: String,
    /// All new tokens.
    pub(super) token_ids: Vec<u32>,
    /// Whether the model or a stop string ended it, and not a limit.
    pub(super) finished: bool,
}

/// A conversation: user and assistant in turn.
#[derive(Debug)]
pub(super) struct Conversation<'a> {
    model: &'a TextModel,
    style: Style,
    decoding: Decoding,
    /// What was said and answered.
    turns: Vec<(String, String)>,
}

impl<'a> Conversation<'a> {
    /// One in which nothing was said yet.
    pub(super) fn new(model: &'a TextModel, style: Style, decoding: Decoding) -> Self {
        Self { model, style, decoding, turns: Vec::new() }
    }

    pub(super) fn reset(&mut self) {
        self.turns.clear();
    }

    /// Takes back the last turn; false if there is none.
    pub(super) fn undo(&mut self) -> bool {
        self.turns.pop().is_some()
    }

    pub(super) fn set_seed(&mut self, seed: u64) {
        self.decoding.options.seed = seed;
    }

    /// The conversation in the layout of chat data.
    pub(super) fn to_json(&self) -> Value {
        json!({ "messages": self.messages() })
    }

    /// Answers a turn, which then belongs to the conversation; `write` gets the text as it becomes certain.
    ///
    /// The number of the turn keys its draws: a turn that is taken back and said again is answered as before.
    pub(super) fn answer(
        &mut self,
        text: &str,
        write: &mut (dyn FnMut(&str) -> Outcome + Send),
    ) -> Outcome<Answer> {
        let prompt = self.encode(text)?;
        let (network, positions) = (&self.model.network, self.model.network.max_positions());
        if prompt.len() >= positions {
            let full = Failure::data(format!(
                "the conversation has {} tokens, and the model has {positions} positions",
                prompt.len()
            ));
            return Err(full.hint("/undo or /reset makes room"));
        }
        let request = Request { prompt: &prompt, images: &[], sample: self.turns.len() as u64 };
        let mut stream = TextStream::new(&self.model.tokenizer, &self.decoding.stops);
        let mut watch = |_, id| {
            write(stream.push(id)?)?;
            Ok::<_, Failure>(match stream.stopped_by() {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            })
        };
        let made = generate_watched(network, &[request], &self.decoding.options, &mut watch)?;
        write(stream.finish()?)?;
        let (answer, made) = (stream.text().to_owned(), made.into_iter().next());
        self.turns.push((text.to_owned(), answer.clone()));
        let (token_ids, finished) = made.map_or((Vec::new(), false), |made| (made.token_ids, made.finished));
        Ok(Answer { text: answer, token_ids, finished })
    }

    fn encode(&self, text: &str) -> Outcome<Vec<u32>> {
        let tokenizer = &self.model.tokenizer;
        Ok(match self.style {
            Style::Plain => {
                let said = self.turns.iter().map(|(user, answer)| format!("{user}\n{answer}\n"));
                tokenizer.encode(&(said.collect::<String>() + text + "\n"), true)?
            }
            Style::Template(_) => {
                let mut messages = self.messages();
                messages.push(Message::new("user", text));
                tokenizer.encode_chat(&messages, true, &ChatOptions::default())?
            }
        })
    }

    fn messages(&self) -> Vec<Message> {
        let system = match &self.style {
            Style::Template(Some(system)) => Some(Message::new("system", system)),
            _ => None,
        };
        let turns = self
            .turns
            .iter()
            .flat_map(|(user, answer)| [Message::new("user", user), Message::new("assistant", answer)]);
        system.into_iter().chain(turns).collect()
    }
}
