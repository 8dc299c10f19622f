//! A share as a bar from zero, with a whisker over its 95 % interval: small enough for a cell of a table.

use super::scale::Scale;
use crate::audit::Measured;
use crate::html::{Html, number};

const WIDTH: f64 = 220.0;
const HEIGHT: f64 = 22.0;
const PLOT: (f64, f64) = (4.0, 216.0);
const BAR: f64 = 10.0;

/// The chart of one share, in points of 100; the numbers stand beside it in the table, so nothing is said twice to those who
/// do not see it.
pub(crate) fn interval(share: &Measured) -> Html {
    let scale = Scale::new(0.0, 100.0, PLOT.0, PLOT.1);
    let at = |value: f64| number(scale.position(value), 1);
    let (zero, middle) = (scale.position(0.0), HEIGHT / 2.0);
    let mut svg = Html::default();
    svg.put("<svg class=\"chart interval\" viewBox=\"0 0 {} {}\" aria-hidden=\"true\">", &[&WIDTH, &HEIGHT]);
    for tick in [0.0, 50.0, 100.0] {
        svg.put("<path class=\"rule\" d=\"M{} 0V{}\"/>", &[&at(tick), &HEIGHT]);
    }
    if share.n > 0 {
        let length = number(scale.position(share.value) - zero, 1);
        svg.put(
            "<rect class=\"unclear\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
            &[&zero, &(middle - BAR / 2.0), &length, &BAR],
        );
        let (low, high) = (at(share.low), at(share.high));
        svg.put("<path class=\"whisker\" d=\"M{} {}H{}", &[&low, &middle, &high]);
        svg.put("M{} {}v8M{} {}v8\"/>", &[&low, &(middle - 4.0), &high, &(middle - 4.0)]);
    }
    if let Some(expected) = share.expected {
        svg.put("<path class=\"expected\" d=\"M{} 0V{}\"/>", &[&at(expected), &HEIGHT]);
    }
    svg.put("</svg>", &[]);
    svg
}
