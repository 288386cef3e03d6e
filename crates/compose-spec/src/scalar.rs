//! What a plain YAML scalar means: go-yaml's rules, which both Docker loaders follow.
//!
//! They are neither YAML 1.1 (`yes` is a string, `22:22` too) nor 1.2 (`0440` is octal).
//! One departure: a date stays a string, where go-yaml makes a timestamp that no attribute accepts.

use crate::value::Value;

pub(crate) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN, text.to_owned()),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Value::Float(f64::INFINITY, text.to_owned());
        }
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY, text.to_owned()),
        _ => {}
    }
    let Some(first) = text.chars().next() else { return Value::Null };
    if !(first.is_ascii_digit() || matches!(first, '+' | '-' | '.')) {
        return Value::Str(text.to_owned());
    }
    let plain = text.replace('_', "");
    if let Some(number) = integer(&plain) {
        return Value::Int(number, text.to_owned());
    }
    match float(&plain) {
        Some(number) => Value::Float(number, text.to_owned()),
        None => Value::Str(text.to_owned()),
    }
}

/// Go's `ParseInt(base 0)`: 0x, 0o, 0b, a leading 0 for octal; what fits 64 bits, signed or not.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    let number = if negative { -magnitude } else { magnitude };
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&number).then_some(number)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let shaped = match mantissa.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part) && !(whole.is_empty() && part.is_empty()),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_shaped = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    (shaped && exponent_shaped).then(|| text.parse().ok()).flatten()
}

/// Go's `%v` of a float: the shortest digits that read back, with an exponent below 1e-4 and from 1e6 on.
pub(crate) fn float_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    // Rust's `{:e}` is the shortest representation that reads back: d.ddde±x.
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("`{:e}` writes an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` writes a whole exponent");
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_mean_what_they_mean_to_go_yaml() {
        let kind = |text: &str| match resolve(text) {
            Value::Null => "null".to_owned(),
            Value::Bool(b) => format!("bool {b}"),
            Value::Int(n, _) => format!("int {n}"),
            Value::Float(n, _) => format!("float {}", float_text(n)),
            Value::Str(s) => format!("str {s}"),
            Value::List(_) | Value::Map(_) => unreachable!(),
        };
        for (text, expected) in [
            ("yes", "str yes"),
            ("on", "str on"),
            ("0440", "int 288"),
            ("012", "int 10"),
            ("0o440", "int 288"),
            ("0x1F", "int 31"),
            ("0b11", "int 3"),
            ("1_000", "int 1000"),
            ("1_0.5", "float 10.5"),
            ("22:22", "str 22:22"),
            ("2001-01-01", "str 2001-01-01"),
            ("12345678901234567890", "int 12345678901234567890"),
            ("1000000000000000000000", "float 1e+21"),
            ("09", "float 9"),
            ("1.10", "float 1.1"),
            ("-5", "int -5"),
            ("+5", "int 5"),
            (".5", "float 0.5"),
            ("5.", "float 5"),
            (".", "str ."),
            ("-", "str -"),
            ("1e3", "float 1000"),
            ("1000000.0", "float 1e+06"),
            ("1234567.5", "float 1.2345675e+06"),
            ("123456.5", "float 123456.5"),
            ("127.0.0.1", "str 127.0.0.1"),
            ("1.0e-7", "float 1e-07"),
            ("~", "null"),
            ("TRUE", "bool true"),
            ("0x", "str 0x"),
            ("--5", "str --5"),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
    }
}
