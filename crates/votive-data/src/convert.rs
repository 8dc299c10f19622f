//! Records as rows in a layout that other programs read.

use serde_json::{Map, Value, json};

use crate::error::{DataError, Result};
use crate::read::{Records, TextRecords};
use crate::record::{
    ChatOptions, Completion, ImageSource, Message, PairText, PreferencePair, RowNumbers, UnpairedExample,
};

/// A layout that records can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextLayout {
    /// TRL's `prompt`, `chosen`, `rejected` as strings.
    Trl,
    /// The same as lists of messages.
    TrlConversational,
    /// TRL's `prompt`, `completion`, `label`; a pair becomes two rows.
    Unpaired,
    /// LLaMA-Factory's `conversations` with `chosen` and `rejected`, or with `kto_tag`.
    Sharegpt,
    /// LLaMA-Factory's `instruction` with `chosen` and `rejected`, or with `output` and `kto_tag`.
    Alpaca,
}

impl TextLayout {
    /// The layouts with their names.
    pub const NAMES: [(Self, &'static str); 5] = [
        (Self::Trl, "trl"),
        (Self::TrlConversational, "trl-conversational"),
        (Self::Unpaired, "unpaired"),
        (Self::Sharegpt, "sharegpt"),
        (Self::Alpaca, "alpaca"),
    ];

    /// The layout's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.into_iter().find(|(layout, _)| *layout == self).map_or("", |(_, name)| name)
    }
}

/// Why a record cannot be written: what it is, and what can be done.
pub(crate) type Refusal = (&'static str, &'static str);

const IMPLICIT: Refusal = ("a pair of strings without a prompt", "give the prompt in a column of its own");
const CHAT: Refusal = ("a conversation", "write it as trl-conversational");
const LABELLED: Refusal = ("a completion with a label", "write it as unpaired, sharegpt or alpaca");
const ROUNDS: Refusal =
    ("a completion that is not one answer of the assistant", "write it as trl-conversational");
const VARIABLES: Refusal = ("a row with chat_template_kwargs", "write it as trl-conversational");
const SYSTEM: Refusal = ("a conversation whose turns do not alternate", "write it as sharegpt");
const ROLE: Refusal = ("a conversation with calls or other speakers", "write it as trl-conversational");
const EMBEDDED: Refusal = ("an embedded image", "write the image to a file first");
const TWO_PROMPTS: Refusal = ("a completion after two prompts", "train on it as it is");
const GOLD: Refusal = ("a row with a gold completion", "write it as trl or trl-conversational");

/// The records as rows of a layout, weight and margin included.
///
/// # Errors
/// If a record cannot be said in the layout, naming its row.
pub fn convert(records: &TextRecords, layout: TextLayout) -> Result<Vec<Value>> {
    match records {
        TextRecords::Pairs(records) => {
            let rows = |pair: &PreferencePair| {
                let rows = pair_rows(pair, layout)?.into_iter();
                rows.map(|row| with_images(row, &pair.images)).collect()
            };
            gather(records, layout, |pair| pair.row, rows)
        }
        TextRecords::Unpaired(records) => {
            let rows =
                |one: &UnpairedExample| Ok(vec![with_images(unpaired_row(one, layout)?, &one.images)?]);
            gather(records, layout, |one| one.row, rows)
        }
    }
}

fn gather<T>(
    records: &Records<T>,
    layout: TextLayout,
    row_of: impl Fn(&T) -> usize,
    rows: impl Fn(&T) -> Result<Vec<Value>, Refusal>,
) -> Result<Vec<Value>> {
    let mut gathered = Vec::with_capacity(records.rows.len());
    for record in &records.rows {
        let made = rows(record).map_err(|(found, advice)| {
            let (file, row) = records.place(row_of(record));
            DataError::NotWritable { file: file.to_owned(), row, found, layout: layout.name(), advice }
        })?;
        gathered.extend(made);
    }
    Ok(gathered)
}

/// A row with the images that its text shows, by paths that hold wherever the file lies.
pub(crate) fn with_images(mut row: Value, images: &[ImageSource]) -> Result<Value, Refusal> {
    if images.is_empty() {
        return Ok(row);
    }
    let path = |image: &ImageSource| match image {
        ImageSource::File(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            Ok(path.to_string_lossy().into_owned())
        }
        ImageSource::Embedded(_) => Err(EMBEDDED),
    };
    row["images"] = images.iter().map(path).collect::<Result<Vec<String>, _>>()?.into();
    Ok(row)
}

