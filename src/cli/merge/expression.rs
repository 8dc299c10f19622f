//! Sums of named things with weights, as formulas write them: `base + 0.7*(helpful - base)`.

/// Each name with its weight, in the order in which names come; weights may be 0 in the end.
pub(super) type Weights = Vec<(String, f64)>;

/// Reads a formula.
///
/// # Errors
/// If it is not a sum of names times numbers; the message says where.
pub(super) fn parse(text: &str) -> Result<Weights, String> {
    let mut parser = Parser { text, at: 0 };
    let sum = parser.sum()?;
    parser.skip_spaces();
    if parser.at < text.len() {
        return Err(parser.wrong("an operator"));
    }
    if sum.number != 0.0 {
        return Err(format!("{} stands alone; a number is a weight of a name", sum.number));
    }
    if let Some((name, weight)) = sum.names.iter().find(|(_, weight)| !weight.is_finite()) {
        return Err(format!("the weight of {name} is {weight}"));
    }
    Ok(sum.names)
}

/// A number and weighted names.
#[derive(Clone, Debug, Default)]
struct Linear {
    number: f64,
    names: Weights,
}

impl Linear {
    fn times(mut self, factor: f64) -> Self {
        self.number *= factor;
        self.names.iter_mut().for_each(|(_, weight)| *weight *= factor);
        self
    }

    fn plus(mut self, other: Self) -> Self {
        self.number += other.number;
        for (name, weight) in other.names {
            match self.names.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += weight,
                None => self.names.push((name, weight)),
            }
        }
        self
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

/// Parentheses within each other; more are a slip, and would end the stack.
const DEEPEST: usize = 100;

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn wrong(&self, expected: &str) -> String {
        let found = self.rest().chars().next().map_or("the end".to_owned(), |c| format!("`{c}`"));
        format!(
            "expected {expected} at character {}, found {found}",
            self.text[..self.at].chars().count() + 1
        )
    }

    /// Takes one of these characters if it comes next.
    fn take(&mut self, wanted: &[char]) -> Option<char> {
        self.skip_spaces();
        let next = self.rest().chars().next().filter(|c| wanted.contains(c))?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn sum(&mut self) -> Result<Linear, String> {
        self.nested_sum(0)
    }

    fn nested_sum(&mut self, depth: usize) -> Result<Linear, String> {
        if depth > DEEPEST {
            return Err(format!("more than {DEEPEST} parentheses within each other"));
        }
        let mut sum = self.product(depth)?;
        while let Some(sign) = self.take(&['+', '-']) {
            let product = self.product(depth)?;
            sum = sum.plus(if sign == '-' { product.times(-1.0) } else { product });
        }
        Ok(sum)
    }

    fn product(&mut self, depth: usize) -> Result<Linear, String> {
        let mut product = self.factor(depth)?;
        while let Some(operator) = self.take(&['*', '/']) {
            let factor = self.factor(depth)?;
            product = match (operator, product.names.is_empty(), factor.names.is_empty()) {
                ('*', _, true) => product.times(factor.number),
                ('*', true, false) => factor.times(product.number),
                ('/', _, true) if factor.number != 0.0 => product.times(1.0 / factor.number),
                _ => {
                    return Err(
                        self.wrong("no product of names, and no division but by a number other than 0,")
                    );
                }
            };
        }
        Ok(product)
    }

    fn factor(&mut self, depth: usize) -> Result<Linear, String> {
        let mut sign = 1.0;
        while let Some(next) = self.take(&['+', '-']) {
            sign *= if next == '-' { -1.0 } else { 1.0 };
        }
        if self.take(&['(']).is_some() {
            let inner = self.nested_sum(depth + 1)?;
            self.take(&[')']).ok_or_else(|| self.wrong("`)`"))?;
            return Ok(inner.times(sign));
        }
        let length = |is_part: fn(char) -> bool, rest: &str| rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let word = self.rest()[..length(|c| c.is_alphanumeric() || "_.".contains(c), self.rest())].to_owned();
        if word.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            let number = word.parse().map_err(|_| self.wrong("a number"))?;
            self.at += word.len();
            return Ok(Linear { number, names: Vec::new() }.times(sign));
        }
        if word.is_empty() {
            return Err(self.wrong("a name, a number or `(`"));
        }
        self.at += word.len();
        Ok(Linear { number: 0.0, names: vec![(word, sign)] })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn weights(text: &str) -> Vec<(String, f64)> {
        parse(text).unwrap()
    }

    #[test]
    fn formulas_are_weights_of_names() {
        let of = |pairs: &[(&str, f64)]| -> Weights {
            pairs.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
        };
        assert_eq!(weights("base + 0.5*(helpful - base)"), of(&[("base", 0.5), ("helpful", 0.5)]));
        assert_eq!(weights("new + 0.25 * (new - old)"), of(&[("new", 1.25), ("old", -0.25)]));
        assert_eq!(weights("a+(b-a)"), of(&[("a", 0.0), ("b", 1.0)]));
        assert_eq!(weights("-(-a) - -b/4"), of(&[("a", 1.0), ("b", 0.25)]));
        assert_eq!(weights("(1 - .25)*a_1.x + a_1.x*2*0.5"), of(&[("a_1.x", 1.75)]));
    }

    #[test]
    fn what_is_no_such_sum_is_said_with_its_place() {
        for (text, part) in [
            ("", "a name, a number or `(` at character 1, found the end"),
            ("a b", "an operator at character 3, found `b`"),
            ("a*b", "no product of names"),
            ("a/0", "no product of names"),
            ("(a", "`)` at character 3"),
            ("a + 1", "1 stands alone"),
            ("1.2.3*a", "a number at character 1"),
            ("a ** b", "a name, a number"),
            ("1e400*a", "a number"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
        assert!(parse(&"(".repeat(100_000)).unwrap_err().contains("100 parentheses"));
    }
}
