//! What tokenizing makes of one record, token by token, and what in it would be trained wrongly.
//!
//! The tokens come from the same functions as those of a training run, so what is shown is what is trained.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use crate::admission::{Sequence, Split, Verdict};
use crate::error::Result;
use crate::record::{ChatOptions, Completion, Message, PairText, PreferencePair, UnpairedExample};
use crate::report::{RowPolicy, RowProblem};
use crate::tokenizer::TextTokenizer;

/// The tokens of a record, and what is to be said of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Examination {
    /// Tokens before the completions.
    pub prompt_ids: Vec<u32>,
    /// Tokens at the end of the prompt, tokenized alone, that are in no sequence.
    pub left_out_ids: Vec<u32>,
    /// One completion, or chosen and rejected.
    pub completions: Vec<ExaminedCompletion>,
    /// Why the record is not trained on; without a problem it is.
    pub problem: Option<RowProblem>,
    /// The numbers behind the problem; may be empty.
    pub detail: String,
    /// What would be trained wrongly.
    pub lints: Vec<Lint>,
}

/// The tokens of one completion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExaminedCompletion {
    /// `chosen`, `rejected` or `completion`.
    pub side: &'static str,
    /// All tokens, those that do not fit included.
    pub ids: Vec<u32>,
    /// Spans of `ids` that others than the assistant said and that are not trained.
    pub untrained: Vec<Range<usize>>,
    /// Tokens at the end that do not fit into the context.
    pub cut: usize,
}

/// Something in a record that would be trained wrongly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "lint", rename_all = "kebab-case")]
pub enum Lint {
    /// Nothing in the completion says that it is over.
    MissingEos {
        /// The completion.
        side: &'static str,
        /// Its last token.
        last: String,
        /// Tokens at which generation stops.
        stops: Vec<String>,
    },
    /// The token that ends the completion is there, but is not trained.
    UntrainedEos {
        /// The completion.
        side: &'static str,
    },
    /// The token that ends the completion stands there more than once.
    DoubledEos {
        /// The completion.
        side: &'static str,
        /// The token.
        token: String,
        /// How often.
        count: usize,
    },
    /// The beginning-of-text token stands there more than once, or where no text begins.
    DoubledBos {
        /// Where: `prompt` or a completion.
        side: &'static str,
        /// The token.
        token: String,
    },
    /// The chat template writes a system prompt that the row does not have.
    AddedSystemPrompt {
        /// What it writes.
        text: String,
    },
    /// The end of a completion does not fit into the context.
    Truncated {
        /// The completion.
        side: &'static str,
        /// Tokens that do not fit.
        tokens: usize,
    },
    /// The prompt by itself has other tokens at its end than within the whole.
    RetokenizedPrompt {
        /// The end of the prompt, tokenized alone.
        alone: Vec<String>,
        /// The tokens that stand in its place.
        within: Vec<String>,
    },
    /// The completion does not begin with a turn of the assistant.
    OthersTurn {
        /// The completion.
        side: &'static str,
        /// Who speaks first.
        role: String,
    },
}

impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingEos { side, last, stops } => write!(
                f,
                "missing end: {side} ends with {last:?}, but generation stops at {}; the model does not learn to stop",
                quoted(stops)
            ),
            Self::UntrainedEos { side } => {
                write!(
                    f,
                    "untrained end: the token that ends {side} is there, but outside of what is trained"
                )
            }
            Self::DoubledEos { side, token, count } => write!(
                f,
                "doubled end: {token:?} stands {count} times in {side}; the text brings it and it is added again"
            ),
            Self::DoubledBos { side, token } => write!(
                f,
                "doubled beginning: {token:?} stands in the {side} where no text begins; template and tokenizer both \
                 add it"
            ),
            Self::AddedSystemPrompt { text } => write!(
                f,
                "added system prompt: the row has none, and the chat template writes {text:?}; give the row a system \
                 turn if the model is to be used without it"
            ),
            Self::Truncated { side, tokens } => {
                write!(f, "truncated: the last {tokens} tokens of {side} do not fit, its end among them")
            }
            Self::RetokenizedPrompt { alone, within } => write!(
                f,
                "retokenized prompt: alone it ends with {}, within the whole {} stands there; the model is trained on \
                 a context that it never sees when it generates",
                quoted(alone),
                quoted(within)
            ),
            Self::OthersTurn { side, role } => {
                write!(
                    f,
                    "other speaker: {side} begins with a turn of `{role}`, which is trained as an answer"
                )
            }
        }
    }
}

