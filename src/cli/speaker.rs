//! A language model of this process as somebody who answers in words, with images or without.

use super::Outcome;
use super::text_model::{TextModel, load_reader};
use candle_core::Device;
use serde_json::{Map, Value, json};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;
use votive_critic::{
    Chance, Cost, CriticError, Part, Picture, Piece, Role, Said, Sampling, Silence, Speaker, Talk, Turn,
    Weighed,
};
use votive_data::{ChatOptions, DataError, Message, TextStream, TextTokenizer, common_prefix_length};
use votive_model::{
    CausalLm, CausalLmConfig, GenerateOptions, ImageInput, ModelError, Request, SamplingPolicy, TokenBatch,
    generate_watched,
};
use votive_train::front_end::ShownImages;

/// From a talk to what a model reads.
#[derive(Debug)]
pub(crate) struct TalkReader {
    /// The folder's tokenizer.
    pub(crate) tokenizer: TextTokenizer,
    images: Option<ShownImages>,
    marks: Vec<String>,
}

/// What a model reads of a talk.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    /// The tokens, placeholders of images included.
    pub(crate) ids: Vec<u32>,
    /// The images in their order.
    pub(crate) images: Vec<ImageInput>,
}

impl TalkReader {
    /// The reader of a model's folder.
    ///
    /// # Errors
    /// If a file is missing or wrong.
    pub(crate) fn load(folder: &Path) -> Outcome<Self> {
        let (tokenizer, images) = load_reader(folder, &CausalLmConfig::read_folder(folder)?)?;
        let image = images.as_ref().map(|images| images.image_token().to_owned());
        // Every token that is written between angle brackets or bars has a meaning of its own.
        let is_mark =
            |token: &String| token.len() > 2 && !token.trim_matches(['<', '>', '|', '[', ']']).is_empty();
        let specials = (0..tokenizer.vocab_size() as u32).filter_map(|id| {
            let is_special = tokenizer.decode(&[id], true).is_ok_and(|text| text.is_empty());
            tokenizer.token(id).filter(|token| is_special && is_mark(token))
        });
        let marks = specials.chain(image).collect();
        Ok(Self { tokenizer, images, marks })
    }

    /// The talk up to where the next turn begins.
    ///
    /// # Errors
    /// If there is an image and the model sees none, or the chat template refuses the talk.
    pub(crate) fn read(&self, talk: &Talk) -> Result<Encoded, Silence> {
        self.encode(&self.render(&talk.turns, talk.next == Role::Assistant)?, talk)
    }

    fn render(&self, turns: &[Turn], starts_answer: bool) -> Result<String, Silence> {
        let message = |turn: &Turn| -> Message {
            let plain: Option<String> = turn
                .parts
                .iter()
                .map(|part| match part {
                    Part::Text(text) => Some(text.as_str()),
                    Part::Image(_) => None,
                })
                .collect();
            let part = |part: &Part| match part {
                Part::Text(text) => json!({ "type": "text", "text": text }),
                Part::Image(_) => json!({ "type": "image" }),
            };
            let content = plain.map_or_else(|| turn.parts.iter().map(part).collect::<Value>(), Value::String);
            let fields = [("role".to_owned(), turn.role.as_str().into()), ("content".to_owned(), content)];
            Message::from(Map::from_iter(fields))
        };
        let messages: Vec<Message> = turns.iter().map(message).collect();
        self.tokenizer
            .render_chat(&messages, starts_answer, &ChatOptions::default())
            .map_err(|error| Silence::Unreadable(error.to_string()))
    }

    fn encode(&self, text: &str, talk: &Talk) -> Result<Encoded, Silence> {
        let unreadable = |error: String| Silence::Unreadable(error);
        let ids = self.tokenizer.encode(text, false).map_err(|error| unreadable(error.to_string()))?;
        let parts = talk.turns.iter().flat_map(|turn| &turn.parts);
        let pictures: Vec<&Picture> = parts
            .filter_map(|part| match part {
                Part::Image(picture) => Some(picture),
                Part::Text(_) => None,
            })
            .collect();
        let Some(shown) = &self.images else {
            return match pictures.is_empty() {
                true => Ok(Encoded { ids, images: Vec::new() }),
                false => Err(unreadable("the model sees no images".to_owned())),
            };
        };
        let image = |picture: &&Picture| {
            let pixels = picture.decode().map_err(|error| unreadable(error.to_string()))?;
            let prepared = shown.prepare(pixels.as_raw(), pixels.dimensions());
            prepared.map_err(|error| unreadable(error.to_string()))
        };
        let images = pictures.iter().map(image).collect::<Result<Vec<_>, _>>()?;
        let places = self.tokenizer.images();
        let ids = places.map_or(ids.clone(), |places| places.expand(&ids, &shown.vectors(&images)));
        Ok(Encoded { ids, images })
    }

