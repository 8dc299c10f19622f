//! The endpoint against a server of this test, over real connections: what is sent, what is tried again, what ends judging.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use votive_critic::{
    Asked, Candidate, CriticError, Endpoint, EndpointOptions, Finding, Judge, Judgment, Picture, Question,
    Sampling, Template, Winner,
};

/// A server that answers one request after another from a list, and then the last one over and over.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<(String, Value)>>>,
    most_at_once: Arc<AtomicUsize>,
}

/// Status, further headers, body, and how long it takes.
type Scripted = (u16, &'static str, String, Duration);

fn completion(words: &str) -> String {
    json!({
        "choices": [{ "message": { "role": "assistant", "content": words }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 11, "completion_tokens": 3 },
    })
    .to_string()
}

fn now(status: u16, body: impl Into<String>) -> Scripted {
    (status, "", body.into(), Duration::ZERO)
}

impl Server {
    fn start(script: Vec<Scripted>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/v1", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let (open, most_at_once): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let (kept, script, next, most) =
            (requests.clone(), Arc::new(script), Arc::new(AtomicUsize::new(0)), most_at_once.clone());
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (kept, script, next, open, most) =
                    (kept.clone(), script.clone(), next.clone(), open.clone(), most.clone());
                thread::spawn(move || {
                    let mut connection = connection.unwrap();
                    while let Some(request) = read(&mut connection) {
                        most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        kept.lock().unwrap().push(request);
                        let n = next.fetch_add(1, Ordering::SeqCst).min(script.len() - 1);
                        let (status, headers, body, wait) = &script[n];
                        thread::sleep(*wait);
                        open.fetch_sub(1, Ordering::SeqCst);
                        let length = body.len();
                        let head =
                            format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n");
                        // Whoever asked may be gone: a time-out is one of the cases.
                        let _ = connection.write_all(format!("{head}{body}").as_bytes());
                    }
                });
            }
        });
        Self { address, requests, most_at_once }
    }

    fn judge(&self, template: &str, options: EndpointOptions) -> Asked {
        let endpoint = Endpoint::new(&self.address, "m", options).unwrap();
        let sampling = Sampling { temperature: 0.5, top_p: 0.9, max_tokens: 77, seed: 3 };
        Asked::new(Arc::new(endpoint), Template::named(template).unwrap(), sampling)
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

/// The head and the body of a request; none if there are no more.
fn read(connection: &mut TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(connection);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.to_lowercase().split("content-length:").nth(1)?.lines().next()?.trim().parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).unwrap()))
}

fn quick() -> EndpointOptions {
    EndpointOptions {
        pause: Duration::from_millis(2),
        retries: 2,
        timeout: Duration::from_secs(10),
        ..EndpointOptions::default()
    }
}

fn texts() -> Question {
    Question::pair("say hi", Candidate::Text("hi".into()), Candidate::Text("bye".into()))
}

