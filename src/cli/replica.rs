//! `--index`: one of the replicas of a service. Pure.

/// Reads a replica's number. 0 and less are no certain one, as in Docker Compose, and become 0.
pub(super) fn replica(text: &str) -> Result<u32, String> {
    let number: i64 = text
        .parse()
        .map_err(|_| "it is not the number of a replica, such as 1".to_owned())?;
    u32::try_from(number.max(0)).map_err(|_| "no service has so many replicas".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_above_0_is_no_certain_replica() {
        assert_eq!(replica("2"), Ok(2));
        assert_eq!(replica("0"), Ok(0));
        assert_eq!(replica("-1"), Ok(0));
        for text in ["", "1.5", "web", "99999999999"] {
            assert!(replica(text).is_err(), "{text}");
        }
    }
}
