//! A server with OpenAI's chat completions, whose answers a test decides.

use super::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Answers the body of every request by what `answer` makes of it; gives the name of its model as judges name it, and how often it
/// has answered. It ends with the test.
pub(crate) fn serve(answer: impl Fn(&Value) -> Value + Clone + Send + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("http://{}/v1#m", listener.local_addr().unwrap());
    let answered: Arc<AtomicUsize> = Arc::default();
    let count = answered.clone();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let (answer, count) = (answer.clone(), count.clone());
            thread::spawn(move || {
                let mut connection = connection.unwrap();
                while let Some(body) = read(&mut connection) {
                    let body = answer(&body).to_string();
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                    // Before the last byte is there nobody acts on the answer, and behind it the count is right.
                    let (start, end) = body.split_at(body.len() - 1);
                    if connection.write_all(format!("{head}{start}").as_bytes()).is_err() {
                        return;
                    }
                    count.fetch_add(1, Ordering::SeqCst);
                    if connection.write_all(end.as_bytes()).is_err() {
                        count.fetch_sub(1, Ordering::SeqCst);
                        return;
                    }
                }
            });
        }
    });
    (name, answered)
}

/// The body of the next request; none if the other side has hung up.
fn read(connection: &mut TcpStream) -> Option<Value> {
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
    Some(serde_json::from_slice(&body).unwrap())
}

/// The answer "A" with the probability `first`, and "B" with the rest.
pub(crate) fn letter(first: f64) -> Value {
    let token = |name: &str, p: f64| json!({ "token": name, "logprob": p.ln() });
    let both = json!([token("A", first), token("B", 1.0 - first)]);
    let said = json!({ "token": "A", "logprob": first.ln(), "top_logprobs": both });
    let choice = json!({ "message": { "content": "A" }, "finish_reason": "length", "logprobs": { "content": [said] } });
    json!({ "choices": [choice], "usage": { "prompt_tokens": 5, "completion_tokens": 1 } })
}

/// An answer in words.
pub(crate) fn words(words: &str) -> Value {
    json!({ "choices": [{ "message": { "content": words }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 5, "completion_tokens": 7 } })
}
