//! A store with pairs, and a server on it for as long as a value lives.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use image::{Rgb, RgbImage};
use serde_json::json;
use votive_critic::{Candidate, Picture, Question, Speaker, Store};
use votive_serve::{Options, Server};

/// A server that ends with the value.
pub(crate) struct Running {
    pub(crate) port: u16,
    pub(crate) url: String,
    pub(crate) token: String,
    is_over: Arc<AtomicBool>,
}

impl Running {
    pub(crate) fn start(options: Options) -> Self {
        let server = Server::bind(options).unwrap();
        let (port, url, token) = (server.port(), server.url(), server.token().to_owned());
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_over);
        std::thread::spawn(move || server.run(move || flag.load(Ordering::Relaxed)).unwrap());
        Self { port, url, token, is_over }
    }

    /// A server of a store.
    pub(crate) fn of_store(path: &Path) -> Self {
        Self::start(options(path))
    }

    /// A server of speakers.
    pub(crate) fn of_speakers(speakers: Vec<(String, Arc<dyn Speaker>)>) -> Self {
        Self::start(Options { speakers, ..Options::default() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn options(store: &Path) -> Options {
    Options { store: Some(Store::open(store).unwrap()), seed: 5, repeats: 0.25, ..Options::default() }
}

/// An image that no other number gives.
pub(crate) fn picture(number: u8) -> Picture {
    Picture::of_pixels(&RgbImage::from_pixel(4, 4, Rgb([number, 255 - number, 7]))).unwrap()
}

/// A store with `n` pairs, of images and of texts in turns; the first is better in truth.
pub(crate) fn fill(path: &Path, n: u8) {
    let mut store = Store::open(path).unwrap();
    for i in 0..n {
        let [first, second] = match i % 2 {
            0 => [2 * i, 2 * i + 1].map(|number| Candidate::Image(picture(number))),
            _ => ["one", "two"].map(|word| Candidate::Text(format!("{word} of {i}"))),
        };
        let origin = json!({ "truth": "first", "models": ["secret-a", "secret-b"] });
        store.add(&Question::pair(format!("prompt {i}"), first, second), &origin).unwrap();
    }
}
