//! Layouts of columns: each is recognized, and read as its publisher means it.

use serde_json::{Value, json};
use votive_data::{
    Completion, DataError, FORMATS, Format, Message, PairChoice, PairText, PreferencePair, Records, Result,
    RowPolicy, RowProblem, ScoredList, TextRecords, TextSource, TextTokenizer,
};

use crate::{Folder, check_message, fixture};

fn read_as(rows: &[Value], format: Option<&str>, pairs: PairChoice) -> Result<TextRecords> {
    let folder = Folder::new();
    let lines: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    let format = format.map(|name| Format::find(name).unwrap());
    TextSource { format, pairs, ..TextSource::new(folder.write("rows.jsonl", lines)) }.read()
}

fn pairs_of(rows: &[Value]) -> Records<PreferencePair> {
    match read_as(rows, None, PairChoice::BestWorst).unwrap() {
        TextRecords::Pairs(records) => records,
        other => panic!("{other:?}"),
    }
}

fn turns(turns: &[(&str, &str)]) -> Vec<Message> {
    turns.iter().map(|(role, content)| Message::new(role, content)).collect()
}

/// A row becomes a conversation with these turns and this margin, in the layout of this name.
#[track_caller]
fn check_chat(format: &str, row: Value, expected: [&[(&str, &str)]; 3], margin: Option<f64>) {
    let records = pairs_of(std::slice::from_ref(&row));
    assert_eq!(records.format, Some(format), "{row}");
    let [PreferencePair { text: PairText::Chat { prompt, chosen, rejected, .. }, numbers, .. }] =
        &*records.rows
    else {
        panic!("{records:?}")
    };
    assert_eq!([prompt, chosen, rejected].map(Clone::clone), expected.map(turns), "{row}");
    assert_eq!(numbers.margin, margin, "{row}");
}

const ASKED: &[(&str, &str)] = &[("user", "Hi")];
const GOOD: &[(&str, &str)] = &[("assistant", "Hello!")];
const BAD: &[(&str, &str)] = &[("assistant", "What?")];

#[test]
fn pairs_in_the_columns_of_their_publishers() {
    let split = [ASKED, GOOD, BAD];
    let whole =
        |answer: &str| json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]);
    check_chat(
        "ultrafeedback-binarized",
        json!({"prompt": "Hi", "chosen": whole("Hello!"), "rejected": whole("What?"), "score_chosen": 8.5, "score_rejected": 3}),
        split,
        Some(5.5),
    );
    check_chat(
        "ultrafeedback-binarized",
        json!({"prompt": "Hi", "chosen": whole("Hello!"), "rejected": whole("What?"), "chosen-rating": 4.75, "rejected-rating": 4.0}),
        split,
        Some(0.75),
    );
    let system = &[("system", "Be brief."), ("user", "Hi")];
    let orca =
        |system: &str| json!({"system": system, "question": "Hi", "chosen": "Hello!", "rejected": "What?"});
    check_chat("orca", orca("Be brief."), [system, GOOD, BAD], None);
    check_chat("orca", orca(""), split, None);
    check_chat(
        "argilla",
        json!({"instruction": "Hi", "chosen_response": "Hello!", "rejected_response": "What?", "chosen_avg_rating": 5.0, "rejected_avg_rating": 3.5}),
        split,
        Some(1.5),
    );
    check_chat(
        "alpaca",
        json!({"instruction": "Hi", "input": "", "chosen": "Hello!", "rejected": "What?"}),
        split,
        None,
    );
    check_chat(
        "sharegpt",
        json!({"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Hello!"}, "rejected": {"from": "gpt", "value": "What?"}}),
        split,
        None,
    );
    check_chat(
        "trl",
        json!({"prompt": [{"role": "user", "content": "Hi"}], "chosen": whole("Hello!"), "rejected": whole("What?")}),
        split,
        None,
    );
}

#[test]
fn the_sign_of_helpsteer_says_which_and_its_size_how_much() {
    let row = |preference: i32| json!({"context": [{"role": "user", "content": "Hi"}], "response1": "Hello!", "response2": "What?", "overall_preference": preference});
    check_chat("helpsteer3", row(-3), [ASKED, GOOD, BAD], Some(3.0));
    check_chat("helpsteer3", row(1), [ASKED, BAD, GOOD], Some(1.0));
    let records = pairs_of(&[row(-1), row(0)]);
    assert_eq!((records.rows.len(), records.rows_read), (1, 2));
    assert_eq!((records.refused[0].row, records.refused[0].problem), (2, RowProblem::Tie));
}

