//! What a row of a preference data set means, whichever file it came from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One turn of a conversation: `role`, `content`, and whatever else the chat template reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Message(pub(crate) Map<String, Value>);

impl From<Map<String, Value>> for Message {
    /// A turn of these fields.
    fn from(fields: Map<String, Value>) -> Self {
        Self(fields)
    }
}

impl Message {
    /// A turn of plain text.
    pub fn new(role: &str, content: &str) -> Self {
        Self(Map::from_iter([("role".to_owned(), role.into()), ("content".to_owned(), content.into())]))
    }

    /// Who speaks: `system`, `user`, `assistant`, `tool`.
    #[must_use]
    pub fn role(&self) -> &str {
        self.0.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// The text of the turn, if it is text.
    #[must_use]
    pub fn content(&self) -> Option<&str> {
        self.0.get("content").and_then(Value::as_str)
    }

    /// How many fields the turn has, `role` and `content` among them.
    #[must_use]
    pub fn fields(&self) -> usize {
        self.0.len()
    }

    /// Whether the turn says nothing: no text, and no other field than its role.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|(name, value)| name == "role" || value.is_null() || is_empty_value(value))
    }
}

fn is_empty_value(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// What a row passes to the chat template besides its messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatOptions {
    /// JSON schemas of the tools that the assistant may call (column `tools`).
    pub tools: Option<Value>,
    /// Further variables of the template (column `chat_template_kwargs`).
    pub variables: Map<String, Value>,
}

/// The text of a preference pair.
#[derive(Clone, Debug, PartialEq)]
pub enum PairText {
    /// Three strings; prompt and completion are concatenated as they stand.
    Plain {
        /// x
        prompt: String,
        /// y_w
        chosen: String,
        /// y_l
        rejected: String,
    },
    /// Two strings that begin with the same prompt; where it ends is decided on tokens.
    Implicit {
        /// x and y_w
        chosen: String,
        /// x and y_l
        rejected: String,
    },
    /// Conversations, rendered by the model's chat template.
    Chat {
        /// The turns before the completion.
        prompt: Vec<Message>,
        /// The turns that are preferred.
        chosen: Vec<Message>,
        /// The turns that are not.
        rejected: Vec<Message>,
        /// What else the template reads.
        options: ChatOptions,
    },
}

/// Numbers that a row may carry beside its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RowNumbers {
    /// How much the row counts (column `weight`): its loss is multiplied by it.
    pub weight: Option<f64>,
    /// By how much the chosen completion is better: column `margin`, or else the difference of the two scores.
    pub margin: Option<f64>,
    /// What whoever judged gave the chosen and the rejected completion (columns `score_chosen` and `score_rejected` and their
    /// like, or a ranked list's numbers); of a completion without a partner the first (column `score`).
    #[serde(default)]
    pub scores: [Option<f64>; 2],
    /// How unsure whoever judged was of the pair, nats (column `uncertainty`).
    #[serde(default)]
    pub uncertainty: Option<f64>,
}

impl RowNumbers {
    /// The numbers that the row has, by the names of their columns; `is_pair` says whether it has two sides.
    #[must_use]
    pub fn named(self, is_pair: bool) -> Vec<(&'static str, f64)> {
        let first = if is_pair { "score_chosen" } else { "score" };
        let numbers = [
            ("weight", self.weight),
            ("margin", self.margin),
            (first, self.scores[0]),
            ("score_rejected", self.scores[1]),
            ("uncertainty", self.uncertainty),
        ];
        numbers.into_iter().filter_map(|(name, number)| Some((name, number?))).collect()
    }

    /// The numbers of the pair with its sides exchanged.
    #[must_use]
    pub fn turned(self) -> Self {
        Self { scores: [self.scores[1], self.scores[0]], ..self }
    }

    /// The numbers of the two sides as completions without partners.
    #[must_use]
    pub fn unpaired(self) -> [Self; 2] {
        self.scores.map(|score| Self { scores: [score, None], ..self })
    }
}

/// A prompt with a completion that is preferred to another.
#[derive(Clone, Debug, PartialEq)]
pub struct PreferencePair {
    /// Number of the row that it was made from, counted from 1; a ranked list makes several pairs.
    pub row: usize,
    /// Prompt and completions.
    pub text: PairText,
    /// A third completion of the prompt, better than both, if the row has one.
    pub gold: Option<Completion>,
    /// What else is known of the row, in numbers.
    pub numbers: RowNumbers,
}

impl PreferencePair {
    /// A pair of plain strings.
    pub fn plain(
        row: usize,
        prompt: impl Into<String>,
        chosen: impl Into<String>,
        rejected: impl Into<String>,
    ) -> Self {
        let text =
            PairText::Plain { prompt: prompt.into(), chosen: chosen.into(), rejected: rejected.into() };
        Self::new(row, text)
    }

