//! Durations, sizes and CPU shares as compose writes them, read exactly.

use std::fmt::Write;
use std::time::Duration;

const NANOS: u128 = 1_000_000_000;

/// `1h30m`, `1.5s`, `2d`: numbers with units, added up; `0` alone needs none.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const HELP: &str = "write a number with a unit: 90s, 1m30s, 500ms, 2h, 1d";
    let wrong = |why: &str| format!("invalid duration `{text}`: {why}; {HELP}");
    if text.starts_with('-') {
        return Err(format!("invalid duration `{text}`: it must not be negative"));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong("it is empty"));
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count());
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len()));
        let scale = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => NANOS,
            "m" => 60 * NANOS,
            "h" => 3_600 * NANOS,
            "d" => 24 * 3_600 * NANOS,
            "w" => 7 * 24 * 3_600 * NANOS,
            "" => return Err(wrong("the unit is missing")),
            other => return Err(wrong(&format!("`{other}` is not a unit"))),
        };
        let amount = scaled(number, scale).ok_or_else(|| wrong(&format!("`{number}` is not a number")))?;
        nanos = nanos.checked_add(amount).ok_or_else(|| wrong("it is too long"))?;
        rest = tail;
    }
    // Go's durations end at 2^63 ns, 292 years.
    match u64::try_from(nanos) {
        Ok(nanos) if nanos <= i64::MAX as u64 => Ok(Duration::from_nanos(nanos)),
        _ => Err(wrong("it is too long")),
    }
}

/// A decimal number times `scale`, rounded down to a whole.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let digits = |s: &str| if s.is_empty() { Some(0) } else { s.parse::<u128>().ok() };
    // Digits beyond the 18th are below a nanosecond for every unit.
    let part: String = part.chars().take(18).collect();
    if !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fraction = digits(&part)?.checked_mul(scale)? / 10u128.pow(part.len() as u32);
    digits(whole)?.checked_mul(scale)?.checked_add(fraction)
}

/// Go's form: `1m30s`, `1h0m0s`, `500ms`.
pub(crate) fn duration_text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |amount: u128, unit: u128| {
        let text = format!("{}.{:0width$}", amount / unit, amount % unit, width = unit.ilog10() as usize);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => return format!("{}µs", fraction(nanos, 1_000)),
        1_000_000..NANOS => return format!("{}ms", fraction(nanos, 1_000_000)),
        _ => {}
    }
    let (hours, minutes) = (nanos / (3_600 * NANOS), nanos / (60 * NANOS) % 60);
    let mut text = String::new();
    if hours > 0 {
        write!(text, "{hours}h").expect("a string takes what is written to it");
    }
    if hours > 0 || minutes > 0 {
        write!(text, "{minutes}m").expect("a string takes what is written to it");
    }
    text + &fraction(nanos % (60 * NANOS), NANOS) + "s"
}

/// `512m`, `1.5g`, `1048576`: bytes, units of 1024.
pub fn bytes(text: &str) -> Result<u64, String> {
    const HELP: &str = "write a number with b, k, m, g or t: 512m, 1.5g";
    let trimmed = text.trim();
    let split = trimmed.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = trimmed.split_at(split);
    let unit = unit.trim_start().to_ascii_lowercase();
    let scale: u128 = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if unit == "ib" => return Err(format!("invalid size `{text}`; {HELP}")),
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        _ => return Err(format!("invalid size `{text}`; {HELP}")),
    };
    let amount = scaled(number, scale).ok_or_else(|| format!("invalid size `{text}`; {HELP}"))?;
    match u64::try_from(amount) {
        Ok(bytes) if bytes <= i64::MAX as u64 => Ok(bytes),
        _ => Err(format!("invalid size `{text}`: it is too large")),
    }
}

/// `0.5`, `2`: cores, in billionths.
pub fn nano_cpus(text: &str) -> Result<u64, String> {
    const HELP: &str = "write a number of cores: 0.5, 2";
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => {
            (number, exponent.parse::<i32>().map_err(|_| format!("invalid number of cpus `{text}`; {HELP}"))?)
        }
        None => (text, 0),
    };
    let scale = 10u128
        .checked_pow(u32::try_from(9 + exponent).unwrap_or(0))
        .filter(|_| (-9..=9).contains(&exponent))
        .ok_or_else(|| format!("invalid number of cpus `{text}`; {HELP}"))?;
    if let Some((_, part)) = number.split_once('.')
        && part.trim_end_matches('0').len() as i32 > 9 + exponent
    {
        return Err(format!("`{text}` cpus is too precise: nine decimals at most"));
    }
    let nanos = scaled(number, scale).ok_or_else(|| format!("invalid number of cpus `{text}`; {HELP}"))?;
    u64::try_from(nanos).map_err(|_| format!("invalid number of cpus `{text}`: it is too large"))
}

/// Cores as a decimal number.
pub(crate) fn cpus_text(nano_cpus: u64) -> String {
    let text = format!("{}.{:09}", nano_cpus / 1_000_000_000, nano_cpus % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up_and_print_as_go_does() {
        for (text, printed) in [
            ("90s", "1m30s"),
            ("1.5m", "1m30s"),
            ("60s", "1m0s"),
            ("1h", "1h0m0s"),
            ("1d", "24h0m0s"),
            ("1w1s", "168h0m1s"),
            ("500ms", "500ms"),
            ("1500us", "1.5ms"),
            ("0", "0s"),
            ("1m1.25s", "1m1.25s"),
            (".5s", "500ms"),
        ] {
            assert_eq!(duration_text(duration(text).unwrap()), printed, "{text}");
        }
        for wrong in ["10", "", "1x", "s", "1.2.3s", "-1s", "1e3s", "9999999w"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, expected) in [
            ("50M", 50 << 20),
            ("1.5g", 3 << 29),
            ("1 kb", 1024),
            ("1KiB", 1024),
            ("7", 7),
            ("7b", 7),
            ("64m", 64 << 20),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for wrong in ["", "m", "1x", "-1", "1ib", "one", "99999999t"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cpus_are_exact() {
        for (text, expected) in [
            ("0.5", 500_000_000),
            ("2", 2_000_000_000),
            ("0.001", 1_000_000),
            (".25", 250_000_000),
            ("5e-1", 500_000_000),
        ] {
            assert_eq!(nano_cpus(text), Ok(expected), "{text}");
        }
        for wrong in ["", "abc", "0.0000000001", "-1", "1e99"] {
            assert!(nano_cpus(wrong).is_err(), "{wrong}");
        }
        assert_eq!(cpus_text(500_000_000), "0.5");
        assert_eq!(cpus_text(2_000_000_000), "2");
    }

    proptest::proptest! {
        #[test]
        fn a_printed_duration_reads_back(nanos in 0u64..i64::MAX as u64) {
            let it = Duration::from_nanos(nanos);
            proptest::prop_assert_eq!(duration(&duration_text(it)), Ok(it));
        }
    }
}
