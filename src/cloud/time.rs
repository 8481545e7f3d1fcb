//! Instants, as the catalogue keeps them (milliseconds since 1970-01-01 UTC) and as EC2 writes them.

use jiff::Timestamp;

/// The time of day.
#[must_use]
pub fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

/// As in `2026-01-31T12:00:00.000Z`. An instant that no calendar has is written as its beginning.
#[must_use]
pub fn format(milliseconds: i64) -> String {
    let time = Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{}", time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))
}

/// Reads a time as [`format`] writes it, or any other of RFC 3339; a date alone is its midnight.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    text.parse::<Timestamp>().or_else(|_| format!("{text}T00:00:00Z").parse()).ok().map(Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_ec2s() {
        assert_eq!(format(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(format(1_767_225_600_007), "2026-01-01T00:00:00.007Z");
        assert_eq!(parse("2026-01-01T00:00:00.007Z"), Some(1_767_225_600_007));
        assert_eq!(parse("2026-01-01"), Some(1_767_225_600_000));
        assert_eq!(parse("2026-01-01T01:00:00+01:00"), Some(1_767_225_600_000));
        assert_eq!(parse("tomorrow"), None);
        assert_eq!(parse(&format(now())).map(|t| t / 1000), Some(now() / 1000));
    }
}
