//! The page: the frame of `assets/page.html`, filled with style, script and the sections of a report or a run.

use std::path::{Path, PathBuf};

use crate::html::Html;
use crate::policy::content_security_policy;
use crate::report::Report;
use crate::{GalleryError, cards, file, summary};

/// Name of the page's file.
pub const PAGE_FILE: &str = "index.html";

const FRAME: &str = include_str!("../assets/page.html");
/// The frame of a page that is only read: without dialogs and without a script.
const STILL_FRAME: &str = include_str!("../assets/still.html");
/// The style of every page, which other pages of this project may build on.
pub const STYLE: &str = include_str!("../assets/style.css");
const SCRIPT: &str = include_str!("../assets/gallery.js");

/// Writes `index.html` into `dir`, atomically, and returns its path.
///
/// The page links to images, and to `report.json`, by paths relative to `dir`; write the report with
/// [`Report::write`] into the same folder. Equal reports give equal bytes.
///
/// # Errors
/// A number of the report is not finite, an image path leaves `dir`, or the file cannot be written.
pub fn write_gallery(report: &Report, dir: &Path) -> Result<PathBuf, GalleryError> {
    report.check()?;
    write(dir, &report.title, &sections(report))
}

/// Everything that the page says about a report, from its heading to its last card.
pub(crate) fn sections(report: &Report) -> Html {
    let mut body = summary::summary(report);
    body.append(&cards::gallery(report));
    body
}

/// Fills the frame and writes it into `dir`.
pub(crate) fn write(dir: &Path, title: &str, body: &Html) -> Result<PathBuf, GalleryError> {
    let path = dir.join(PAGE_FILE);
    file::write_atomically(&path, render(title, body).as_bytes())?;
    Ok(path)
}

/// The same without a script.
pub(crate) fn write_still(dir: &Path, title: &str, body: &Html) -> Result<PathBuf, GalleryError> {
    let path = dir.join(PAGE_FILE);
    file::write_atomically(&path, framed(STILL_FRAME, title, body, None).as_bytes())?;
    Ok(path)
}

fn render(title: &str, body: &Html) -> String {
    framed(FRAME, title, body, Some(SCRIPT))
}

fn framed(frame: &'static str, title: &str, body: &Html, script: Option<&str>) -> String {
    let mut escaped_title = Html::default();
    escaped_title.put("{}", &[&title]);
    fill(
        frame,
        &[
            ("policy", &content_security_policy(STYLE, script)),
            ("title", escaped_title.as_str()),
            ("style", STYLE),
            ("body", body.as_str()),
            ("script", script.unwrap_or_default()),
        ],
    )
}

/// Replaces each `[[name]]` of `frame` by the part of that name, in one pass, so that no part is searched for marks.
fn fill(frame: &'static str, parts: &[(&str, &str)]) -> String {
    let mut pieces = frame.split("[[");
    let mut page = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once("]]").unwrap_or((piece, ""));
        page.push_str(parts.iter().find(|part| part.0 == name).map_or("", |part| part.1));
        page.push_str(rest);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_not_searched_for_marks() {
        assert_eq!(fill("<[[a]]|[[b]]>", &[("a", "[[b]]"), ("b", "x")]), "<[[b]]|x>");
    }

    #[test]
    fn the_frame_has_every_mark_once() {
        for mark in ["[[policy]]", "[[title]]", "[[style]]", "[[body]]", "[[script]]"] {
            assert_eq!(FRAME.matches(mark).count(), 1, "{mark}");
        }
        assert_eq!(FRAME.matches("[[").count(), 5);
        for mark in ["[[policy]]", "[[title]]", "[[style]]", "[[body]]"] {
            assert_eq!(STILL_FRAME.matches(mark).count(), 1, "{mark}");
        }
        assert_eq!(STILL_FRAME.matches("[[").count(), 4);
    }

    #[test]
    fn neither_style_nor_script_can_end_its_own_element() {
        assert!(!STYLE.contains("</") && !SCRIPT.contains("</"));
    }
}
