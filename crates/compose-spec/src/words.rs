//! A command given as one string, split into words as a POSIX shell would.
//!
//! Operators stay words of their own, as `docker stack deploy` has them; `docker compose` drops them and
//! all that follows without a word, so the caller warns about them.

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    pub words: Vec<String>,
    /// The first unquoted shell operator: no shell will see it.
    pub operator: Option<char>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitError {
    OpenQuote(char),
    TrailingBackslash,
}

/// Splits at blanks outside of quotes.
pub fn split(text: &str) -> Result<Words, SplitError> {
    let mut words = Vec::new();
    let mut operator = None;
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('\''), '\'') => quote = None,
            (Some('"'), '"') => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => {
                let escaped = chars.next().ok_or(SplitError::TrailingBackslash)?;
                word.get_or_insert_default().push(escaped);
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ' | '\t' | '\n' | '\r') => words.extend(word.take()),
            (None, c) => {
                if matches!(c, ';' | '&' | '|' | '<' | '>') {
                    operator.get_or_insert(c);
                }
                word.get_or_insert_default().push(c);
            }
        }
    }
    if let Some(open) = quote {
        return Err(SplitError::OpenQuote(open));
    }
    words.extend(word);
    Ok(Words { words, operator })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_as_in_a_shell() {
        for (text, expected) in [
            ("sh -c 'echo hi'", vec!["sh", "-c", "echo hi"]),
            (r#"a "b\nc d" e\ f \t # h 'g\h' x="y z""#, vec!["a", "bnc d", "e f", "t", "#", "h", r"g\h", "x=y z"]),
            ("  a \t b\n", vec!["a", "b"]),
            ("a '' \"\"", vec!["a", "", ""]),
            ("a&&b && c", vec!["a&&b", "&&", "c"]),
            ("", vec![]),
        ] {
            assert_eq!(split(text).unwrap().words, expected, "{text}");
        }
        assert_eq!(split("a && b").unwrap().operator, Some('&'));
        assert_eq!(split("a '&&' b").unwrap().operator, None);
        assert_eq!(split("a 'b"), Err(SplitError::OpenQuote('\'')));
        assert_eq!(split("a \\"), Err(SplitError::TrailingBackslash));
    }

    proptest::proptest! {
        #[test]
        fn quoted_words_come_out_as_they_were(words in proptest::collection::vec("[a-z '\"\\\\$&]{0,8}", 0..5)) {
            let quoted: Vec<String> = words.iter().map(|w| format!("'{}'", w.replace('\'', r"'\''"))).collect();
            proptest::prop_assert_eq!(split(&quoted.join(" ")).unwrap().words, words);
        }
    }
}
