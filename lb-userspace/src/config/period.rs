//! Durations as Go writes and reads them: `1h30m`, `250ms`, `15m0s`.
//! Go 1.26, time.ParseDuration and Duration.String.

/// Units and their nanoseconds. Both letters for "micro" are Go's.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration, in nanoseconds.
///
/// # Errors
/// It is none, or too long for 64 bits.
pub fn parse(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a duration such as 30s or 1h30m");
    let (sign, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (whole, mut tail) = rest.split_at(digits);
        let mut fraction = "";
        if let Some(after) = tail.strip_prefix('.') {
            let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            (fraction, tail) = after.split_at(digits);
        }
        if whole.is_empty() && fraction.is_empty() {
            return Err(bad());
        }
        let end = tail.find(|c: char| c == '.' || c.is_ascii_digit());
        let (unit, next) = tail.split_at(end.unwrap_or(tail.len()));
        let (_, scale) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(bad)?;
        let scale = i128::from(*scale);
        let number = |digits: &str| match digits {
            "" => Ok(0),
            digits => digits.parse::<i64>().map(i128::from).map_err(|_| bad()),
        };
        // What is below a nanosecond is cut off; 18 digits are more than enough.
        let fraction = &fraction[..fraction.len().min(18)];
        let part = number(fraction)? * scale / 10_i128.pow(fraction.len() as u32);
        total += number(whole)? * scale + part;
        rest = next;
    }
    i64::try_from(total * sign).map_err(|_| bad())
}

/// Writes a duration of nanoseconds.
pub fn format(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let fraction = |scale: u64, unit: &str, of: u64| {
        let (whole, part) = (of / scale, of % scale);
        if part == 0 {
            return format!("{whole}{unit}");
        }
        let width = scale.ilog10() as usize;
        let part = format!("{part:0width$}");
        format!("{whole}.{}{unit}", part.trim_end_matches('0'))
    };
    let text = match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => fraction(1_000, "µs", nanos),
        1_000_000..1_000_000_000 => fraction(1_000_000, "ms", nanos),
        _ => {
            let (hours, rest) = (nanos / 3_600_000_000_000, nanos % 3_600_000_000_000);
            let (minutes, rest) = (rest / 60_000_000_000, rest % 60_000_000_000);
            let seconds = fraction(1_000_000_000, "s", rest);
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, _) => format!("{minutes}m{seconds}"),
                _ => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_duration_is_read_back(nanos: i64) {
            prop_assert_eq!(parse(&format(nanos)), Ok(nanos));
        }

        #[test]
        fn no_text_is_a_panic(text in "[-+]?[0-9.µnumhs]{0,40}|.{0,40}") {
            let _ = parse(&text);
        }
    }

    /// Input, nanoseconds and output as Go 1.26 prints them.
    #[test]
    fn durations_are_gos() {
        for (text, nanos, printed) in [
            ("0", 0, "0s"),
            ("30s", 30_000_000_000, "30s"),
            ("15m", 900_000_000_000, "15m0s"),
            ("24h", 86_400_000_000_000, "24h0m0s"),
            ("1h30m0.5s", 5_400_500_000_000, "1h30m0.5s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            (".5s", 500_000_000, "500ms"),
            ("250ms", 250_000_000, "250ms"),
            ("1.25us", 1_250, "1.25µs"),
            ("7ns", 7, "7ns"),
            ("-1.5h", -5_400_000_000_000, "-1h30m0s"),
            ("90m", 5_400_000_000_000, "1h30m0s"),
        ] {
            assert_eq!(parse(text), Ok(nanos), "{text}");
            assert_eq!(format(nanos), printed, "{text}");
        }
        for bad in ["", "5", "s", "1d", "1h-5m", ".s", "9999999h", "1 s", "-"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
