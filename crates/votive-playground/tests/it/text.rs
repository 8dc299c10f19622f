use std::collections::BTreeSet;

use votive_playground::text::{
    Family, Task, check, family, held_out, preference_pair, prompts, training_example,
};
use votive_playground::{PlaygroundError, Split};

fn word_count(text: &str) -> usize {
    text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).count()
}

/// The names of the constraints that the answer violates.
#[track_caller]
fn violated(prompt: &str, answer: &str, expected: &[&str]) {
    let verdict = check(prompt, answer).unwrap();
    let names: Vec<&str> =
        verdict.constraints.iter().filter(|(_, met)| !met).map(|(name, _)| *name).collect();
    assert_eq!(names, expected, "{prompt} {answer}");
    assert_eq!(verdict.exact, expected.is_empty());
}

#[test]
fn right_answers_pass_flawed_answers_fail_and_both_are_equally_long() {
    let (mut accepted, mut right_words, mut flawed_words, n) = (0, 0, 0, 20_000);
    for index in 0..n {
        let (prompt, right, flawed) = preference_pair(3, index);
        assert!(!held_out(&prompt));
        let verdict = check(&prompt, &right).unwrap();
        assert!(verdict.exact, "{prompt} {right} {verdict:?}");
        accepted += usize::from(check(&prompt, &flawed).unwrap().exact);
        right_words += word_count(&right);
        flawed_words += word_count(&flawed);
    }
    assert_eq!(accepted, 0);
    let ratio = flawed_words as f64 / right_words as f64;
    assert!((0.98..1.02).contains(&ratio), "{ratio}");
}

#[test]
fn training_answers_are_flawed_at_the_promised_rates_whatever_their_length() {
    let mut right = [(0usize, 0usize); 2];
    let mut families = vec![(0usize, 0usize); Family::ALL.len()];
    for index in 0..20_000 {
        let (prompt, answer) = training_example(3, index);
        assert!(!held_out(&prompt));
        let verdict = check(&prompt, &answer).unwrap();
        let of_kind = &mut right[usize::from(verdict.exact)];
        *of_kind = (of_kind.0 + 1, of_kind.1 + word_count(&answer));
        let of_family = &mut families[verdict.family as usize];
        *of_family = (of_family.0 + 1, of_family.1 + usize::from(!verdict.exact));
    }
    let share = right[0].0 as f64 / 20_000.0;
    assert!((0.43..0.47).contains(&share), "{share}");
    let mean = |kind: usize| right[kind].1 as f64 / right[kind].0 as f64;
    assert!((0.97..1.03).contains(&(mean(0) / mean(1))), "{} {}", mean(0), mean(1));
    for (family, (n, flawed)) in Family::ALL.iter().zip(families) {
        let rate = flawed as f64 / n as f64;
        assert!((rate - family.flaw_rate()).abs() < 0.04, "{family:?} {rate}");
    }
}

#[test]
fn every_prompt_reads_back() {
    for task in prompts(Split::Train, 5, 5_000) {
        let prompt = task.prompt();
        assert_eq!(Task::parse(&prompt), Some(task));
    }
    assert_eq!(family("Name two fruits."), Some(Family::List));
    for other in ["", "Name two.", "Name nine fruits.", "Name two fruits", "Write a poem."] {
        assert_eq!(Task::parse(other), None, "{other}");
    }
    assert!(matches!(check("Write a poem.", "No."), Err(PlaygroundError::UnknownPrompt { .. })));
}

#[test]
fn splits_are_disjoint_and_large_enough() {
    let [train, select, test] = [(Split::Train, 5_000), (Split::Select, 750), (Split::Test, 1_500)]
        .map(|(split, n)| prompts(split, 1, n).iter().map(Task::prompt).collect::<Vec<String>>());
    assert_eq!((train.len(), select.len(), test.len()), (5_000, 750, 1_500));
    let all: BTreeSet<&String> = train.iter().chain(&select).chain(&test).collect();
    assert_eq!(all.len(), 7_250);
    assert!(train.iter().all(|prompt| !held_out(prompt)));
    assert!(select.iter().chain(&test).all(|prompt| held_out(prompt)));
    for kind in Family::ALL {
        let count = test.iter().filter(|prompt| family(prompt) == Some(*kind)).count();
        assert!(count >= 100, "{kind:?} {count}");
    }
}

#[test]
fn lists_are_counted_sorted_and_complete() {
    let prompt = "Name three fruits in alphabetical order. Include plum.";
    violated(prompt, "apple, pear, plum.", &[]);
    violated(prompt, "pear, apple, plum.", &["order"]);
    violated(prompt, "apple, lemon, pear.", &["include"]);
    violated(prompt, "apple, plum.", &["number"]);
    violated(prompt, "apple, plum, plum.", &["distinct"]);
    violated(prompt, "apple, boot, plum.", &["category"]);
    violated(prompt, "apple, pear, plum", &["number", "category", "include"]);
}

