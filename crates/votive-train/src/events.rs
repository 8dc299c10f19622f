//! TensorBoard's event files: the log's lines as scalars, and the plan as a text.
//!
//! Source: the messages `Event`, `Summary`, `TensorProto` of TensorFlow's `event.proto`, `summary.proto` and
//! `tensor.proto`, and the framing of `record_writer.cc`. Names are those of transformers' own callback: `train/loss`,
//! `eval/loss`, and so on.

use crate::checkpoint::at;
use crate::error::Result;
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the file; TensorBoard looks for `tfevents` in it.
pub const EVENTS_FILE: &str = "events.out.tfevents.votive";

/// Prefix of the log's keys that belong to held-out rows.
const HELD_OUT: &str = "eval_";

/// The numbers of one line of the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scalars {
    step: u64,
    values: Vec<(String, f64)>,
}

impl Scalars {
    /// The numbers of a line under TensorBoard's names; none if it has none.
    pub(crate) fn of(line: &Value) -> Option<Self> {
        let step = line["step"].as_u64()?;
        let numbers = line.as_object()?.iter().filter(|(key, _)| *key != "step");
        let values: Vec<_> = numbers.filter_map(|(key, value)| Some((tag(key), value.as_f64()?))).collect();
        (!values.is_empty()).then_some(Self { step, values })
    }
}

fn tag(key: &str) -> String {
    match key.strip_prefix(HELD_OUT) {
        Some(rest) => format!("eval/{rest}"),
        None => format!("train/{key}"),
    }
}

/// An event file, open for appending.
#[derive(Debug)]
pub(crate) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Opens the file and makes it say what the log's lines say: events that the log does not have (any more) are cut
    /// off, those that are missing are added. It is changed in place, so that a TensorBoard that reads it goes on.
    pub(crate) fn open(path: &Path, plan: &str, lines: &[Scalars]) -> Result<Self> {
        let bytes = if path.exists() { fs::read(path).map_err(at(path))? } else { Vec::new() };
        let mut ends = Vec::new();
        for (index, record) in Records::new(&bytes).enumerate() {
            let is_known = match index.checked_sub(HEADER) {
                None => true,
                Some(line) => lines.get(line).is_some_and(|line| line.step == record.step),
            };
            if !is_known {
                break;
            }
            ends.push(record.end);
        }
        if ends.len() < HEADER {
            ends.clear();
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(at(path))?;
        file.set_len(ends.last().copied().unwrap_or(0) as u64).map_err(at(path))?;
        let mut opened = Self { path: path.into(), file };
        if ends.is_empty() {
            opened.append(&Event::Version)?;
            opened.append(&Event::Text { tag: "plan/text_summary", text: &as_markdown(plan) })?;
        }
        for line in lines.iter().skip(ends.len().saturating_sub(HEADER)) {
            opened.add(line)?;
        }
        Ok(opened)
    }

    /// Appends a line's numbers.
    pub(crate) fn add(&mut self, scalars: &Scalars) -> Result<()> {
        self.append(&Event::Scalars(scalars))
    }

    fn append(&mut self, event: &Event) -> Result<()> {
        let record = framed(&event.encode(now()));
        self.file.write_all(&record).map_err(at(&self.path))
    }
}

/// Events before the first line's.
const HEADER: usize = 2;

/// Four spaces make code of a line, so that TensorBoard shows a plan as it stands.
fn as_markdown(plan: &str) -> String {
    plan.lines().map(|line| format!("    {line}\n")).collect()
}

/// Seconds since 1970, which TensorBoard shows beside a step.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

/// What an event says.
enum Event<'a> {
    /// The version of the format, which every file begins with.
    Version,
    /// A text in Markdown.
    Text { tag: &'a str, text: &'a str },
    /// Numbers.
    Scalars(&'a Scalars),
}

impl Event<'_> {
    /// The message `Event` in protobuf's encoding.
    fn encode(&self, wall_time: f64) -> Vec<u8> {
        let mut event = Message::default();
        event.fixed64(1, wall_time.to_bits());
        match self {
            Self::Version => event.bytes(3, b"brain.Event:2"),
            Self::Text { tag, text } => event.message(5, |summary| {
                summary.message(1, |value| text_value(value, tag, text));
            }),
            Self::Scalars(scalars) => {
                event.number(2, scalars.step);
                event.message(5, |summary| {
                    for (tag, number) in &scalars.values {
                        summary.message(1, |value| {
                            value.bytes(1, tag.as_bytes());
                            value.fixed32(2, (*number as f32).to_bits());
                        });
                    }
                });
            }
        }
        event.0
    }
}

/// A `Summary.Value` that TensorBoard's text plugin shows: a tensor of one string.
fn text_value(value: &mut Message, tag: &str, text: &str) {
    /// `DT_STRING`.
    const STRING: u64 = 7;
    value.bytes(1, tag.as_bytes());
    value.message(8, |tensor| {
        tensor.number(1, STRING);
        tensor.message(2, |shape| shape.message(2, |dimension| dimension.number(1, 1)));
        tensor.bytes(8, text.as_bytes());
    });
    value.message(9, |metadata| metadata.message(1, |plugin| plugin.bytes(1, b"text")));
}

