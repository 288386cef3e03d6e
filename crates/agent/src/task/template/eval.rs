//! A parsed template given its values.
//!
//! What it may take is bounded, since a template comes from a user and nested ranges grow fast.

use super::functions;
use super::parse::{Base, Command, Node, Operand, Pipeline};
use super::value::Value;
use super::{At, Given, TemplateError};

const OUTPUT_BYTES_MAX: usize = 4 << 20;
const STEPS_MAX: usize = 100_000;

pub fn render(nodes: &[Node], given: &Given<'_>) -> Result<String, TemplateError> {
    let root = given.root.clone();
    let mut run = Run { given, output: String::new(), steps: 0, variables: vec![(String::new(), root.clone())] };
    run.all(nodes, &root)?;
    Ok(run.output)
}

struct Run<'g> {
    given: &'g Given<'g>,
    output: String,
    steps: usize,
    /// Inner ones last; `$` is the first.
    variables: Vec<(String, Value)>,
}

impl Run<'_> {
    fn all(&mut self, nodes: &[Node], dot: &Value) -> Result<(), TemplateError> {
        // What a block declares ends with it.
        let outer = self.variables.len();
        for node in nodes {
            self.one(node, dot)?;
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn one(&mut self, node: &Node, dot: &Value) -> Result<(), TemplateError> {
        match node {
            Node::Text(text) => self.output.push_str(text),
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    self.output.push_str(&value.shown().map_err(|problem| pipeline.at.error(problem))?);
                    self.check_size(pipeline.at)?;
                }
            }
            Node::If { of, body, otherwise } => {
                let outer = self.variables.len();
                let chosen = if self.pipeline(of, dot)?.is_true() { body } else { otherwise };
                self.all(chosen, dot)?;
                self.variables.truncate(outer);
            }
            Node::With { of, body, otherwise } => {
                let outer = self.variables.len();
                let value = self.pipeline(of, dot)?;
                if value.is_true() {
                    self.all(body, &value)?
                } else {
                    self.all(otherwise, dot)?
                }
                self.variables.truncate(outer);
            }
            Node::Range { of, body, otherwise } => self.range(of, (body, otherwise), dot)?,
        }
        Ok(())
    }

    fn range(
        &mut self,
        of: &Pipeline,
        (body, otherwise): (&[Node], &[Node]),
        dot: &Value,
    ) -> Result<(), TemplateError> {
        let value = self.commands(of, dot)?;
        let entries = value.entries().map_err(|problem| of.at.error(problem))?;
        if entries.is_empty() {
            return self.all(otherwise, dot);
        }
        for (key, value) in entries {
            let outer = self.variables.len();
            match of.variables.as_slice() {
                [] => {}
                [only] => self.set(of, only, value.clone())?,
                [first, second, ..] => {
                    self.set(of, first, Value::Text(key))?;
                    self.set(of, second, value.clone())?;
                }
            }
            self.all(body, &value)?;
            self.variables.truncate(outer);
            self.step(of.at)?;
        }
        Ok(())
    }

    fn step(&mut self, at: At) -> Result<(), TemplateError> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(at.error(format!("the template takes more than {STEPS_MAX} steps")));
        }
        self.check_size(at)
    }

    fn check_size(&self, at: At) -> Result<(), TemplateError> {
        if self.output.len() > OUTPUT_BYTES_MAX {
            return Err(at.error(format!("what the template gives has more than {OUTPUT_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let value = self.commands(pipeline, dot)?;
        if let [name, ..] = pipeline.variables.as_slice() {
            self.set(pipeline, name, value.clone())?;
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        self.step(pipeline.at)?;
        let mut piped = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, piped, dot)?);
        }
        Ok(piped.expect("a pipeline has a command"))
    }

    fn set(&mut self, pipeline: &Pipeline, name: &str, value: Value) -> Result<(), TemplateError> {
        if !pipeline.assigns {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
        let (_, known) = known.ok_or_else(|| pipeline.at.error(format!("the variable `${name}` is not known")))?;
        *known = value;
        Ok(())
    }

    fn command(&mut self, command: &Command, piped: Option<Value>, dot: &Value) -> Result<Value, TemplateError> {
        let Command { at, first, arguments } = command;
        let Base::Function(name) = &first.base else {
            if !arguments.is_empty() || piped.is_some() {
                return Err(at.error("only a function can be given a value; this is none"));
            }
            return self.operand(first, dot);
        };
        // The value that decides is the last that is looked at, as in Go.
        if let "and" | "or" = name.as_str() {
            let mut last = None;
            for argument in arguments {
                let value = self.operand(argument, dot)?;
                let decides = value.is_true() == (name == "or");
                last = Some(value);
                if decides {
                    break;
                }
            }
            let decided = last.as_ref().is_some_and(|last| last.is_true() == (name == "or"));
            let value = if decided { last } else { piped.or(last) };
            return value.ok_or_else(|| at.error(format!("`{name}` needs a value")));
        }
        let mut values = Vec::with_capacity(arguments.len() + 1);
        for argument in arguments {
            values.push(self.operand(argument, dot)?);
        }
        values.extend(piped);
        let called = functions::call(name, &values, self.given.outside).map_err(|problem| at.error(problem))?;
        fields_of(called, &first.fields, *at)
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        let Operand { at, base, fields } = operand;
        let value = match base {
            Base::Dot => dot.clone(),
            Base::Variable(name) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                let unknown = || at.error(format!("the variable `${name}` is not known"));
                known.ok_or_else(unknown)?.1.clone()
            }
            Base::Text(text) => Value::Text(text.clone()),
            Base::Number(number) => Value::Number(*number),
            Base::Bool(bool) => Value::Bool(*bool),
            Base::Function(name) => {
                functions::call(name, &[], self.given.outside).map_err(|problem| at.error(problem))?
            }
            Base::Nested(pipeline) => self.pipeline(pipeline, dot)?,
        };
        fields_of(value, fields, *at)
    }
}

fn fields_of(mut value: Value, fields: &[String], at: At) -> Result<Value, TemplateError> {
    for name in fields {
        value = value.field(name).map_err(|problem| at.error(problem))?;
    }
    Ok(value)
}
