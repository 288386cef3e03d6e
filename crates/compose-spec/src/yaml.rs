//! YAML text to trees with places: the composer over saphyr-parser's events.
//!
//! Resolves aliases and merge keys, refuses duplicate and non-string keys, and keeps compose's `!reset`
//! and `!override` tags.
//! Aliases are copied, so their total is bounded; depth is, too.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as Mark, StrInput, Tag};

use crate::diagnostic::Report;
use crate::scalar;
use crate::source::Span;
use crate::value::{Entry, Map, Merging, Node, Value};

/// Nodes of one document, aliases counted as often as they are used: compose-go's own bound.
const NODES_MAX: usize = 100_000;
const DEPTH_MAX: usize = 128;

/// Reads every document of a text. `None` when the text is not YAML; then the report says why.
pub(crate) fn parse(file: u16, text: &str, report: &mut Report) -> Option<Vec<Node>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut composer = Composer { parser: Parser::new_from_str(text), file, report, anchors: HashMap::new(), nodes: 0 };
    composer.documents().ok()
}

/// The report has the reason.
struct Stop;

struct Composer<'t, 'r> {
    parser: Parser<'t, StrInput<'t>>,
    file: u16,
    report: &'r mut Report,
    /// Finished anchors with the number of nodes that a copy costs.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

/// A key as read, before it is known to be a string.
enum Key {
    Name(String),
    /// A plain `<<`.
    Merge,
}

impl<'t> Composer<'t, '_> {
    fn documents(&mut self) -> Result<Vec<Node>, Stop> {
        let mut documents = Vec::new();
        loop {
            let (event, mark) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(documents),
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {
                    self.anchors.clear();
                    self.nodes = 0;
                }
                content => documents.push(self.node(content, mark, 0)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Mark), Stop> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let marker = *error.marker();
                let span = Span::new(self.file, marker.line(), marker.col() + 1, 1);
                let problem = self.report.error(span, format!("not valid YAML: {}", error.info()));
                if problem.location.as_ref().is_some_and(|l| l.text.trim_end().contains('\t')) {
                    problem.with_help("YAML is indented with spaces; this line has a tab");
                }
                Err(Stop)
            }
            None => Ok((Event::StreamEnd, Mark::default())),
        }
    }

    fn span(&self, mark: Mark) -> Span {
        let one_line = mark.start.line() == mark.end.line();
        let length = if one_line { mark.end.col().saturating_sub(mark.start.col()) } else { usize::from(u16::MAX) };
        Span::new(self.file, mark.start.line(), mark.start.col() + 1, length)
    }

    fn node(&mut self, event: Event<'t>, mark: Mark, depth: usize) -> Result<Node, Stop> {
        let span = self.span(mark);
        let first = self.nodes;
        self.count(1, span)?;
        if depth > DEPTH_MAX {
            self.report.error(span, format!("nested deeper than {DEPTH_MAX} levels"));
            return Err(Stop);
        }
        let (anchor, tag, value) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !is_core(tag.as_deref(), "str");
                let value = if plain { scalar::resolve(&text) } else { Value::Str(text.into_owned()) };
                (anchor, tag, value)
            }
            Event::SequenceStart(anchor, tag) => (anchor, tag, self.sequence(depth)?),
            Event::MappingStart(anchor, tag) => (anchor, tag, self.mapping(depth)?),
            other => unreachable!("the parser ends a node before it sends {other:?}"),
        };
        let merging = self.merging(tag.as_deref(), span);
        // A collection's own mark may be empty; its place is then where its first entry is.
        let node = Node { span, value, merging };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - first));
        }
        Ok(node)
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Stop> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            self.report
                .error(span, format!("the file has more than {NODES_MAX} values when its aliases are filled in"));
            return Err(Stop);
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, Stop> {
        match self.anchors.get(&anchor) {
            Some((node, cost)) => {
                let (node, cost) = (node.clone(), *cost);
                self.count(cost, span)?;
                Ok(node)
            }
            None => {
                self.report.error(span, "this alias stands inside the value that it refers to");
                Err(Stop)
            }
        }
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, Stop> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, mark) => items.push(self.node(event, mark, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, Stop> {
        let mut map = Map::default();
        let mut merged: Vec<Node> = Vec::new();
        loop {
            let (event, mark) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let key_span = self.span(mark);
            let key = self.key(event, mark, depth)?;
            let (event, mark) = self.next()?;
            let mut value = self.node(event, mark, depth + 1)?;
            // An absent value is marked at the next token, often on another line.
            if value.value == Value::Null && mark.start.index() == mark.end.index() {
                value.span = key_span;
            }
            match key {
                None => {}
                Some(Key::Merge) => merged.push(value),
                Some(Key::Name(name)) => match map.entry(&name) {
                    Some(first) => {
                        let place = self.report.sources.place(first.key_span);
                        self.report
                            .error(key_span, format!("key `{name}` is given twice, first at {place}"))
                            .with_help("remove one of the two, or merge them");
                    }
                    None => map.entries.push(Entry { key: name, key_span, value }),
                },
            }
        }
        for source in merged {
            self.merge_key(&mut map, source);
        }
        Ok(Value::Map(map))
    }

    /// `None` for a key that was refused: its value is read all the same, to find what else is wrong.
    fn key(&mut self, event: Event<'t>, mark: Mark, depth: usize) -> Result<Option<Key>, Stop> {
        if let Event::Scalar(text, ScalarStyle::Plain, 0, None) = &event
            && text == "<<"
        {
            return Ok(Some(Key::Merge));
        }
        let node = self.node(event, mark, depth + 1)?;
        let written = match &node.value {
            Value::Str(name) => return Ok(Some(Key::Name(name.clone()))),
            Value::Int(_, text) | Value::Float(_, text) => text.clone(),
            Value::Bool(value) => value.to_string(),
            Value::Null => "null".to_owned(),
            Value::List(_) | Value::Map(_) => {
                self.report.error(node.span, "a key must be a string").with_help("quote it if it is meant as text");
                return Ok(None);
            }
        };
        self.report
            .error(node.span, format!("non-string key {written}: keys must be strings"))
            .with_help(format!("quote it: \"{written}\""));
        Ok(None)
    }

    /// `<<`: what the mapping does not say itself comes from the ones merged in, the earliest first.
    fn merge_key(&mut self, map: &mut Map, source: Node) {
        match source.value {
            Value::Map(other) => {
                for entry in other.entries {
                    if map.entry(&entry.key).is_none() {
                        map.entries.push(entry);
                    }
                }
            }
            Value::List(items) => {
                for item in items {
                    self.merge_key(map, item);
                }
            }
            Value::Null => {}
            _ => {
                self.report
                    .error(source.span, format!("`<<` merges mappings, and this is {}", source.kind()))
                    .with_help("write `<<: *anchor`, or `<<: [*first, *second]`");
            }
        }
    }

    fn merging(&mut self, tag: Option<&Tag>, span: Span) -> Merging {
        let Some(tag) = tag else { return Merging::Usual };
        match (tag.handle.as_str(), tag.suffix.as_str()) {
            ("!", "reset") => Merging::Reset,
            ("!", "override") => Merging::Override,
            ("!", "") => Merging::Usual,
            ("tag:yaml.org,2002:", _) | ("!!", _) => Merging::Usual,
            (handle, suffix) => {
                self.report
                    .error(span, format!("unknown tag `{handle}{suffix}`"))
                    .with_help("compose files know the tags !reset and !override");
                Merging::Usual
            }
        }
    }
}

fn is_core(tag: Option<&Tag>, kind: &str) -> bool {
    tag.is_some_and(|tag| tag.suffix == kind && (tag.handle == "tag:yaml.org,2002:" || tag.handle == "!!"))
}