fn reason(judgment: &Judgment) -> String {
    match &judgment.finding {
        Finding::Abstention(abstention) => format!("{}: {abstention:?}", abstention.reason()),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_question_is_sent_as_the_api_has_it_and_the_answer_is_read() {
    let server = Server::start(vec![now(200, completion("Because. {\"winner\": \"B\"}"))]);
    let options = EndpointOptions {
        api_key: Some("secret".into()),
        extra: json!({ "top_k": 5 }).as_object().unwrap().clone(),
        ..quick()
    };
    let judgment = server.judge("text-verdict", options).judge(&texts(), 4).unwrap();
    assert_eq!(judgment.finding.winner(), Some(Winner::Second));
    let cost = judgment.cost();
    assert_eq!((cost.calls, cost.input_tokens, cost.output_tokens), (1, 11, 3));
    let requests = server.requests.lock().unwrap();
    let (head, body) = &requests[0];
    assert!(head.starts_with("POST /v1/chat/completions ") && head.contains("Bearer secret"), "{head}");
    assert_eq!(body["model"], "m");
    assert_eq!(
        (&body["temperature"], &body["max_tokens"], &body["seed"]),
        (&json!(0.5), &json!(77), &json!(7))
    );
    assert_eq!((&body["messages"][0]["role"], &body["top_k"]), (&json!("system"), &json!(5)));
    assert!(body["messages"][1]["content"].as_str().unwrap().contains("say hi"), "{body}");
}

#[test]
fn images_travel_as_data_uris() {
    let probabilities = json!({ "choices": [{ "message": { "content": "A" }, "finish_reason": "length",
        "logprobs": { "content": [{ "token": "A", "logprob": -0.2, "top_logprobs": [
            { "token": "A", "logprob": 0.75_f64.ln() }, { "token": " B", "logprob": 0.25_f64.ln() } ] }] } }] });
    let server = Server::start(vec![now(200, probabilities.to_string())]);
    let picture = Picture::of_pixels(&image::RgbImage::new(2, 2)).unwrap();
    let question = Question::pair("p", Candidate::Image(picture.clone()), Candidate::Image(picture));
    let judgment = server.judge("image-pair", quick()).judge(&question, 0).unwrap();
    let Finding::Preference(found) = judgment.finding else { unreachable!("{judgment:?}") };
    assert!((found - 0.75).abs() < 1e-9);
    let requests = server.requests.lock().unwrap();
    let content = requests[0].1["messages"][0]["content"].as_array().unwrap();
    let urls: Vec<&str> = content.iter().filter_map(|part| part["image_url"]["url"].as_str()).collect();
    assert!(
        urls.len() == 2 && urls.iter().all(|url| url.starts_with("data:image/png;base64,iVBOR")),
        "{urls:?}"
    );
}

#[test]
fn what_may_pass_is_tried_again() {
    let busy =
        (429, "retry-after: 0\r\n", "{\"error\":{\"message\":\"slow down\"}}".to_owned(), Duration::ZERO);
    let server = Server::start(vec![busy, now(503, ""), now(200, completion("{\"winner\": 1}"))]);
    let judgment = server.judge("text-verdict", quick()).judge(&texts(), 0).unwrap();
    assert_eq!((judgment.finding.winner(), judgment.cost().calls), (Some(Winner::First), 3));
    // Half an answer, or one of another kind, is none.
    let server = Server::start(vec![now(200, "{\"choices\""), now(200, completion("{\"winner\": 2}"))]);
    let judgment = server.judge("text-verdict", quick()).judge(&texts(), 0).unwrap();
    assert_eq!((judgment.finding.winner(), judgment.cost().calls), (Some(Winner::Second), 2));
}

#[test]
fn what_does_not_pass_is_an_abstention_with_its_reason() {
    let server = Server::start(vec![now(500, "{\"error\":{\"message\":\"out of memory\"}}")]);
    let judgment = server.judge("text-verdict", quick()).judge(&texts(), 0).unwrap();
    assert!(
        reason(&judgment).starts_with("no_answer") && reason(&judgment).contains("out of memory"),
        "{judgment:?}"
    );
    assert_eq!(server.count(), 3);

    let server = Server::start(vec![now(400, "{\"error\":{\"message\":\"context too long\"}}")]);
    let judgment = server.judge("text-verdict", quick()).judge(&texts(), 0).unwrap();
    assert!(reason(&judgment).starts_with("unreadable") && server.count() == 1, "{judgment:?}");

    let server = Server::start(vec![(200, "", completion("{\"winner\": 1}"), Duration::from_secs(2))]);
    let options = EndpointOptions { timeout: Duration::from_millis(100), retries: 1, ..quick() };
    let started = Instant::now();
    let judgment = server.judge("text-verdict", options).judge(&texts(), 0).unwrap();
    assert!(
        reason(&judgment).starts_with("no_answer") && started.elapsed() < Duration::from_secs(2),
        "{judgment:?}"
    );

    let nobody = Endpoint::new("http://127.0.0.1:1/v1", "m", quick()).unwrap();
    let sampling = Sampling { temperature: 0.0, top_p: 1.0, max_tokens: 5, seed: 0 };
    let judge = Asked::new(Arc::new(nobody), Template::named("text-verdict").unwrap(), sampling);
    assert!(reason(&judge.judge(&texts(), 0).unwrap()).starts_with("no_answer"));
}

#[test]
fn what_concerns_every_question_ends_judging_and_tells_no_key() {
    for status in [401, 403, 404, 302] {
        let server = Server::start(vec![now(status, "{\"error\":{\"message\":\"no\"}}")]);
        let options = EndpointOptions { api_key: Some("secret".into()), ..quick() };
        let error = server.judge("text-verdict", options).judge(&texts(), 0).unwrap_err();
        assert!(matches!(error, CriticError::Judge { .. }), "{error}");
        let text = format!("{error} {error:?}");
        assert!(text.contains(&status.to_string()) && !text.contains("secret"), "{text}");
        assert_eq!(server.count(), 1);
    }
    // A server without log-probabilities cannot weigh.
    let server = Server::start(vec![now(200, completion("A"))]);
    let error = server.judge("text-pair", quick()).judge(&texts(), 0).unwrap_err().to_string();
    assert!(error.contains("log-probabilities"), "{error}");
}

#[test]
fn no_more_questions_are_open_than_allowed() {
    let server = Server::start(vec![(200, "", completion("{\"winner\": 1}"), Duration::from_millis(30))]);
    let judge = Arc::new(server.judge("text-verdict", EndpointOptions { at_once: 3, ..quick() }));
    let asking: Vec<_> = (0..12)
        .map(|draw| {
            let judge = judge.clone();
            thread::spawn(move || judge.judge(&texts(), draw).unwrap().finding.winner())
        })
        .collect();
    assert!(asking.into_iter().all(|thread| thread.join().unwrap() == Some(Winner::First)));
    assert_eq!((server.count(), server.most_at_once.load(Ordering::SeqCst)), (12, 3));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    assert!(Endpoint::new("ftp://x", "m", quick()).is_err());
    assert!(Endpoint::new("http://x", "m", EndpointOptions { at_once: 0, ..quick() }).is_err());
}
