//! What the store keeps of where a pair of candidates came from.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where the two candidates of an item came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// How all candidates of the prompt were drawn: equal for the pairs of a prompt, and for a labelling that goes on.
    pub(crate) drawn: Value,
    /// Which two of the prompt's candidates they are.
    pub(crate) places: [usize; 2],
    /// The models that drew them.
    pub(crate) models: [String; 2],
    /// The seeds that they were drawn from.
    pub(crate) seeds: [u64; 2],
    /// Whether the prompt is a turn of a conversation.
    pub(crate) is_chat: bool,
}

impl Origin {
    /// The origin that an item states; none if it was made by something else.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        Self::deserialize(value).ok()
    }

    /// As it is stored.
    pub(crate) fn to_value(&self) -> Value {
        // Its fields are numbers, texts and what was JSON already.
        serde_json::to_value(self).unwrap_or_default()
    }
}
