//! Samples of a run as a grid: checkpoints downwards, prompts across.

use crate::cards::output;
use crate::html::Html;
use crate::samples::{Checkpoint, Sample};

/// What makes a column.
type Column<'a> = (&'a str, u64);

/// The grid of `checkpoints`; nothing if they hold no sample.
pub(crate) fn grid(checkpoints: &[Checkpoint]) -> Html {
    let mut html = Html::default();
    let columns = columns(checkpoints);
    if columns.is_empty() {
        return html;
    }
    html.put("<section id=\"samples\"><h2>Samples by checkpoint</h2>\n", &[]);
    html.put("<p class=\"quiet\">{} checkpoints, {} prompts.", &[&checkpoints.len(), &columns.len()]);
    html.put(" <span class=\"scripted\" hidden>Arrow keys move, <kbd>Enter</kbd> zooms, <kbd>?</kbd> lists all keys.", &[]);
    html.put(
        "</span></p>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Samples\">",
        &[],
    );
    html.put("<table class=\"grid\"><thead><tr><th scope=\"col\">step</th>", &[]);
    for (prompt, seed) in &columns {
        html.put("<th scope=\"col\"><span class=\"prompt\" dir=\"auto\">{}</span> ", &[prompt]);
        html.put("<span class=\"quiet\">seed {}</span></th>", &[seed]);
    }
    html.put("</tr></thead>\n<tbody>", &[]);
    for (idx, checkpoint) in checkpoints.iter().enumerate() {
        html.append(&row(idx, checkpoint, &columns));
    }
    html.put("</tbody></table></div></section>\n", &[]);
    html
}

/// Prompts with their seeds, in the order in which the run first drew them.
fn columns(checkpoints: &[Checkpoint]) -> Vec<Column<'_>> {
    let mut columns = Vec::new();
    for sample in checkpoints.iter().flat_map(|checkpoint| &checkpoint.samples) {
        let column = (sample.prompt.as_str(), sample.seed);
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    columns
}

fn row(row_idx: usize, checkpoint: &Checkpoint, columns: &[Column<'_>]) -> Html {
    let mut html = Html::default();
    html.put("<tr><th scope=\"row\">{}</th>", &[&checkpoint.step]);
    for (column_idx, column) in columns.iter().enumerate() {
        let sample =
            checkpoint.samples.iter().find(|sample| (sample.prompt.as_str(), sample.seed) == *column);
        match sample {
            Some(sample) => html.append(&cell(row_idx, column_idx, checkpoint.step, sample)),
            None => html.put("<td class=\"quiet\">—</td>", &[]),
        };
    }
    html.put("</tr>\n", &[]);
    html
}

fn cell(row_idx: usize, column_idx: usize, step: u64, sample: &Sample) -> Html {
    let mut html = Html::default();
    html.put(
        "<td class=\"item\" data-row=\"{}\" data-column=\"{}\"><figure class=\"side\">",
        &[&row_idx, &column_idx],
    );
    html.append(&output("sample", &sample.prompt, sample.image.as_deref(), sample.text.as_deref()));
    html.put("<figcaption>", &[]);
    html.put("<span class=\"zoomed\">step {} · seed {} </span>", &[&step, &sample.seed]);
    match sample.exact {
        Some(true) => html.put("<span class=\"met\">✓ exact</span>", &[]),
        Some(false) => html.put("<span class=\"missed\">✗ not exact</span>", &[]),
        None => &mut html,
    };
    html.put(
        "<span class=\"zoomed prompt\" dir=\"auto\">{}</span></figcaption></figure></td>",
        &[&sample.prompt],
    );
    html
}
