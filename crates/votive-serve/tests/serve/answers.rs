//! Answers: what is written, undone, gone on with, and never lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Barrier};

use votive_critic::{Abstention, Candidate, Finding, Store, Winner};
use votive_serve::Options;

use crate::browser::{Browser, Comparison};
use crate::running::{Running, fill, options, picture};

#[test]
fn an_answer_is_a_judgment_with_the_side_that_was_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    fill(&path, 40);
    let server = Running::of_store(&path);
    let browser = Browser::open(&server);
    let first: BTreeSet<String> = (0..40)
        .map(|i| match i % 2 {
            0 => format!("/image/{}", Candidate::Image(picture(2 * i)).sha256()),
            _ => format!("one of {i}"),
        })
        .collect();
    let answers = ["left", "right", "tie", "undecided", "skip"];
    let mut expected = BTreeMap::new();
    let mut looks = 0;
    while let Some(comparison) = browser.comparison("ann") {
        let answer = answers[looks % answers.len()];
        looks += 1;
        let [left, right] = comparison.sides.as_slice() else { panic!("{comparison:?}") };
        let is_reversed = !first.contains(left);
        assert!(first.contains(right) == is_reversed, "{comparison:?}");
        let mut fields = comparison.fields(answer);
        fields.push(("words".to_owned(), format!(" because {looks}:\r\nit is ")));
        let reply = browser.post("/answer", &fields).unwrap();
        assert_eq!((reply.status, reply.header("location")), (303, "/compare?rater=ann"));
        let look = (
            comparison.value("item").parse::<i64>().unwrap(),
            comparison.value("draw").parse::<u64>().unwrap(),
        );
        expected.insert(look, (answer, is_reversed, looks));
    }
    assert!(looks > 40, "some pairs were shown twice");
    drop(server);
    let store = Store::open(&path).unwrap();
    let judgments = store.judgments(None, Some("person:ann")).unwrap();
    assert_eq!(judgments.len(), expected.len());
    for one in judgments {
        let (answer, is_reversed, n) = expected[&(one.item, one.draw)];
        let winner = match (answer, is_reversed) {
            ("left", false) | ("right", true) => Some(Winner::First),
            ("right", false) | ("left", true) => Some(Winner::Second),
            ("tie", _) => Some(Winner::Tie),
            _ => None,
        };
        assert_eq!(one.judgment.finding.winner(), winner);
        let [evidence] = one.judgment.evidence.as_slice() else { panic!("{one:?}") };
        assert_eq!(
            (evidence.is_reversed, evidence.words.as_str()),
            (is_reversed, format!("because {n}:\nit is").as_str())
        );
        let question = store.item(one.item).unwrap().question;
        let question = if is_reversed { question.reversed() } else { question };
        assert_eq!(evidence.question, question.sha256());
        assert!((0.0..60.0).contains(&evidence.cost.seconds));
        let abstention = match answer {
            "undecided" => Some(Abstention::Undecided),
            "skip" => Some(Abstention::Skipped),
            _ => None,
        };
        if let Some(abstention) = abstention {
            assert_eq!(one.judgment.finding, Finding::Abstention(abstention));
        }
    }
    let reversed = expected.values().filter(|(_, is_reversed, _)| *is_reversed).count();
    assert!((looks / 4..3 * looks / 4).contains(&reversed), "{reversed} of {looks}");
}

#[test]
fn nothing_on_a_comparison_says_where_its_candidates_come_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    fill(&path, 4);
    let server = Running::of_store(&path);
    let browser = Browser::open(&server);
    let page = browser.get("/compare?rater=ann").text();
    assert!(!page.contains("secret") && !page.contains("truth"), "{page}");
    assert!(browser.get("/items/1").text().contains("secret-a"));
}

fn undo(browser: &Browser, comparison: &Comparison) -> Comparison {
    let judgment = comparison.last.clone().unwrap();
    let fields = [("rater".to_owned(), "ann".to_owned()), ("judgment".to_owned(), judgment)];
    let reply = browser.post("/undo", &fields).unwrap();
    assert_eq!(reply.status, 303);
    Comparison::read(&browser.get(reply.header("location")).text()).unwrap()
}

