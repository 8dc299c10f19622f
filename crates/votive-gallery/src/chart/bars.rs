//! Gain by category: a bar from zero to the gain, and a whisker over its 95 % interval.

use super::scale::Scale;
use crate::html::{Html, number, signed};
use crate::report::CategoryScore;

const WIDTH: f64 = 420.0;
const PLOT: (f64, f64) = (132.0, 366.0);
const TOP: f64 = 8.0;
const ROW: f64 = 34.0;
const BAR: f64 = 14.0;
/// Characters of a name that fit beside the plot.
const NAME_CHARS: usize = 17;

/// The chart for `categories`, in points; `label` says what it shows, for those who do not see it.
pub(crate) fn gain_bars(categories: &[CategoryScore], label: &str) -> Html {
    let ends = || categories.iter().flat_map(|row| [row.gain, row.gain_low, row.gain_high]);
    let scale = Scale::new(ends().fold(0.0, f64::min), ends().fold(0.0, f64::max), PLOT.0, PLOT.1);
    let bottom = TOP + ROW * categories.len() as f64;
    let height = bottom + 24.0;

    let mut svg = Html::default();
    svg.put(
        "<svg class=\"chart bars\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
        &[&WIDTH, &height, &label],
    );
    svg.append(&axis(&scale, bottom));
    for (idx, row) in categories.iter().enumerate() {
        svg.append(&bar(row, &scale, TOP + ROW * (idx as f64 + 0.5)));
    }
    svg.put("</svg>\n", &[]);
    svg
}

fn axis(scale: &Scale, bottom: f64) -> Html {
    let mut svg = Html::default();
    let (ticks, decimals) = scale.ticks();
    for tick in ticks {
        let x = number(scale.position(tick), 1);
        svg.put("<path class=\"rule\" d=\"M{} {}V{}\"/>", &[&x, &TOP, &bottom]);
        svg.put(
            "<text class=\"tick middle\" x=\"{}\" y=\"{}\">{}</text>",
            &[&x, &(bottom + 16.0), &signed(tick, decimals)],
        );
    }
    svg.put("<path class=\"zero\" d=\"M{} {}V{}\"/>", &[&number(scale.position(0.0), 1), &TOP, &bottom]);
    svg
}

fn bar(row: &CategoryScore, scale: &Scale, middle: f64) -> Html {
    let (zero, tip) = (scale.position(0.0), scale.position(row.gain));
    let (low, high) = (scale.position(row.gain_low), scale.position(row.gain_high));
    let kind = match (row.gain_low > 0.0, row.gain_high < 0.0) {
        (true, _) => "up",
        (_, true) => "down",
        _ => "unclear",
    };
    let mut svg = Html::default();
    svg.put(
        "<g><title>{}: {} to {}, gain {} [{}, {}] over {} prompts</title>",
        &[
            &row.name,
            &number(row.base, 1),
            &number(row.aligned, 1),
            &signed(row.gain, 1),
            &signed(row.gain_low, 1),
            &signed(row.gain_high, 1),
            &row.n,
        ],
    );
    svg.put("<text class=\"name\" x=\"0\" y=\"{}\">{}</text>", &[&(middle - 1.0), &shortened(&row.name)]);
    svg.put("<text class=\"tick\" x=\"0\" y=\"{}\">n = {}</text>", &[&(middle + 12.0), &row.n]);
    svg.put(
        "<rect class=\"bar {}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
        &[&kind, &number(zero.min(tip), 1), &(middle - BAR / 2.0), &number((tip - zero).abs(), 1), &BAR],
    );
    let (low, high) = (number(low, 1), number(high, 1));
    svg.put("<path class=\"whisker\" d=\"M{} {}H{}", &[&low, &middle, &high]);
    svg.put("M{} {}v8M{} {}v8\"/>", &[&low, &(middle - 4.0), &high, &(middle - 4.0)]);
    svg.put(
        "<text class=\"value\" x=\"{}\" y=\"{}\">{}</text></g>\n",
        &[&WIDTH, &(middle + 4.0), &signed(row.gain, 1)],
    );
    svg
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(NAME_CHARS) {
        None => name.to_owned(),
        Some(_) => name.chars().take(NAME_CHARS - 1).chain(['…']).collect(),
    }
}
