//! Tokens of completions, coloured by a number that stands below each.

use std::path::{Path, PathBuf};

use crate::html::{Html, number, signed};
use crate::{GalleryError, page};

/// Steps of colour on either side of 0.
const STEPS: f64 = 4.0;

/// Rows of tokens with a number each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatMap {
    /// The page's title.
    pub title: String,
    /// What the numbers are.
    pub what: String,
    /// Whether 0 is in the middle of the scale; else it is its upper end.
    pub is_signed: bool,
    /// Rows, in order.
    pub rows: Vec<HeatRow>,
}

/// A prompt with its completions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatRow {
    /// Its number in the data.
    pub row: usize,
    /// The prompt.
    pub prompt: String,
    /// Its completions.
    pub completions: Vec<HeatCompletion>,
}

/// A completion in tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatCompletion {
    /// `chosen`, `rejected` or `completion`.
    pub side: String,
    /// Its tokens.
    pub tokens: Vec<HeatToken>,
}

/// A token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatToken {
    /// Its text.
    pub text: String,
    /// Its number.
    pub value: f64,
}

/// Writes `index.html` into `dir`, which is made if it is not there, and returns its path.
///
/// Every number stands below its token, so that the page says the same without colour. The strongest colour is that of
/// the largest absolute value of 98 % of the tokens, so that a single one does not pale all others.
///
/// # Errors
/// A number is not finite, or the file cannot be written.
pub fn write_heat_map(map: &HeatMap, dir: &Path) -> Result<PathBuf, GalleryError> {
    let tokens = || map.rows.iter().flat_map(|row| &row.completions).flat_map(|one| &one.tokens);
    if let Some(token) = tokens().find(|token| !token.value.is_finite()) {
        let field = format!("the number of token {:?}", token.text);
        return Err(GalleryError::NotFinite { field, found: token.value });
    }
    let mut sizes: Vec<f64> = tokens().map(|token| token.value.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let most = sizes.get(sizes.len().saturating_sub(1) * 98 / 100).copied().unwrap_or(0.0);
    page::write(dir, &map.title, &body(map, most))
}

fn body(map: &HeatMap, most: f64) -> Html {
    let mut html = Html::default();
    html.put("<header><h1>{}</h1><p>{}.</p></header>\n", &[&map.title, &map.what]);
    for row in &map.rows {
        html.put(
            "<section class=\"heat\"><h2>Row {}</h2><p class=\"prompt\">{}</p>\n",
            &[&row.row, &row.prompt],
        );
        for completion in &row.completions {
            let total: f64 = completion.tokens.iter().map(|token| token.value).sum();
            let (count, total) = (completion.tokens.len(), signed(total, 2));
            html.put("<h3>{}: {} tokens, sum {}</h3><p>", &[&completion.side, &count, &total]);
            for token in &completion.tokens {
                let class = class(token.value, most, map.is_signed);
                let value = if map.is_signed { signed(token.value, 2) } else { number(token.value, 2) };
                html.put("<ruby class=\"{}\">{}<rt>{}</rt></ruby>", &[&class, &token.text, &value]);
            }
            html.put("</p>\n", &[]);
        }
        html.put("</section>\n", &[]);
    }
    html
}

/// `h4` to `h1`, `h0`, `l1` to `l4`, from the highest to the lowest number.
fn class(value: f64, most: f64, is_signed: bool) -> String {
    let share = if most > 0.0 { (value / most).clamp(-1.0, 1.0) } else { 0.0 };
    let step = (share.abs() * STEPS).round();
    match (step == 0.0, share > 0.0 || !is_signed && share == 0.0) {
        (true, _) => "h0".to_owned(),
        (false, true) => format!("h{step}"),
        (false, false) => format!("l{step}"),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_sign_and_size() {
        let classes = [2.0, 1.0, 0.1, 0.0, -0.9, -5.0].map(|value| class(value, 2.0, true));
        assert_eq!(classes, ["h4", "h2", "h0", "h0", "l2", "l4"]);
        assert_eq!(class(-1.0, 0.0, false), "h0");
    }

    #[test]
    fn hostile_tokens_stay_text_and_numbers_must_be_finite() {
        let dir = std::env::temp_dir().join(format!("votive-heat-{}", std::process::id()));
        let token = |text: &str, value| HeatToken { text: text.to_owned(), value };
        let tokens = vec![token("<script>alert(1)</script>", 0.5), token("\"'&", -0.25)];
        let completions = vec![HeatCompletion { side: "chosen".to_owned(), tokens }];
        let row = HeatRow { row: 3, prompt: "</p><img src=x>".to_owned(), completions };
        let mut map =
            HeatMap { title: "t".to_owned(), what: "w".to_owned(), is_signed: true, rows: vec![row] };
        let text = std::fs::read_to_string(write_heat_map(&map, &dir).unwrap()).unwrap();
        assert!(text.contains("&lt;script&gt;alert(1)") && !text.contains("<script>alert"));
        assert!(text.contains("&lt;/p&gt;&lt;img") && text.contains("<rt>+0.50</rt>"));
        assert!(text.contains("chosen: 2 tokens, sum +0.25"));
        map.rows[0].completions[0].tokens[0].value = f64::NAN;
        assert!(write_heat_map(&map, &dir).unwrap_err().to_string().contains("script"));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
