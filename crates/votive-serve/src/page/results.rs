//! How far people and judges agree with the truth, with themselves and with each other.

use std::fmt::Display;
use std::sync::Arc;

use axum::extract::State;
use votive_gallery::html::{Html, number};

use super::{Page, framed};
use crate::desk::Desk;
use crate::problem::Problem;
use crate::tally::{Pairing, Share, Tallies, Tally};

pub(super) async fn show(State(desk): State<Arc<Desk>>) -> Result<Page, Problem> {
    let tallies =
        desk.work(|store, _| Ok(Tallies::of(&store.judgments(None, None)?, &store.truths()?))).await?;
    let mut body = Html::default();
    body.put("<h1>Results</h1>\n", &[]);
    if tallies.judges.is_empty() {
        body.put("<p>Nobody has judged anything yet.</p>\n", &[]);
        return Ok(framed("Results", None, &body));
    }
    body.put(
        "<section><h2>Judges</h2>\n<div class=\"scroll\"><table><thead><tr><th>judge</th><th>judgments</th><th>1 better</th>\
         <th>2 better</th><th>ties</th><th>nothing said</th><th>agrees with the truth</th><th>with itself</th>\
         <th>for the left or first</th><th>seconds</th></tr></thead>\n<tbody>",
        &[],
    );
    for (judge, tally) in &tallies.judges {
        judge_row(&mut body, judge, tally);
    }
    body.put(
        "</tbody></table></div>\n<p class=\"quiet\">The truth is what an item’s maker says of it. With itself: pairs that were looked \
         at twice, the second time mirrored, with the same winner. Left or first: share of the answers for either side; without \
         a preference for a side it is near a half. Seconds: the median.</p></section>\n",
        &[],
    );
    if !tallies.pairings.is_empty() {
        body.put(
            "<section><h2>People and judges</h2>\n<div class=\"scroll\"><table><thead><tr><th>one</th><th>other</th>\
             <th>agree</th><th>Cohen’s κ</th></tr></thead>\n<tbody>",
            &[],
        );
        for pairing in &tallies.pairings {
            pairing_row(&mut body, pairing);
        }
        body.put(
            "</tbody></table></div>\n<p class=\"quiet\">Of pairs on which both have named a winner or a tie. κ is agreement beyond \
             chance: 0 none, 1 always; – where both always say the same one thing.</p></section>\n",
            &[],
        );
    }
    Ok(framed("Results", None, &body))
}

fn judge_row(body: &mut Html, judge: &str, tally: &Tally) {
    let silent: Vec<String> = tally.abstentions.iter().map(|(why, n)| format!("{n} {why}")).collect();
    let cells: [&dyn Display; 9] = [
        &tally.judgments,
        &tally.first,
        &tally.second,
        &tally.ties,
        &silent.join(", "),
        &share(tally.truth),
        &share(tally.oneself),
        &share(tally.left),
        &number(tally.seconds, 1),
    ];
    body.put("<tr><th scope=\"row\" class=\"name\">{}</th>", &[&judge]);
    for cell in cells {
        body.put("<td>{}</td>", &[cell]);
    }
    body.put("</tr>\n", &[]);
}

fn pairing_row(body: &mut Html, pairing: &Pairing) {
    let Pairing { one, other, agreement } = pairing;
    let agreed = share(Share { hits: agreement.agreed, of: agreement.n });
    let kappa = agreement.kappa.map_or_else(|| "–".to_owned(), |kappa| number(kappa, 2).to_string());
    body.put(
        "<tr><th scope=\"row\" class=\"name\">{}</th><td class=\"name\">{}</td><td>{}</td><td>{}</td></tr>\n",
        &[one, other, &agreed, &kappa],
    );
}

/// Counts first: a share of few is no certainty.
fn share(share: Share) -> String {
    if share.of == 0 {
        return "–".to_owned();
    }
    let percent = number(100.0 * share.hits as f64 / share.of as f64, 1);
    format!("{} of {} ({percent} %)", share.hits, share.of)
}
