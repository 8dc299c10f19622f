//! A speaker behind HTTP: any server with OpenAI's chat completions (vLLM, SGLang, mistral.rs, llama.cpp, `transformers serve`,
//! `votive serve`).
//!
//! Images travel as data URIs. What may pass (a full queue, a time-out, a server that restarts) is tried again with pauses that
//! double; what concerns one question is an abstention; what concerns all of them (no access, no such model) ends judging.

mod answer;
mod turnstile;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use crate::candidate::Picture;
use crate::error::{CriticError, Result};
use crate::judgment::Cost;
use crate::speaker::{Part, Role, Said, Sampling, Silence, Speaker, Talk, Turn, Weighed};
use answer::Answer;
use turnstile::Turnstile;

/// Most bytes of an answer that are read.
const MOST_BYTES: u64 = 16 << 20;
/// Longest pause before another attempt, whatever the server asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Alternatives to a token that are asked for; OpenAI gives no more.
const ALTERNATIVES: usize = 20;

/// How a server is asked.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    /// Sent as `Authorization: Bearer …`, if there is one.
    pub api_key: Option<String>,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Further attempts after one that failed.
    pub retries: u32,
    /// Pause before the first of them; each one after that is twice as long.
    pub pause: Duration,
    /// Most questions that are open at the same time.
    pub at_once: usize,
    /// Further fields of every request, such as `response_format` or a server's own.
    pub extra: Map<String, Value>,
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self {
            api_key: None,
            timeout: Duration::from_secs(120),
            retries: 4,
            pause: Duration::from_secs(1),
            at_once: 8,
            extra: Map::new(),
        }
    }
}

/// A model of a server.
pub struct Endpoint {
    name: String,
    url: String,
    model: String,
    options: EndpointOptions,
    agent: ureq::Agent,
    turnstile: Turnstile,
}

/// What became of a request.
enum Reply {
    Answered(Box<Answer>),
    /// Another attempt may do better, at the earliest after the pause that the server asks for.
    Later(String, Option<Duration>),
    Silent(Silence),
}

impl Endpoint {
    /// `model` of the server at `base`, e.g. `http://127.0.0.1:8000/v1`.
    ///
    /// # Errors
    /// If the address is none of `http://` or `https://`, or nobody may ask at the same time.
    pub fn new(base: &str, model: &str, options: EndpointOptions) -> Result<Self> {
        let base = base.trim_end_matches('/');
        if !base.starts_with("http://") && !base.starts_with("https://") {
            let message =
                format!("an endpoint's address begins with http:// or https://, and this is \"{base}\"");
            return Err(CriticError::Setting(message));
        }
        if options.at_once == 0 {
            return Err(CriticError::Setting("0 questions at the same time are none at all".to_owned()));
        }
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(options.timeout))
            .http_status_as_error(false)
            // A key is for the server that was named.
            .max_redirects(0)
            .build()
            .new_agent();
        let turnstile = Turnstile::new(options.at_once);
        let (name, url) = (format!("{model} at {base}"), format!("{base}/chat/completions"));
        Ok(Self { name, url, model: model.to_owned(), options, agent, turnstile })
    }

    /// Asks until there is an answer or no attempt is left; also says how often it asked, and how long it waited.
    fn ask(&self, talk: &Talk, fields: Value) -> Result<(Answer, Cost), Silence> {
        if talk.next != Role::Assistant {
            return Err(Silence::Fatal(CriticError::Judge {
                judge: self.name.clone(),
                message: "a chat endpoint does not say how probable a user's next turn is; use a model of this machine"
                    .to_owned(),
            }));
        }
        let mut body = Map::from_iter([
            ("model".to_owned(), json!(self.model)),
            ("messages".to_owned(), talk.turns.iter().map(message).collect()),
        ]);
        body.extend(fields.as_object().cloned().unwrap_or_default());
        body.extend(self.options.extra.clone());
        let body = Value::Object(body).to_string();
        let started = Instant::now();
        let mut pause = self.options.pause;
        let mut calls = 0;
        loop {
            calls += 1;
            let reply = {
                let _place = self.turnstile.enter();
                self.once(&body)
            };
            match reply {
                Reply::Answered(answer) => {
                    let cost = Cost {
                        calls,
                        input_tokens: answer.input_tokens,
                        output_tokens: answer.output_tokens,
                        seconds: started.elapsed().as_secs_f64(),
                    };
                    return Ok((*answer, cost));
                }
                Reply::Silent(silence) => return Err(silence),
                Reply::Later(why, _) if calls > u64::from(self.options.retries) => {
                    return Err(Silence::NoAnswer(format!("{why}, at the last of {calls} attempts")));
                }
                Reply::Later(_, asked) => {
                    thread::sleep(asked.unwrap_or(pause).max(pause).min(LONGEST_PAUSE));
                    pause *= 2;
                }
            }
        }
    }

    fn once(&self, body: &str) -> Reply {
        let mut request = self.agent.post(&self.url).header("content-type", "application/json");
        if let Some(key) = &self.options.api_key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(error) => return Reply::Later(error.to_string(), None),
        };
        let status = response.status().as_u16();
        let header = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let asked = header.and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
        let text = match response.body_mut().with_config().limit(MOST_BYTES).read_to_string() {
            Ok(text) => text,
            Err(error) => return Reply::Later(error.to_string(), None),
        };
        let said = || format!("HTTP {status}: {}", answer::error_message(&text));
        match status {
            200 => match Answer::parse(&text) {
                Ok(answer) => Reply::Answered(Box::new(answer)),
                Err(why) => Reply::Later(format!("an answer that cannot be read ({why})"), None),
            },
            408 | 409 | 425 | 429 | 500..=599 => Reply::Later(said(), asked),
            400 | 413 | 422 => Reply::Silent(Silence::Unreadable(said())),
            _ => Reply::Silent(Silence::Fatal(CriticError::Judge {
                judge: self.name.clone(),
                message: said(),
            })),
        }
    }
}

