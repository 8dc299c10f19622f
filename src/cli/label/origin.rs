//! What the store keeps of where a pair of candidates came from.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where the two candidates of an item came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// How all candidates of the prompt were drawn: equal for the pairs of a prompt, and for a labelling that goes on.
    pub(super) drawn: Value,
    /// Which two of the prompt's candidates they are.
    pub(super) places: [usize; 2],
    /// The models that drew them.
    pub(super) models: [String; 2],
    /// The seeds that they were drawn from.
    pub(super) seeds: [u64; 2],
    /// Whether the prompt is a turn of a conversation.
    pub(super) is_chat: bool,
}

impl Origin {
    /// The origin that an item states; none if it was made by something else.
    pub(super) fn read(value: &Value) -> Option<Self> {
        Self::deserialize(value).ok()
    }

    /// As it is stored.
    pub(super) fn to_value(&self) -> Value {
        // Its fields are numbers, texts and what was JSON already.
        serde_json::to_value(self).unwrap_or_default()
    }
}
