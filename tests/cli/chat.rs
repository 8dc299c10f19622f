//! `votive chat` through a pipe: one turn a line.

use crate::*;
use std::io::Write;

/// Feeds lines to a chat; exit code, stdout and stderr.
fn chat(extra: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut command = votive(["chat", "--max-new-tokens", "6"].iter().chain(extra));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A chat that has refused its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    (output.status.code(), stdout(&output), stderr(&output))
}

/// The same with a model that has a template, and JSON out.
fn turns(extra: &[&str], input: &str) -> Vec<Value> {
    let model = fixture("text/llama");
    let (code, out, err) = chat(&[&["--model", &model, "--json"], extra].concat(), input);
    assert_eq!(code, Some(0), "{err}");
    out.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn a_turn_is_answered_as_generate_answers_its_conversation() {
    let folder = Folder::new();
    let answers = turns(&["--temperature", "0", "--system", "Be brief."], "Name a colour.\n\nAnd a chair?\n");
    assert_eq!(answers.len(), 2);
    let says = |role: &str, content: &Value| json!({"role": role, "content": content});
    let prompt = json!({"prompt": [
        says("system", &json!("Be brief.")), says("user", &json!("Name a colour.")),
        says("assistant", &answers[0]["text"]), says("user", &json!("And a chair?")),
    ]});
    let file = folder.text("prompts.jsonl", &prompt.to_string());
    let model = fixture("text/llama");
    let args = ["generate", "--model", &model, "--prompts", &file, "--chat", "--temperature", "0"];
    let found = rows(&[&args[..], &["--max-new-tokens", "6"]].concat());
    assert_eq!((&found[0]["text"], &found[0]["token_ids"]), (&answers[1]["text"], &answers[1]["token_ids"]));
    assert_eq!(found[0]["prompt"], prompt["prompt"]);
}

#[test]
fn turns_are_taken_back_forgotten_and_drawn_anew() {
    let answers =
        turns(&["--seed", "3"], "Hello\n/undo\nHello\n/reset\nHello\nHello\n/reset\n/seed 4\nHello\n");
    let [first, again, reset, second, reseeded] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(first, again);
    assert_eq!(first, reset);
    assert_ne!(first, second);
    assert_ne!(first["token_ids"], reseeded["token_ids"]);
}

#[test]
fn a_conversation_is_saved_as_chat_data() {
    let folder = Folder::new();
    let file = folder.path("talk.json");
    let answers = turns(&["--system", "S"], &format!("//a\n/save {file}\n/quit\nnever read\n"));
    assert_eq!(answers.len(), 1);
    let saved: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let roles: Vec<&str> =
        saved["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant"]);
    assert_eq!(
        (&saved["messages"][1]["content"], &saved["messages"][2]["content"]),
        (&json!("/a"), &answers[0]["text"])
    );
}

#[test]
fn text_comes_as_it_is_written_and_the_rest_goes_to_stderr() {
    let model = fixture("text/llama");
    let (code, out, err) = chat(&["--model", &model, "--temperature", "0"], "Name a colour.\n/help\n");
    let json = turns(&["--temperature", "0"], "Name a colour.\n");
    assert_eq!((code, out), (Some(0), format!("{}\n", json[0]["text"].as_str().unwrap())));
    assert!(err.contains("/undo") && err.contains("cut off"), "{err}");
}

#[test]
fn what_cannot_be_answered_is_said_with_its_line() {
    let model = fixture("text/llama");
    let fails = |args: &[&str], input: &str, code: i32, parts: &[&str]| {
        let (found, out, err) = chat(args, input);
        assert_eq!((found, out.as_str()), (Some(code), ""), "{err}");
        assert!(parts.iter().all(|part| err.contains(part)), "{err}");
    };
    fails(&["--model", &model], "/nonsense\n", USAGE, &["line 1", "/nonsense is no command"]);
    fails(&["--model", &model], "\n/undo\n", USAGE, &["line 2", "no turn"]);
    fails(&["--model", &model], &"cat ".repeat(300), DATA, &["line 1", "256 positions", "/reset"]);
    fails(&["--model", &model, "--plain", "--system", "x"], "", USAGE, &["--plain", "--system"]);
    let folder = Folder::new();
    let bare = folder.copy("text/llama");
    fs::remove_file(format!("{bare}/chat_template.jinja")).unwrap();
    fails(&["--model", &bare], "Hello\n", DATA, &["no chat template", "--plain"]);
    let (code, _, err) = chat(&["--model", &bare, "--plain", "--temperature", "0"], "Name a colour:\n");
    assert_eq!(code, Some(0), "{err}");
}
