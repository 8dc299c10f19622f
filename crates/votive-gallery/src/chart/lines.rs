//! Training curves: one value over optimizer steps.

use super::scale::{Scale, axes};
use crate::html::{Html, number};

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 190.0;
const PLOT_X: (f64, f64) = (42.0, 350.0);
const PLOT_Y: (f64, f64) = (164.0, 10.0);
/// More points than this are averaged in groups: a line has no more places to show them.
const MAX_POINTS: usize = 80;

/// One value over steps.
#[derive(Debug)]
pub(crate) struct Curve {
    /// What the value is.
    pub(crate) name: &'static str,
    /// Values that the axis must span, whatever the data.
    pub(crate) span: &'static [f64],
    /// Step and value, in order of step.
    pub(crate) points: Vec<(u64, f64)>,
}

/// A captioned plot of `curve`; nothing if it has no points.
pub(crate) fn line_plot(curve: &Curve) -> Html {
    let mut html = Html::default();
    let group = curve.points.len().div_ceil(MAX_POINTS);
    let points = averaged(&curve.points, group);
    let (Some((from, _)), Some((to, _))) = (curve.points.first(), curve.points.last()) else { return html };

    let x = Scale::new(*from as f64, *to as f64, PLOT_X.0, PLOT_X.1);
    let values = || points.iter().map(|point| point.1).chain(curve.span.iter().copied());
    let (low, high) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    let y = Scale::new(low, high, PLOT_Y.0, PLOT_Y.1);

    let decimals = y.ticks().1 + 1;
    html.put("<figure class=\"plot\"><figcaption><b>{}</b> ", &[&curve.name]);
    if let (Some(first), Some(last)) = (points.first(), points.last()) {
        html.put("{} → {}", &[&number(first.1, decimals), &number(last.1, decimals)]);
    }
    if group > 1 {
        html.put(" <span class=\"quiet\">(means of {} points)</span>", &[&group]);
    }
    html.put(
        "</figcaption><svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{} over steps {} to {}\">",
        &[&WIDTH, &HEIGHT, &curve.name, from, to],
    );
    html.append(&axes(&x, &y));
    html.append(&line(&points, &x, &y));
    html.put("</svg></figure>\n", &[]);
    html
}

fn line(points: &[(f64, f64)], x: &Scale, y: &Scale) -> Html {
    let mut svg = Html::default();
    svg.put("<polyline class=\"line\" points=\"", &[]);
    for (step, value) in points {
        svg.put("{},{} ", &[&number(x.position(*step), 1), &number(y.position(*value), 1)]);
    }
    svg.put("\"/>", &[]);
    if let Some((step, value)) = points.last() {
        svg.put(
            "<circle class=\"dot\" cx=\"{}\" cy=\"{}\" r=\"3\"/>",
            &[&number(x.position(*step), 1), &number(y.position(*value), 1)],
        );
    }
    svg
}

/// Means of steps and values over runs of `group` points; the last run may be shorter.
fn averaged(points: &[(u64, f64)], group: usize) -> Vec<(f64, f64)> {
    let mean = |run: &[(u64, f64)]| {
        // Dividing before adding keeps a sum of huge values finite.
        let n = run.len() as f64;
        run.iter().fold((0.0, 0.0), |(step, value), point| (step + point.0 as f64 / n, value + point.1 / n))
    };
    points.chunks(group.max(1)).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_are_averaged_in_groups() {
        assert_eq!(averaged(&[(0, 1.0), (2, 3.0), (4, 5.0)], 2), [(1.0, 2.0), (4.0, 5.0)]);
        assert_eq!(averaged(&[(7, 1.0)], 1), [(7.0, 1.0)]);
    }

    #[test]
    fn a_curve_without_points_draws_nothing() {
        assert_eq!(line_plot(&Curve { name: "loss", span: &[], points: Vec::new() }).as_str(), "");
    }
}
