//! Numbers of a batch against others of the same rank.

use crate::error::Result;
use candle_core::{DType, Tensor};

/// `ahead_(k) − behind_(k)`, where (k) is the k-th smallest, at the place in the batch of the k-th smallest of `ahead`; `(B,)`.
pub(crate) fn rank_by_rank(ahead: &Tensor, behind: &Tensor) -> Result<Tensor> {
    let order = |values: &Tensor| values.detach().contiguous()?.arg_sort_last_dim(true);
    // The order of an order is each place's rank.
    let ranks = order(&order(ahead)?.to_dtype(DType::F32)?)?;
    let of_same_rank = behind.index_select(&order(behind)?, 0)?.index_select(&ranks, 0)?;
    Ok((ahead - of_same_rank)?)
}
