//! Tables to records, and what is said of tables that are wrong.

use votive_data::{
    Completion, DataError, Message, PairText, PreferencePair, Records, Result, TextRecords, read_pairs,
    read_text, read_unpaired,
};

use crate::{Folder, check_message};

fn read(lines: &str) -> Result<Records<PreferencePair>> {
    let folder = Folder::new();
    read_pairs(&folder.write("pairs.jsonl", lines))
}

#[track_caller]
fn check_chat(line: &str, expected: [&[(&str, &str)]; 3]) {
    let records = read(line).unwrap();
    let PairText::Chat { prompt, chosen, rejected, .. } = &records.rows[0].text else {
        panic!("{records:?}")
    };
    for (found, expected) in [prompt, chosen, rejected].into_iter().zip(expected) {
        let expected: Vec<_> = expected.iter().map(|(role, content)| Message::new(role, content)).collect();
        assert_eq!(*found, expected, "{line}");
    }
}

const ASKED: &str = r#"{"role": "user", "content": "Hi"}"#;
const GOOD: &str = r#"{"role": "assistant", "content": "Hello!"}"#;
const BAD: &str = r#"{"role": "assistant", "content": "What?"}"#;
const SPLIT: [&[(&str, &str)]; 3] =
    [&[("user", "Hi")], &[("assistant", "Hello!")], &[("assistant", "What?")]];

