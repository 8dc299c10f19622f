//! Charts as hand-made SVG: no library, no style attribute, the same bytes for the same numbers.

mod bars;
mod interval;
mod lines;
mod reliability;
mod scale;

pub(crate) use bars::gain_bars;
pub(crate) use interval::interval;
pub(crate) use lines::{Curve, line_plot};
pub(crate) use reliability::reliability;
