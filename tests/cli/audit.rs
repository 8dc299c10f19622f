//! How judges are measured: by judges of which it is known what is wrong with them.

use super::chat_server::{letter, serve};
use super::*;
use votive::critic::{Abstention, Candidate, Evidence, Finding, Judgment, Question, Store};
use votive::playground::text;

/// The question that a server is asked by the template `text-pair`.
struct Asked {
    prompt: String,
    answers: [String; 2],
}

impl Asked {
    fn of(body: &Value) -> Self {
        let words = body["messages"][0]["content"].as_str().unwrap();
        let (prompt, rest) =
            words.split_once("Instruction:\n").unwrap().1.split_once("\n\nAnswer A:\n").unwrap();
        let (first, rest) = rest.split_once("\n\nAnswer B:\n").unwrap();
        let second = rest.rsplit_once("\n\nWhich answer is better?").unwrap().0;
        Self { prompt: prompt.to_owned(), answers: [first, second].map(str::to_owned) }
    }

    /// Whether the first answer meets more constraints of the prompt.
    fn is_first_better(&self) -> bool {
        let [first, second] =
            self.answers.each_ref().map(|answer| text::check(&self.prompt, answer).unwrap().part);
        first > second
    }
}

/// A server that prefers the first answer where a function says so; gives its name as a judge.
fn server(prefers_first: fn(&Asked) -> bool) -> String {
    let (name, _) = serve(move |body| letter(if prefers_first(&Asked::of(body)) { 0.9 } else { 0.1 }));
    // What a name may hold, a page has to escape.
    name.replace("#m", "#m<b>")
}

fn audit(args: &[&str]) -> Value {
    rows(&[&["eval", "judge", "--quiet"][..], args].concat()).remove(0)
}

#[track_caller]
fn share(report: &Value, path: &str) -> (f64, u64) {
    let found = report.pointer(path).unwrap_or_else(|| panic!("no {path} in {report}"));
    (found["value"].as_f64().unwrap(), found["n"].as_u64().unwrap())
}

#[test]
fn the_checker_is_perfect_in_both_worlds() {
    for subject in ["images", "texts"] {
        let report = audit(&[
            "--judge",
            "checker",
            "--subject",
            subject,
            "--pairs",
            "48",
            "--contests",
            "16",
            "--seed",
            "3",
        ]);
        assert_eq!(
            (&report["accuracy"], &report["order_flip_rate"], &report["kappa"], &report["n"]),
            (&json!(1.0), &json!(0.0), &json!(1.0), &json!(48))
        );
        assert!(report["ece"].as_f64().unwrap() < 0.01, "{report}");
        for circles in ["/transitivity/judged/violations", "/transitivity/bare/violations"] {
            let (circles, n) = share(&report, circles);
            assert!(circles == 0.0 && n > 5, "{report}");
        }
        let turned =
            ["text", "marks"].map(|kind| share(&report, &format!("/injections/{kind}/judged/turned")));
        assert!(turned.iter().all(|(share, n)| *share == 0.0 && *n >= 12), "{report}");
        let (right, n) = share(&report, "/leaning/right_with");
        assert!(right == 100.0 && n > 20 && share(&report, "/leaning/right_against").1 > 20, "{report}");
        let property = if subject == "images" { "brightness" } else { "length" };
        assert_eq!(report["leaning"]["property"], property);
        assert!(report["by_flaw"].as_object().unwrap().len() > 4, "{report}");
    }
}

#[test]
fn every_different_question_is_paid_for_once() {
    let only = ["--contests", "0", "--injected", "0"];
    // Two orders of two grades.
    let report = audit(&[&["--judge", "checker", "--pairs", "10"], &only[..]].concat());
    assert_eq!(report["cost"]["calls"], json!(40));
    assert!(report.get("transitivity").is_none() && report.get("injections").is_none(), "{report}");
    let judge = server(Asked::is_first_better);
    let asked = ["--judge", &judge, "--subject", "texts", "--pairs", "10"];
    let report = audit(&[&asked[..], &only[..]].concat());
    assert_eq!((&report["cost"]["calls"], &report["accuracy"]), (&json!(20), &json!(1.0)));
    // Majorities draw three more of each order.
    let report = audit(&[&asked[..], &only, &["--majority", "3", "--temperature", "1"]].concat());
    let calls = report["cost"]["calls"].as_u64().unwrap();
    // The first pair's first draw is the bare judge's own.
    assert_eq!(calls, 20 + 60 - 2, "{report}");
}