fn quoted(tokens: &[String]) -> String {
    let tokens: Vec<_> = tokens.iter().map(|token| format!("{token:?}")).collect();
    if tokens.is_empty() { "nothing".to_owned() } else { tokens.join(" ") }
}

/// Tokens of a changed boundary that a lint quotes.
const QUOTED: usize = 6;

impl TextTokenizer {
    /// Examines a preference pair.
    ///
    /// # Errors
    /// If the tokenizer or the chat template fails.
    pub fn examine_pair(&self, pair: &PreferencePair, policy: RowPolicy) -> Result<Examination> {
        let shown = self.vectors(std::iter::once(&*pair.images)).remove(0);
        let verdict = self.split_pair(pair, &shown, policy.train_on)?;
        let mut examination = self.examine(verdict, ["chosen", "rejected"], policy);
        if let PairText::Chat { prompt, chosen, rejected, options } = &pair.text {
            let sides = [("chosen", chosen.as_slice()), ("rejected", rejected)];
            examination.lints.extend(self.chat_lints(prompt, &sides, options));
        }
        Ok(examination)
    }

    /// Examines an example with a label.
    ///
    /// # Errors
    /// As [`examine_pair`](Self::examine_pair).
    pub fn examine_unpaired(&self, example: &UnpairedExample, policy: RowPolicy) -> Result<Examination> {
        let shown = self.vectors(std::iter::once(&*example.images)).remove(0);
        let verdict = self.split_unpaired(example, &shown, policy.train_on)?;
        let mut examination = self.examine(verdict, ["completion"], policy);
        if let Completion::Chat { prompt, completion, options } = &example.text {
            examination.lints.extend(self.chat_lints(prompt, &[("completion", completion)], options));
        }
        Ok(examination)
    }