impl Speaker for Endpoint {
    fn name(&self) -> &str {
        &self.name
    }

    fn reserved_marks(&self) -> &[String] {
        // The server tokenizes what it is sent as text.
        &[]
    }

    fn say(&self, talk: &Talk, sampling: &Sampling) -> Result<Said, Silence> {
        let fields = json!({
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed & i64::MAX as u64,
        });
        let (answer, cost) = self.ask(talk, fields)?;
        Ok(Said { words: answer.words, is_finished: answer.is_finished, cost })
    }

    /// Of the first token alone, and only among the server's most probable ones: an answer that is not among them is taken to
    /// be as probable as the least of them, which it is at most.
    fn weigh(&self, talk: &Talk, answers: &[String]) -> Result<Weighed, Silence> {
        let fields =
            json!({ "temperature": 0, "max_tokens": 1, "logprobs": true, "top_logprobs": ALTERNATIVES });
        let (answer, cost) = self.ask(talk, fields)?;
        let Some(alternatives) = answer.alternatives else {
            return Err(Silence::Fatal(CriticError::Judge {
                judge: self.name.clone(),
                message: "it gives no log-probabilities; take a template whose answer is written".to_owned(),
            }));
        };
        let log_probs = weights(&alternatives, answers).ok_or_else(|| {
            Silence::NoAnswer(format!("none of {answers:?} is among the first token's alternatives"))
        })?;
        Ok(Weighed { log_probs, tokens: vec![1; answers.len()], cost })
    }
}

/// The log-probability of each answer's first token, a token that begins several answers counting for none; `None` if no answer
/// was among the alternatives.
fn weights(alternatives: &[(String, f64)], answers: &[String]) -> Option<Vec<f64>> {
    let mut shares: BTreeMap<usize, f64> = BTreeMap::new();
    for (token, log_prob) in alternatives {
        let token = token.trim();
        let begun: Vec<usize> = (0..answers.len())
            .filter(|i| !token.is_empty() && answers[*i].trim().starts_with(token))
            .collect();
        if let [answer] = begun[..] {
            *shares.entry(answer).or_insert(0.0) += log_prob.exp();
        }
    }
    if shares.is_empty() {
        return None;
    }
    let least = alternatives.iter().map(|(_, log_prob)| *log_prob).fold(0.0, f64::min);
    Some((0..answers.len()).map(|i| shares.get(&i).map_or(least, |share| share.ln())).collect())
}

fn message(turn: &Turn) -> Value {
    let content = match turn.parts.as_slice() {
        [Part::Text(text)] => json!(text),
        parts => parts.iter().map(part).collect(),
    };
    json!({ "role": turn.role.as_str(), "content": content })
}

fn part(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({ "type": "text", "text": text }),
        Part::Image(picture) => json!({ "type": "image_url", "image_url": { "url": data_uri(picture) } }),
    }
}

fn data_uri(picture: &Picture) -> String {
    format!("data:{};base64,{}", picture.media_type().as_str(), BASE64.encode(picture.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_counts_for_the_one_answer_that_it_begins() {
        let of = |tokens: &[(&str, f64)], answers: &[&str]| {
            let tokens: Vec<(String, f64)> = tokens.iter().map(|(t, p)| ((*t).to_owned(), p.ln())).collect();
            let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
            weights(&tokens, &answers)
                .map(|all| all.iter().map(|w| (w.exp() * 1e6).round() / 1e6).collect::<Vec<_>>())
        };
        assert_eq!(
            of(&[("A", 0.5), (" A", 0.2), ("B", 0.1), ("The", 0.05)], &["A", "B"]),
            Some(vec![0.7, 0.1])
        );
        // Only one is there: the other is at most as probable as the least of the alternatives.
        assert_eq!(of(&[("Yes", 0.9), ("Maybe", 0.01)], &["Yes", "No"]), Some(vec![0.9, 0.01]));
        assert_eq!(of(&[("Y", 0.9), ("N", 0.05)], &["Yes", "No"]), Some(vec![0.9, 0.05]));
        assert_eq!(of(&[("a", 0.9), ("", 0.1)], &["A", "B"]), None);
        assert_eq!(of(&[("no", 0.9), ("not", 0.1)], &["not so", "no"]), Some(vec![0.1, 0.1]));
    }
}
