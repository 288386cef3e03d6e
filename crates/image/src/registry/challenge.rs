//! `WWW-Authenticate`: which way of authentication a registry asks for (RFC 9110 §11.6.1, docker's token spec).

/// One challenge that we can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
    Basic,
}

/// All challenges of one header value that we know; a value may carry several, separated by commas like their
/// own parameters.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c == ',' || c.is_whitespace()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start();
        if let Some(value) = after.strip_prefix('=').filter(|_| !found.is_empty()) {
            let (value, remaining) = parse_value(value.trim_start());
            if let Some((_, parameters)) = found.last_mut() {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = remaining;
        } else {
            if !word.is_empty() {
                found.push((word.to_ascii_lowercase(), Vec::new()));
            }
            rest = after.strip_prefix('=').unwrap_or(after);
        }
        rest = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
    }
    found.into_iter().filter_map(|(scheme, parameters)| known(&scheme, parameters)).collect()
}

fn known(scheme: &str, parameters: Vec<(String, String)>) -> Option<Challenge> {
    let take = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    match scheme {
        "bearer" => Some(Challenge::Bearer { realm: take("realm")?, service: take("service"), scope: take("scope") }),
        "basic" => Some(Challenge::Basic),
        _ => None,
    }
}

/// A token or a quoted string; returns what follows it.
fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.map(Into::into), scope: scope.map(Into::into) }
    }

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        assert_eq!(
            parse(r#"Bearer realm="https://a/t",service="r.io",scope="repository:a/b:pull,push""#),
            [bearer("https://a/t", Some("r.io"), Some("repository:a/b:pull,push"))]
        );
        assert_eq!(
            parse(r#"Basic realm="x", Bearer realm="https://a""#),
            [Challenge::Basic, bearer("https://a", None, None)]
        );
        assert_eq!(parse(r#"bearer Realm = "q\"q" , service=plain"#), [bearer("q\"q", Some("plain"), None)]);
        assert_eq!(parse("Negotiate, Basic"), [Challenge::Basic]);
    }

    #[test]
    fn malformed_challenges_end_and_are_passed_over() {
        for text in ["", "Bearer", "Bearer realm", "= = =", "\"", "Bearer service=\"x", ",,,=,"] {
            assert_eq!(parse(text), [], "{text}");
        }
    }
}