    /// The talk with an answer behind it, and the place of its first token; the turn is not ended.
    fn with_answer(&self, talk: &Talk, answer: &str) -> Result<(Encoded, usize), Silence> {
        let before = match talk.next {
            Role::Assistant => self.render(&talk.turns, true)?,
            role => {
                let parts = vec![Part::Text(answer.to_owned())];
                let turns: Vec<Turn> = talk.turns.iter().cloned().chain([Turn { role, parts }]).collect();
                let whole = self.render(&turns, false)?;
                let start = whole.rfind(answer).ok_or_else(|| {
                    Silence::Unreadable("the chat template changes what is said".to_owned())
                })?;
                whole[..start].to_owned()
            }
        };
        let prompt = self.encode(&before, talk)?;
        let whole = self.encode(&format!("{before}{answer}"), talk)?;
        let start = common_prefix_length(&prompt.ids, &whole.ids);
        Ok((whole, start))
    }
}

/// A model of this process that answers.
#[derive(Debug)]
pub(crate) struct LocalSpeaker {
    name: String,
    model: TextModel,
    reader: TalkReader,
}

impl LocalSpeaker {
    /// The model of a hub folder; `name` is what judgments call it.
    ///
    /// # Errors
    /// If a file is missing or wrong, or the folder has no chat template.
    pub(crate) fn load(folder: &Path, name: String, device: &Device) -> Outcome<Self> {
        let model = TextModel::load(folder, None, device)?;
        Ok(Self { name, reader: TalkReader::load(folder)?, model })
    }