    fn examine<const N: usize>(
        &self,
        verdict: Verdict<N>,
        sides: [&'static str; N],
        policy: RowPolicy,
    ) -> Examination {
        let split = match verdict {
            Ok(split) => split,
            Err(fault) => {
                let (problem, detail) = (Some(fault.problem), fault.detail);
                return Examination { problem, detail, ..Examination::default() };
            }
        };
        let fault = split.length_fault(policy);
        let mut lints = self.prompt_lints(&split);
        let room = policy.max_length.map_or(usize::MAX, |most| most.saturating_sub(split.prompt.len()));
        let mut completions = Vec::with_capacity(N);
        for (side, completion) in sides.into_iter().zip(split.completions) {
            lints.extend(self.completion_lints(side, &completion, room));
            let cut = completion.ids.len().saturating_sub(room);
            let Sequence { ids, untrained } = completion;
            completions.push(ExaminedCompletion { side, ids, untrained, cut });
        }
        Examination {
            prompt_ids: split.prompt,
            left_out_ids: split.left_out,
            completions,
            problem: fault.as_ref().map(|fault| fault.problem),
            detail: fault.map(|fault| fault.detail).unwrap_or_default(),
            lints,
        }
    }

    fn spelled(&self, ids: &[u32]) -> Vec<String> {
        ids.iter().map(|id| self.token(*id).unwrap_or_else(|| format!("token {id}"))).collect()
    }

    fn prompt_lints<const N: usize>(&self, split: &Split<N>) -> Vec<Lint> {
        let mut lints = Vec::new();
        if let Some(bos) = self.bos_id()
            && split.prompt.iter().skip(1).any(|id| *id == bos)
        {
            lints.push(Lint::DoubledBos { side: "prompt", token: self.spelled(&[bos]).concat() });
        }
        if !split.left_out.is_empty() {
            let shown = split.left_out.len().min(QUOTED);
            let first = split.completions.first().map_or(&[][..], |one| &one.ids);
            let within = self.spelled(&first[..first.len().min(shown)]);
            lints.push(Lint::RetokenizedPrompt { alone: self.spelled(&split.left_out[..shown]), within });
        }
        lints
    }

    fn completion_lints(&self, side: &'static str, completion: &Sequence, room: usize) -> Vec<Lint> {
        let mut lints = Vec::new();
        let ids = &completion.ids;
        let is_stop = |id: &u32| self.stop_ids().contains(id);
        let is_untrained = |place: usize| completion.untrained.iter().any(|span| span.contains(&place));
        match ids.iter().rposition(is_stop) {
            None => lints.push(Lint::MissingEos {
                side,
                last: self.spelled(&ids[ids.len().saturating_sub(1)..]).concat(),
                stops: self.spelled(self.stop_ids()),
            }),
            Some(place) if place < room && is_untrained(place) => lints.push(Lint::UntrainedEos { side }),
            Some(_) => {}
        }
        if let Some(doubled) = ids.windows(2).find(|two| two[0] == two[1] && is_stop(&two[0])) {
            let count = ids.iter().filter(|id| **id == doubled[0]).count();
            lints.push(Lint::DoubledEos { side, token: self.spelled(&doubled[..1]).concat(), count });
        }
        if let Some(bos) = self.bos_id()
            && !is_stop(&bos)
            && ids.contains(&bos)
        {
            lints.push(Lint::DoubledBos { side, token: self.spelled(&[bos]).concat() });
        }
        if ids.len() > room {
            lints.push(Lint::Truncated { side, tokens: ids.len() - room });
        }
        lints
    }

    fn chat_lints(
        &self,
        prompt: &[Message],
        sides: &[(&'static str, &[Message])],
        options: &ChatOptions,
    ) -> Vec<Lint> {
        let added = self.added_system_prompt(prompt, options);
        let mut lints: Vec<_> = added.map(|text| Lint::AddedSystemPrompt { text }).into_iter().collect();
        for (side, turns) in sides {
            if let Some(first) = turns.first().filter(|turn| turn.role() != "assistant") {
                lints.push(Lint::OthersTurn { side, role: first.role().to_owned() });
            }
        }
        lints
    }

    /// What the template writes before the first turn of a conversation without a system turn, beside what it writes
    /// before any turn of the user and special tokens; nothing if that is not a text of several words.
    fn added_system_prompt(&self, prompt: &[Message], options: &ChatOptions) -> Option<String> {
        const FIRST: &str = "first question";
        const ANSWER: &str = "some answer";
        if prompt.first()?.role() != "user" {
            return None;
        }
        let tools_aside = ChatOptions { tools: None, variables: options.variables.clone() };
        let turns = [("user", FIRST), ("assistant", ANSWER), ("user", "second question")];
        let turns = turns.map(|(role, content)| Message::new(role, content));
        let text = self.render_chat(&turns, false, &tools_aside).ok()?;
        let (before, rest) = text.split_once(FIRST)?;
        let (between, _) = rest.split_once(ANSWER)?.1.split_once("second question")?;
        let shared = before.bytes().rev().zip(between.bytes().rev()).take_while(|(a, b)| a == b).count();
        // The common end may begin inside a character of either.
        let end = (0..=before.len() - shared).rev().find(|end| before.is_char_boundary(*end))?;
        let mut added = before[..end].to_owned();
        for token in [self.bos_id(), self.eos_id().ok()].into_iter().flatten() {
            added = added.replace(&self.spelled(&[token]).concat(), "");
        }
        let is_text =
            added.split_whitespace().filter(|word| word.chars().any(char::is_alphabetic)).count() > 1;
        is_text.then(|| added.trim().to_owned())
    }
}
