//! Images in one column, and their scores or ranks in another.

use super::{ImageFormat, are_lists, scored_list};

const COLUMNS: &str = "a row has the columns `prompt`, `images` (paths), and `scores` or `ranks`";
const IMAGES: &str = "images";
/// Columns of numbers, and the sign that makes more of it better.
const NUMBERS: [(&str, f64); 4] = [("scores", 1.0), ("ratings", 1.0), ("ranks", -1.0), ("rankings", -1.0)];

pub(super) const FORMAT: ImageFormat = ImageFormat {
    name: "ranked-images",
    origin: "lists of images with numbers",
    columns: "`prompt`, `caption` or `text`: a string; `images`: paths; `scores` or `ratings` (more is better), or `ranks` or `rankings` (less is better)",
    yields: "pairs, as `data.pairs` says; the margin is the difference of the numbers",
    own_folder: false,
    recognizes: |row| NUMBERS.iter().any(|(numbers, _)| are_lists(row, [IMAGES, numbers])),
    read: |row, folder| {
        let (numbers, sign) = NUMBERS.into_iter().find(|(name, _)| row.has(name)).unwrap_or(NUMBERS[0]);
        scored_list(row, folder, [IMAGES, numbers], sign, COLUMNS)
    },
};
