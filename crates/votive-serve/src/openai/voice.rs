//! A speaker with a name: one request at a time, each on a thread of its own, heard through a channel.

use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use votive_critic::{Part, Piece, Said, Silence, Speaker, Talk, without_marks};

use super::error::ApiError;
use super::now;
use super::request::ChatRequest;

/// Pieces that wait to be sent, at most; a slow reader makes the speaker wait.
const WAITING: usize = 64;

/// A speaker that programs may ask.
pub(crate) struct Voice {
    speaker: Arc<dyn Speaker>,
    turn: Arc<Semaphore>,
    since: u64,
}

/// What is heard of an answer. Whoever stops listening makes the speaker stop.
pub(super) type Heard = mpsc::Receiver<Event>;

/// A piece, or the end.
pub(super) enum Event {
    Piece(Piece),
    End(Said),
    Silence(Silence),
}

impl Voice {
    pub(crate) fn new(speaker: Arc<dyn Speaker>) -> Self {
        Self { speaker, turn: Arc::new(Semaphore::new(1)), since: now() }
    }

    /// When it was loaded, seconds since 1970.
    pub(super) fn since(&self) -> u64 {
        self.since
    }

    /// Asks the speaker as soon as nobody else does.
    ///
    /// # Errors
    /// If it does not tell the log-probabilities that are asked for.
    pub(super) fn hear(&self, asked: &ChatRequest) -> Result<Heard, ApiError> {
        if let Some(likeliest) = asked.likeliest {
            match self.speaker.most_likeliest() {
                None => {
                    return Err(ApiError::field("logprobs", "This model does not tell log-probabilities."));
                }
                Some(most) if likeliest > most => {
                    let message = format!("This model tells at most {most} log-probabilities of a place.");
                    return Err(ApiError::field("top_logprobs", message));
                }
                Some(_) => {}
            }
        }
        let (speaker, turn) = (Arc::clone(&self.speaker), Arc::clone(&self.turn));
        let (talk, sampling, likeliest) = (cleaned(&asked.talk, &*speaker), asked.sampling, asked.likeliest);
        let (send, heard) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            // Whoever leaves while waiting is not answered. The semaphore is never closed.
            let permit = tokio::select! {
                permit = turn.acquire_owned() => permit,
                () = send.closed() => return,
            };
            let speak = move || {
                let _permit = permit;
                let mut hear = |piece| match send.blocking_send(Event::Piece(piece)) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                };
                let said = speaker.say_aloud(&talk, &sampling, likeliest, &mut hear);
                let _ = send.blocking_send(said.map_or_else(Event::Silence, Event::End));
            };
            // A panic closes the channel before its end, which the other side tells.
            let _ = tokio::task::spawn_blocking(speak).await;
        });
        Ok(heard)
    }
}

/// A talk without the marks by which a message could pass for more than one.
fn cleaned(talk: &Talk, speaker: &dyn Speaker) -> Talk {
    let mut talk = talk.clone();
    for part in talk.turns.iter_mut().flat_map(|turn| &mut turn.parts) {
        if let Part::Text(text) = part {
            *text = without_marks(text, speaker.reserved_marks().iter().map(String::as_str)).0;
        }
    }
    talk
}
