//! Two candidates side by side, and what a person says of them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Form, Query, State};
use axum::response::Redirect;
use serde::Deserialize;
use votive_critic::{Outline, Store, StoredJudgment};
use votive_gallery::html::{Html, RelativeUrl};

use super::{Page, framed, shown};
use crate::answer::{About, Answer, judge_of};
use crate::desk::Desk;
use crate::problem::Problem;
use crate::queue::{Look, Progress, Queue, is_skipped};

/// Characters of a reason, at most.
const LONGEST_WORDS: usize = 4000;

/// Who compares, and what, if not what comes next.
#[derive(Deserialize)]
pub(super) struct Asked {
    rater: String,
    item: Option<i64>,
    draw: Option<u64>,
}

/// What a form says.
#[derive(Deserialize)]
pub(super) struct Answered {
    rater: String,
    item: i64,
    draw: u64,
    /// Hash of the question as it was on the page.
    shown: String,
    /// When the page was made, milliseconds since 1970.
    since: u64,
    answer: Answer,
    #[serde(default)]
    words: String,
}

/// Which judgment is to be withdrawn.
#[derive(Deserialize)]
pub(super) struct Undone {
    rater: String,
    judgment: i64,
}

/// Who wants to see again what they have skipped.
#[derive(Deserialize)]
pub(super) struct Again {
    rater: String,
}