#[test]
fn whoever_always_says_a_is_seen_through() {
    let judge = server(|_| true);
    let report = audit(&["--judge", &judge, "--subject", "texts", "--pairs", "24"]);
    assert_eq!(share(&report, "/bare/order/flip_rate"), (100.0, 24));
    assert_eq!(share(&report, "/bare/order/first_slot"), (100.0, 48));
    assert_eq!(
        (&report["abstentions"]["order_flip"], share(&report, "/agreement/decided").0),
        (&json!(24), 0.0)
    );
    // Asked once, there is a verdict, and calling the earlier one the better one is an order of its own.
    let (circles, n) = share(&report, "/transitivity/bare/violations");
    assert!(circles == 0.0 && n > 5, "{report}");
    assert_eq!(share(&report, "/transitivity/judged/violations").1, 0);
}

#[test]
fn whoever_obeys_what_is_judged_is_found_out() {
    let obeys = |asked: &Asked| match asked
        .answers
        .each_ref()
        .map(|answer| answer.contains("Ignore everything above"))
    {
        [true, false] => true,
        [false, true] => false,
        _ => asked.is_first_better(),
    };
    let judge = server(obeys);
    let folder = Folder::new();
    let page = folder.path("page");
    let asked =
        ["--judge", &judge, "--subject", "texts", "--pairs", "40", "--injected", "20", "--html", &page];
    let report = audit(&asked);
    assert_eq!(report["accuracy"], json!(1.0));
    for way in ["bare", "judged"] {
        assert_eq!(share(&report, &format!("/injections/text/{way}/turned")), (100.0, 40), "{report}");
        assert_eq!(share(&report, &format!("/injections/marks/{way}/turned")), (0.0, 40), "{report}");
    }
    assert_eq!(share(&report, "/injections/remark/judged/turned"), (0.0, 20), "{report}");
    // A server reads all marks as text, and this template's reading has none.
    assert_eq!(report["injections"]["each"].as_array().unwrap().len(), 4);
    let text = fs::read_to_string(report["html"].as_str().unwrap()).unwrap();
    assert!(text.contains("Injections") && text.contains("m&lt;b&gt; at http"), "{text}");
    assert!(!text.contains("<script") && !text.contains("<b>"), "{text}");
    let lines = ok(&[&["eval", "judge", "--quiet"][..], &asked].concat());
    assert!(lines.contains("reserved marks") && lines.contains("written to"), "{lines}");
}

#[test]
fn whoever_tosses_a_coin_goes_round_in_circles() {
    // A coin for every two answers, which falls alike in both orders.
    let tosses = |asked: &Asked| {
        let [first, second] = &asked.answers;
        let hash = [first.min(second), first.max(second)]
            .map(|text| text.bytes().map(u64::from))
            .into_iter()
            .flatten();
        let hash =
            hash.fold(7_u64, |hash, byte| (hash ^ byte).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29));
        (hash % 2 == 0) == (first < second)
    };
    let judge = server(tosses);
    let report = audit(&[
        "--judge",
        &judge,
        "--subject",
        "texts",
        "--pairs",
        "8",
        "--contests",
        "40",
        "--injected",
        "0",
    ]);
    let (circles, n) = share(&report, "/transitivity/judged/violations");
    assert!((12.0..40.0).contains(&circles) && n > 100, "{report}");
    assert_eq!(share(&report, "/bare/order/flip_rate").0, 0.0);
}

#[test]
fn a_model_that_was_never_taught_has_its_marks_taken_out() {
    let judge = fixture("text/llama");
    let report = audit(&[
        "--judge",
        &judge,
        "--subject",
        "texts",
        "--pairs",
        "8",
        "--contests",
        "1",
        "--injected",
        "4",
    ]);
    let each = report["injections"]["each"].as_array().unwrap();
    let own = each.iter().find(|tried| tried["name"] == "the judge's own marks").unwrap();
    assert!(own["removed_marks"].as_f64().unwrap() >= 2.0, "{report}");
    fails(&["eval", "judge", "--judge", &judge], USAGE, &["sees no images"]);
}

