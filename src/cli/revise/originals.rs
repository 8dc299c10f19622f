//! The candidates of a store that are revised, and the pairs of candidates that they stand in.

use crate::cli::Outcome;
use crate::cli::label::origin::Origin;
use std::collections::BTreeMap;
use votive_critic::{Candidate, Question, Store};

/// A candidate as it was drawn.
pub(super) struct Original {
    /// What it answers, and it alone.
    pub(super) question: Question,
    /// Who drew it, and from which seed.
    pub(super) model: String,
    pub(super) seed: u64,
    /// Whether the prompt is a turn of a conversation.
    pub(super) is_chat: bool,
    /// Number of its group.
    pub(super) group: usize,
    /// Items that compare it with another candidate of its prompt, and whether it stands second.
    pub(super) pairs: Vec<(i64, bool)>,
}

/// What is revised, prompt by prompt in the order of the store.
pub(super) struct Originals {
    pub(super) all: Vec<Original>,
    /// The items of each group of candidates: of one prompt, drawn together.
    pub(super) groups: Vec<Vec<i64>>,
}

impl Original {
    /// What was drawn.
    pub(super) fn candidate(&self) -> Option<&Candidate> {
        self.question.candidates().first()
    }
}

impl Originals {
    /// The first `each` candidates of every prompt, that differ from its others.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(super) fn of(store: &Store, each: usize) -> Outcome<Self> {
        let mut numbers: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut groups: Vec<Vec<(i64, Origin)>> = Vec::new();
        for (id, prompt, origin) in store.origins()? {
            let Some(origin) = Origin::read(&origin) else { continue };
            let number = *numbers.entry((prompt, origin.drawn.to_string())).or_insert(groups.len());
            if number == groups.len() {
                groups.push(Vec::new());
            }
            groups[number].push((id, origin));
        }
        let mut all = Vec::new();
        for (group, items) in groups.iter().enumerate() {
            for place in 0..each {
                let side = |origin: &Origin| origin.places.iter().position(|other| *other == place);
                let pairs: Vec<(i64, bool)> =
                    items.iter().filter_map(|(id, origin)| Some((*id, side(origin)? == 1))).collect();
                let first = items.iter().find_map(|(id, origin)| Some((*id, origin, side(origin)?)));
                let Some((id, origin, side)) = first else { continue };
                let shown = store.item(id)?.question;
                let Some(question) = shown.candidates().get(side).map(|one| shown.of(one)) else { continue };
                let (model, seed) = (origin.models[side].clone(), origin.seeds[side]);
                all.push(Original { question, model, seed, is_chat: origin.is_chat, group, pairs });
            }
        }
        let groups = groups.into_iter().map(|items| items.into_iter().map(|(id, _)| id).collect()).collect();
        Ok(Self { all, groups })
    }
}
