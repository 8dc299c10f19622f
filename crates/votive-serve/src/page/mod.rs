//! The pages for people, one file a page. Markup is made of literals alone; everything else is escaped on its way in, by the
//! same [`Html`] as the gallery's, so that there is one place to get it right.

mod asset;
mod compare;
mod item;
mod items;
mod results;
mod run;
mod runs;
mod start;

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use votive_critic::{Abstention, Finding, Shown, Winner};
use votive_gallery::html::{Html, RelativeUrl, number};

use crate::desk::Desk;
use crate::problem::Problem;

/// Bytes of a form, at most.
const FORM_BYTES: usize = 64 << 10;

/// All pages.
pub(crate) fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/", get(start::show))
        .route("/compare", get(compare::show))
        .route("/answer", post(compare::answer))
        .route("/undo", post(compare::undo))
        .route("/again", post(compare::again))
        .route("/results", get(results::show))
        .route("/items", get(items::show))
        .route("/items/{id}", get(item::show))
        .route("/runs", get(runs::show))
        .route("/runs/{id}/", get(run::show))
        .route("/runs/{id}/{*file}", get(run::file))
        .route("/image/{sha256}", get(asset::image))
        .route("/style.css", get(asset::style))
        .route("/compare.js", get(asset::script))
        .route("/icon.svg", get(asset::icon))
        .fallback(|| async { Problem::missing("There is no such page.") })
        .layer(axum::extract::DefaultBodyLimit::max(FORM_BYTES))
        .with_state(desk)
}

/// A finished page.
#[derive(Debug)]
pub(crate) struct Page(Html);

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], self.0.as_str().to_owned()).into_response()
    }
}

/// A page around its content; `rater` is who is at work, if that is known.
fn framed(title: &str, rater: Option<&str>, body: &Html) -> Page {
    whole(title, None, rater, body)
}

/// A page that is loaded again after so many seconds, if it is worth that.
fn framed_again(title: &str, again: Option<u32>, body: &Html) -> Page {
    whole(title, again, None, body)
}

fn whole(title: &str, again: Option<u32>, rater: Option<&str>, body: &Html) -> Page {
    let mut page = Html::default();
    page.put(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n",
        &[],
    );
    if let Some(seconds) = again {
        page.put("<meta http-equiv=\"refresh\" content=\"{}\">\n", &[&seconds]);
    }
    page.put(
        "<title>{}</title>\n\
         <link rel=\"icon\" href=\"/icon.svg\">\n<link rel=\"stylesheet\" href=\"/style.css\">\n\
         <script src=\"/compare.js\" defer></script>\n</head>\n<body>\n<main>\n<nav>",
        &[&title],
    );
    match rater {
        Some(rater) => page.put("<a href=\"/compare?rater={}\">Compare</a>", &[&RelativeUrl(rater)]),
        None => page.put("<a href=\"/\">Compare</a>", &[]),
    };
    page.put(
        "<a href=\"/items\">Items</a><a href=\"/results\">Results</a><a href=\"/runs\">Runs</a></nav>\n",
        &[],
    );
    page.append(body);
    page.put("</main>\n</body>\n</html>\n", &[]);
    Page(page)
}

/// The page of what went wrong.
pub(crate) fn problem(message: &str) -> Page {
    let mut body = Html::default();
    body.put("<h1>This did not work</h1>\n<p>{}</p>\n", &[&message]);
    framed("This did not work", None, &body)
}

/// A candidate or a reference; `label` says which.
fn shown(html: &mut Html, shown: &Shown, label: &str) {
    match shown {
        Shown::Text(text) => html.put("<blockquote dir=\"auto\">{}</blockquote>", &[text]),
        Shown::Image(hash) => html.put("<img src=\"/image/{}\" alt=\"{}\">", &[hash, &label]),
    };
}

/// A finding in words; candidates are numbered from 1.
fn in_words(finding: &Finding) -> String {
    match finding {
        Finding::Grade(grade) => format!("grade {grade}"),
        Finding::Preference(probability) => match finding.winner() {
            Some(Winner::First) => format!("1 is better (p = {})", number(*probability, 2)),
            Some(Winner::Second) => format!("2 is better (p = {})", number(1.0 - *probability, 2)),
            _ => "tie".to_owned(),
        },
        Finding::Ranking(order) => {
            let places: Vec<String> = order.iter().map(|place| (place + 1).to_string()).collect();
            places.join(" > ")
        }
        Finding::Abstention(abstention) => match abstention {
            Abstention::Malformed(why) | Abstention::NoAnswer(why) | Abstention::Unreadable(why) => {
                format!("{}: {why}", abstention.reason())
            }
            _ => abstention.reason().to_owned(),
        },
    }
}
