//! Records to ids: boundaries, policies, counts.

use votive_data::{
    DataError, DataReport, FaultyRows, LongRows, Message, PairText, PreferencePair, Records, Result,
    RowPolicy, RowProblem, TextTokenizer, TokenizedPair, TrainOn, read_unpaired,
};

use crate::{Folder, check_message, fixture};

fn tokenizer() -> TextTokenizer {
    TextTokenizer::load(&fixture("text/llama")).unwrap()
}

fn tokenize(pairs: Vec<PreferencePair>, policy: RowPolicy) -> Result<(Vec<TokenizedPair>, DataReport)> {
    tokenizer().tokenize_pairs(&Records::new("pairs.jsonl", pairs), policy)
}

fn pair(row: usize, prompt: &str, chosen: &str, rejected: &str) -> PreferencePair {
    PreferencePair::plain(row, prompt, chosen, rejected)
}

fn implicit(chosen: &str, rejected: &str) -> PreferencePair {
    let text = PairText::Implicit { chosen: chosen.to_owned(), rejected: rejected.to_owned() };
    PreferencePair::new(1, text)
}

const DROP: RowPolicy = RowPolicy {
    max_length: None,
    long_rows: LongRows::Drop,
    faulty_rows: FaultyRows::Drop,
    train_on: TrainOn::Completion,
};

#[track_caller]
fn check_refused(pairs: Vec<PreferencePair>, problem: RowProblem, max_length: Option<usize>, parts: &[&str]) {
    let row = pairs.last().unwrap().row;
    let error = tokenize(pairs.clone(), RowPolicy { max_length, ..RowPolicy::default() }).unwrap_err();
    assert!(matches!(&error, DataError::Row { problem: found, .. } if *found == problem), "{error}");
    check_message(error, parts);

    let mut kept = pairs;
    kept.push(pair(99, "Say", " yes", " no"));
    let (rows, report) = tokenize(kept, RowPolicy { max_length, ..DROP }).unwrap();
    assert_eq!(report.dropped[&problem].first, [row]);
    assert!(rows.iter().all(|kept| kept.row != row));
}

#[test]
fn rows_with_nothing_to_learn_from_are_refused_or_dropped() {
    let good = pair(1, "Say", " yes", " no");
    check_refused(
        vec![good.clone(), pair(2, "Say", "", " no")],
        RowProblem::EmptyCompletion,
        None,
        &["pairs.jsonl: row 2: empty completion; mend the row"],
    );
    check_refused(
        vec![good.clone(), pair(3, "Say", " yes", " yes")],
        RowProblem::ChosenEqualsRejected,
        None,
        &["row 3: chosen and rejected are the same"],
    );
    let turns = |content: &str| vec![Message::new("assistant", content)];
    let text = PairText::Chat {
        prompt: vec![Message::new("user", "Hi")],
        chosen: turns("Hi"),
        rejected: turns(""),
        options: votive_data::ChatOptions::default(),
    };
    check_refused(vec![good, PreferencePair::new(4, text)], RowProblem::EmptyCompletion, None, &["row 4"]);
}

#[test]
fn completions_that_differ_only_in_the_end_token_are_the_same() {
    check_refused(vec![pair(1, "Say", " yes", " yes<|eos|>")], RowProblem::ChosenEqualsRejected, None, &[]);
}

#[test]
fn a_prompt_that_fills_the_context_is_refused_or_dropped() {
    check_refused(
        vec![pair(7, "one two three four", " a", " b")],
        RowProblem::PromptTooLong,
        Some(4),
        &["pairs.jsonl: row 7: the prompt fills the context (", "the context holds 4); raise max_length"],
    );
}

