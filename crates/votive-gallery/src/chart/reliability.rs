//! A reliability diagram: how often verdicts of a confidence are right, with the line on which all would lie whose
//! probabilities mean what they say.

use super::scale::{Scale, axes};
use crate::audit::Calibrated;
use crate::html::{Html, number};

const WIDTH: f64 = 370.0;
const HEIGHT: f64 = 300.0;
const PLOT_X: (f64, f64) = (46.0, 350.0);
const PLOT_Y: (f64, f64) = (258.0, 10.0);
/// Radius of a bin that holds all pairs; its area follows their number.
const LARGEST: f64 = 14.0;
const SMALLEST: f64 = 2.5;

/// The diagram of `bins`; confidence goes from ½ to 1, accuracy from 0 to 1.
pub(crate) fn reliability(bins: &[Calibrated]) -> Html {
    let x = Scale::new(0.5, 1.0, PLOT_X.0, PLOT_X.1);
    let y = Scale::new(0.0, 1.0, PLOT_Y.0, PLOT_Y.1);
    let all: usize = bins.iter().map(|bin| bin.n).sum();
    let mut svg = Html::default();
    svg.put(
        "<svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"Reliability diagram; its numbers stand in the table\">",
        &[&WIDTH, &HEIGHT],
    );
    svg.append(&axes(&x, &y));
    svg.put(
        "<text class=\"tick end\" x=\"{}\" y=\"{}\">probability that it gives its verdict</text>",
        &[&PLOT_X.1, &(PLOT_Y.0 + 36.0)],
    );
    let at = |scale: &Scale, value: f64| number(scale.position(value), 1);
    let ends = [at(&x, 0.5), at(&y, 0.5), at(&x, 1.0), at(&y, 1.0)];
    svg.put("<path class=\"expected\" d=\"M{} {}L{} {}\"/>", &[&ends[0], &ends[1], &ends[2], &ends[3]]);
    for bin in bins {
        let (middle, low, high) = (at(&x, bin.confidence), at(&y, bin.low), at(&y, bin.high));
        let radius = (LARGEST * (bin.n as f64 / all.max(1) as f64).sqrt()).max(SMALLEST);
        svg.put(
            "<g><title>said {}, right {} of {} pairs</title>",
            &[&number(bin.confidence, 3), &number(bin.accuracy, 3), &bin.n],
        );
        svg.put("<path class=\"whisker\" d=\"M{} {}V{}\"/>", &[&middle, &low, &high]);
        svg.put(
            "<circle class=\"dot\" cx=\"{}\" cy=\"{}\" r=\"{}\"/></g>",
            &[&middle, &at(&y, bin.accuracy), &number(radius, 1)],
        );
    }
    svg.put("</svg>\n", &[]);
    svg
}
