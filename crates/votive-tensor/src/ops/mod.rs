//! The operations, one file per family. Each has a fused CPU kernel and a composition of candle ops.

mod activation;
mod attention;
mod channels;
mod conv;
mod few_queries;
mod few_rows;
mod kept;
mod linear;
mod log_prob;
mod log_sigmoid;
mod low_rank;
mod low_rank_conv;
mod norm;
mod resample;
mod rope;
mod softcap;
mod stored;
mod token_divergence;
mod transpose;

pub use activation::{Activation, activate, gated, gated_halves};
pub use attention::{AttentionMask, Scores, Segment, attention};
pub use channels::add_to_channels;
pub use conv::conv2d;
pub use kept::{KeptWeights, keeping_weights};
pub use linear::linear;
pub use log_prob::{TokenScores, token_scores};
pub use log_sigmoid::log_sigmoid;
pub use low_rank::low_rank_linear;
pub use low_rank_conv::low_rank_conv2d;
pub use norm::{group_norm, group_norm_activated, layer_norm, rms_norm};
pub use resample::upsample_nearest_2x;
pub use rope::rope;
pub use stored::{Storage, StoredMatrix, Weight, stored_linear};
pub use token_divergence::token_divergences;
pub use transpose::transpose;