fn pair_rows(pair: &PreferencePair, layout: TextLayout) -> Result<Vec<Value>, Refusal> {
    let PreferencePair { text, gold, numbers, .. } = pair;
    let is_of_trl = matches!(layout, TextLayout::Trl | TextLayout::TrlConversational);
    if gold.is_some() && !is_of_trl {
        return Err(GOLD);
    }
    let one = |mut row: Value| {
        match gold {
            // A string among conversations is a turn, as the completions of its row.
            Some(Completion::Plain { completion, .. }) if layout == TextLayout::TrlConversational => {
                row["reference"] = json!(turn("assistant", completion));
            }
            Some(Completion::Plain { completion, .. }) => row["reference"] = completion.as_str().into(),
            Some(Completion::Chat { completion, .. }) => row["reference"] = json!(completion),
            None => {}
        }
        vec![with_numbers(row, *numbers, true)]
    };
    let [of_chosen, of_rejected] = numbers.unpaired();
    Ok(match (layout, text) {
        (TextLayout::Trl, PairText::Plain { .. } | PairText::Implicit { .. })
        | (TextLayout::TrlConversational, PairText::Chat { .. }) => one(pair_columns(text)),
        (TextLayout::Trl, PairText::Chat { .. }) => return Err(CHAT),
        (_, PairText::Implicit { .. }) => return Err(IMPLICIT),
        (_, PairText::TwoPrompts { .. }) => return Err(TWO_PROMPTS),
        (TextLayout::TrlConversational, PairText::Plain { prompt, chosen, rejected }) => {
            let (user, assistant) = (turn("user", prompt), |text| turn("assistant", text));
            one(json!({"prompt": user, "chosen": assistant(chosen), "rejected": assistant(rejected)}))
        }
        (TextLayout::Unpaired, PairText::Plain { prompt, chosen, rejected }) => {
            let side = |text: &String, label, numbers| {
                let row = json!({"prompt": prompt, "completion": text, "label": label});
                with_numbers(row, numbers, false)
            };
            vec![side(chosen, true, of_chosen), side(rejected, false, of_rejected)]
        }
        (TextLayout::Unpaired, PairText::Chat { prompt, chosen, rejected, options }) => {
            let side = |turns: &Vec<Message>, label, numbers| {
                let row = json!({"prompt": prompt, "completion": turns, "label": label});
                with_numbers(with_options(row, options), numbers, false)
            };
            vec![side(chosen, true, of_chosen), side(rejected, false, of_rejected)]
        }
        (TextLayout::Sharegpt | TextLayout::Alpaca, text) => {
            let chat = as_chat(text)?;
            let (good, bad) = (only_answer(chat.completions[0])?, only_answer(chat.completions[1])?);
            let mut row = factory_prompt(chat.prompt, chat.options, layout)?;
            let side = |text: &str| match layout {
                TextLayout::Sharegpt => json!({"from": "gpt", "value": text}),
                _ => text.into(),
            };
            row.extend([("chosen".to_owned(), side(good)), ("rejected".to_owned(), side(bad))]);
            one(row.into())
        }
    })
}

fn unpaired_row(example: &UnpairedExample, layout: TextLayout) -> Result<Value, Refusal> {
    let UnpairedExample { text, label, numbers, .. } = example;
    let row = match (layout, text) {
        (TextLayout::Trl | TextLayout::TrlConversational, _) => return Err(LABELLED),
        (TextLayout::Unpaired, Completion::Plain { prompt, completion }) => {
            json!({"prompt": prompt, "completion": completion, "label": label})
        }
        (TextLayout::Unpaired, Completion::Chat { prompt, completion, options }) => {
            with_options(json!({"prompt": prompt, "completion": completion, "label": label}), options)
        }
        (TextLayout::Sharegpt | TextLayout::Alpaca, text) => {
            let none = ChatOptions::default();
            let (prompt, completion, options) = match text {
                Completion::Plain { prompt, completion } => {
                    (turn("user", prompt), turn("assistant", completion), &none)
                }
                Completion::Chat { prompt, completion, options } => {
                    (prompt.clone(), completion.clone(), options)
                }
            };
            let answer = only_answer(&completion)?;
            let mut row = factory_prompt(&prompt, options, layout)?;
            match (layout, row.get_mut("conversations")) {
                (TextLayout::Sharegpt, Some(Value::Array(turns))) => {
                    turns.push(json!({"from": "gpt", "value": answer}));
                }
                _ => row.extend([("output".to_owned(), answer.into())]),
            }
            row.insert("kto_tag".to_owned(), (*label).into());
            row.into()
        }
    };
    Ok(with_numbers(row, *numbers, false))
}

