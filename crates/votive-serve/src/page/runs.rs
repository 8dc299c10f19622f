//! All runs: how far each is, and whether something is wrong with it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Shared;
use votive_gallery::RunRecord;
use votive_gallery::html::{Html, number};

use super::{Page, framed_again};
use crate::desk::Desk;
use crate::problem::Problem;
use crate::runs::{Run, State};

/// Seconds after which a page of something that still runs is loaded again.
const AGAIN: u32 = 15;

/// A run as it was when somebody looked.
pub(super) struct Look {
    pub(super) run: Run,
    pub(super) state: State,
    pub(super) record: Result<RunRecord, Problem>,
    planned: Option<u64>,
    age: Option<Duration>,
}

impl Look {
    pub(super) fn at(run: Run) -> Self {
        let (state, record, planned, age) = (run.state(), run.record(), run.planned(), run.age());
        Self { run, state, record, planned, age }
    }

    /// After how many seconds it is worth another look.
    pub(super) fn again(&self) -> Option<u32> {
        (self.state == State::Running).then_some(AGAIN)
    }

    /// How far it is: a bar where the end is known, the last step, and when that was written.
    pub(super) fn progress(&self, html: &mut Html) {
        let step = self.record.as_ref().ok().and_then(RunRecord::last).map(|point| point.step);
        match (step, self.planned) {
            (Some(step), Some(planned)) => html.put(
                "<progress max=\"{}\" value=\"{}\"></progress> <span>step {} of {}</span>",
                &[&planned.max(1), &step, &step, &planned],
            ),
            (Some(step), None) => html.put("<span>step {}</span>", &[&step]),
            (None, _) => html.put("<span class=\"quiet\">no step is logged</span>", &[]),
        };
        if let Some(age) = self.age.filter(|_| self.state != State::Gallery) {
            html.put(" <span class=\"quiet\">written {} ago</span>", &[&in_words(age)]);
        }
    }
}

pub(super) async fn show(Shared(desk): Shared<Arc<Desk>>) -> Result<Page, Problem> {
    let looks: Vec<Look> = desk.watch(|runs| Ok(runs.all().into_iter().map(Look::at).collect())).await?;
    let mut body = Html::default();
    body.put("<h1>Runs</h1>\n", &[]);
    if looks.is_empty() {
        body.put("<p>There is no run in these folders yet.</p>\n", &[]);
    } else {
        body.put(
            "<div class=\"scroll\"><table class=\"runs\"><thead><tr><th scope=\"col\">run</th><th scope=\"col\">state</th>\
             <th scope=\"col\">progress</th><th scope=\"col\">loss</th><th scope=\"col\">accuracy</th>\
             <th scope=\"col\">alarms</th></tr></thead>\n<tbody>",
            &[],
        );
        looks.iter().for_each(|look| row(&mut body, look));
        body.put("</tbody></table></div>\n", &[]);
    }
    Ok(framed_again("Runs", looks.iter().find_map(Look::again), &body))
}

fn row(body: &mut Html, look: &Look) {
    body.put(
        "<tr><th scope=\"row\" class=\"name\"><a href=\"/runs/{}/\">{}</a></th><td>{}</td><td>",
        &[&look.run.id, &look.run.name, &word(look.state)],
    );
    match &look.record {
        Ok(record) => {
            look.progress(body);
            let last = record.last();
            let shown = |value: Option<f64>, decimals| {
                value.map_or_else(|| "–".to_owned(), |value| number(value, decimals).to_string())
            };
            body.put(
                "</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                &[
                    &shown(last.map(|point| point.loss), 4),
                    &shown(last.and_then(|point| point.accuracy), 2),
                    &record.alarms(),
                ],
            );
        }
        Err(problem) => {
            body.put("{}</td><td>–</td><td>–</td><td>–</td></tr>\n", &[&problem.message()]);
        }
    }
}

/// A state in a word.
pub(super) fn word(state: State) -> &'static str {
    match state {
        State::Finished => "finished",
        State::Running => "running",
        State::Stopped => "stopped",
        State::Gallery => "gallery",
    }
}

/// A time in its largest unit.
fn in_words(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_one_unit() {
        let of = |seconds| in_words(Duration::from_secs(seconds));
        assert_eq!(
            [of(3), of(119), of(120), of(7200), of(172_800)],
            ["3 s", "119 s", "2 min", "2 h", "2 days"]
        );
    }
}