#[test]
fn orders_run_both_ways() {
    let prompt = "Sort these from large to small: bee, whale, owl.";
    violated(prompt, "whale, owl, bee.", &[]);
    violated(prompt, "bee, owl, whale.", &["order"]);
    violated(prompt, "whale, owl.", &["complete", "nothing else"]);
    violated("Put these by day of the week: Sunday, Monday, Friday.", "Monday, Friday, Sunday.", &[]);
}

#[test]
fn stories_have_a_length_a_subject_a_word_and_a_tone() {
    let prompt = "Write a two-sentence story about an owl. Use the word lamp. Sound gloomy.";
    violated(prompt, "Once a weary owl lived at the lake. It found a lamp there.", &[]);
    violated(prompt, "Once a merry owl lived at the lake. It found a lamp there.", &["tone"]);
    violated(prompt, "Once a weary fox lived at the lake. It found a lamp there.", &["subject"]);
    violated(prompt, "Once a weary owl found a lamp at the lake.", &["sentences"]);
    violated(prompt, "Once a weary owl lived at the lake. It slept until noon.", &["word"]);
    violated(prompt, "Once a weary owl lvied at the lake. It found a lamp there.", &["known words"]);
}

#[test]
fn replies_are_polite_and_decided() {
    let prompt = "A guest asks: may I see your lamp? Politely say no. End with thank you.";
    violated(prompt, "I am sorry, but you cannot see the lamp. Thank you.", &[]);
    violated(prompt, "No, go away, you cannot see the lamp. Thank you.", &["polite"]);
    violated(prompt, "Yes, gladly, please see my lamp today. Thank you.", &["decision"]);
    violated(prompt, "I am sorry, but you cannot see the lamp.", &["ending"]);
    violated(prompt, "I am sorry, but you cannot see the book. Thank you.", &["thing"]);
}

#[test]
fn descriptions_keep_the_number_of_words() {
    let prompt = "Describe a fox at the lake in eight to ten words.";
    violated(prompt, "The small old fox waits alone at the lake.", &[]);
    violated(prompt, "The fox waits at the lake.", &["length"]);
    violated(prompt, "The small old wolf waits alone at the farm.", &["subject", "place"]);
}

#[test]
fn couplets_rhyme() {
    let prompt = "Write two rhyming lines about a fox at the lake. Sound calm.";
    let first = "We saw the quiet fox at the lake and the moon";
    violated(prompt, &format!("{first} / and no one ever spoke about the spoon."), &[]);
    violated(prompt, &format!("{first} / and no one ever spoke about the moon."), &["rhyme"]);
    violated(prompt, &format!("{first} / and no one ever spoke about the train."), &["rhyme"]);
    violated(prompt, &format!("{first}."), &["lines", "rhyme"]);
}

#[test]
fn a_sentence_can_be_turned_around() {
    let prompt = "Turn this sentence around: the red circle is left of the blue square.";
    violated(prompt, "The blue square is right of the red circle.", &[]);
    violated(prompt, "The blue square is left of the red circle.", &["relation"]);
    violated(prompt, "The red circle is left of the blue square.", &["order"]);
    violated(prompt, "The green square is right of the red circle.", &["shapes", "order"]);
}

#[test]
fn shapes_are_counted() {
    let prompt = "How many red shapes are there: red circle, blue square, red square?";
    violated(prompt, "There are two red shapes.", &[]);
    violated(prompt, "There are three red shapes.", &["number"]);
    violated(prompt, "There are two squares.", &["subject"]);
    violated(prompt, "Two.", &["sentence", "number", "subject"]);
}

#[test]
fn a_verdict_is_written_as_json() {
    let verdict = check("Name two fruits.", "apple, plum.").unwrap();
    let expected = r#"{"family":"list","constraints":[["number",true],["category",true],["distinct",true]],"exact":true,"part":1.0}"#;
    assert_eq!(serde_json::to_string(&verdict).unwrap(), expected);
}

#[test]
fn examples_are_functions_of_seed_and_index() {
    assert_eq!(training_example(1, 17), training_example(1, 17));
    assert_ne!(training_example(1, 17), training_example(2, 17));
    let (prompt, answer) = training_example(1, 0);
    assert_eq!(
        (prompt.as_str(), answer.as_str()),
        ("Name four fruits. Include plum.", "apple, orange, plum, mango.")
    );
}
