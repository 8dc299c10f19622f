//! Programs that ask speakers.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use votive_critic::{
    Chance, Cost, CriticError, Endpoint, EndpointOptions, Part, Piece, Role, Said, Sampling, Silence,
    Speaker, Talk, Turn, Weighed,
};

use crate::browser::{Reply, send};
use crate::running::{Running, picture};

/// Says again what it was told last, and how many images it was shown; or does worse.
#[derive(Default)]
struct Echo {
    marks: Vec<String>,
    speaking: AtomicUsize,
    most_speaking: AtomicUsize,
    /// Answers that were broken off because nobody listened.
    broken_off: AtomicU64,
}

impl Speaker for Echo {
    fn name(&self) -> &str {
        "echo"
    }

    fn reserved_marks(&self) -> &[String] {
        &self.marks
    }

    fn say(&self, talk: &Talk, sampling: &Sampling) -> Result<Said, Silence> {
        self.say_aloud(talk, sampling, None, &mut |_| ControlFlow::Continue(()))
    }

    fn say_aloud(
        &self,
        talk: &Talk,
        sampling: &Sampling,
        likeliest: Option<usize>,
        hear: &mut (dyn FnMut(Piece) -> ControlFlow<()> + Send),
    ) -> Result<Said, Silence> {
        let now = self.speaking.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_speaking.fetch_max(now, Ordering::SeqCst);
        let parts = || talk.turns.iter().flat_map(|turn| &turn.parts);
        let images = parts().filter(|part| matches!(part, Part::Image(_))).count();
        let last = parts()
            .filter_map(|part| if let Part::Text(text) = part { Some(text) } else { None })
            .next_back();
        let text = last.cloned().unwrap_or_default();
        let said = match text.as_str() {
            "too long" => Err(Silence::Unreadable("it is too long".to_owned())),
            "no answer" => Err(Silence::NoAnswer("it says nothing".to_owned())),
            "fatal" => Err(Silence::Fatal(CriticError::Setting("it is broken".to_owned()))),
            "panic" => panic!("on purpose"),
            "endless" => loop {
                std::thread::sleep(Duration::from_millis(1));
                if hear(Piece { words: "la ".to_owned(), chance: None }).is_break() {
                    self.broken_off.fetch_add(1, Ordering::SeqCst);
                    break Err(Silence::NoAnswer("nobody listens".to_owned()));
                }
            },
            _ => {
                std::thread::sleep(Duration::from_millis(5));
                let answer = format!("{text} ({images} images, seed {})", sampling.seed);
                let mut words = String::new();
                let mut tokens: Vec<&str> = answer.split_inclusive(' ').collect();
                let is_finished = tokens.len() <= sampling.max_tokens;
                tokens.truncate(sampling.max_tokens);
                for token in &tokens {
                    words.push_str(token);
                    let others =
                        (1..likeliest.unwrap_or(0)).map(|i| (format!("other {i}"), f64::NEG_INFINITY));
                    let first = likeliest.filter(|n| *n > 0).map(|_| ((*token).to_owned(), -0.5));
                    let all = first.into_iter().chain(others).collect();
                    let chance = likeliest.map(|_| Chance { log_prob: -0.5, likeliest: all });
                    let _ = hear(Piece { words: (*token).to_owned(), chance });
                }
                let cost = Cost { input_tokens: 7, output_tokens: tokens.len() as u64, ..Cost::default() };
                Ok(Said { words, is_finished, cost })
            }
        };
        self.speaking.fetch_sub(1, Ordering::SeqCst);
        said
    }

    fn most_likeliest(&self) -> Option<usize> {
        Some(20)
    }

    fn weigh(&self, _: &Talk, _: &[String]) -> Result<Weighed, Silence> {
        Err(Silence::Unreadable("it weighs nothing".to_owned()))
    }
}

/// A speaker that does what its trait does by itself.
struct Plain {
    most_likeliest: Option<usize>,
}

impl Speaker for Plain {
    fn name(&self) -> &str {
        "plain"
    }

    fn reserved_marks(&self) -> &[String] {
        &[]
    }

    fn say(&self, _: &Talk, _: &Sampling) -> Result<Said, Silence> {
        Ok(Said { words: "two words".to_owned(), is_finished: true, cost: Cost::default() })
    }

    fn most_likeliest(&self) -> Option<usize> {
        self.most_likeliest
    }

    fn weigh(&self, _: &Talk, _: &[String]) -> Result<Weighed, Silence> {
        Err(Silence::Unreadable("it weighs nothing".to_owned()))
    }
}

fn server() -> (Running, Arc<Echo>) {
    let echo = Arc::new(Echo { marks: vec!["<|end|>".to_owned()], ..Echo::default() });
    let plain = |most_likeliest| -> Arc<dyn Speaker> { Arc::new(Plain { most_likeliest }) };
    let speakers: Vec<(String, Arc<dyn Speaker>)> = vec![
        ("echo".to_owned(), Arc::clone(&echo) as _),
        ("org/plain".to_owned(), plain(None)),
        ("narrow".to_owned(), plain(Some(3))),
    ];
    (Running::of_speakers(speakers), echo)
}

