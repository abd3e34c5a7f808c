//! What a plain YAML scalar means: null, boolean, number, date or text.
//!
//! The rules are those of the reader that Docker Compose uses (YAML 1.2 core schema with 1.1's
//! octal numbers, underscores and dates). Used by `node` for files and by `render` to know which
//! text needs quotes.

use super::tree::Value;

/// The value of an untagged plain scalar.
pub(crate) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Value::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let numeric = text
        .bytes()
        .next()
        .is_some_and(|first| first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.'));
    if !numeric {
        return Value::Text(text.to_owned());
    }
    if is_date(text) {
        return Value::Date(text.to_owned());
    }
    number(text).unwrap_or_else(|| Value::Text(text.to_owned()))
}

/// A number as YAML writes it, `None` when it is not one.
fn number(text: &str) -> Option<Value> {
    let plain = text.replace('_', "");
    if let Some(value) = integer(&plain) {
        return Some(value);
    }
    if is_float(&plain) {
        return plain.parse().ok().map(Value::Float);
    }
    None
}

/// An integer in base 10, or with the prefix `0x`, `0o`, `0b` or `0`.
fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, base) = if let Some(rest) = lower.strip_prefix("0x") {
        (rest, 16)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (rest, 8)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (rest, 2)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (lower.get(1..).unwrap_or_default(), 8)
    } else {
        (lower.as_str(), 10)
    };
    if digits.is_empty() || digits.starts_with(['+', '-']) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, base).ok()?;
    let value = if negative { -magnitude } else { magnitude };
    if let Ok(value) = i64::try_from(value) {
        return Some(Value::Int(value));
    }
    if let Ok(value) = u64::try_from(value) {
        return Some(Value::Large(value));
    }
    // Beyond 64 bits a decimal number is as good as a float.
    (base == 10)
        .then(|| text.parse().ok().map(Value::Float))
        .flatten()
}

/// `[-+]? (.digits | digits[.digits]) [e[-+]digits]`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (
            text.get(..at).unwrap_or_default(),
            text.get(at + 1..).map(str::to_owned),
        ),
        None => (text, None),
    };
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let exponent_is_fine = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(&exponent);
        !digits.is_empty() && all_digits(digits)
    });
    let mantissa_is_fine = match mantissa.split_once('.') {
        Some((whole, part)) => {
            (!whole.is_empty() || !part.is_empty()) && all_digits(whole) && all_digits(part)
        }
        None => !mantissa.is_empty() && all_digits(mantissa),
    };
    exponent_is_fine && mantissa_is_fine
}

/// `2006-1-2`, optionally followed by `T` or a space and a time.
pub(crate) fn is_date(text: &str) -> bool {
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (
            text.get(..at).unwrap_or_default(),
            text.get(at + 1..).map(str::to_owned),
        ),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let (Some(year), Some(month), Some(day), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let within = |part: &str, digits: std::ops::RangeInclusive<usize>, limits: (u32, u32)| {
        digits.contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && part
                .parse::<u32>()
                .is_ok_and(|value| value >= limits.0 && value <= limits.1)
    };
    if !(within(year, 4..=4, (0, 9999))
        && within(month, 1..=2, (1, 12))
        && within(day, 1..=2, (1, 31)))
    {
        return false;
    }
    let Some(time) = time else { return true };
    let clock: String = time
        .trim_start()
        .chars()
        .take_while(|c| c.is_ascii_digit() || matches!(c, ':' | '.'))
        .collect();
    let mut parts = clock.split(':');
    let (Some(hour), Some(minute), Some(second), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let second = second.split('.').next().unwrap_or_default();
    within(hour, 1..=2, (0, 23)) && within(minute, 1..=2, (0, 59)) && within(second, 1..=2, (0, 59))
}

/// A float in the shortest form that reads back equal, with an exponent below 1e-4 and from 1e6: how
/// Compose writes floats and turns them into text.
pub(crate) fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let power: i32 = exponent.parse().unwrap_or_default();
    if value == 0.0 || (-4..6).contains(&power) {
        // Short enough to be written out; -0 keeps its sign.
        return value.to_string();
    }
    let sign = if power < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", power.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_compose_reads() {
        for (text, value) in [
            ("", Value::Null),
            ("~", Value::Null),
            ("True", Value::Bool(true)),
            ("yes", Value::Text("yes".into())),
            ("off", Value::Text("off".into())),
            ("0440", Value::Int(288)),
            ("0o440", Value::Int(288)),
            ("0x10", Value::Int(16)),
            ("1_000", Value::Int(1000)),
            ("08", Value::Float(8.0)),
            ("-5", Value::Int(-5)),
            ("22:22", Value::Text("22:22".into())),
            ("1.50", Value::Float(1.5)),
            ("1e3", Value::Float(1000.0)),
            (
                "12345678901234567890",
                Value::Large(12_345_678_901_234_567_890),
            ),
            (".", Value::Text(".".into())),
            ("-", Value::Text("-".into())),
            ("1.2.3", Value::Text("1.2.3".into())),
            ("2024-01-02", Value::Date("2024-01-02".into())),
            (
                "2024-01-02 03:04:05",
                Value::Date("2024-01-02 03:04:05".into()),
            ),
            ("2024-13-02", Value::Text("2024-13-02".into())),
            ("10-10", Value::Text("10-10".into())),
        ] {
            assert_eq!(plain(text), value, "{text:?}");
        }
    }

    #[test]
    fn floats_print_short() {
        for (value, text) in [
            (1.0, "1"),
            (0.5, "0.5"),
            (1e21, "1e+21"),
            (0.00001, "1e-05"),
            (1000.0, "1000"),
            (123_456_789.0, "1.23456789e+08"),
        ] {
            assert_eq!(float(value), text);
        }
    }
}
