//! Whole objects as JSON: what `inspect` prints.

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::format::Template;
use crate::cli::Result;

/// A list of objects, indented by four as Docker does; or, with a format, each object by it.
pub fn print(objects: Vec<Value>, format: Option<&str>) -> Result {
    match format {
        None => super::line(pretty(&Value::Array(objects))?)?,
        Some("json") => super::line(serde_json::to_string(&objects)?)?,
        Some(template) => {
            let template = Template::parse(template)?;
            for object in &objects {
                super::line(template.render(object)?)?;
            }
        }
    }
    Ok(())
}

fn pretty(value: &Value) -> Result<String> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    ")))?;
    Ok(String::from_utf8(bytes)?)
}
