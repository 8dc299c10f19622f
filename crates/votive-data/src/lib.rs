//! Preference data: records, readers and writers, chat templates, tokenizing, collation and data order.
//!
//! ```text
//! JSONL │ JSON │ Parquet ─ TextSource ─▶ PreferencePair ─ TextTokenizer ─▶ TokenizedPair ─ collate_pairs ─▶ TextBatch
//! JSONL │ JSON │ Parquet │ folders ─ ImageDataSource ─▶ ImagePair ─ screen_image_pairs ─▶ ScreenedPair ─ frame_pairs ─▶ FramedPair
//!   ─ ImageLoader ─▶ pixels in [-1, 1]
//! ```
//!
//! Rows are counted from 1 and keep their number through every stage, so that an error or a NaN can name the line it
//! came from. No row is dropped or cut in silence: what a [`RowPolicy`] leaves out stands in the [`DataReport`].
//!
//! Invariant: this crate knows no objective, no model and no device; it maps files to ids, masks and pixels.

mod admission;
mod buckets;
mod clip;
mod collate;
mod convert;
mod curriculum;
mod error;
mod examine;
mod framing;
mod image_bytes;
mod image_stats;
mod key_phrases;
mod order;
mod pixels;
mod read;
mod record;
mod report;
mod screening;
mod stats;
mod template;
mod token_weights;
mod tokenize;
mod tokenizer;
mod write;

pub use buckets::Buckets;
pub use clip::{ClipPrompt, ClipTokenizer};
pub use collate::{
    TextBatch, collate_lists, collate_mismatched, collate_pairs, collate_pairs_and, collate_unpaired,
};
pub use convert::{TextLayout, convert};
pub use curriculum::Phases;
pub use error::{DataError, Place, Result};
pub use examine::{Examination, ExaminedCompletion, Lint};
pub use framing::{Augmentation, AugmentationPolicy, Crop, Frame, ImageSize, ResizeFilter};
pub use image_bytes::ImageBytes;
pub use image_stats::{ImageStats, Wins};
pub use key_phrases::{key_phrases, without_spans};
pub use order::{DataOrder, Traversal};
pub use pixels::{ImageLimits, ImageLoader, LoadedImage, decode_image, read_image, to_latent_input};
pub use read::{
    FORMATS, Format, IMAGE_FORMATS, ImageDataSource, ImageFormat, PairChoice, PairWeights, Records, Refused,
    TextRecords, TextSource, Ties, catches_panics, holds_images, read_captions, read_pairs, read_text,
    read_unpaired,
};
pub use record::{
    CaptionRow, ChatOptions, Completion, EmbeddedImage, ImageOrigin, ImagePair, ImageSource, Message,
    PairText, PreferencePair, RowNumbers, ScoredList, UnpairedExample,
};
pub use report::{
    DataReport, FaultyRows, ImageSummary, LengthSummary, LongRows, NumberSummary, RowList, RowPolicy,
    RowProblem, TrainOn,
};
pub use screening::{
    FramedPair, ImageFacts, ScreenedPair, frame_pairs, screen_image_pairs, screen_shown_images,
};
pub use stats::{Bin, Distribution, Duplicates, Lengths};
pub use template::{ChatTemplate, UtcTime};
pub use token_weights::{after_last, differing_lines};
pub use tokenize::{TokenizedList, TokenizedPair, TokenizedUnpaired, common_prefix_length};
pub use tokenizer::{
    CountBySize, ImagePlaces, LlamaCppVocabulary, Merging, SpecialTokens, TextStream, TextTokenizer,
    TokenKind, VectorCount,
};
pub use write::{write_image_pairs, write_jsonl, write_text_pairs};
