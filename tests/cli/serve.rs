//! `votive serve` as a process: what it does not start with, what it answers, and how it ends.

use crate::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Child;
use votive_critic::{Candidate, Question, Store};

/// A server, and what it said when it was ready.
struct Serving {
    child: Child,
    ready: Value,
}

impl Serving {
    fn start(args: &[&str]) -> Self {
        let mut command = votive(["serve", "--port", "0", "--json"].iter().chain(args));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, ready: serde_json::from_str(&line).expect(&line) }
    }

    /// Sends a request with a body, or without, and gives status and body.
    fn send(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let api = self.ready["api"].as_str().unwrap();
        let host = api.strip_prefix("http://").unwrap().strip_suffix("/v1").unwrap();
        let (token, length) = (self.ready["token"].as_str().unwrap(), body.len());
        let mut socket = TcpStream::connect(host).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The cookie that the printed address gives.
    fn cookie(&self, query: &str) -> String {
        let answer = self.raw(&format!("GET /?{query}"), "");
        let line = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        line.split(';').next().unwrap().to_owned()
    }

    /// A page, to a browser with a cookie.
    fn page(&self, path: &str, cookie: &str) -> String {
        self.raw(&format!("GET {path}"), &format!("Cookie: {cookie}\r\n"))
    }

    fn raw(&self, request: &str, more: &str) -> String {
        let host = self.ready["api"].as_str().unwrap().strip_prefix("http://").unwrap();
        let host = host.strip_suffix("/v1").unwrap();
        let mut socket = TcpStream::connect(host).unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    fn ask(&self, more: Value) -> String {
        let mut request = json!({
            "model": "llama", "messages": [{ "role": "user", "content": "Name a colour." }], "temperature": 0, "max_tokens": 6,
        });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, answer) = self.send("POST", "/v1/chat/completions", &request.to_string());
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_cannot_be_served_is_said_before_anything_is() {
    let folder = Folder::new();
    let model = fixture("text/llama");
    fails(&["serve"], USAGE, &["--store"]);
    fails(&["serve", "--runs", "nowhere"], DATA, &["nowhere", "no such folder"]);
    fails(&["serve", "--store", "nowhere.sqlite"], DATA, &["nowhere.sqlite", "no such store"]);
    let text = folder
        .text("notes.sqlite", "These are notes and no store, and they are longer than its header would be.");
    fails(&["serve", "--store", &text], DATA, &["notes.sqlite"]);
    fails(&["serve", "--model", &model, "--repeat", "1.5"], USAGE, &["--repeat", "1.5"]);
    fails(&["serve", "--model", &model, "--model", &model], USAGE, &["two models", "llama"]);
    fails(&["serve", "--model", &model, "--address", "0.0.0.0"], USAGE, &["--address"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    fails(&["serve", "--model", &model, "--port", &port], RESOURCES, &[&port, "--port 0"]);
}

/// What `votive train` leaves is what is looked for.
#[test]
fn a_run_of_this_program_is_known_for_what_it_is() {
    let folder = Folder::new();
    let run = folder.path("runs/mine");
    let recipe = format!("{}/examples/recipes/text/dpo.toml", env!("CARGO_MANIFEST_DIR"));
    ok(&["train", "--quiet", &recipe, "--set", "train.steps=2", "--out", &run]);
    let server = Serving::start(&["--runs", &folder.path("runs")]);
    let (_, query) = server.ready["url"].as_str().unwrap().split_once("/?").unwrap();
    let cookie = server.cookie(query);
    let list = server.page("/runs", &cookie);
    for part in ["runs/mine</a>", "finished", "step 2 of 2"] {
        assert!(list.contains(part), "{part}: {list}");
    }
    let address = list.split("href=\"/runs/").nth(1).unwrap().split('"').next().unwrap();
    let page = server.page(&format!("/runs/{address}"), &cookie);
    assert!(page.contains("Loss over steps 1 to 2"), "{page}");
}

#[test]
fn people_and_programs_are_served_until_a_signal() {
    let folder = Folder::new();
    let path = folder.path("store.sqlite");
    let pair = Question::pair("p", Candidate::Text("a".into()), Candidate::Text("b".into()));
    Store::open(Path::new(&path)).unwrap().add(&pair, &Value::Null).unwrap();
    let model = fixture("text/llama");
    let mut server = Serving::start(&["--store", &path, "--model", &model]);
    assert_eq!(server.ready["models"], json!(["llama"]));
    assert_eq!(server.send("GET", "/", "").0, 403);
    let (_, query) = server.ready["url"].as_str().unwrap().split_once("/?").unwrap();
    assert_eq!(server.send("GET", &format!("/?{query}"), "").0, 303);

    // The endpoint says what `votive chat` says, at once, piece by piece, and token by token.
    let mut chat =
        votive(["chat", "--model", &model, "--json", "--temperature", "0", "--max-new-tokens", "6"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
    chat.stdin.take().unwrap().write_all(b"Name a colour.\n").unwrap();
    let said: Value = serde_json::from_slice(&chat.wait_with_output().unwrap().stdout).unwrap();
    let said = said["text"].as_str().unwrap();
    let whole: Value = serde_json::from_str(&server.ask(json!({}))).unwrap();
    assert_eq!(whole["choices"][0]["message"]["content"], said);
    let events = server.ask(json!({ "stream": true }));
    let pieces =
        events.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let pieces = pieces.map(|data| serde_json::from_str::<Value>(data).unwrap());
    let streamed: String = pieces
        .filter_map(|piece| Some(piece["choices"][0]["delta"]["content"].as_str()?.to_owned()))
        .collect();
    assert_eq!(streamed, said);
    let scored: Value =
        serde_json::from_str(&server.ask(json!({ "logprobs": true, "top_logprobs": 3 }))).unwrap();
    let tokens = scored["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let text: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(text, said);
    for token in tokens {
        // At temperature 0, the likeliest was taken.
        assert_eq!(token["logprob"], token["top_logprobs"][0]["logprob"], "{token}");
    }

    let ended = Command::new("kill").arg(server.child.id().to_string()).status().unwrap();
    assert!(ended.success());
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}
