//! `--timeout` of the commands that stop instances. Pure.

use std::num::ParseIntError;
use std::time::Duration;

/// As long as it takes: the most seconds that engines take, 68 years.
const FOREVER: Duration = Duration::from_secs(0x7fff_ffff);

/// Reads a number of seconds; a negative one is no limit, as the engine has it.
pub(super) fn grace(text: &str) -> Result<Duration, ParseIntError> {
    let seconds: i64 = text.parse()?;
    Ok(u64::try_from(seconds).map_or(FOREVER, |seconds| Duration::from_secs(seconds).min(FOREVER)))
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
}
