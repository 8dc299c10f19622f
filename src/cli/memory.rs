//! Sizes in bytes: as they are written on a command line, as they are shown, and how many the machine has free.

/// Units by name, the longest names first.
const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// Reads a size such as `8GiB`, `500 MB` or `1.5GiB`.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let expected = || format!("expected a size such as 8GiB or 500MB, found {text:?}");
    let (number, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| text.strip_suffix(name).map(|number| (number, *unit)))
        .ok_or_else(expected)?;
    let number: f64 = number.trim().parse().map_err(|_| expected())?;
    let bytes = number * unit as f64;
    if bytes.is_finite() && bytes >= 1.0 { Ok(bytes as u64) } else { Err(expected()) }
}

/// A size in the largest binary unit that it fills.
pub(super) fn show_bytes(bytes: u64) -> String {
    let unit = UNITS[..4].iter().rev().find(|(_, unit)| bytes >= *unit);
    match unit {
        Some((name, unit)) => format!("{:.2} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

/// Memory that the machine can give without swapping, if it tells: the kernel's estimate, and the limit of the group that
/// the process is in where that is less.
pub(super) fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let free = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10;
    let read = |file: &str| {
        std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()?.trim().parse::<u64>().ok()
    };
    let group = read("memory.max").zip(read("memory.current"));
    Some(group.map_or(free, |(most, used)| free.min(most.saturating_sub(used))))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in [("8GiB", 8 << 30), ("1.5 KiB", 1536), ("500MB", 500_000_000), ("7B", 7)] {
            assert_eq!(parse_bytes(text).unwrap(), bytes);
        }
        for wrong in ["", "8", "GiB", "-1GiB", "nanMB", "8 gigs"] {
            assert!(parse_bytes(wrong).unwrap_err().contains("such as 8GiB"), "{wrong}");
        }
        assert_eq!(
            [show_bytes(3 << 29), show_bytes(1023), show_bytes(1 << 20)],
            ["1.50 GiB", "1023 B", "1.00 MiB"]
        );
    }
}