/// A pair in the columns of TRL.
pub(crate) fn pair_columns(text: &PairText) -> Value {
    match text {
        PairText::Plain { prompt, chosen, rejected } => {
            json!({"prompt": prompt, "chosen": chosen, "rejected": rejected})
        }
        PairText::Implicit { chosen, rejected } => json!({"chosen": chosen, "rejected": rejected}),
        PairText::Chat { prompt, chosen, rejected, options } => {
            with_options(json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}), options)
        }
        PairText::TwoPrompts { chosen, rejected } => {
            let columns = |preferred: Value, other: Value, completion: Value| json!({"prompt_chosen": preferred, "prompt_rejected": other, "completion": completion});
            match (chosen, rejected) {
                (
                    Completion::Chat { prompt, completion, options },
                    Completion::Chat { prompt: other, .. },
                ) => with_options(columns(json!(prompt), json!(other), json!(completion)), options),
                (chosen, rejected) => {
                    let completion = match chosen {
                        Completion::Plain { completion, .. } => json!(completion),
                        Completion::Chat { completion, .. } => json!(completion),
                    };
                    columns(chosen.prompt_text().into(), rejected.prompt_text().into(), completion)
                }
            }
        }
    }
}

fn with_options(mut row: Value, ChatOptions { tools, variables }: &ChatOptions) -> Value {
    if let Some(tools) = tools {
        row["tools"] = tools.clone();
    }
    if !variables.is_empty() {
        row["chat_template_kwargs"] = variables.clone().into();
    }
    row
}

/// A row with the numbers that it has.
pub(crate) fn with_numbers(mut row: Value, numbers: RowNumbers, is_pair: bool) -> Value {
    for (name, number) in numbers.named(is_pair) {
        row[name] = number.into();
    }
    row
}

fn turn(role: &str, text: &str) -> Vec<Message> {
    vec![Message::new(role, text)]
}

/// A pair as a conversation.
struct Chat<'a> {
    prompt: &'a [Message],
    completions: [&'a [Message]; 2],
    options: &'a ChatOptions,
}

fn as_chat(text: &PairText) -> Result<Chat<'_>, Refusal> {
    match text {
        PairText::Chat { prompt, chosen, rejected, options } => {
            Ok(Chat { prompt, completions: [chosen, rejected], options })
        }
        PairText::Plain { .. } => Err(("a pair of strings", "write it as trl-conversational first")),
        PairText::Implicit { .. } => Err(IMPLICIT),
        PairText::TwoPrompts { .. } => Err(TWO_PROMPTS),
    }
}

fn only_answer(turns: &[Message]) -> Result<&str, Refusal> {
    match turns {
        [only] if only.role() == "assistant" && only.fields() == 2 => only.content().ok_or(ROUNDS),
        _ => Err(ROUNDS),
    }
}

/// The columns of a LLaMA-Factory row that come before the answers.
fn factory_prompt(
    prompt: &[Message],
    options: &ChatOptions,
    layout: TextLayout,
) -> Result<Map<String, Value>, Refusal> {
    if !options.variables.is_empty() {
        return Err(VARIABLES);
    }
    let mut row = Map::new();
    let (system, turns) = match prompt {
        [first, turns @ ..] if first.role() == "system" => (first.content(), turns),
        turns => (None, turns),
    };
    row.extend(system.map(|text| ("system".to_owned(), text.into())));
    // LLaMA-Factory reads tools as text.
    row.extend(options.tools.as_ref().map(|tools| ("tools".to_owned(), tools.to_string().into())));
    if layout == TextLayout::Sharegpt {
        let turns = turns.iter().map(sharegpt_turn).collect::<Result<Vec<_>, _>>()?;
        row.insert("conversations".to_owned(), turns.into());
        return Ok(row);
    }
    let said: Vec<&str> = turns.iter().map(|turn| turn.content().ok_or(ROLE)).collect::<Result<_, _>>()?;
    let alternate = turns.iter().enumerate().all(|(idx, turn)| turn.role() == ["user", "assistant"][idx % 2]);
    let [earlier @ .., asked] = said.as_slice() else { return Err(SYSTEM) };
    if !alternate || earlier.len() % 2 != 0 {
        return Err(SYSTEM);
    }
    row.extend([("instruction".to_owned(), (*asked).into()), ("input".to_owned(), "".into())]);
    if !earlier.is_empty() {
        row.insert("history".to_owned(), earlier.chunks(2).map(|round| json!(round)).collect());
    }
    Ok(row)
}

fn sharegpt_turn(turn: &Message) -> Result<Value, Refusal> {
    let from = match turn.role() {
        "user" => "human",
        "assistant" => "gpt",
        "tool" => "observation",
        _ => return Err(ROLE),
    };
    let said = turn.content().filter(|_| turn.fields() == 2).ok_or(ROLE)?;
    Ok(json!({"from": from, "value": said}))
}