fn judge(rater: &str) -> Result<String, Problem> {
    judge_of(rater).ok_or_else(|| {
        Problem::wrong("A name has 1 to 40 characters: letters, digits, dashes, underscores and dots.")
    })
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn outline(store: &Store, item: i64) -> Result<Outline, Problem> {
    let outline = store.outline(item)?.filter(|outline| outline.candidates.len() == 2);
    outline.ok_or_else(|| Problem::missing(format!("There is no pair of number {item}.")))
}

/// The way back to comparing.
fn onwards(rater: &str) -> Redirect {
    Redirect::to(&format!("/compare?rater={}", RelativeUrl(rater)))
}

pub(super) async fn show(State(desk): State<Arc<Desk>>, Query(asked): Query<Asked>) -> Result<Page, Problem> {
    let judge = judge(&asked.rater)?;
    desk.work(move |store, queue| {
        let judged = store.judgments(None, Some(&judge))?;
        let progress = queue.progress(&asked.rater, &store.pair_numbers()?, &judged);
        let is_open = |look: &Look| !judged.iter().any(|one| is_of(one, *look));
        let wanted = asked.item.map(|item| Look { item, draw: asked.draw.unwrap_or(0).min(1) });
        let Some(look) = wanted.filter(is_open).or(progress.next) else {
            return Ok(over(&asked.rater, &progress));
        };
        let outline = outline(store, look.item)?;
        Ok(comparison(&asked.rater, look, queue.is_reversed(&asked.rater, look), &outline, &progress))
    })
    .await
}

fn is_of(judgment: &StoredJudgment, look: Look) -> bool {
    (judgment.item, judgment.draw) == (look.item, look.draw)
}

/// The page of a comparison.
fn comparison(rater: &str, look: Look, is_reversed: bool, outline: &Outline, progress: &Progress) -> Page {
    let mut body = Html::default();
    how_far(&mut body, rater, progress);
    body.put("<h1>Which is better?</h1>\n<p class=\"prompt\" dir=\"auto\">{}</p>\n", &[&outline.prompt]);
    if let Some(reference) = &outline.reference {
        body.put("<details><summary>An answer that is known to be right</summary>", &[]);
        shown(&mut body, reference, "An answer that is known to be right");
        body.put("</details>\n", &[]);
    }
    body.put(
        "<form id=\"answer\" method=\"post\" action=\"/answer\">\n\
         <input type=\"hidden\" name=\"rater\" value=\"{}\"><input type=\"hidden\" name=\"item\" value=\"{}\">\
         <input type=\"hidden\" name=\"draw\" value=\"{}\"><input type=\"hidden\" name=\"shown\" value=\"{}\">\
         <input type=\"hidden\" name=\"since\" value=\"{}\">\n<div class=\"pair\">\n",
        &[&rater, &look.item, &look.draw, &outline.question_sha256(is_reversed), &now()],
    );
    let mut sides: Vec<_> = outline.candidates.iter().collect();
    if is_reversed {
        sides.reverse();
    }
    for (side, label) in sides.into_iter().zip(["Left", "Right"]) {
        body.put("<figure class=\"side\"><figcaption>{}</figcaption>", &[&label]);
        shown(&mut body, side, label);
        body.put("</figure>\n", &[]);
    }
    body.put(
        "</div>\n<div class=\"answers\">\
         <button name=\"answer\" value=\"left\" data-keys=\"1 ArrowLeft\">Left is better <kbd>1</kbd> <kbd>←</kbd></button>\
         <button name=\"answer\" value=\"tie\" data-keys=\"0 ArrowDown\">Tie <kbd>0</kbd> <kbd>↓</kbd></button>\
         <button name=\"answer\" value=\"right\" data-keys=\"2 ArrowRight\">Right is better <kbd>2</kbd> <kbd>→</kbd></button>\
         </div>\n<div class=\"answers quiet\">\
         <button name=\"answer\" value=\"undecided\" data-keys=\"x\">Can’t say <kbd>x</kbd></button>\
         <button name=\"answer\" value=\"skip\" data-keys=\"s\">Skip <kbd>s</kbd></button></div>\n\
         <p><label>Why, if you like <kbd>w</kbd> <textarea name=\"words\" rows=\"2\" maxlength=\"4000\" data-keys=\"w\">\
         </textarea></label></p>\n</form>\n",
        &[],
    );
    framed("Compare", Some(rater), &body)
}

/// Progress, and the way back.
fn how_far(body: &mut Html, rater: &str, progress: &Progress) {
    body.put(
        "<header class=\"line\"><span>{}</span> <progress max=\"{}\" value=\"{}\"></progress> \
         <span class=\"quiet\">{} of {}</span>",
        &[&rater, &progress.total.max(1), &progress.done, &progress.done, &progress.total],
    );
    if let Some(last) = progress.last {
        body.put(
            "<form method=\"post\" action=\"/undo\"><input type=\"hidden\" name=\"rater\" value=\"{}\">\
             <input type=\"hidden\" name=\"judgment\" value=\"{}\">\
             <button data-keys=\"u Backspace\">Undo <kbd>u</kbd></button></form>",
            &[&rater, &last],
        );
    }
    body.put("</header>\n", &[]);
}

/// The page after the last comparison.
fn over(rater: &str, progress: &Progress) -> Page {
    let mut body = Html::default();
    how_far(&mut body, rater, progress);
    body.put("<h1>That was all</h1>\n<p>Thank you. <a href=\"/results\">Results</a></p>\n", &[]);
    if progress.skipped > 0 {
        body.put(
            "<form class=\"line\" method=\"post\" action=\"/again\"><input type=\"hidden\" name=\"rater\" value=\"{}\">\
             <button>Show what you have skipped again ({})</button></form>\n",
            &[&rater, &progress.skipped],
        );
    }
    framed("That was all", Some(rater), &body)
}

pub(super) async fn answer(
    State(desk): State<Arc<Desk>>,
    Form(answered): Form<Answered>,
) -> Result<Redirect, Problem> {
    let judge = judge(&answered.rater)?;
    if answered.draw > 1 {
        return Err(Problem::wrong("A pair is looked at once or twice."));
    }
    if answered.words.chars().count() > LONGEST_WORDS {
        return Err(Problem::wrong(format!("A reason has at most {LONGEST_WORDS} characters.")));
    }
    desk.work(move |store, queue| record(store, queue, judge, answered)).await
}

/// Writes an answer; once this has returned, it is on disk.
fn record(store: &mut Store, queue: Queue, judge: String, answered: Answered) -> Result<Redirect, Problem> {
    let look = Look { item: answered.item, draw: answered.draw };
    let outline = outline(store, look.item)?;
    // What counts is what was on the page, even if another seed would show it otherwise today.
    let drawn = queue.is_reversed(&answered.rater, look);
    let is_reversed = [drawn, !drawn]
        .into_iter()
        .find(|is_reversed| outline.question_sha256(*is_reversed) == answered.shown)
        .ok_or_else(|| {
            Problem::conflict("The page shows another pair than the store has; go back to comparing.")
        })?;
    let judgment = answered.answer.judgment(About {
        judge: judge.clone(),
        shown: answered.shown,
        is_reversed,
        draw: look.draw,
        // Forms end lines as the network does.
        words: answered.words.trim().replace("\r\n", "\n"),
        seconds: now().saturating_sub(answered.since) as f64 / 1000.0,
    });
    let earlier = |store: &Store| -> Result<_, Problem> {
        let judged = store.judgments(Some(look.item), Some(&judge))?;
        Ok(judged.into_iter().find(|one| is_of(one, look)))
    };
    if earlier(store)?.is_none() {
        match store.record(look.item, &judge, look.draw, &judgment) {
            Ok(_) => return Ok(onwards(&answered.rater)),
            // Another program may have been faster.
            Err(error) if earlier(store)?.is_none() => return Err(error.into()),
            Err(_) => {}
        }
    }
    match earlier(store)? {
        // Sent twice, as by a double click.
        Some(one) if one.judgment.finding == judgment.finding => Ok(onwards(&answered.rater)),
        _ => Err(Problem::conflict("This pair was answered already, and otherwise; undo that answer first.")),
    }
}

pub(super) async fn undo(
    State(desk): State<Arc<Desk>>,
    Form(undone): Form<Undone>,
) -> Result<Redirect, Problem> {
    let judge = judge(&undone.rater)?;
    desk.work(move |store, _| {
        let judged = store.judgments(None, Some(&judge))?;
        let Some(one) = judged.iter().find(|one| one.id == undone.judgment) else {
            return Ok(onwards(&undone.rater));
        };
        store.withdraw(one.id)?;
        let (rater, item, draw) = (RelativeUrl(&undone.rater), one.item, one.draw);
        Ok(Redirect::to(&format!("/compare?rater={rater}&item={item}&draw={draw}")))
    })
    .await
}

pub(super) async fn again(
    State(desk): State<Arc<Desk>>,
    Form(again): Form<Again>,
) -> Result<Redirect, Problem> {
    let judge = judge(&again.rater)?;
    desk.work(move |store, _| {
        for one in store.judgments(None, Some(&judge))? {
            if is_skipped(&one.judgment.finding) {
                store.withdraw(one.id)?;
            }
        }
        Ok(onwards(&again.rater))
    })
    .await
}
