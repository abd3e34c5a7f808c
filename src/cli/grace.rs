//! Whole numbers of seconds on the command line: how long instances get to stop, how long is waited. Pure.

use std::time::Duration;

/// As long as it takes: the most seconds that engines take, 68 years.
const FOREVER: Duration = Duration::from_secs(0x7fff_ffff);

/// Reads a number of seconds; a negative one is no limit, as the engine has it.
pub(super) fn grace(text: &str) -> Result<Duration, String> {
    let seconds = seconds(text)?;
    Ok(u64::try_from(seconds).map_or(FOREVER, |seconds| Duration::from_secs(seconds).min(FOREVER)))
}

/// Reads how many seconds to wait at most; 0 and less are no limit, as in Docker Compose.
pub(super) fn patience(text: &str) -> Result<Duration, String> {
    let limit = grace(text)?;
    Ok(if limit.is_zero() { FOREVER } else { limit })
}

fn seconds(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| {
        let span = text.parse::<jiff::SignedDuration>().ok();
        match span.filter(|span| span.subsec_nanos() == 0 && !span.is_negative()) {
            Some(span) => format!("it is given in seconds, as {}", span.as_secs()),
            None => "it is not a whole number of seconds".to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_number_is_no_limit() {
        assert_eq!(grace("0"), Ok(Duration::ZERO));
        assert_eq!(grace("3"), Ok(Duration::from_secs(3)));
        assert_eq!(grace("-1"), Ok(FOREVER));
        assert_eq!(grace("9000000000000"), Ok(FOREVER));
        assert!(grace("soon").is_err());
    }

    #[test]
    fn who_has_no_seconds_waits_without_a_limit() {
        assert_eq!(patience("3"), Ok(Duration::from_secs(3)));
        assert_eq!(patience("0"), Ok(FOREVER));
        assert_eq!(patience("-1"), Ok(FOREVER));
    }

    #[test]
    fn a_span_is_told_in_seconds() {
        assert_eq!(
            grace("1m30s"),
            Err("it is given in seconds, as 90".to_owned())
        );
        for text in ["1.5", "500ms", "", "-1m", "99999999999999999999"] {
            assert_eq!(
                grace(text),
                Err("it is not a whole number of seconds".to_owned())
            );
        }
    }
}