#[test]
fn a_long_row_is_refused_or_dropped_or_cut() {
    let long = vec![pair(1, "Say", " yes", " one two three four five six seven eight nine ten")];
    let (whole, _) = tokenize(long.clone(), RowPolicy::default()).unwrap();
    let max_length = whole[0].prompt_ids.len() + whole[0].chosen_ids.len();
    check_refused(
        long.clone(),
        RowProblem::TooLong,
        Some(max_length),
        &["longer than the context", "\"truncate\""],
    );

    let policy =
        RowPolicy { max_length: Some(max_length), long_rows: LongRows::Truncate, ..RowPolicy::default() };
    let (cut, report) = tokenize(long, policy).unwrap();
    assert_eq!(cut[0].chosen_ids, whole[0].chosen_ids);
    assert_eq!(cut[0].rejected_ids, whole[0].rejected_ids[..whole[0].chosen_ids.len()]);
    assert_eq!(report.truncated.first, [1]);
    assert_eq!(report.truncated_tokens, whole[0].rejected_ids.len() - cut[0].rejected_ids.len());
    assert_eq!(report.lengths.longest, max_length);
}

#[test]
fn rows_that_lose_their_completion_or_their_difference_are_dropped_and_counted() {
    let rows = vec![
        pair(1, "one two three four five six", " a", " b"),
        pair(2, "x", " one two three A", " one two three B"),
        pair(3, "x", " a", " b"),
    ];
    let policy = RowPolicy { max_length: Some(4), long_rows: LongRows::Truncate, ..RowPolicy::default() };
    let (kept, report) = tokenize(rows, policy).unwrap();
    assert_eq!(kept.iter().map(|pair| pair.row).collect::<Vec<_>>(), [3]);
    assert_eq!((report.rows_read, report.rows_kept, report.rows_dropped()), (3, 1, 2));
    assert_eq!(report.dropped[&RowProblem::PromptTooLong].first, [1]);
    assert_eq!(report.dropped[&RowProblem::EqualAfterTruncation].first, [2]);
}

#[test]
fn no_row_left_is_an_error() {
    let error = tokenize(vec![pair(1, "Say", "", " no")], DROP).unwrap_err();
    check_message(
        error,
        &["pairs.jsonl: no row to train on: 1 read, 1 dropped (empty completion: 1 (row 1))"],
    );
    check_message(tokenize(vec![], DROP).unwrap_err(), &["0 read, 0 dropped"]);
}

#[test]
fn a_boundary_that_tokens_merge_across_is_repaired_and_counted() {
    let tokenizer = tokenizer();
    let (prompt, full) = ("Finish the wor", "Finish the word.");
    let prompt_ids = tokenizer.encode(prompt, true).unwrap();
    let (pairs, report) = tokenize(vec![pair(5, prompt, "d.", "ld tour.")], RowPolicy::default()).unwrap();
    let boundary = pairs[0].prompt_ids.len();
    assert_eq!(pairs[0].prompt_ids, prompt_ids[..boundary]);
    assert_eq!(report.boundary_tokens, prompt_ids.len() - boundary);
    assert_eq!(report.boundary_repairs.count, usize::from(boundary < prompt_ids.len()));
    let sequence = [&*pairs[0].prompt_ids, &*pairs[0].chosen_ids].concat();
    assert_eq!(tokenizer.decode(&sequence, false).unwrap(), format!("<|bos|>{full}<|eos|>"));
}

#[test]
fn implicit_prompts_end_at_a_word() {
    let tokenizer = tokenizer();
    let prompt = |chosen: &str, rejected: &str| {
        let (pairs, _) = tokenize(vec![implicit(chosen, rejected)], RowPolicy::default()).unwrap();
        tokenizer.decode(&pairs[0].prompt_ids, true).unwrap()
    };
    assert_eq!(prompt("Q: The sky is blue", "Q: The sky is black"), "Q: The sky is");
    // One completion continues the other; the shared word stays whole and is trained on both sides.
    assert_eq!(prompt("Q: hot? A: yes", "Q: hot? A: yes indeed"), "Q: hot? A:");
    assert_eq!(prompt("Q: one\n\nA: two", "Q: one\n\nA: no"), "Q: one\n\nA:");
}

