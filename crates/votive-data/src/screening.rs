//! Every image of a data set looked at once, before anything is trained: which pairs can be used, their sizes and what
//! identifies their images.
//!
//! Images are decoded here and thrown away, because a JPEG that ends early looks whole until its last row is decoded.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::buckets::Buckets;
use crate::error::{DataError, Place, Result};
use crate::framing::{Augmentation, Frame, ImageSize};
use crate::image_bytes::ImageBytes;
use crate::pixels::{ImageLimits, decode_image, read_image, size_of, unreadable};
use crate::read::{Records, Refused};
use crate::record::{ImagePair, ImageSource};
use crate::report::{DataReport, FaultyRows, RowProblem};

/// Pairs whose encoded images are in memory at a time.
const AT_ONCE: usize = 32;

/// What is known of an image once it was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its size, with the orientation applied that a camera noted.
    pub size: ImageSize,
    /// SHA-256 of its bytes as they are stored.
    pub digest: [u8; 32],
}

/// A pair whose images can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct ScreenedPair {
    /// The pair.
    pub pair: ImagePair,
    /// Its images, the chosen one first.
    pub images: [ImageFacts; 2],
}

/// An image with the row that refers to it.
struct Asked<'a> {
    image: &'a ImageSource,
    place: Place,
}

/// Keeps the pairs whose two images can be decoded and differ. `progress` hears how many were looked at, of how many.
///
/// # Errors
/// If an image cannot be read or decoded, or the images of a pair are the same, and the policy is to stop; the message
/// names row and field. If no pair is left; if that is because of images, the first one is named.
pub fn screen_image_pairs(
    records: Records<ImagePair>,
    faulty_rows: FaultyRows,
    limits: &ImageLimits,
    progress: impl Fn(usize, usize),
) -> Result<(Vec<ScreenedPair>, DataReport)> {
    let mut screening = Screening::of(&records, faulty_rows);
    let mut bytes = ImageBytes::new();
    let all = records.rows.len();
    let mut seen = 0;
    for group in records.rows.chunks(AT_ONCE) {
        let found = look_at(&records, group, &mut bytes, limits);
        for (pair, facts) in group.iter().zip(found) {
            screening.admit(&records, pair, facts)?;
        }
        seen += group.len();
        progress(seen, all);
    }
    screening.finish()
}

/// The facts of both images of some pairs. Bytes are read one after another, and decoded all at the same time.
fn look_at(
    records: &Records<ImagePair>,
    group: &[ImagePair],
    bytes: &mut ImageBytes,
    limits: &ImageLimits,
) -> Vec<Result<[ImageFacts; 2]>> {
    let mut asked = Vec::with_capacity(2 * group.len());
    for pair in group {
        let (file, row) = records.place(pair.row);
        for (side, image) in pair.sides() {
            let asked_for = Asked { image, place: Place::new(file, row, side) };
            asked.push((asked_for, bytes.read(image, limits.max_bytes)));
        }
    }
    let facts: Vec<Result<ImageFacts>> = asked
        .into_par_iter()
        .map(|(Asked { image, place }, stored)| {
            let stored = stored.map_err(|message| unreadable(&place, image, message))?;
            let size = size_of(&decode_image(&stored, image, limits, &place)?);
            Ok(ImageFacts { size, digest: Sha256::digest(&stored).into() })
        })
        .collect();
    let mut facts = facts.into_iter();
    let mut both = || Some((facts.next()?, facts.next()?));
    std::iter::from_fn(&mut both).map(|(chosen, rejected)| Ok([chosen?, rejected?])).collect()
}

/// Keeps the records of which every image that their text shows can be decoded; `shown` gives a record's row and images. The
/// others are refused, and counted when the records are tokenized.
///
/// # Errors
/// If an image cannot be read or decoded and the policy is to stop; the message names row and field.
pub fn screen_shown_images<T>(
    mut records: Records<T>,
    shown: impl Fn(&T) -> (usize, Vec<ImageSource>),
    faulty_rows: FaultyRows,
    limits: &ImageLimits,
) -> Result<Records<T>> {
    let mut bytes = ImageBytes::new();
    let mut kept = Vec::with_capacity(records.rows.len());
    let rows = std::mem::take(&mut records.rows);
    for record in rows {
        let (row, images) = shown(&record);
        let (file, in_file) = records.place(row);
        let look = |(index, image): (usize, &ImageSource)| {
            let place = Place::new(file, in_file, format!("images[{index}]"));
            read_image(&mut bytes, image, limits, &place).map(drop)
        };
        match images.iter().enumerate().try_for_each(look) {
            Ok(()) => kept.push(record),
            Err(error) if faulty_rows == FaultyRows::Error => return Err(error),
            Err(_) => {
                records.refused.push(Refused { row, problem: RowProblem::UnreadableImage, detail: "" });
            }
        }
    }
    records.rows = kept;
    Ok(records)
}