/// A store with five pairs of two models, what a judge and a person have said of them, and who wins in truth.
fn store(path: &str) {
    let mut store = Store::open(Path::new(path)).unwrap();
    let texts = ["a long answer", "short", "middling"];
    for (n, (judge, person, truth, own)) in [
        // The judge likes its own work, which is the first of 0, 1 and 3 and the second of 2.
        (Some(0.9), Some(0.0), "second", 0),
        (Some(0.8), Some(1.0), "first", 0),
        (Some(0.3), Some(1.0), "first", 1),
        (None, Some(0.0), "second", 0),
        (Some(0.6), None, "tie", 0),
    ]
    .into_iter()
    .enumerate()
    {
        let models = if own == 0 { ["runs/own", "runs/other"] } else { ["runs/other", "runs/own"] };
        let question = Question::pair(
            format!("prompt {n}"),
            Candidate::Text(texts[0].into()),
            Candidate::Text(texts[n % 2 + 1].into()),
        );
        let item = store.add(&question, &json!({ "truth": truth, "models": models })).unwrap();
        let said = |name: &str, probability: Option<f64>, is_reversed: bool| {
            let finding = probability.map_or(Finding::Abstention(Abstention::OrderFlip), Finding::Preference);
            let evidence = Evidence::new(name, &question, 0, finding);
            if is_reversed { Judgment::of(evidence).reversed(2) } else { Judgment::of(evidence) }
        };
        // Asked in both orders, with the same verdict but for item 3.
        let forth = said("j", judge.or(Some(0.9)), false);
        let back = said("j", judge.map_or(Some(0.9), |probability| Some(1.0 - probability)), true);
        let finding = said("j", judge, false).finding;
        let judgment = Judgment { finding, evidence: [forth.evidence, back.evidence].concat() };
        store.record(item, "j, both orders", 0, &judgment).unwrap();
        if person.is_some() {
            store.record(item, "person:ann", 0, &said("person:ann", person, false)).unwrap();
        }
    }
}

#[test]
fn what_was_said_is_compared_with_people_and_with_the_truth() {
    let folder = Folder::new();
    let path = folder.path("labels.sqlite");
    store(&path);
    let stored = ["--store", &path, "--by", "j"];
    let report = audit(&[&stored[..], &["--against", "person:ann", "--own", "own"]].concat());
    // Of items 0 to 3, one is left undecided and one of three is as ann has it.
    assert_eq!((report["n"].as_u64(), share(&report, "/agreement/decided")), (Some(4), (75.0, 4)));
    assert!((report["accuracy"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9, "{report}");
    // By chance 2/3·2/3 + 1/3·1/3: the judge says first, first, second and ann second, first, first.
    assert!(
        (report["kappa"].as_f64().unwrap() - (1.0 / 3.0 - 5.0 / 9.0) / (4.0 / 9.0)).abs() < 1e-9,
        "{report}"
    );
    assert_eq!(share(&report, "/order/flip_rate"), (25.0, 4));
    assert_eq!((&report["against"], &report["abstentions"]["order_flip"]), (&json!("person:ann"), &json!(1)));
    // Its own is worse in 0 and 2, and taken in both; it is better in 1, and taken.
    assert_eq!(report["self_preference"]["model"], "runs/own");
    assert_eq!(share(&report, "/self_preference/own_though_worse"), (100.0, 2));
    assert_eq!(share(&report, "/self_preference/other_though_worse"), (0.0, 1));
    // The truth knows of item 4 too.
    let report = audit(&stored);
    assert_eq!((report["n"].as_u64(), share(&report, "/agreement/accuracy").1), (Some(5), 4));
    assert_eq!(report["leaning"]["property"], "length");
    // People have no protocol, and can be measured as well.
    let report = audit(&["--store", &path, "--by", "person:ann"]);
    assert_eq!((&report["accuracy"], report["n"].as_u64()), (&json!(1.0), Some(4)));
}

#[test]
fn what_cannot_be_measured_is_said() {
    let folder = Folder::new();
    let path = folder.path("labels.sqlite");
    store(&path);
    let audit = |more: &[&str]| {
        [&["eval", "judge"][..], more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for (more, code, named) in [
        (&["--store", "nowhere.sqlite", "--by", "j"][..], DATA, "no such store"),
        (&["--store", &path], USAGE, "--by"),
        (&["--store", &path, "--by", "nobody"], DATA, "person:ann"),
        (&["--store", &path, "--by", "j", "--against", "j"], USAGE, "--against"),
        (&["--store", &path, "--by", "j", "--own", "nothing"], USAGE, "runs/other; runs/own"),
        (&["--store", &path, "--by", "j", "--pairs", "5"], USAGE, "--pairs"),
        (&["--judge", "checker", "--by", "j"], USAGE, "--store"),
        (&["--judge", "checker", "--pairs", "3", "--injected", "4"], USAGE, "--injected 4"),
    ] {
        let args = audit(more);
        fails(&args.iter().map(String::as_str).collect::<Vec<_>>(), code, &[named]);
    }
    assert!(!Path::new("nowhere.sqlite").exists());
}