#[test]
fn implicit_strings_without_a_shared_word_are_refused() {
    let apart = [
        ("Paris ", "London "),
        ("Paris ", "London"),
        ("Paris ", "Parish"),
        ("Yes.", "Yes, sure"),
        ("blue", "black"),
    ];
    for (chosen, rejected) in apart {
        check_refused(
            vec![implicit(chosen, rejected)],
            RowProblem::NoSharedPrompt,
            None,
            &["share no prompt"],
        );
    }
}

#[test]
fn conversations_without_a_shared_turn_are_refused() {
    let turns = |content: &str| vec![Message::new("assistant", content)];
    let text = PairText::Chat {
        prompt: vec![],
        chosen: turns("a"),
        rejected: turns("b"),
        options: Default::default(),
    };
    check_refused(
        vec![PreferencePair::new(1, text)],
        RowProblem::EmptyPrompt,
        None,
        &["no turn stands before"],
    );
}

#[test]
fn missing_stop_tokens_are_counted() {
    let turns = |content: &str| vec![Message::new("assistant", content)];
    let text = PairText::Chat {
        prompt: vec![Message::new("user", "Hi")],
        chosen: turns("a"),
        rejected: turns("b"),
        options: Default::default(),
    };
    // This template ends turns with <|im_end|>, but the folder names <|eos|> alone as the end of generation.
    let (_, report) =
        tokenize(vec![PreferencePair::new(3, text), pair(4, "a", " b", " c")], RowPolicy::default()).unwrap();
    assert_eq!(report.without_stop_token.first, [3]);
}

#[test]
fn unpaired_examples_follow_their_own_boundary() {
    let folder = Folder::new();
    let file = folder.write(
        "kto.jsonl",
        "{\"prompt\": \"Say\", \"completion\": \" yes\", \"label\": true}\n\
         {\"prompt\": \"Say\", \"completion\": \"\", \"label\": true}\n\
         {\"prompt\": \"Say\", \"completion\": \" no\", \"label\": false}",
    );
    let records = read_unpaired(&file).unwrap();
    check_message(
        tokenizer().tokenize_unpaired(&records, RowPolicy::default()).unwrap_err(),
        &["row 2", "empty"],
    );
    let (examples, report) = tokenizer().tokenize_unpaired(&records, DROP).unwrap();
    assert_eq!(examples.iter().map(|one| (one.row, one.label)).collect::<Vec<_>>(), [(1, true), (3, false)]);
    assert_eq!(report.lengths.sequences, 2);

    let (pairs, _) = tokenize(vec![pair(1, "Say", " yes", " no")], RowPolicy::default()).unwrap();
    let [mut desirable, mut undesirable] = pairs[0].clone().unpair();
    (desirable.row, undesirable.row) = (1, 3);
    assert_eq!(examples, [desirable, undesirable]);
}

#[test]
fn a_conversation_that_the_template_refuses_is_named() {
    let folder = Folder::new();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        folder.write(name, std::fs::read(fixture("text/llama").join(name)).unwrap());
    }
    let text = PairText::Chat {
        prompt: vec![Message::new("user", "Hi")],
        chosen: vec![Message::new("assistant", "a")],
        rejected: vec![Message::new("assistant", "b")],
        options: Default::default(),
    };
    let records = Records::new("pairs.jsonl", vec![PreferencePair::new(12, text)]);
    let tokenize =
        || TextTokenizer::load(folder.path()).unwrap().tokenize_pairs(&records, RowPolicy::default());
    check_message(
        tokenize().unwrap_err(),
        &["pairs.jsonl: row 12", "no chat template", "chat_template.jinja"],
    );
    folder.write("chat_template.jinja", "{{ bos_token }}\n{{ raise_exception('no users here') }}");
    check_message(
        tokenize().unwrap_err(),
        &["pairs.jsonl: row 12", "chat_template.jinja: line 2: no users here"],
    );
}

/// A conversation whose completion has a turn of the user in its midst.
fn rounds() -> PreferencePair {
    let (user, assistant) = (|text| Message::new("user", text), |text| Message::new("assistant", text));
    let text = PairText::Chat {
        prompt: vec![user("Hi")],
        chosen: vec![assistant("one"), user("more"), assistant("two")],
        rejected: vec![assistant("three")],
        options: Default::default(),
    };
    PreferencePair::new(8, text)
}

