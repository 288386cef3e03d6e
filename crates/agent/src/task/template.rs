//! Templates in environment values, host names and mount sources: `{{.Task.Slot}}` and its like.
//!
//! Only the variables that Swarm documents are known; anything else is refused by name, since a value
//! with a brace left in it would fail later and further away.

use skep_model::{Slot, Task};

/// What a template may ask of the node that it is expanded on.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    pub id: String,
    pub hostname: String,
    pub os: String,
    pub architecture: String,
}

/// Expands every `{{…}}` of `text`; the error is for the task's status.
pub fn expand(text: &str, task: &Task, node: &NodeFacts) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else {
            return Err(format!("the template in `{text}` has no closing `}}}}`"));
        };
        expanded.push_str(before);
        expanded.push_str(&value(name.trim(), task, node).ok_or_else(|| unknown(name.trim(), text))?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn value(name: &str, task: &Task, node: &NodeFacts) -> Option<String> {
    Some(match name {
        ".Service.ID" => task.service.to_string(),
        ".Service.Name" => task.service_name.clone(),
        ".Task.ID" => task.id.to_string(),
        ".Task.Name" => task.container_name(),
        ".Task.Slot" => match task.slot {
            Slot::Replica(number) => number.to_string(),
            Slot::Node(node) => node.to_string(),
        },
        ".Node.ID" => node.id.clone(),
        ".Node.Hostname" => node.hostname.clone(),
        ".Node.Platform.OS" => node.os.clone(),
        ".Node.Platform.Architecture" => node.architecture.clone(),
        _ => return None,
    })
}

fn unknown(name: &str, text: &str) -> String {
    format!(
        "the template `{{{{{name}}}}}` in `{text}` is not known; use .Service.ID, .Service.Name, .Task.ID, .Task.Name, \
         .Task.Slot, .Node.ID, .Node.Hostname, .Node.Platform.OS or .Node.Platform.Architecture"
    )
}