#[test]
fn ranked_lists_give_the_best_and_the_worst() {
    let split = [ASKED, GOOD, BAD];
    let answer = |text: &str, rank: i32| json!({"answer": text, "rank": rank, "model": "m"});
    let answers = [answer("What?", 7), answer("Hello!", 1), answer("Hm", 3)];
    check_chat(
        "nectar",
        json!({"prompt": "\n\nHuman: Hi\n\nAssistant: ", "answers": answers}),
        split,
        Some(6.0),
    );
    let turn = |text: &str| json!([{"role": "assistant", "content": text}]);
    let ranked =
        [json!({"rank": 0, "completion": turn("Hello!")}), json!({"rank": 1, "completion": turn("What?")})];
    check_chat(
        "nemo",
        json!({"context": [{"role": "user", "content": "Hi"}], "completions": ranked}),
        split,
        Some(1.0),
    );
    let rated = |text: &str, ratings: [&str; 2], overall: f64| json!({"response": text, "overall_score": overall, "annotations": {"honesty": {"Rating": ratings[0]}, "helpfulness": {"Rating": ratings[1]}}});
    // A wrong overall score does not count where aspects are rated; "N/A" is no rating.
    let row = |bad: [&str; 2]| json!({"instruction": "Hi", "completions": [rated("What?", bad, 10.0), rated("Hello!", ["5", "4"], 8.0)]});
    check_chat("ultrafeedback", row(["N/A", "1"]), split, Some(3.5));
    check_chat("ultrafeedback", row(["N/A", "N/A"]), [ASKED, BAD, GOOD], Some(2.0));
}

#[test]
fn every_choice_of_pairs_counts_its_ties() {
    let row =
        json!({"prompt": "a", "responses": ["w", "x", "y", "z"], "scores": [1, 3, 3, null], "weight": 2});
    let read = |choice| match read_as(std::slice::from_ref(&row), None, choice).unwrap() {
        TextRecords::Pairs(records) => records,
        other => panic!("{other:?}"),
    };
    let made = |records: &Records<PreferencePair>| -> Vec<_> {
        let sides = |pair: &PreferencePair| match &pair.text {
            PairText::Plain { chosen, rejected, .. } => {
                format!("{chosen}>{rejected} {:?}", pair.numbers.margin)
            }
            other => panic!("{other:?}"),
        };
        records.rows.iter().map(sides).collect()
    };
    assert_eq!(made(&read(PairChoice::BestWorst)), ["x>w Some(2.0)"]);
    assert_eq!(made(&read(PairChoice::Adjacent)), ["y>w Some(2.0)"]);
    let all = read(PairChoice::All);
    assert_eq!(made(&all), ["x>w Some(2.0)", "y>w Some(2.0)"]);
    assert!(all.rows.iter().all(|pair| pair.row == 1 && pair.numbers.weight == Some(2.0)));
    let tokenizer = TextTokenizer::load(&fixture("text/llama")).unwrap();
    let (_, report) = tokenizer.tokenize_pairs(&all, RowPolicy::default()).unwrap();
    assert_eq!((report.rows_read, report.records, report.rows_kept), (1, 2, 2));
    assert_eq!((report.dropped[&RowProblem::Tie].count, report.dropped[&RowProblem::Unscored].count), (1, 1));
    check_message(
        report,
        &["1 rows read as ranked, 2 records made, 2 kept", "the scores are equal: 1 (row 1)"],
    );

    let ranks = json!({"prompt": "a", "completions": ["w", "x"], "ranks": [2, 1]});
    assert_eq!(made(&pairs_of(&[ranks])), ["x>w Some(1.0)"]);
    let lonely = pairs_of(&[row.clone(), json!({"prompt": "a", "responses": ["w"], "scores": [1]})]);
    assert_eq!(lonely.refused.last().map(|refused| refused.problem), Some(RowProblem::NoRival));
}