fn head(server: &Running, method: &str, path: &str) -> String {
    let (port, token) = (server.port, &server.token);
    format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
    )
}

fn post(server: &Running, body: &str) -> Reply {
    let head = head(server, "POST", "/v1/chat/completions");
    let length = body.len();
    let request = format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    send(server.port, request.as_bytes()).unwrap()
}

fn get(server: &Running, path: &str) -> (u16, Value) {
    let reply = send(server.port, format!("{}\r\n", head(server, "GET", path)).as_bytes()).unwrap();
    (reply.status, serde_json::from_slice(&reply.bytes).unwrap())
}

fn request(text: &str, more: &Value) -> String {
    let mut request =
        json!({ "model": "echo", "seed": 3, "messages": [{ "role": "user", "content": text }] });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request.to_string()
}

fn ask(server: &Running, text: &str, more: &Value) -> (u16, Value) {
    let reply = post(server, &request(text, more));
    (reply.status, serde_json::from_slice(&reply.bytes).unwrap())
}

/// The events of a stream.
fn stream(server: &Running, text: &str, more: &Value) -> Vec<String> {
    let reply = post(server, &request(text, more));
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/event-stream"));
    let text = reply.text();
    text.lines().filter_map(|line| line.strip_prefix("data: ").map(str::to_owned)).collect()
}

#[test]
fn models_are_listed_by_name() {
    let (server, _) = server();
    let (status, listed) = get(&server, "/v1/models");
    let ids: Vec<&str> =
        listed["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!((status, ids), (200, vec!["echo", "narrow", "org/plain"]));
    assert_eq!(get(&server, "/v1/models/org/plain").1["object"], "model");
    let (status, error) = get(&server, "/v1/models/other");
    assert_eq!((status, &error["error"]["code"]), (404, &json!("model_not_found")));
    for path in ["/v1/embeddings", "/v1/", "/v1/chat/completions"] {
        let (status, error) = get(&server, path);
        assert!(
            matches!(status, 404 | 405) && error["error"]["message"].is_string(),
            "{path}: {status} {error}"
        );
    }
}

#[test]
fn an_answer_has_openais_shape() {
    let (server, _) = server();
    let (status, answer) = ask(&server, "good day", &json!({}));
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("echo")));
    let choice = &answer["choices"][0];
    assert_eq!(
        choice["message"],
        json!({ "role": "assistant", "content": "good day (0 images, seed 3)", "refusal": null })
    );
    assert_eq!((&choice["finish_reason"], &choice["logprobs"]), (&json!("stop"), &Value::Null));
    assert_eq!(answer["usage"], json!({ "prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13 }));
    let (_, answer) = ask(&server, "good day", &json!({ "max_tokens": 1 }));
    assert_eq!(
        (&answer["choices"][0]["message"]["content"], &answer["choices"][0]["finish_reason"]),
        (&json!("good "), &json!("length"))
    );
}

#[test]
fn images_come_as_data() {
    let (server, _) = server();
    let image = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, picture(3).bytes());
    let part = |url: String| json!({ "type": "image_url", "image_url": { "url": url } });
    let content = |url: String| json!({ "messages": [{ "role": "user", "content": [part(url), { "type": "text", "text": "look" }] }] });
    let (_, answer) = ask(&server, "", &content(format!("data:image/png;base64,{image}")));
    assert_eq!(answer["choices"][0]["message"]["content"], "look (1 images, seed 3)");
    let (status, error) = ask(&server, "", &content("http://127.0.0.1:1/a.png".to_owned()));
    assert_eq!((status, &error["error"]["type"]), (400, &json!("invalid_request_error")));
}

#[test]
fn a_stream_says_what_the_answer_says() {
    let (server, _) = server();
    for (model, words) in [("echo", "good day (0 images, seed 3)"), ("org/plain", "two words")] {
        let more = json!({ "model": model, "stream": true, "stream_options": { "include_usage": true } });
        let mut events = stream(&server, "good day", &more);
        assert_eq!(events.pop().unwrap(), "[DONE]");
        let events: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        let (usage, events) = events.split_last().unwrap();
        assert_eq!(usage["choices"], json!([]));
        assert!(usage["usage"]["total_tokens"].is_u64());
        let is_alike =
            |event: &Value| event["id"] == usage["id"] && event["object"] == "chat.completion.chunk";
        assert!(events.iter().all(is_alike));
        assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
        let said: String =
            events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(said, words);
        let reasons: Vec<&Value> = events.iter().map(|event| &event["choices"][0]["finish_reason"]).collect();
        assert!(
            reasons.iter().rev().skip(1).all(|reason| reason.is_null())
                && reasons.last() == Some(&&json!("stop"))
        );
    }
    let events = stream(&server, "x", &json!({ "stream": true }));
    assert!(!events.iter().any(|event| event.contains("usage")));
}

#[test]
fn log_probabilities_are_told_where_there_are_any() {
    let (server, _) = server();
    let more = json!({ "logprobs": true, "top_logprobs": 2, "max_completion_tokens": 2 });
    let (_, answer) = ask(&server, "good day", &more);
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 2);
    assert_eq!(content[0]["token"], "good ");
    assert_eq!(content[0]["bytes"], json!(b"good "));
    assert_eq!(content[0]["logprob"], -0.5);
    assert_eq!(content[0]["top_logprobs"].as_array().unwrap().len(), 2);
    assert_eq!(content[0]["top_logprobs"][1]["logprob"], -9999.0);
    let events = stream(&server, "good day", &json!({ "logprobs": true, "stream": true }));
    let second: Value = serde_json::from_str(&events[1]).unwrap();
    assert_eq!(second["choices"][0]["logprobs"]["content"][0]["token"], "good ");
    for (more, param) in [
        (json!({ "model": "org/plain", "logprobs": true }), "logprobs"),
        (json!({ "model": "narrow", "logprobs": true, "top_logprobs": 4 }), "top_logprobs"),
    ] {
        let (status, error) = ask(&server, "x", &more);
        assert_eq!((status, &error["error"]["param"]), (400, &json!(param)));
    }
}

