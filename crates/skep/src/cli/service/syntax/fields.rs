//! `key=value,key=value`: one line of comma-separated values, with quotes around what holds a comma.

/// The fields of a flag that is written as a list of them, in order; a key alone has no value.
pub fn fields(text: &str) -> Result<Vec<(String, Option<String>)>, String> {
    let field = |part: String| match part.split_once('=') {
        Some((key, value)) => (key.trim().to_ascii_lowercase(), Some(value.to_owned())),
        None => (part.trim().to_ascii_lowercase(), None),
    };
    Ok(split(text)?.into_iter().map(field).collect())
}

/// As RFC 4180 has it: a field in double quotes may hold commas, and a quote twice stands for one.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                part.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if part.is_empty() => quoted = true,
            ',' if !quoted => parts.push(std::mem::take(&mut part)),
            c => part.push(c),
        }
    }
    if quoted {
        return Err(format!("`{text}` has a quote that does not end"));
    }
    parts.push(part);
    Ok(parts)
}

/// The value that a key must have.
pub fn value(key: &str, value: Option<String>) -> Result<String, String> {
    value.ok_or_else(|| format!("`{key}` needs a value: {key}=…"))
}

/// A key alone is `true`.
pub fn switch(key: &str, value: Option<String>) -> Result<bool, String> {
    match value.as_deref() {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("`{key}` is true or false, not `{other}`")),
    }
}

pub fn unknown(key: &str, known: &str) -> String {
    format!("`{key}` is not known here; use {known}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_commas_together() {
        let split = |text| split(text).unwrap();
        assert_eq!(split("a=1,b"), ["a=1", "b"]);
        assert_eq!(split(r#"type=bind,"source=/a,b",x="#), ["type=bind", "source=/a,b", "x="]);
        assert_eq!(split(r#""say ""hi""",b"#), [r#"say "hi""#, "b"]);
        assert!(fields("\"a").is_err());
    }
}