    /// A pair without numbers.
    pub fn new(row: usize, text: PairText) -> Self {
        Self { row, text, gold: None, numbers: RowNumbers::default() }
    }
}

/// A prompt with one completion.
#[derive(Clone, Debug, PartialEq)]
pub enum Completion {
    /// Two strings; they are concatenated as they stand.
    Plain {
        /// x
        prompt: String,
        /// y
        completion: String,
    },
    /// A conversation, rendered by the model's chat template.
    Chat {
        /// The turns before the completion.
        prompt: Vec<Message>,
        /// The turns that are judged.
        completion: Vec<Message>,
        /// What else the template reads.
        options: ChatOptions,
    },
}

/// A completion that is desirable or not, without a partner.
#[derive(Clone, Debug, PartialEq)]
pub struct UnpairedExample {
    /// Number of the row in its file, counted from 1.
    pub row: usize,
    /// Prompt and completion.
    pub text: Completion,
    /// True if the completion is desirable.
    pub label: bool,
    /// What else is known of the row, in numbers.
    pub numbers: RowNumbers,
}

/// A caption alone, which a model draws itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptionRow {
    /// Number of the row in its file, counted from 1.
    pub row: usize,
    /// The caption.
    pub prompt: String,
}

/// Where the encoded bytes of an image lie. They are read when they are needed, so a data set of images is a list of
/// places, whatever its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// A file of its own.
    File(PathBuf),
    /// A value of a Parquet file.
    Embedded(EmbeddedImage),
}

/// The place of an image in a Parquet file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedImage {
    /// The Parquet file.
    pub file: Arc<Path>,
    /// The row group, counted from 0.
    pub group: usize,
    /// The row in its row group, counted from 0.
    pub row: usize,
    /// Path of the column that holds the bytes, such as `jpg_0` or `chosen.bytes`.
    pub column: Arc<str>,
    /// The file that the row names beside the bytes, for rows that have none.
    pub or_file: Option<PathBuf>,
}

impl From<PathBuf> for ImageSource {
    fn from(file: PathBuf) -> Self {
        Self::File(file)
    }
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Embedded(EmbeddedImage { column, group, row, .. }) => {
                write!(f, "the image in column `{column}` (row {} of row group {group})", row + 1)
            }
        }
    }
}

/// A caption with an image that is preferred to another.
#[derive(Clone, Debug, PartialEq)]
pub struct ImagePair {
    /// Number of the row in its data set, or of the pair in its folder, counted from 1.
    pub row: usize,
    /// The caption.
    pub prompt: String,
    /// The preferred image.
    pub chosen: ImageSource,
    /// The other image.
    pub rejected: ImageSource,
    /// What else is known of the row, in numbers.
    pub numbers: RowNumbers,
    /// What else the row says of the two images.
    pub origin: ImageOrigin,
}

/// What a row says of its images beside the preference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageOrigin {
    /// Places of the chosen and of the rejected image in the row, counted from 0; none if the row calls them so.
    pub places: Option<[usize; 2]>,
    /// The models that made the chosen and the rejected image.
    pub models: [Option<Arc<str>>; 2],
    /// Neither image is preferred, and the pair was kept nevertheless: `chosen` is the one that stands first.
    pub is_tie: bool,
}

impl ImagePair {
    /// A pair of which nothing but the preference is known.
    pub fn new(
        row: usize,
        prompt: impl Into<String>,
        chosen: impl Into<ImageSource>,
        rejected: impl Into<ImageSource>,
    ) -> Self {
        Self {
            row,
            prompt: prompt.into(),
            chosen: chosen.into(),
            rejected: rejected.into(),
            numbers: RowNumbers::default(),
            origin: ImageOrigin::default(),
        }
    }

    /// The two images with the names of their sides, the chosen one first.
    #[must_use]
    pub fn sides(&self) -> [(&'static str, &ImageSource); 2] {
        [("chosen", &self.chosen), ("rejected", &self.rejected)]
    }
}

impl ImagePair {
    /// The pair with its sides exchanged.
    #[must_use]
    pub fn turned(self) -> Self {
        let ImageOrigin { places, models: [chosen, rejected], is_tie } = self.origin;
        let places = places.map(|[chosen, rejected]| [rejected, chosen]);
        let origin = ImageOrigin { places, models: [rejected, chosen], is_tie };
        let numbers = self.numbers.turned();
        Self { chosen: self.rejected, rejected: self.chosen, numbers, origin, ..self }
    }
}