/// A protobuf message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// The field's number, and how its value is written.
    fn key(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }

    fn fixed64(&mut self, field: u64, bits: u64) {
        self.key(field, 1);
        self.0.extend(bits.to_le_bytes());
    }

    fn fixed32(&mut self, field: u64, bits: u32) {
        self.key(field, 5);
        self.0.extend(bits.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn message(&mut self, field: u64, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }
}

/// A record as it stands in the file: length, its checksum, the data, its checksum.
fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), data, &masked_crc(data).to_le_bytes()].concat()
}

/// CRC-32C, turned and shifted, so that a checksum of data with checksums in it is no accident.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The CRC with Castagnoli's polynomial, bits reflected (RFC 3720, appendix B.4).
fn crc32c(data: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let shift = |crc: u32| (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
    !data.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc)))
}

/// A whole record of a file.
struct Record {
    /// The event's step.
    step: u64,
    /// Where the record ends in the file.
    end: usize,
}

/// The whole records at the beginning of a file; the first that is cut or damaged ends them.
struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn checked(&mut self, length: usize) -> Option<&'a [u8]> {
        let data = self.take(length)?;
        let crc = self.take(4)?;
        (crc == masked_crc(data).to_le_bytes()).then_some(data)
    }
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let length = u64::from_le_bytes(self.checked(8)?.try_into().ok()?);
        let data = self.checked(usize::try_from(length).ok()?)?;
        Some(Record { step: step_of(data), end: self.at })
    }
}

/// The step of an event as [`Event::encode`] writes it: the field behind the time, 0 if there is none.
fn step_of(event: &[u8]) -> u64 {
    /// Field 1 with its eight bytes, and the key of field 2.
    const BEFORE: usize = 10;
    let Some((before, rest)) = event.split_at_checked(BEFORE) else { return 0 };
    if before.last() != Some(&0x10) {
        return 0;
    }
    let last = rest.iter().position(|byte| byte & 0x80 == 0).unwrap_or(0);
    rest.iter().take(last + 1).rev().fold(0, |step, byte| step << 7 | u64::from(byte & 0x7f))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(step: u64) -> Value {
        json!({ "step": step, "loss": 0.5, "rewards/margins": -1.25, "eval_loss": 3.0, "note": "no number" })
    }

    fn scalars(steps: &[u64]) -> Vec<Scalars> {
        steps.iter().map(|step| Scalars::of(&line(*step)).unwrap()).collect()
    }

    /// The file that TensorBoard's own writer makes of the same events.
    #[test]
    fn the_bytes_are_those_of_tensorboard() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/events/events.bin");
        let wall_time = 1_700_000_000.25;
        let lines = scalars(&[7, 300]);
        let events = [
            Event::Version,
            Event::Text { tag: "plan/text_summary", text: "    lr = 1e-6\n" },
            Event::Scalars(&lines[0]),
            Event::Scalars(&lines[1]),
        ];
        let ours: Vec<u8> = events.iter().flat_map(|event| framed(&event.encode(wall_time))).collect();
        assert_eq!(ours, fs::read(path).unwrap());
    }

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // RFC 3720, appendix B.4: 32 bytes of zeros, and of ones.
        assert_eq!((crc32c(&[0; 32]), crc32c(&[0xff; 32])), (0x8a91_36aa, 0x62a8_ab43));
    }

    fn steps_in(path: &Path) -> Vec<u64> {
        let bytes = fs::read(path).unwrap();
        let records: Vec<Record> = Records::new(&bytes).collect();
        assert_eq!(
            records.last().map_or(0, |record| record.end),
            bytes.len(),
            "something else is behind the records"
        );
        records.iter().skip(HEADER).map(|record| record.step).collect()
    }

    #[test]
    fn a_resumed_file_says_what_the_log_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(EVENTS_FILE);
        let mut file = EventFile::open(&path, "a = 1\n", &[]).unwrap();
        scalars(&[1, 2, 300, 400]).iter().for_each(|line| file.add(line).unwrap());
        assert_eq!(steps_in(&path), [1, 2, 300, 400]);
        let whole = fs::read(&path).unwrap();
        // Steps that will be made again go; an event that a crash kept from the file comes.
        EventFile::open(&path, "a = 1\n", &scalars(&[1, 2])).unwrap();
        assert_eq!(steps_in(&path), [1, 2]);
        assert!(whole.starts_with(&fs::read(&path).unwrap()));
        EventFile::open(&path, "a = 1\n", &scalars(&[1, 2, 300])).unwrap();
        assert_eq!(steps_in(&path), [1, 2, 300]);
        // A record that was cut, one that was damaged, and a file that is none at all.
        let bytes = fs::read(&path).unwrap();
        for broken in
            [&bytes[..bytes.len() - 3], &[&bytes[..bytes.len() - 3], b"xyz"].concat(), b"nonsense", b""]
        {
            fs::write(&path, broken).unwrap();
            EventFile::open(&path, "a = 1\n", &scalars(&[1, 2, 300])).unwrap();
            assert_eq!(steps_in(&path), [1, 2, 300]);
        }
    }
}
