//! Preference data: records, readers and writers, chat templates, tokenizing, collation and data order.
//!
//! ```text
//! JSONL │ JSON │ Parquet ─ TextSource ─▶ PreferencePair ─ TextTokenizer ─▶ TokenizedPair ─ collate_pairs ─▶ TextBatch
//! JSONL │ folders ─ read ─▶ ImagePair ─ ImageLoader ─▶ pixels in [-1, 1]
//! ```
//!
//! Rows are counted from 1 and keep their number through every stage, so that an error or a NaN can name the line it
//! came from. No row is dropped or cut in silence: what a [`RowPolicy`] leaves out stands in the [`DataReport`].
//!
//! Invariant: this crate knows no objective, no model and no device; it maps files to ids, masks and pixels.

mod admission;
mod clip;
mod collate;
mod convert;
mod error;
mod examine;
mod order;
mod pixels;
mod read;
mod record;
mod report;
mod stats;
mod template;
mod tokenize;
mod tokenizer;
mod write;

pub use clip::{ClipPrompt, ClipTokenizer};
pub use collate::{TextBatch, collate_mismatched, collate_pairs, collate_unpaired};
pub use convert::{TextLayout, convert};
pub use error::{DataError, Place, Result};
pub use examine::{Examination, ExaminedCompletion, Lint};
pub use order::{DataOrder, Traversal};
pub use pixels::{
    Augmentation, Cut, ImageLimits, ImageLoader, PairPixels, ResizeFilter, decode_image, to_latent_input,
};
pub use read::{
    FORMATS, Format, PairChoice, Records, Refused, TextRecords, TextSource, catches_panics, read_captions,
    read_image_pairs, read_pairs, read_text, read_unpaired, screen_image_pairs,
};
pub use record::{
    CaptionRow, ChatOptions, Completion, ImagePair, Message, PairText, PreferencePair, RowNumbers,
    UnpairedExample,
};
pub use report::{
    DataReport, FaultyRows, LengthSummary, LongRows, NumberSummary, RowList, RowPolicy, RowProblem, TrainOn,
};
pub use stats::{Bin, Distribution, Duplicates, Lengths};
pub use template::{ChatTemplate, UtcTime};
pub use tokenize::{TokenizedPair, TokenizedUnpaired, common_prefix_length};
pub use tokenizer::{LlamaCppVocabulary, Merging, SpecialTokens, TextStream, TextTokenizer, TokenKind};
pub use write::{write_image_pairs, write_jsonl, write_text_pairs};
