//! Charts as hand-made SVG: no library, no style attribute, the same bytes for the same numbers.

mod bars;
mod lines;
mod scale;

pub(crate) use bars::gain_bars;
pub(crate) use lines::{Curve, line_plot};