/// What was found so far.
struct Screening {
    faulty_rows: FaultyRows,
    report: DataReport,
    kept: Vec<ScreenedPair>,
    /// The first image that could not be used.
    first: Option<DataError>,
}

impl Screening {
    fn of(records: &Records<ImagePair>, faulty_rows: FaultyRows) -> Self {
        let mut report = DataReport::of(records);
        records.refused.iter().for_each(|refused| report.drop_row(refused.problem, refused.row));
        Self { faulty_rows, report, kept: Vec::with_capacity(records.rows.len()), first: None }
    }

    fn admit(
        &mut self,
        records: &Records<ImagePair>,
        pair: &ImagePair,
        facts: Result<[ImageFacts; 2]>,
    ) -> Result<()> {
        let fault = match facts {
            Ok(images) if images[0].digest != images[1].digest => {
                self.keep(pair, images);
                return Ok(());
            }
            Ok(_) => (RowProblem::ChosenEqualsRejected, same(records, pair)),
            Err(error) => (RowProblem::UnreadableImage, error),
        };
        let (problem, error) = fault;
        if self.faulty_rows == FaultyRows::Error {
            return Err(error);
        }
        self.report.drop_row(problem, pair.row);
        if problem == RowProblem::UnreadableImage {
            self.first.get_or_insert(error);
        }
        Ok(())
    }

    fn keep(&mut self, pair: &ImagePair, images: [ImageFacts; 2]) {
        self.report.count_numbers(pair.numbers);
        if pair.origin.is_tie {
            self.report.images.ties_kept.push(pair.row);
        }
        if images[0].size != images[1].size {
            self.report.images.mixed_sizes.push(pair.row);
        }
        self.kept.push(ScreenedPair { pair: pair.clone(), images });
    }

    fn finish(mut self) -> Result<(Vec<ScreenedPair>, DataReport)> {
        self.report.rows_kept = self.kept.len();
        match (self.report.require_rows(), self.first) {
            (Ok(()), _) => Ok((self.kept, self.report)),
            (Err(_), Some(first)) => Err(first),
            (Err(error), None) => Err(error),
        }
    }
}

fn same(records: &Records<ImagePair>, pair: &ImagePair) -> DataError {
    let (file, row) = records.place(pair.row);
    DataError::Row {
        file: file.to_owned(),
        row,
        problem: RowProblem::ChosenEqualsRejected,
        detail: format!(" ({} and {})", pair.chosen, pair.rejected),
    }
}

/// A pair with the size that its images are cut to.
#[derive(Clone, Debug, PartialEq)]
pub struct FramedPair {
    /// The pair.
    pub pair: ImagePair,
    /// Its images, the chosen one first.
    pub images: [ImageFacts; 2],
    /// What both images are cut to.
    pub target: ImageSize,
}

impl FramedPair {
    /// The pair with its sides exchanged.
    #[must_use]
    pub fn turned(self) -> Self {
        let [chosen, rejected] = self.images;
        Self { pair: self.pair.turned(), images: [rejected, chosen], ..self }
    }
}

/// Puts every pair into the bucket that is nearest to its shape, and counts what that does to its images.
#[must_use]
pub fn frame_pairs(pairs: Vec<ScreenedPair>, buckets: &Buckets, report: &mut DataReport) -> Vec<FramedPair> {
    let mut framed = Vec::with_capacity(pairs.len());
    for ScreenedPair { pair, images } in pairs {
        let target = buckets.sizes()[buckets.nearest(images.map(|image| image.size))];
        let frames = images.map(|image| Frame::new(image.size, target, Augmentation::default()));
        if frames.iter().any(Frame::enlarges) {
            report.images.enlarged.push(pair.row);
        }
        frames.iter().for_each(|frame| report.images.lost.add(frame.lost()));
        *report.images.sizes.entry(target.to_string()).or_default() += 1;
        framed.push(FramedPair { pair, images, target });
    }
    framed
}
