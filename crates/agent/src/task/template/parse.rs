//! A template's words put together: what is printed, chosen and repeated.

use super::lex::{Piece, Token, Word, pieces};
use super::{At, TemplateError};

/// Blocks and parentheses within each other; nobody writes more, and each takes stack.
const DEPTH_MAX: usize = 64;

#[derive(Debug)]
pub enum Node {
    Text(String),
    /// `{{.Field}}`; what only sets a variable prints nothing.
    Print(Pipeline),
    /// `otherwise` is what stands behind `else`; an `else if` is an `If` there.
    If {
        of: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        of: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        of: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

/// Commands, each of which is given the result of the one before as its last argument.
#[derive(Debug)]
pub struct Pipeline {
    pub at: At,
    /// One variable, or two in a `range`.
    pub variables: Vec<String>,
    /// `=` and not `:=`: they are there already.
    pub assigns: bool,
    pub commands: Vec<Command>,
}

#[derive(Debug)]
pub struct Command {
    pub at: At,
    pub first: Operand,
    pub arguments: Vec<Operand>,
}

#[derive(Debug)]
pub struct Operand {
    pub at: At,
    pub base: Base,
    /// `.A.B` behind it.
    pub fields: Vec<String>,
}

#[derive(Debug)]
pub enum Base {
    Dot,
    Variable(String),
    Text(String),
    Number(i64),
    Bool(bool),
    Function(String),
    Nested(Box<Pipeline>),
}

pub fn parse(source: &str) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { pieces: pieces(source)?.into_iter(), depth: 0 };
    let (nodes, end) = parser.block()?;
    match end {
        None => Ok(nodes),
        Some(End { at, kind, .. }) => {
            let word = if kind == EndKind::End { "end" } else { "else" };
            Err(at.error(format!("`{{{{{word}}}}}` ends no if, with or range")))
        }
    }
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    depth: usize,
}

/// What a block ended with.
struct End {
    at: At,
    kind: EndKind,
    /// Behind `else`.
    rest: Vec<Token>,
}

#[derive(PartialEq, Eq)]
enum EndKind {
    End,
    Else,
}

impl Parser {
    /// Up to the `end` or `else` that is not its own; `None` at the end of the text.
    fn block(&mut self) -> Result<(Vec<Node>, Option<End>), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (tokens, at) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens, at) => (tokens, at),
            };
            let keyword = match &tokens[0].word {
                Word::Name(name) => name.as_str(),
                _ => "",
            };
            match keyword {
                "end" if tokens.len() == 1 => {
                    return Ok((nodes, Some(End { at, kind: EndKind::End, rest: Vec::new() })));
                }
                "end" => return Err(tokens[1].at.error("nothing may stand behind `end`")),
                "else" => return Ok((nodes, Some(End { at, kind: EndKind::Else, rest: tokens[1..].to_vec() }))),
                "if" | "with" | "range" => nodes.push(self.nested(keyword, &tokens[1..], at)?),
                "define" | "template" | "block" | "break" | "continue" => {
                    return Err(at.error(format!("`{keyword}` is not supported in templates; use if, with and range")));
                }
                _ => nodes.push(Node::Print(whole(&tokens, at, false)?)),
            }
        }
        Ok((nodes, None))
    }

    fn nested(&mut self, keyword: &str, tokens: &[Token], at: At) -> Result<Node, TemplateError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(at.error(format!("more than {DEPTH_MAX} blocks within each other")));
        }
        let of = whole(tokens, at, keyword == "range")?;
        let (body, otherwise) = self.arms(keyword, at)?;
        self.depth -= 1;
        Ok(match keyword {
            "with" => Node::With { of, body, otherwise },
            "range" => Node::Range { of, body, otherwise },
            _ => Node::If { of, body, otherwise },
        })
    }

    /// The block, and the one behind `else`; `else if` is a block of its own that ends with this one.
    fn arms(&mut self, keyword: &str, at: At) -> Result<(Vec<Node>, Vec<Node>), TemplateError> {
        let unclosed = || at.error(format!("this `{keyword}` has no `{{{{end}}}}`"));
        let (body, end) = self.block()?;
        let End { kind, rest, at: behind } = end.ok_or_else(unclosed)?;
        if kind == EndKind::End {
            return Ok((body, Vec::new()));
        }
        match rest.first().map(|token| &token.word) {
            None => {
                let (otherwise, end) = self.block()?;
                match end.ok_or_else(unclosed)? {
                    End { kind: EndKind::End, .. } => Ok((body, otherwise)),
                    End { at, .. } => Err(at.error("a second `else`")),
                }
            }
            Some(Word::Name(name)) if name == keyword && keyword != "range" => {
                Ok((body, vec![self.nested(keyword, &rest[1..], behind)?]))
            }
            Some(_) => Err(behind.error(format!("behind `else` of `{keyword}` nothing may stand, or `if` in an `if`"))),
        }
    }
}