#[test]
fn what_goes_wrong_is_told_in_openais_shape() {
    let (server, _) = server();
    for stream in [false, true] {
        for (text, status, kind) in [
            ("too long", 400, "invalid_request_error"),
            ("no answer", 503, "server_error"),
            ("fatal", 500, "server_error"),
            ("panic", 500, "server_error"),
        ] {
            let (found, error) = ask(&server, text, &json!({ "stream": stream }));
            assert_eq!((found, &error["error"]["type"]), (status, &json!(kind)), "{text}");
            assert!(error["error"]["message"].is_string());
        }
    }
    let (status, error) = ask(&server, "x", &json!({ "model": "gpt" }));
    assert_eq!((status, &error["error"]["param"]), (404, &json!("model")));
    let (status, error) = ask(&server, "x", &json!({ "stop": ["y"] }));
    assert_eq!((status, &error["error"]["code"]), (400, &json!("unsupported_parameter")));
    assert_eq!(post(&server, "{\"model\"").status, 400);
    // It still answers.
    assert_eq!(ask(&server, "x", &json!({})).0, 200);
}

#[test]
fn marks_that_end_a_turn_are_not_heard() {
    let (server, _) = server();
    let (_, answer) = ask(&server, "a<|en<|end|>d|>b", &json!({}));
    assert_eq!(answer["choices"][0]["message"]["content"], "ab (0 images, seed 3)");
}

#[test]
fn a_speaker_speaks_to_one_at_a_time_and_to_nobody_who_has_left() {
    let (server, echo) = server();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let server = &server;
            scope.spawn(move || assert_eq!(ask(server, &format!("{n}"), &json!({})).0, 200));
        }
    });
    assert_eq!(echo.most_speaking.load(Ordering::SeqCst), 1);
    // Leaves after the beginning of a stream, and before any of an answer.
    for body in [request("endless", &json!({ "stream": true })), request("endless", &json!({}))] {
        let before = echo.broken_off.load(Ordering::SeqCst);
        let length = body.len();
        let head = head(&server, "POST", "/v1/chat/completions");
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        std::io::Write::write_all(
            &mut socket,
            format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes(),
        )
        .unwrap();
        if body.contains("stream") {
            std::io::Read::read_exact(&mut socket, &mut [0; 300]).unwrap();
        } else {
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(socket);
        let start = Instant::now();
        while echo.broken_off.load(Ordering::SeqCst) == before {
            assert!(start.elapsed() < Duration::from_secs(30), "it still speaks");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn our_own_client_asks_our_own_server() {
    let (server, _) = server();
    let options =
        EndpointOptions { api_key: Some(server.token.clone()), retries: 0, ..EndpointOptions::default() };
    let of = |model: &str| {
        Endpoint::new(&format!("http://127.0.0.1:{}/v1", server.port), model, options.clone()).unwrap()
    };
    let talk =
        |parts: Vec<Part>| Talk { turns: vec![Turn { role: Role::User, parts }], next: Role::Assistant };
    let sampling = Sampling { temperature: 0.5, top_p: 0.9, max_tokens: 2, seed: 3 };
    let look = talk(vec![Part::Image(picture(1)), Part::Text("A".to_owned())]);
    let said = of("echo").say(&look, &sampling).unwrap();
    assert_eq!((said.words.as_str(), said.is_finished), ("A (1 ", false));
    assert_eq!((said.cost.input_tokens, said.cost.output_tokens), (7, 2));
    let weighed = of("echo").weigh(&look, &["A".to_owned(), "B".to_owned()]).unwrap();
    assert!((weighed.log_probs[0] + 0.5).abs() < 1e-12 && weighed.log_probs[1] < -1000.0, "{weighed:?}");
    assert!(matches!(of("org/plain").weigh(&look, &["A".to_owned()]), Err(Silence::Unreadable(_))));
    assert!(matches!(of("nobody").say(&look, &sampling), Err(Silence::Fatal(_))));
    let long = talk(vec![Part::Text("too long".to_owned())]);
    assert!(
        matches!(of("echo").say(&long, &sampling), Err(Silence::Unreadable(why)) if why.contains("it is too long"))
    );
}