#[test]
fn dialogues_are_cut_at_a_turn() {
    let row = |good: &str, bad: &str| {
        let start = "\n\nHuman: Is it?\n\nAssistant: Yes.\n\nHuman: Why?\n\nAssistant:";
        json!({"chosen": format!("{start}{good}"), "rejected": format!("{start}{bad}")})
    };
    // The answers begin alike, which is no reason to cut into them.
    let records = pairs_of(&[row(" It is so.", " It isn't.\n\nHuman: Oh\n\nAssistant: Yes")]);
    assert_eq!(records.format, Some("hh-rlhf"));
    let PairText::Plain { prompt, chosen, rejected } = &records.rows[0].text else { panic!("{records:?}") };
    assert!(prompt.ends_with("Why?\n\nAssistant:"), "{prompt}");
    assert_eq!(
        (chosen.as_str(), rejected.as_str()),
        (" It is so.", " It isn't.\n\nHuman: Oh\n\nAssistant: Yes")
    );
    let chat = read_as(&[row(" a", " b")], Some("hh-rlhf-chat"), PairChoice::BestWorst).unwrap();
    let TextRecords::Pairs(chat) = chat else { panic!("pairs") };
    let PairText::Chat { prompt, chosen, .. } = &chat.rows[0].text else { panic!("{chat:?}") };
    assert_eq!((prompt.len(), chosen[0].clone()), (3, Message::new("assistant", "a")));

    let apart = json!({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"});
    let records = pairs_of(&[row(" x", " y"), apart, row(" same", " same")]);
    let problems: Vec<_> = records.refused.iter().map(|refused| (refused.row, refused.problem)).collect();
    assert_eq!(problems, [(2, RowProblem::NoSharedPrompt), (3, RowProblem::ChosenEqualsRejected)]);
    let tokenizer = TextTokenizer::load(&fixture("text/llama")).unwrap();
    let error = tokenizer.tokenize_pairs(&records, RowPolicy::default()).unwrap_err();
    check_message(
        error,
        &["rows.jsonl: row 2: chosen and rejected share no prompt (the dialogues do not part"],
    );
}

#[test]
fn labels_in_the_columns_of_llama_factory() {
    let row = json!({"instruction": "Hi", "input": "", "output": "Hello!", "kto_tag": true});
    let TextRecords::Unpaired(records) = read_as(&[row], None, PairChoice::BestWorst).unwrap() else {
        panic!("unpaired")
    };
    assert!(
        matches!(&records.rows[0].text, Completion::Chat { completion, .. } if *completion == turns(GOOD))
    );
}

#[test]
fn numbers_are_read_beside_any_layout() {
    let row = json!({"question": "Hi", "chosen": "a", "rejected": "b", "weight": 0.5, "margin": 3, "chosen_score": 9, "rejected_score": 1});
    let numbers = pairs_of(&[row]).rows[0].numbers;
    assert_eq!((numbers.weight, numbers.margin), (Some(0.5), Some(3.0)));
    for (field, value, message) in [
        ("weight", json!("much"), "a finite number of at least 0, found the string \"much\""),
        ("weight", json!(-0.5), "a finite number of at least 0, found the number -0.5"),
        ("margin", json!([1]), "a finite number, found"),
    ] {
        let wrong = json!({"prompt": "a", "chosen": "b", "rejected": "c", field: value});
        let error = read_as(&[wrong], None, PairChoice::BestWorst).unwrap_err();
        check_message(error, &[&format!("row 1, field `{field}`"), message]);
    }
}

fn lists_of(rows: &[Value]) -> Result<Records<ScoredList>> {
    let folder = Folder::new();
    let lines: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    TextSource::new(folder.write("rows.jsonl", lines)).read_lists()
}

#[test]
fn a_list_stays_whole_with_its_scores_in_the_order_of_the_file() {
    let answers = json!([{"answer": "b", "rank": 2}, {"answer": "a", "rank": 1}, {"answer": "c", "rank": 3}]);
    let rated = |response: &str, rating: f64| json!({"response": response, "overall_score": rating});
    for (row, expected, is_chat) in [
        (
            json!({"prompt": "x", "completions": ["b", "a", "c"], "scores": [2, 3, 1], "weight": 2}),
            [2.0, 3.0, 1.0],
            false,
        ),
        (
            json!({"prompt": "x", "responses": ["b", "a", "c"], "ranks": [2, 1, 3], "weight": 2}),
            [-2.0, -1.0, -3.0],
            false,
        ),
        (json!({"prompt": "x", "answers": answers, "weight": 2}), [-2.0, -1.0, -3.0], true),
        (
            json!({"instruction": "x", "completions": [rated("b", 2.0), rated("a", 9.5), rated("c", 1.0)], "weight": 2}),
            [2.0, 9.5, 1.0],
            true,
        ),
    ] {
        let records = lists_of(std::slice::from_ref(&row)).unwrap();
        let [ScoredList { row: 1, completions, weight: Some(2.0), .. }] = &*records.rows else {
            panic!("{records:?}")
        };
        let text = |completion: &Completion| match completion {
            Completion::Plain { prompt, completion } => (prompt.clone(), completion.clone(), false),
            Completion::Chat { prompt, completion, .. } => {
                let said = |turns: &[Message]| turns.last().unwrap().content().unwrap().to_owned();
                (said(prompt), said(completion), true)
            }
        };
        let found: Vec<_> = completions.iter().map(|(one, score)| (text(one), *score)).collect();
        let expected: Vec<_> = ["b", "a", "c"]
            .into_iter()
            .zip(expected)
            .map(|(answer, score)| (("x".to_owned(), answer.to_owned(), is_chat), score))
            .collect();
        assert_eq!(found, expected, "{row}");
    }
}

#[test]
fn a_pair_is_a_list_of_two_and_what_has_no_score_is_left_out() {
    let scores = |row: Value| {
        let records = lists_of(&[row]).unwrap();
        let scores = records
            .rows
            .first()
            .map(|list| list.completions.iter().map(|(_, score)| *score).collect::<Vec<_>>());
        (scores, records.refused.iter().map(|refused| refused.problem).collect::<Vec<_>>())
    };
    let pair = json!({"prompt": "x", "chosen": "a", "rejected": "b"});
    assert_eq!(scores(pair.clone()), (Some(vec![1.0, 0.0]), vec![]));
    let mut scored = pair;
    (scored["score_chosen"], scored["score_rejected"]) = (json!(7.5), json!(3));
    assert_eq!(scores(scored), (Some(vec![7.5, 3.0]), vec![]));
    let list = |numbers: Value| json!({"prompt": "x", "completions": ["a", "b", "c"], "scores": numbers});
    assert_eq!(scores(list(json!([1, null, 3]))), (Some(vec![1.0, 3.0]), vec![RowProblem::Unscored]));
    let lonely = vec![RowProblem::Unscored, RowProblem::Unscored, RowProblem::NoRival];
    assert_eq!(scores(list(json!([1, null, "N/A"]))), (None, lonely));
    let labelled = json!({"prompt": "x", "completion": "a", "label": true});
    check_message(
        lists_of(&[labelled]).unwrap_err(),
        &["row 1", "`completions`", "several completions with scores"],
    );
    let implicit = json!({"chosen": "x a", "rejected": "x b"});
    check_message(lists_of(&[implicit]).unwrap_err(), &["row 1", "`prompt`", "a column of its own"]);
}

#[test]
fn lists_are_tokenized_completion_by_completion() {
    let tokenizer = TextTokenizer::load(&fixture("text/llama")).unwrap();
    let list = |scores: [f64; 3]| json!({"prompt": "The cat", "completions": [" sat", " ran", " slept well"], "scores": scores});
    let records = lists_of(&[list([1.0, 2.0, 2.0]), list([3.0, 3.0, 3.0]), list([0.0, -1.0, -2.0])]).unwrap();
    let (lists, report) = tokenizer.tokenize_lists(records, RowPolicy::default()).unwrap();
    assert_eq!((report.rows_read, report.records, report.rows_kept), (3, 3, 2));
    assert_eq!(report.dropped[&RowProblem::Tie].first, [2]);
    assert_eq!(report.lengths.sequences, 9);
    let best =
        |list: &votive_data::TokenizedList| list.completions.iter().map(|one| one.label).collect::<Vec<_>>();
    assert_eq!(lists.iter().map(best).collect::<Vec<_>>(), [[false, true, false], [true, false, false]]);
    assert_eq!(lists[1].scores(), [0.0, -1.0, -2.0]);
    let turned = lists[1].clone().turned();
    assert_eq!((best(&turned), turned.scores()), (vec![false, false, true], vec![0.0, 1.0, 2.0]));
    for (one, text) in lists[0].completions.iter().zip([" sat", " ran", " slept well"]) {
        let eos = tokenizer.decode(&one.completion_ids, true).unwrap();
        assert_eq!(eos.trim(), text.trim());
    }
}

/// What both prompts begin with is the prompt; the rest of each stands before the completion and is not trained.
#[test]
fn a_completion_after_two_prompts_is_a_pair() {
    let tokenizer = TextTokenizer::load(&fixture("text/llama")).unwrap();
    let row =
        |good: &str, bad: &str| json!({"prompt_chosen": good, "prompt_rejected": bad, "completion": " sat"});
    let records = pairs_of(&[row("The cat on the chair", "The cat and a moon paper")]);
    assert_eq!(records.format, Some("two-prompts"));
    let (pairs, _) = tokenizer.tokenize_pairs(&records, RowPolicy::default()).unwrap();
    let [pair] = &*pairs else { panic!("{pairs:?}") };
    let trained = |ids: &[u32], untrained: &[std::ops::Range<usize>]| {
        let rest = ids.iter().enumerate().filter(|(at, _)| !untrained.iter().any(|span| span.contains(at)));
        rest.map(|(_, id)| *id).collect::<Vec<_>>()
    };
    let sides = [(&pair.chosen_ids, &pair.chosen_untrained), (&pair.rejected_ids, &pair.rejected_untrained)];
    let [chosen, rejected] = sides.map(|(ids, untrained)| trained(ids, untrained));
    assert_eq!(chosen, rejected);
    assert_ne!(pair.chosen_ids, pair.rejected_ids);
    for ((ids, _), whole) in sides.iter().zip(["The cat on the chair sat", "The cat and a moon paper sat"]) {
        let all = [pair.prompt_ids.as_slice(), ids].concat();
        assert_eq!(tokenizer.decode(&all, true).unwrap().trim(), whole);
    }
    let refused = |row: Value| tokenizer.tokenize_pairs(&pairs_of(&[row]), RowPolicy::default()).unwrap_err();
    check_message(refused(row("The cat", "The cat")), &["row 1", "are the same"]);
}

#[test]
fn a_layout_given_by_name_is_not_guessed() {
    let row = json!({"prompt": "a", "chosen": "b", "rejected": "c"});
    let error = read_as(&[row], Some("orca"), PairChoice::BestWorst).unwrap_err();
    check_message(error, &["the format `trl`, but row 1", "the format `orca`"]);
    let row = json!({"prompt": "a"});
    let error = read_as(&[row], Some("orca"), PairChoice::BestWorst).unwrap_err();
    assert!(matches!(error, DataError::MissingField { .. }));
    check_message(error, &["row 1, field `question` is missing; a row has the columns `question`"]);
}

#[test]
fn wrong_values_inside_a_layout_are_named() {
    let check = |row: Value, parts: &[&str]| {
        check_message(read_as(&[row], None, PairChoice::BestWorst).unwrap_err(), parts);
    };
    check(
        json!({"prompt": "a", "answers": [{"answer": 1, "rank": 1}]}),
        &["`answers[0].answer`", "a string"],
    );
    check(
        json!({"prompt": "a", "answers": [{"answer": "b", "rank": "x"}]}),
        &["`answers[0].rank`", "a finite number"],
    );
    check(
        json!({"prompt": "a", "responses": ["b"], "scores": [1, 2]}),
        &["`scores`", "found 2 for 1 responses"],
    );
    check(
        json!({"conversations": [{"from": "bot", "value": "b"}], "chosen": "c", "rejected": "d"}),
        &["`conversations[0].from`", "the string \"bot\""],
    );
    check(json!({"instruction": "a", "history": [["b"]], "chosen": "c", "rejected": "d"}), &["`history[0]`"]);
}

#[test]
fn names_are_unique_and_found() {
    for format in FORMATS {
        assert!(std::ptr::eq(Format::find(format.name).unwrap(), format), "{}", format.name);
    }
    assert!(Format::find("auto").is_none());
}
