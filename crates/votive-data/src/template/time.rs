//! A point in time, formatted as Python's `strftime` does in the C locale.

/// Coordinated universal time, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UtcTime {
    seconds: i64,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const SECONDS_PER_DAY: i64 = 86_400;

impl UtcTime {
    /// The time `seconds` after 1970-01-01 00:00:00.
    #[must_use]
    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self { seconds }
    }

    /// The time in words; fails on a directive that is not supported.
    pub(super) fn format(self, pattern: &str) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                text.push(c);
                continue;
            }
            let directive = chars.next().unwrap_or('%');
            // glibc's `-` drops the padding of the number that follows.
            if directive == '-' {
                let padded = self.directive(chars.next().unwrap_or('-'), pattern)?;
                let bare = padded.trim_start_matches('0');
                text.push_str(if bare.is_empty() { "0" } else { bare });
            } else {
                text.push_str(&self.directive(directive, pattern)?);
            }
        }
        Ok(text)
    }

    fn directive(self, directive: char, pattern: &str) -> Result<String, String> {
        let (days, of_day) =
            (self.seconds.div_euclid(SECONDS_PER_DAY), self.seconds.rem_euclid(SECONDS_PER_DAY));
        let (year, month, day) = civil_date(days);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        let month_name = MONTHS[(month - 1) as usize];
        let weekday = WEEKDAYS[(days + 4).rem_euclid(7) as usize];
        Ok(match directive {
            'Y' => year.to_string(),
            'y' => format!("{:02}", year.rem_euclid(100)),
            'm' => format!("{month:02}"),
            'B' => month_name.to_owned(),
            'b' | 'h' => month_name[..3].to_owned(),
            'd' => format!("{day:02}"),
            'e' => format!("{day:2}"),
            'A' => weekday.to_owned(),
            'a' => weekday[..3].to_owned(),
            'H' => format!("{hour:02}"),
            'I' => format!("{:02}", (hour + 11) % 12 + 1),
            'M' => format!("{minute:02}"),
            'S' => format!("{second:02}"),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            'F' => format!("{year}-{month:02}-{day:02}"),
            'T' => format!("{hour:02}:{minute:02}:{second:02}"),
            '%' => "%".to_owned(),
            other => {
                return Err(format!("strftime_now({pattern:?}): the directive %{other} is not supported"));
            }
        })
    }
}

/// Year, month and day of the proleptic Gregorian calendar, from days since 1970-01-01.
fn civil_date(days: i64) -> (i64, i64, i64) {
    // Years are counted from March, so that the leap day is the last of its year; 400 years have 146,097 days.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn known_dates() {
        let format = |seconds, pattern| UtcTime::from_unix_seconds(seconds).format(pattern).unwrap();
        assert_eq!(format(0, "%A %d %B %Y, %T"), "Thursday 01 January 1970, 00:00:00");
        assert_eq!(format(951_782_400, "%d %b %y"), "29 Feb 00");
        assert_eq!(format(1_721_952_000 + 47_000, "%-d %B %Y %I:%M %p"), "26 July 2024 01:03 PM");
        assert_eq!(format(-1, "%F %T"), "1969-12-31 23:59:59");
    }

    #[test]
    fn a_directive_that_is_not_supported_is_named() {
        let message = UtcTime::from_unix_seconds(0).format("%Z").unwrap_err();
        assert!(message.contains("%Z"), "{message}");
    }
}
