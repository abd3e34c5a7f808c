//! Points in time on the command line, as the engine's `since` and `until` take them.

use crate::error::{Error, Result};

/// A point in time, in nanoseconds since the Unix epoch: RFC 3339, a date, Unix seconds, or an age.
pub(super) fn moment(option: &str, text: &str) -> Result<i64> {
    let wrong = || {
        Error::usage(format!("{option} {text}: not a time")).hint(format!(
            "{option} 10m, {option} 2026-01-31T12:00:00Z or {option} 1700000000"
        ))
    };
    let local = |time: jiff::civil::DateTime| {
        time.to_zoned(jiff::tz::TimeZone::system())
            .map(|time| time.timestamp().as_nanosecond())
            .map_err(|_| wrong())
    };
    let nanoseconds = if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
        timestamp.as_nanosecond()
    } else if let Ok(seconds) = text.parse::<f64>() {
        // Of what is out of reach, the nearest that is not.
        jiff::SignedDuration::try_from_secs_f64(seconds)
            .map_err(|_| wrong())?
            .as_nanos()
    } else if let Ok(span) = text.parse::<jiff::SignedDuration>() {
        (jiff::Timestamp::now() - span).as_nanosecond()
    } else if let Ok(time) = text.parse::<jiff::civil::DateTime>() {
        local(time)?
    } else if let Ok(day) = text.parse::<jiff::civil::Date>() {
        local(day.to_datetime(jiff::civil::Time::midnight()))?
    } else if let Some((day, zone)) = text.split_at_checked("2006-01-02".len())
        && let Ok(time) = format!("{day}T00:00:00{zone}").parse::<jiff::Timestamp>()
    {
        time.as_nanosecond()
    } else {
        return Err(wrong());
    };
    let nearest = nanoseconds.clamp(i64::MIN.into(), i64::MAX.into());
    i64::try_from(nearest).map_err(|_| wrong())
}

/// The same of an option that may be absent, or empty, as `--since "$UNSET"` is.
pub(super) fn moment_of(option: &str, text: Option<&str>) -> Result<Option<i64>> {
    let text = text.filter(|text| !text.is_empty());
    text.map(|text| moment(option, text)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form() {
        let second = 1_000_000_000;
        assert_eq!(
            moment("--since", "1700000000.5").unwrap(),
            1_700_000_000 * second + second / 2
        );
        assert_eq!(
            moment("--since", "2023-11-14T22:13:20Z").unwrap(),
            1_700_000_000 * second
        );
        assert!(moment("--since", "10m").unwrap() < moment("--since", "5m").unwrap());
        assert!(moment("--since", "2023-11-14").is_ok());
        assert_eq!(
            moment("--since", "2023-11-14+01:00").unwrap(),
            moment("--since", "2023-11-13T23:00:00Z").unwrap()
        );
        assert!(moment("--since", "yesterday").is_err());
        assert_eq!(moment("--since", "9999999999").unwrap(), i64::MAX);
        assert_eq!(moment_of("--since", Some("")).unwrap(), None);
    }
}