#[test]
fn undo_goes_back_one_by_one_and_a_restart_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    fill(&path, 12);
    let server = Running::of_store(&path);
    let browser = Browser::open(&server);
    let mut seen = Vec::new();
    for answer in ["left", "right", "skip", "tie"] {
        let comparison = browser.comparison("ann").unwrap();
        seen.push(comparison.what());
        browser.answer(&comparison, answer);
    }
    let next = browser.comparison("ann").unwrap();
    drop(server);

    let server = Running::of_store(&path);
    let browser = Browser::open(&server);
    assert_eq!(browser.comparison("ann").unwrap().what(), next.what(), "it goes on where it was");
    let mut shown = browser.comparison("ann").unwrap();
    for back in (1..4).rev() {
        shown = undo(&browser, &shown);
        assert_eq!(shown.what(), seen[back], "undo shows what was undone");
    }
    // Undone a second time, as by a double click: nothing more happens.
    browser.post("/undo", &[("rater".to_owned(), "ann".to_owned()), ("judgment".to_owned(), "4".to_owned())]);
    browser.answer(&shown, "left");
    assert_eq!(browser.comparison("ann").unwrap().what(), seen[2]);
    // Nobody undoes what others have said.
    let other = browser.comparison("bob").unwrap();
    browser.answer(&other, "left");
    let judgment = browser.comparison("bob").unwrap().last.unwrap();
    browser.post("/undo", &[("rater".to_owned(), "ann".to_owned()), ("judgment".to_owned(), judgment)]);
    let store = Store::open(&path).unwrap();
    let of = |judge: &str| store.judgments(None, Some(judge)).unwrap();
    assert_eq!((of("person:ann").len(), of("person:bob").len()), (2, 1));
    let items: Vec<String> = of("person:ann").iter().map(|one| one.item.to_string()).collect();
    assert_eq!(items, [seen[0].0.clone(), seen[1].0.clone()]);
}

#[test]
fn what_was_skipped_comes_back_if_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    fill(&path, 3);
    let server = Running::start(Options { repeats: 0.0, ..options(&path) });
    let browser = Browser::open(&server);
    for answer in ["skip", "left", "skip"] {
        browser.answer(&browser.comparison("ann").unwrap(), answer);
    }
    assert_eq!(browser.comparison("ann"), None);
    assert!(browser.get("/compare?rater=ann").text().contains("(2)"));
    assert_eq!(browser.post("/again", &[("rater".to_owned(), "ann".to_owned())]).unwrap().status, 303);
    for _ in 0..2 {
        browser.answer(&browser.comparison("ann").unwrap(), "right");
    }
    assert_eq!(browser.comparison("ann"), None);
    let results = browser.get("/results").text();
    assert!(results.contains("person:ann") && !results.contains("skipped"), "{results}");
}

#[test]
fn a_form_that_is_sent_twice_counts_once_and_a_changed_mind_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    fill(&path, 3);
    let server = Running::of_store(&path);
    let browser = Browser::open(&server);
    let comparison = browser.comparison("ann").unwrap();
    let statuses = ["left", "left", "right"].map(|answer| browser.answer(&comparison, answer).status);
    assert_eq!(statuses, [303, 303, 409]);
    // A page of another store, a pair that is not there, a third look, a name that is none, too long a reason.
    let changed = |name: &str, value: &str| {
        let mut fields = browser.comparison("bob").unwrap().fields("left");
        fields.retain(|(other, _)| other != name);
        fields.push((name.to_owned(), value.to_owned()));
        browser.post("/answer", &fields).unwrap().status
    };
    assert_eq!(changed("shown", &"0".repeat(64)), 409);
    assert_eq!(changed("item", "99"), 404);
    assert_eq!(changed("draw", "2"), 400);
    assert_eq!(changed("rater", "<b>"), 400);
    assert_eq!(changed("words", &"x".repeat(4001)), 400);
    assert_eq!(changed("answer", "both"), 422);
    drop(server);
    assert_eq!(Store::open(&path).unwrap().judgments(None, None).unwrap().len(), 1);
}

#[test]
fn what_many_say_at_the_same_time_is_all_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    fill(&path, 20);
    let server = Running::start(Options { repeats: 0.0, ..options(&path) });
    let browser = Arc::new(Browser::open(&server));
    let barrier = Arc::new(Barrier::new(8));
    let raters: Vec<_> = (0..8)
        .map(|n| {
            let (browser, barrier) = (Arc::clone(&browser), Arc::clone(&barrier));
            std::thread::spawn(move || {
                // Two windows of each person, which get into each other's way.
                let rater = format!("rater-{}", n / 2);
                barrier.wait();
                let mut acknowledged = 0;
                while let Some(comparison) = browser.comparison(&rater) {
                    let status = browser.answer(&comparison, ["left", "right"][n % 2]).status;
                    assert!(matches!(status, 303 | 409), "{status}");
                    acknowledged += usize::from(status == 303);
                }
                acknowledged
            })
        })
        .collect();
    let acknowledged: usize = raters.into_iter().map(|rater| rater.join().unwrap()).sum();
    assert_eq!(acknowledged, 4 * 20);
    let store = Store::open(&path).unwrap();
    for n in 0..4 {
        let items: BTreeSet<i64> = store
            .judgments(None, Some(&format!("person:rater-{n}")))
            .unwrap()
            .iter()
            .map(|one| one.item)
            .collect();
        assert_eq!(items.len(), 20);
    }
}