    /// Tells the tokens of an answer with their chances; `rest` is what became certain with the last of them.
    fn tell_chances(
        &self,
        encoded: &Encoded,
        mut pieces: Vec<(u32, String)>,
        rest: String,
        likeliest: usize,
        hear: &mut (dyn FnMut(Piece) -> ControlFlow<()> + Send),
    ) -> Result<(), Silence> {
        let tokenizer = &self.reader.tokenizer;
        // The token that ends a turn is no word.
        pieces.pop_if(|(id, _)| tokenizer.stop_ids().contains(id));
        let Some((_, last)) = pieces.last_mut() else { return Ok(()) };
        last.push_str(&rest);
        let start = encoded.ids.len();
        let ids = encoded.ids.iter().copied().chain(pieces.iter().map(|(id, _)| *id)).collect();
        let wanted = (start..start + pieces.len()).map(|at| (0, at)).collect();
        let batch = TokenBatch::new(vec![ids], wanted).map_err(|error| self.failed(&error))?;
        let batch = batch.with_images(vec![encoded.images.clone()]);
        let logits = self
            .model
            .network
            .head(&batch, None)
            .and_then(|head| head.logits()?.to_vec2::<f32>().map_err(Into::into));
        let logits = logits.map_err(|error| self.failed(&error))?;
        for ((id, words), logits) in pieces.into_iter().zip(logits) {
            let log_probs = log_softmax(&logits);
            let mut order: Vec<u32> = (0..logits.len() as u32).collect();
            order.sort_by(|one, other| log_probs[*other as usize].total_cmp(&log_probs[*one as usize]));
            let named = |id: &u32| {
                let text =
                    tokenizer.decode(&[*id], false).map_err(|error| Silence::NoAnswer(error.to_string()))?;
                Ok((text, log_probs[*id as usize]))
            };
            let others = order.iter().take(likeliest).map(named).collect::<Result<_, Silence>>()?;
            let chance = Chance { log_prob: log_probs[id as usize], likeliest: others };
            if hear(Piece { words, chance: Some(chance) }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn failed(&self, error: &ModelError) -> Silence {
        match error {
            // Too long, or images that do not fit: another question may.
            ModelError::Tokens(message) => Silence::Unreadable(message.clone()),
            other => {
                Silence::Fatal(CriticError::Judge { judge: self.name.clone(), message: other.to_string() })
            }
        }
    }
}

/// Log-probabilities of logits, nats.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let above = |logit: &f32| f64::from(*logit) - f64::from(most);
    let sum: f64 = logits.iter().map(|logit| above(logit).exp()).sum();
    logits.iter().map(|logit| above(logit) - sum.ln()).collect()
}

impl Speaker for LocalSpeaker {
    fn name(&self) -> &str {
        &self.name
    }

    fn reserved_marks(&self) -> &[String] {
        &self.reader.marks
    }

    fn say(&self, talk: &Talk, sampling: &Sampling) -> Result<Said, Silence> {
        let said = self.say_aloud(talk, sampling, None, &mut |_| ControlFlow::Continue(()))?;
        Ok(Said { words: said.words.trim().to_owned(), ..said })
    }

    fn say_aloud(
        &self,
        talk: &Talk,
        sampling: &Sampling,
        likeliest: Option<usize>,
        hear: &mut (dyn FnMut(Piece) -> ControlFlow<()> + Send),
    ) -> Result<Said, Silence> {
        let started = Instant::now();
        let encoded = self.reader.read(talk)?;
        let tokenizer = &self.reader.tokenizer;
        let policy =
            SamplingPolicy { top_p: Some(sampling.top_p), ..SamplingPolicy::at(sampling.temperature) };
        let options = GenerateOptions {
            policy,
            ..GenerateOptions::sampled(sampling.max_tokens, tokenizer.stop_ids().to_vec(), 0.0, sampling.seed)
        };
        let request = Request { prompt: &encoded.ids, images: &encoded.images, sample: 0 };
        let unreadable = |error: DataError| Silence::NoAnswer(error.to_string());
        let mut stream = TextStream::new(tokenizer, &[]);
        let (mut pieces, mut broken) = (Vec::new(), None);
        let mut watch = |_, id| {
            let words = match stream.push(id) {
                Ok(words) => words.to_owned(),
                Err(error) => {
                    broken = Some(error);
                    return Ok(ControlFlow::Break(()));
                }
            };
            // Chances are told afterwards, from a look at the whole.
            if likeliest.is_some() {
                pieces.push((id, words));
                return Ok(ControlFlow::Continue(()));
            }
            Ok::<_, ModelError>(if words.is_empty() {
                ControlFlow::Continue(())
            } else {
                hear(Piece { words, chance: None })
            })
        };
        let made = generate_watched(&self.model.network, &[request], &options, &mut watch);
        let made = made.map_err(|error| self.failed(&error))?;
        let made =
            made.into_iter().next().ok_or_else(|| Silence::NoAnswer("nothing was drawn".to_owned()))?;
        broken.map_or(Ok(()), |error| Err(unreadable(error)))?;
        let rest = stream.finish().map_err(unreadable)?.to_owned();
        match likeliest {
            Some(likeliest) => self.tell_chances(&encoded, pieces, rest, likeliest, hear)?,
            None if rest.is_empty() => {}
            None => {
                let _ = hear(Piece { words: rest, chance: None });
            }
        }
        let cost = Cost {
            calls: 1,
            input_tokens: encoded.ids.len() as u64,
            output_tokens: made.token_ids.len() as u64,
            seconds: started.elapsed().as_secs_f64(),
        };
        Ok(Said { words: stream.text().to_owned(), is_finished: made.finished, cost })
    }

    /// As many as are asked for: the whole vocabulary is looked at anyway.
    fn most_likeliest(&self) -> Option<usize> {
        Some(self.model.network.vocabulary())
    }

    fn weigh(&self, talk: &Talk, answers: &[String]) -> Result<Weighed, Silence> {
        let started = Instant::now();
        let (mut rows, mut images, mut wanted, mut tokens) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for answer in answers {
            let (whole, start) = self.reader.with_answer(talk, answer)?;
            wanted.extend((start..whole.ids.len()).map(|at| (rows.len(), at)));
            tokens.push(whole.ids.len() - start);
            rows.push(whole.ids);
            images.push(whole.images);
        }
        let input_tokens = rows.iter().map(Vec::len).max().unwrap_or(0) as u64;
        let batch = TokenBatch::new(rows, wanted).map_err(|error| self.failed(&error))?.with_images(images);
        let log_probs = self.model.network.log_probs(&batch, None).map_err(|error| self.failed(&error))?;
        let each = log_probs.to_vec1::<f32>().map_err(|error| self.failed(&error.into()))?;
        let mut rest = each.as_slice();
        let sums = tokens.iter().map(|n| {
            let (own, others) = rest.split_at(*n);
            rest = others;
            own.iter().map(|log_prob| f64::from(*log_prob)).sum()
        });
        let log_probs = sums.collect();
        let cost =
            Cost { calls: 1, input_tokens, output_tokens: 0, seconds: started.elapsed().as_secs_f64() };
        Ok(Weighed { log_probs, tokens, cost })
    }
}
