//! Whatever is in a store, pages are made of the program's own markup.

use std::collections::BTreeMap;

use serde_json::json;
use votive_critic::{Abstention, Candidate, Cost, Evidence, Finding, Judgment, Question, Store};

use crate::browser::{Browser, Seen, encoded, tokens};
use crate::running::Running;

/// Attributes whose value may come from a store, and with what it begins then.
const FROM_A_STORE: &[(&str, &str)] =
    &[("value", ""), ("href", "/items"), ("href", "/compare?rater="), ("src", "/image/")];

/// 200 texts that try to be more than text.
pub(crate) fn hostile() -> Vec<String> {
    let openings =
        ["", "\">", "'>", "</blockquote>", "</title>", "</textarea>", "-->", "]]>", "</script>", "\u{0}"];
    let payloads = [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<svg/onload=alert(1)>",
        "\" autofocus onfocus=alert(1) x=\"",
        "' onmouseover='alert(1)",
        "<a href=javascript:alert(1)>x</a>",
        "javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "<iframe srcdoc='<script>alert(1)</script>'>",
        "<style>@import'http://evil.example'</style>",
        "<meta http-equiv=refresh content='0;url=http://evil.example'>",
        "<base href=http://evil.example/>",
        "<form action=http://evil.example><input name=q>",
        "&lt;script&gt;alert(1)&lt;/script&gt; &#60;b&#62; &quot;",
        "<!--<plaintext>",
        "../../etc/passwd\u{202e}gnp.exe",
        "%3Cscript%3Ealert(1)%3C/script%3E?q=1&page=2#x",
        "{} {0} [[title]] {{x}} ${x} <%= x %>",
        "\r\nSet-Cookie: a=b\r\n\r\n<html>\u{7f}\u{85}\u{feff}",
        "<\u{ff53}cript>\u{fe64}b\u{fe65} ＜img src=x＞ \u{2028}\u{2029}",
    ];
    openings
        .iter()
        .flat_map(|opening| payloads.iter().map(move |payload| format!("{opening}{payload}")))
        .collect()
}

/// A store with one item and judgments, in which everything that can be a text is `text`.
fn fill(store: &mut Store, text: &str) -> i64 {
    let candidate = |name: &str| Candidate::Text(format!("{text}{name}"));
    let question = Question::pair(text, candidate("1"), candidate("2")).with_reference(candidate("3"));
    let origin = json!({ "file": text, text: [text] });
    let item = store.add(&question, &origin).unwrap();
    let findings = [
        Finding::Preference(0.9),
        Finding::Abstention(Abstention::Malformed(text.to_owned())),
        Finding::Abstention(Abstention::NoAnswer(text.to_owned())),
    ];
    for (draw, finding) in findings.into_iter().enumerate() {
        let evidence = Evidence {
            judge: format!("{text} inner"),
            question: text.to_owned(),
            is_reversed: false,
            template: Some(text.to_owned()),
            draw: 0,
            words: text.to_owned(),
            removed_marks: 1,
            finding: finding.clone(),
            cost: Cost::default(),
        };
        let judgment = Judgment { finding, evidence: vec![evidence] };
        // Another program may have written a person's name that the pages would refuse.
        for judge in ["judge ", "person:"] {
            store.record(item, &format!("{judge}{text}"), draw as u64, &judgment).unwrap();
        }
    }
    item
}

/// Elements and attributes of a page, with the values that do not come from a store.
fn markup(page: &str) -> Vec<(String, BTreeMap<String, String>)> {
    markup_without(page, FROM_A_STORE)
}

/// Elements and attributes of a page, without values of these attributes that begin so.
pub(crate) fn markup_without(
    page: &str,
    outside: &[(&str, &str)],
) -> Vec<(String, BTreeMap<String, String>)> {
    let seen = tokens(page).into_iter().filter_map(|seen| match seen {
        Seen::Open(name, attributes) => {
            let mut kept = BTreeMap::new();
            for (attribute, value) in attributes {
                let found =
                    outside.iter().find(|(name, start)| attribute == *name && value.starts_with(start));
                kept.insert(attribute, found.map_or(value, |(_, start)| (*start).to_owned()));
            }
            Some((name, kept))
        }
        Seen::Close(name) => Some((format!("/{name}"), BTreeMap::new())),
        Seen::Other(other) => Some((other, BTreeMap::new())),
        Seen::Text(_) => None,
    });
    seen.collect()
}