#[test]
fn strings_with_and_without_a_prompt() {
    let lines = "\u{feff}{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\r\n\n  \n\
                 {\"prompt\": \"d\", \"chosen\": \"e\", \"rejected\": \"f\"}";
    let rows = read(lines).unwrap().rows;
    assert_eq!(rows, [PreferencePair::plain(1, "a", "b", "c"), PreferencePair::plain(4, "d", "e", "f")]);
    let rows = read(r#"{"chosen": "ab", "rejected": "ac", "prompt": null}"#).unwrap().rows;
    let text = PairText::Implicit { chosen: "ab".to_owned(), rejected: "ac".to_owned() };
    assert_eq!(rows, [PreferencePair::new(1, text)]);
}

#[test]
fn rows_of_different_kinds_are_refused_with_both_rows() {
    let strings = r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#;
    let chat = format!(r#"{{"prompt": [{ASKED}], "chosen": [{GOOD}], "rejected": [{BAD}]}}"#);
    let labelled = r#"{"prompt": "a", "completion": "b", "label": true}"#;
    let check = |first: &str, second: &str, parts: &[&str]| {
        let error = read(&format!("{first}\n{second}")).unwrap_err();
        assert!(matches!(error, DataError::MixedRows { row: 2, .. }), "{error}");
        check_message(error, parts);
    };
    check(strings, &chat, &["pairs.jsonl: row 2: conversations, but row 1 of", "strings with a prompt"]);
    check(
        &chat,
        strings,
        &["row 2: strings with a prompt", "conversations; a data set holds rows of one kind"],
    );
    check(strings, r#"{"chosen": "ab", "rejected": "ac"}"#, &["row 2: strings without a prompt"]);
    check(strings, labelled, &["row 2: the format `trl-unpaired`", "row 1", "the format `trl`"]);
    check(labelled, strings, &["row 2: the format `trl`", "the format `trl-unpaired`"]);
}

#[test]
fn conversations_with_their_prompt_apart_or_repeated_or_implied() {
    check_chat(&format!(r#"{{"prompt": [{ASKED}], "chosen": [{GOOD}], "rejected": [{BAD}]}}"#), SPLIT);
    check_chat(
        &format!(r#"{{"prompt": [{ASKED}], "chosen": [{ASKED}, {GOOD}], "rejected": [{ASKED}, {BAD}]}}"#),
        SPLIT,
    );
    check_chat(&format!(r#"{{"chosen": [{ASKED}, {GOOD}], "rejected": [{ASKED}, {BAD}]}}"#), SPLIT);
    // UltraFeedback gives the prompt as a string and again as the first turn.
    check_chat(
        &format!(r#"{{"prompt": "Hi", "chosen": [{ASKED}, {GOOD}], "rejected": [{ASKED}, {BAD}]}}"#),
        SPLIT,
    );
    check_chat(&format!(r#"{{"prompt": "Hi", "chosen": [{GOOD}], "rejected": [{BAD}]}}"#), SPLIT);
}

#[test]
fn tools_and_template_variables_belong_to_the_row() {
    let line = format!(
        r#"{{"prompt": [{ASKED}], "chosen": [{GOOD}], "rejected": [{BAD}], "tools": "[{{\"name\": \"f\"}}]",
            "chat_template_kwargs": {{"enable_thinking": false}}}}"#
    );
    let records = read(&line.replace('\n', " ")).unwrap();
    let PairText::Chat { options, .. } = &records.rows[0].text else { panic!("{records:?}") };
    assert_eq!(options.tools.as_ref().unwrap()[0]["name"], "f");
    assert_eq!(options.variables["enable_thinking"], false);
    assert!(records.ignored_columns.is_empty());
}

#[test]
fn other_columns_are_counted() {
    let lines = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\", \"score\": 1}\n\
                 {\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\", \"score\": 2, \"id\": 3}";
    let ignored = read(lines).unwrap().ignored_columns;
    assert_eq!(ignored.into_iter().collect::<Vec<_>>(), [("id".to_owned(), 1), ("score".to_owned(), 2)]);
}

#[test]
fn labels() {
    let folder = Folder::new();
    let file = folder.write(
        "kto.jsonl",
        format!(
            "{{\"prompt\": \"Hi\", \"completion\": [{BAD}], \"label\": true}}\n\
             {{\"prompt\": [{ASKED}], \"completion\": [{GOOD}], \"label\": false}}"
        ),
    );
    let records = read_unpaired(&file).unwrap();
    assert_eq!(
        records.rows.iter().map(|one| (one.row, one.label)).collect::<Vec<_>>(),
        [(1, true), (2, false)]
    );
    assert!(matches!(&records.rows[1].text, Completion::Chat { prompt, .. } if prompt[0].role() == "user"));
    assert_eq!(read_text(&file).unwrap(), TextRecords::Unpaired(records));
    check_message(read_pairs(&file).unwrap_err(), &["kto.jsonl", "row 1", "`chosen`", "is missing"]);
}

#[test]
fn wrong_rows_are_named() {
    let error = |line: &str| read(line).unwrap_err();
    let good = r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#;
    check_message(
        error(r#"{"prompt": "a", "chosen": "b"}"#),
        &["pairs.jsonl: row 1, field `rejected` is missing"],
    );
    check_message(
        error(&format!("{good}\n{}", good.replace("\"b\"", "7"))),
        &["row 2, field `chosen`", "expected a string or a list of messages, found the number 7"],
    );
    check_message(
        error(&format!("{good}\n{{\"prompt\": \"a\" \"chosen\"}}")),
        &["row 2, column 16", "expected `,`"],
    );
    check_message(error("[1, 2]"), &["row 1", "not a JSON object"]);
    check_message(
        error(&format!(r#"{{"chosen": [{ASKED}, {{"content": "x"}}], "rejected": [{ASKED}]}}"#)),
        &["field `chosen[1].role` is missing"],
    );
    check_message(
        error(&format!(r#"{{"chosen": [{ASKED}, "x"], "rejected": [{ASKED}]}}"#)),
        &["field `chosen[1]`", "a message", "the string \"x\""],
    );
    check_message(
        error(&format!(r#"{{"prompt": [{ASKED}], "chosen": "b", "rejected": "c"}}"#)),
        &["field `chosen`", "a list of messages, as the other columns"],
    );
}

#[test]
fn unknown_columns_are_named_with_the_known_formats() {
    let error = read(r#"{"question": "a", "best": "b", "worst": "c"}"#).unwrap_err();
    assert!(matches!(error, DataError::UnknownColumns { row: 1, .. }));
    let parts = ["pairs.jsonl: row 1", "found: `question`, `best`, `worst`", "sharegpt, alpaca", "hh-rlhf"];
    check_message(error, &parts);
    check_message(read("{}").unwrap_err(), &["found: none"]);
}

#[test]
fn lists_of_objects_are_read_row_by_row() {
    let folder = Folder::new();
    let row = r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#;
    let read = |text: &str| read_pairs(&folder.write("pairs.json", text));
    let expected = [PreferencePair::plain(1, "a", "b", "c"), PreferencePair::plain(2, "a", "b", "c")];
    assert_eq!(read(&format!("\u{feff} [\n{row},\n{row}]\n")).unwrap().rows, expected);
    assert_eq!(read(&format!("{row}\n{row}")).unwrap().rows, expected);
    check_message(
        read(&format!("[{row}, {{")).unwrap_err(),
        &["pairs.json: after row 1", "list of objects", "line 1"],
    );
    check_message(read(&format!("[{row}, 3]")).unwrap_err(), &["after row 1", "expected a map"]);
    check_message(read(&format!("[{row}] x")).unwrap_err(), &["after row 1", "trailing characters"]);
    check_message(read(&format!("[{row}, {{\"chosen\": 1}}]")).unwrap_err(), &["row 2, field `chosen`"]);
}

#[test]
fn rows_are_counted_through_shards_and_named_within_them() {
    let folder = Folder::new();
    let row = r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#;
    let shard = |name: &str, text: &str| folder.write(name, text);
    shard("train-00000-of-00002.jsonl", &format!("{row}\n\n{row}\n"));
    let last = shard("train-00001-of-00002.jsonl", &format!("{row}\n"));
    let records = read_pairs(folder.path()).unwrap();
    assert_eq!(records.rows.iter().map(|pair| pair.row).collect::<Vec<_>>(), [1, 3, 4]);
    assert_eq!(records.place(4), (last.as_path(), 1));
    shard("train-00001-of-00002.jsonl", &format!("{row}\n{{\"prompt\": \"a\", \"chosen\": \"b\"}}"));
    check_message(
        read_pairs(folder.path()).unwrap_err(),
        &["train-00001-of-00002.jsonl: row 2, field `rejected`"],
    );
}

#[test]
fn bytes_that_are_no_text_are_named() {
    let folder = Folder::new();
    let file = folder.write("pairs.jsonl", b"{\"prompt\": \"a\xff\"}");
    check_message(read_pairs(&file).unwrap_err(), &["row 1, column 14", "UTF-8"]);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = Folder::new();
    let error = read_pairs(&folder.path().join("none.jsonl")).unwrap_err();
    assert!(matches!(error, DataError::Read { .. }));
    check_message(error, &["none.jsonl", "cannot be read"]);
    let table = folder.write("pairs.csv", "a,b");
    check_message(
        read_pairs(&table).unwrap_err(),
        &["pairs.csv", "`.csv` is not a supported kind", ".jsonl"],
    );
    check_message(
        read_pairs(folder.path()).unwrap_err(),
        &["a folder without tables is not a supported kind"],
    );
}