const ASSISTANT: RowPolicy = RowPolicy { train_on: TrainOn::Assistant, ..DROP };

#[test]
fn only_the_turns_of_the_assistant_are_trained_if_that_is_asked_for() {
    let tokenizer = tokenizer();
    let (whole, _) = tokenize(vec![rounds()], DROP).unwrap();
    assert!(whole[0].chosen_untrained.is_empty());
    let (masked, report) = tokenize(vec![rounds()], ASSISTANT).unwrap();
    assert_eq!(masked[0].chosen_ids, whole[0].chosen_ids);
    let [span] = masked[0].chosen_untrained.as_slice() else { panic!("{masked:?}") };
    let said = tokenizer.decode(&masked[0].chosen_ids[span.clone()], false).unwrap();
    assert_eq!(said, "<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n");
    assert!(masked[0].rejected_untrained.is_empty());
    let trained = masked[0].chosen_ids.len() + masked[0].rejected_ids.len() - span.len();
    assert_eq!(report.lengths.completion_tokens, trained);

    // What is cut off is no longer counted as untrained either.
    let max_length = masked[0].prompt_ids.len() + span.start + 2;
    let cut = RowPolicy { max_length: Some(max_length), long_rows: LongRows::Truncate, ..ASSISTANT };
    let (cut, report) = tokenize(vec![rounds()], cut).unwrap();
    assert_eq!(cut[0].chosen_untrained, std::slice::from_ref(&(span.start..span.start + 2)));
    assert_eq!(report.truncated.first, [8]);
}

#[test]
fn a_template_that_rewrites_turns_cannot_tell_them_apart() {
    let folder = Folder::new();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        folder.write(name, std::fs::read(fixture("text/llama").join(name)).unwrap());
    }
    // Only the last turn is written out, as templates do that cut earlier thoughts.
    let template = "{% for m in messages %}<{{ m.role }}>{{ m.content if loop.last else '' }}\n{% endfor %}\
                    {% if add_generation_prompt %}<assistant>{% endif %}";
    folder.write("chat_template.jinja", template);
    let tokenizer = TextTokenizer::load(folder.path()).unwrap();
    let records = Records::new("pairs.jsonl", vec![rounds()]);
    let stop = RowPolicy { faulty_rows: FaultyRows::Error, ..ASSISTANT };
    let error = tokenizer.tokenize_pairs(&records, stop).unwrap_err();
    check_message(error, &["row 8", "be told apart", "set train_on to \"completion\""]);
    assert!(tokenizer.tokenize_pairs(&records, DROP).is_ok());
}

#[test]
fn a_completion_without_a_turn_of_the_assistant_trains_nothing() {
    let user = |text| vec![Message::new("user", text)];
    let text = PairText::Chat {
        prompt: user("Hi"),
        chosen: user("a"),
        rejected: user("b"),
        options: Default::default(),
    };
    let error = tokenize(
        vec![PreferencePair::new(2, text)],
        RowPolicy { faulty_rows: FaultyRows::Error, ..ASSISTANT },
    );
    check_message(error.unwrap_err(), &["row 2: no token of a completion is trained"]);
}

#[test]
fn numbers_travel_with_the_row() {
    let mut one = pair(1, "Say", " yes", " no");
    let none = votive_data::RowNumbers::default();
    one.numbers = votive_data::RowNumbers { weight: Some(2.0), margin: Some(0.5), ..none };
    let (pairs, report) = tokenize(vec![one.clone(), pair(2, "Say", " a", " b")], DROP).unwrap();
    assert_eq!(pairs[0].numbers, one.numbers);
    assert_eq!((report.weights.count, report.margins.count, report.margins.mean), (1, 1, 0.5));
    check_message(report, &["margin: 1 numbers from 0.5 to 0.5", "for objectives that read it"]);
    assert!(pairs[0].clone().unpair().iter().all(|side| side.numbers == one.numbers));
}