pub(crate) fn text(page: &str) -> String {
    tokens(page)
        .into_iter()
        .filter_map(|seen| if let Seen::Text(text) = seen { Some(text) } else { None })
        .collect()
}

/// All pages that show an item.
fn pages(browser: &Browser, item: i64, search: &str) -> Vec<String> {
    let mut paths = vec![
        "/".to_owned(),
        "/items".to_owned(),
        format!("/items?q={}", encoded(search)),
        format!("/items/{item}"),
        "/results".to_owned(),
        format!("/compare?rater=ann&item={item}"),
    ];
    let texts = |path: String| {
        let reply = browser.get(&path);
        assert_eq!((reply.status, reply.header("content-type")), (200, "text/html; charset=utf-8"), "{path}");
        reply.text()
    };
    paths.drain(..).map(texts).collect()
}

#[test]
fn two_hundred_hostile_texts_are_texts() {
    let folder = tempfile::tempdir().unwrap();
    let tame = {
        let path = folder.path().join("tame.sqlite");
        let item = fill(&mut Store::open(&path).unwrap(), "tame");
        let server = Running::of_store(&path);
        pages(&Browser::open(&server), item, "tame").iter().map(|page| markup(page)).collect::<Vec<_>>()
    };
    let scripts = tame.iter().flatten().filter(|(name, _)| name == "script");
    assert!(
        scripts.clone().count() == tame.len()
            && scripts.clone().all(|(_, attributes)| attributes["src"] == "/compare.js")
    );
    let texts = hostile();
    assert_eq!(texts.len(), 200);
    for (n, hostile) in texts.iter().enumerate() {
        let path = folder.path().join(format!("{n}.sqlite"));
        let item = fill(&mut Store::open(&path).unwrap(), hostile);
        let server = Running::of_store(&path);
        let browser = Browser::open(&server);
        let pages = pages(&browser, item, hostile);
        for (page, tame) in pages.iter().zip(&tame) {
            // Element by element, attribute by attribute, it is the page of harmless texts.
            let found = markup(page);
            let (found_n, tame_n) = (found.len(), tame.len());
            let difference = found.iter().zip(tame).find(|(found, tame)| found != tame);
            assert!(difference.is_none() && found_n == tame_n, "{hostile:?}: {difference:?}");
        }
        // And what was to be shown is shown, character by character.
        let visible =
            |c: char| if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
        let expected: String = hostile.chars().map(visible).collect();
        assert!(text(&pages[3]).contains(&expected), "{hostile:?}");
    }
}

#[test]
fn addresses_that_were_made_up_are_shown_as_texts_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    fill(&mut Store::open(&path).unwrap(), "tame");
    let server = Running::of_store(&path);
    let browser = Browser::open(&server);
    let own = ["html", "head", "body", "meta", "title", "link", "script", "main", "nav", "a", "h1", "p"];
    for hostile in hostile() {
        for path in ["/compare?rater=", "/items/", "/image/", "/nowhere/", "/items?page="] {
            let reply = browser.get(&format!("{path}{}", encoded(&hostile)));
            assert!((400..500).contains(&reply.status), "{path}{hostile:?}: {}", reply.status);
            if reply.header("content-type").starts_with("text/html") {
                let found = markup(&reply.text());
                let strange = found.iter().find(|(name, _)| {
                    !own.contains(&name.trim_start_matches('/')) && !name.starts_with("Doctype")
                });
                assert_eq!(strange, None, "{path}{hostile:?}");
            } else {
                assert_eq!(reply.header("content-type"), "text/plain; charset=utf-8", "{path}{hostile:?}");
            }
        }
    }
}
