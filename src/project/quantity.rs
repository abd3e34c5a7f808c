//! Byte counts and times as a compose file writes them, and times as Compose prints them.

use std::time::Duration;

/// A count of bytes: `64m`, `1.5 gb`, `10kib`, powers of 1024.
pub(crate) fn bytes(text: &str) -> Option<i64> {
    let at = text
        .rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')
        .map_or(0, |at| at + 1);
    let number = text.get(..at)?.trim_end_matches(' ');
    let unit = text.get(at..)?.to_ascii_lowercase();
    if number.is_empty() || number.starts_with(' ') || number.contains(' ') {
        return None;
    }
    let value: f64 = number.parse().ok()?;
    let power = match unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit)
    {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    if value < 0.0 || unit == "ib" {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a fraction of a byte is dropped; out of range saturates"
    )]
    let bytes = (value * 1024f64.powi(power)) as i64;
    Some(bytes)
}

/// A time: numbers with units from nanoseconds to weeks, `1h30m`, `1.5s`, `2d`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number = rest.get(..digits)?;
        let after = rest.get(digits..)?;
        let length = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let unit: u128 = match after.get(..length)? {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            "w" => 604_800_000_000_000,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && part.is_empty()) || part.contains('.') {
            return None;
        }
        let whole: u128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        let mut scale = unit;
        for digit in part.bytes() {
            scale /= 10;
            total += u128::from(digit - b'0') * scale;
        }
        rest = after.get(length..)?;
    }
    if negative && total > 0 {
        return None;
    }
    if total > i64::MAX as u128 {
        return None;
    }
    let nanos = u64::try_from(total).ok()?;
    Some(Duration::from_nanos(nanos))
}

/// A time as Compose prints it: `1h0m0s`, `1m30s`, `1.5s`, `10ms`.
pub(crate) fn duration_text(value: Duration) -> String {
    let nanos = value.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let decimal = |nanos: u128, unit: u128, name: &str| {
        let whole = nanos / unit;
        let part = nanos % unit;
        if part == 0 {
            return format!("{whole}{name}");
        }
        let digits = unit.ilog10() as usize;
        let part = format!("{part:0digits$}");
        format!("{whole}.{}{name}", part.trim_end_matches('0'))
    };
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return decimal(nanos, 1_000, "µs");
    }
    if nanos < 1_000_000_000 {
        return decimal(nanos, 1_000_000, "ms");
    }
    let minute = 60_000_000_000;
    let seconds = decimal(nanos % minute, 1_000_000_000, "s");
    let minutes = nanos / minute;
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, value) in [
            ("512", Some(512)),
            ("64k", Some(65536)),
            ("1.5m", Some(1_572_864)),
            ("1 gb", Some(1 << 30)),
            ("2GiB", Some(2 << 30)),
            ("10b", Some(10)),
            ("x", None),
            ("1 0k", None),
            ("10q", None),
            ("", None),
        ] {
            assert_eq!(bytes(text), value, "{text:?}");
        }
    }

    #[test]
    fn times_are_read_and_printed() {
        for (text, printed) in [
            ("90s", "1m30s"),
            ("1h", "1h0m0s"),
            ("1.5s", "1.5s"),
            ("0s", "0s"),
            ("500ms", "500ms"),
            ("1d", "24h0m0s"),
            ("2w", "336h0m0s"),
            ("1500us", "1.5ms"),
        ] {
            assert_eq!(duration(text).map(duration_text).as_deref(), Some(printed));
        }
        for text in ["10", "", "s", "1x", "1..5s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
