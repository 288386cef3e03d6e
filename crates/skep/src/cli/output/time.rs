//! Times as people and programs read them: Docker's words, RFC 3339, and Go's durations.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use skep_model::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::Result;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// `2 minutes ago`, as Docker says it.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", rough(now.since(at)))
}

/// A duration in words, rounded as Docker rounds it.
pub fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / MINUTE;
    // Hours are rounded to the nearest, all else is cut.
    let hours = (seconds + HOUR / 2) / HOUR;
    if seconds < 1 {
        "Less than a second".to_owned()
    } else if seconds == 1 {
        "1 second".to_owned()
    } else if seconds < MINUTE {
        format!("{seconds} seconds")
    } else if minutes == 1 {
        "About a minute".to_owned()
    } else if minutes < 60 {
        format!("{minutes} minutes")
    } else if hours == 1 {
        "About an hour".to_owned()
    } else if hours < 48 {
        format!("{hours} hours")
    } else if hours < 24 * 7 * 2 {
        format!("{} days", hours / 24)
    } else if hours < 24 * 30 * 2 {
        format!("{} weeks", hours / 24 / 7)
    } else if hours < 24 * 365 * 2 {
        format!("{} months", hours / 24 / 30)
    } else {
        format!("{} years", hours / 24 / 365)
    }
}

/// `2026-11-21T02:45:39.649937718Z`
pub fn rfc3339(at: Timestamp) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_else(|_| at.0.to_string())
}

/// Nine decimals always, so that lines align: what `logs --timestamps` shows.
pub fn rfc3339_aligned(at: Timestamp) -> String {
    let text = rfc3339(Timestamp(at.0 - at.0 % 1_000_000_000));
    let nanos = at.0 % 1_000_000_000;
    format!("{}.{nanos:09}Z", text.trim_end_matches('Z'))
}

/// `2026-11-21 02:45:39 +0000 UTC`, as listings write a point of time.
pub fn long(at: Timestamp) -> String {
    let text = rfc3339(Timestamp(at.0 - at.0 % 1_000_000_000));
    format!("{} +0000 UTC", text.trim_end_matches('Z').replace('T', " "))
}

/// Go's form: `90s`, `1h30m`, `1.5h`, `300ms`; a bare number is refused.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let wrong = || format!("`{text}` is not a duration; write it as 90s, 10m or 1h30m");
    let mut rest = text;
    let mut seconds = 0.0;
    if rest.is_empty() {
        bail!(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).with_context(wrong)?;
        let number: f64 = rest[..digits].parse().ok().with_context(wrong)?;
        let after = &rest[digits..];
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        seconds += number
            * match &after[..unit] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => MINUTE as f64,
                "h" => HOUR as f64,
                _ => bail!(wrong()),
            };
        rest = &after[unit..];
    }
    Duration::try_from_secs_f64(seconds).ok().with_context(wrong)
}

/// A point of time: RFC 3339, seconds since 1970, or how long ago.
pub fn parse_since(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(Timestamp(u64::try_from(time.unix_timestamp_nanos()).unwrap_or(0)));
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok(Timestamp((seconds.max(0.0) * 1e9) as u64));
    }
    let Ok(ago) = parse_duration(text) else {
        bail!("`{text}` is not a time; write it as 2026-11-21T02:45:39Z, or as how long ago: 10m");
    };
    Ok(Timestamp(now.0.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX))))
}

/// A duration as Go prints it: `1m30s`, `500ms`, `0s`.
pub fn exact(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    if seconds == 0 && millis > 0 {
        return format!("{millis}ms");
    }
    let (hours, minutes, rest) = (seconds / HOUR, seconds % HOUR / MINUTE, seconds % MINUTE);
    let fraction = match millis {
        0 => String::new(),
        millis => format!(".{millis:03}").trim_end_matches('0').to_owned(),
    };
    match (hours, minutes) {
        (0, 0) => format!("{rest}{fraction}s"),
        (0, _) => format!("{minutes}m{rest}{fraction}s"),
        _ => format!("{hours}h{minutes}m{rest}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_as_docker_rounds_them() {
        let table = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3_599, "59 minutes"),
            (5_399, "About an hour"),
            (5_400, "2 hours"),
            (172_000, "2 days"),
            (86_400 * 15, "2 weeks"),
            (86_400 * 70, "2 months"),
            (86_400 * 900, "2 years"),
        ];
        for (seconds, words) in table {
            assert_eq!(rough(Duration::from_secs(seconds)), words, "{seconds}");
        }
    }

    #[test]
    fn gos_durations_are_read_and_written() {
        for (text, millis) in [("90s", 90_000), ("1h30m", 5_400_000), ("1.5s", 1_500), ("300ms", 300), ("0s", 0)] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for wrong in ["", "10", "5d", "s", "1h30"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
        for (millis, text) in [(0, "0s"), (500, "500ms"), (1_500, "1.5s"), (90_000, "1m30s"), (5_400_000, "1h30m0s")] {
            assert_eq!(exact(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn points_of_time_are_written_for_programs_and_read_from_people() {
        let at = Timestamp(1_795_229_139_649_937_000);
        assert_eq!(rfc3339(at), "2026-11-21T02:45:39.649937Z");
        assert_eq!(rfc3339_aligned(at), "2026-11-21T02:45:39.649937000Z");
        assert_eq!(long(at), "2026-11-21 02:45:39 +0000 UTC");
        assert_eq!(parse_since("2026-11-21T02:45:39.649937Z", Timestamp(0)).unwrap(), at);
        assert_eq!(parse_since("10s", Timestamp(11_000_000_000)).unwrap(), Timestamp(1_000_000_000));
        assert!(parse_since("yesterday", at).is_err());
    }
}
