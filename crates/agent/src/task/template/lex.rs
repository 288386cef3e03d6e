//! A template's text cut into plain text and actions, and each action into words.
//!
//! Go's rules: `{{-` and `-}}` take the white space beside them away, `{{/* … */}}` is a comment, strings are Go's.

use super::{At, TemplateError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Action(Vec<Token>, At),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub word: Word,
    pub at: At,
    /// White space stands before it: `.A .B` are two operands, `.A.B` is one.
    pub spaced: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// `.` alone.
    Dot,
    /// `.Name`
    Field(String),
    /// `$` or `$name`, without the sign.
    Variable(String),
    Name(String),
    Text(String),
    Number(i64),
    Pipe,
    Open,
    Close,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

pub fn pieces(source: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let (mut from, mut trim) = (0, false);
    loop {
        let rest = &source[from..];
        let open = rest.find("{{");
        let mut text = &rest[..open.unwrap_or(rest.len())];
        if trim {
            text = text.trim_start_matches(SPACE);
        }
        let Some(open) = open else {
            push(&mut pieces, text);
            return Ok(pieces);
        };
        let at = At::of(source, from + open);
        let mut lexer = Lexer { source, position: from + open + 2 };
        if lexer.rest().starts_with('-') && lexer.rest()[1..].starts_with(SPACE) {
            lexer.position += 1;
            text = text.trim_end_matches(SPACE);
        }
        push(&mut pieces, text);
        let tokens = match lexer.rest().trim_start_matches(SPACE).starts_with("/*") {
            true => {
                trim = lexer.comment(at)?;
                Vec::new()
            }
            false => {
                let (tokens, trims) = lexer.action(at)?;
                trim = trims;
                if tokens.is_empty() {
                    return Err(at.error("an action says nothing: `{{}}`"));
                }
                tokens
            }
        };
        if !tokens.is_empty() {
            pieces.push(Piece::Action(tokens, at));
        }
        from = lexer.position;
    }
}

fn push(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

struct Lexer<'s> {
    source: &'s str,
    position: usize,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.position..]
    }

    fn here(&self) -> At {
        At::of(self.source, self.position)
    }

    /// Up to its end; whether white space behind it goes.
    fn comment(&mut self, at: At) -> Result<bool, TemplateError> {
        let end = self.rest().find("*/").ok_or_else(|| at.error("a comment has no closing */"))?;
        self.position += end + 2;
        self.close().ok_or_else(|| at.error("a comment must fill its action: {{/* … */}}"))
    }

    /// The words up to the closing braces; whether white space behind them goes.
    fn action(&mut self, at: At) -> Result<(Vec<Token>, bool), TemplateError> {
        let mut tokens = Vec::new();
        loop {
            if let Some(trims) = self.close() {
                return Ok((tokens, trims));
            }
            let before = self.position;
            self.position += self.rest().len() - self.rest().trim_start_matches(SPACE).len();
            if self.rest().is_empty() {
                return Err(at.error("the action that begins here has no closing `}}`"));
            }
            let (here, spaced) = (self.here(), self.position > before);
            let word = self.word(here)?;
            tokens.push(Token { word, at: here, spaced });
        }
    }

    fn close(&mut self) -> Option<bool> {
        let trimmed = self.rest().trim_start_matches(SPACE);
        let spaced = trimmed.len() < self.rest().len();
        let (end, trims) = match trimmed.strip_prefix("-}}").filter(|_| spaced) {
            Some(end) => (end, true),
            None => (trimmed.strip_prefix("}}")?, false),
        };
        self.position = self.source.len() - end.len();
        Some(trims)
    }

    fn word(&mut self, at: At) -> Result<Word, TemplateError> {
        let rest = self.rest();
        let first = rest.chars().next().expect("there is more, its caller saw");
        let mut simple = |length: usize, word: Word| {
            self.position += length;
            Ok(word)
        };
        match first {
            '|' => simple(1, Word::Pipe),
            '(' => simple(1, Word::Open),
            ')' => simple(1, Word::Close),
            ',' => simple(1, Word::Comma),
            '=' => simple(1, Word::Assign),
            ':' if rest.starts_with(":=") => simple(2, Word::Declare),
            '"' => self.quoted(at),
            '`' => {
                let end = rest[1..].find('`').ok_or_else(|| at.error("a ` is not closed"))?;
                simple(end + 2, Word::Text(rest[1..=end].replace('\r', "")))
            }
            '.' => {
                let name = identifier(&rest[1..]);
                simple(1 + name.len(), if name.is_empty() { Word::Dot } else { Word::Field(name.to_owned()) })
            }
            '$' => {
                let name = identifier(&rest[1..]);
                simple(1 + name.len(), Word::Variable(name.to_owned()))
            }
            '+' | '-' | '0'..='9' => self.number(at),
            _ => {
                let name = identifier(rest);
                if name.is_empty() {
                    return Err(at.error(format!("`{first}` has no meaning in a template")));
                }
                simple(name.len(), Word::Name(name.to_owned()))
            }
        }
    }

    fn number(&mut self, at: At) -> Result<Word, TemplateError> {
        let end = self.rest()[1..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.');
        let text = &self.rest()[..end.map_or(self.rest().len(), |end| end + 1)];
        let number = text.parse().map_err(|_| at.error(format!("`{text}` is not a whole number in digits")))?;
        self.position += text.len();
        Ok(Word::Number(number))
    }

    fn quoted(&mut self, at: At) -> Result<Word, TemplateError> {
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        let open = || at.error("a \" is not closed on its line");
        loop {
            let (index, c) = chars.next().ok_or_else(open)?;
            match c {
                '"' => {
                    self.position += index + 1;
                    return Ok(Word::Text(text));
                }
                '\n' => return Err(open()),
                '\\' => {
                    let (_, escaped) = chars.next().ok_or_else(open)?;
                    text.push(match escaped {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        '\\' | '"' => escaped,
                        other => {
                            return Err(at.error(format!(
                                "the escape `\\{other}` is not known; use \\n, \\t, \\r, \\\\ or \\\""
                            )));
                        }
                    });
                }
                plain => text.push(plain),
            }
        }
    }
}

/// The letters, digits and underscores that the text begins with.
fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}