/// All of `tokens` as one pipeline.
fn whole(tokens: &[Token], at: At, range: bool) -> Result<Pipeline, TemplateError> {
    let mut words = Words { tokens, next: 0, depth: 0 };
    let pipeline = words.pipeline(at, range)?;
    match words.peek() {
        None => Ok(pipeline),
        Some(token) => Err(token.at.error("this `)` closes nothing")),
    }
}

struct Words<'t> {
    tokens: &'t [Token],
    next: usize,
    depth: usize,
}

impl<'t> Words<'t> {
    fn peek(&self) -> Option<&'t Token> {
        self.tokens.get(self.next)
    }

    fn take(&mut self) -> Option<&'t Token> {
        let token = self.peek()?;
        self.next += 1;
        Some(token)
    }

    fn pipeline(&mut self, at: At, range: bool) -> Result<Pipeline, TemplateError> {
        let (variables, assigns) = self.declaration(range)?;
        let mut commands = Vec::new();
        loop {
            commands.push(self.command(at)?);
            match self.peek().map(|token| &token.word) {
                Some(Word::Pipe) => self.next += 1,
                _ => return Ok(Pipeline { at, variables, assigns, commands }),
            }
        }
    }

    /// `$x :=`, `$x =`, and in a range `$key, $value :=`.
    fn declaration(&mut self, range: bool) -> Result<(Vec<String>, bool), TemplateError> {
        let words: Vec<&Word> = self.tokens[self.next..].iter().take(4).map(|token| &token.word).collect();
        let (names, taken, sign) = match words.as_slice() {
            [Word::Variable(name), sign @ (Word::Declare | Word::Assign), ..] => (vec![name.clone()], 2, sign),
            [Word::Variable(key), Word::Comma, Word::Variable(value), sign @ (Word::Declare | Word::Assign)]
                if range =>
            {
                (vec![key.clone(), value.clone()], 4, sign)
            }
            _ => return Ok((Vec::new(), false)),
        };
        self.next += taken;
        Ok((names, **sign == Word::Assign))
    }

    fn command(&mut self, at: At) -> Result<Command, TemplateError> {
        let mut operands = Vec::new();
        while let Some(token) = self.peek() {
            match &token.word {
                Word::Pipe | Word::Close => break,
                _ => operands.push(self.operand()?),
            }
        }
        let mut operands = operands.into_iter();
        let at = self.peek().map_or(at, |token| token.at);
        let first = operands.next().ok_or_else(|| at.error("a value is missing here"))?;
        Ok(Command { at: first.at, first, arguments: operands.collect() })
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        let token = self.take().expect("there is more, its caller saw");
        let at = token.at;
        let mut fields = Vec::new();
        let base = match &token.word {
            Word::Dot => Base::Dot,
            Word::Field(name) => {
                fields.push(name.clone());
                Base::Dot
            }
            Word::Variable(name) => Base::Variable(name.clone()),
            Word::Text(text) => Base::Text(text.clone()),
            Word::Number(number) => Base::Number(*number),
            Word::Name(name) if name == "true" || name == "false" => Base::Bool(name == "true"),
            Word::Name(name) => Base::Function(name.clone()),
            Word::Open => Base::Nested(Box::new(self.parenthesis(at)?)),
            Word::Pipe | Word::Close | Word::Comma | Word::Declare | Word::Assign => {
                return Err(at.error("a value is expected here"));
            }
        };
        while let Some(Token { word: Word::Field(name), spaced: false, .. }) = self.peek() {
            fields.push(name.clone());
            self.next += 1;
        }
        Ok(Operand { at, base, fields })
    }

    fn parenthesis(&mut self, at: At) -> Result<Pipeline, TemplateError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(at.error(format!("more than {DEPTH_MAX} parentheses within each other")));
        }
        let nested = self.pipeline(at, false)?;
        self.depth -= 1;
        match self.take() {
            Some(Token { word: Word::Close, .. }) => Ok(nested),
            _ => Err(at.error("this `(` is not closed")),
        }
    }
}
