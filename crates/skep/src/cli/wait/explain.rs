//! Node by node why a service finds no place, and what would mend it, beside the failure that shows it.

use skep_api::{ControlClient, ExplainRequest, Explanation};

use crate::cli::output;

/// A large cluster's nodes are not all told of.
const NODES_MAX: usize = 12;

/// Tells on standard error. Without an answer there is nothing to add.
pub async fn tell(control: &ControlClient, service: &str) {
    if let Ok(explanation) = control.explain(ExplainRequest { wanted: service.to_owned() }).await {
        output::raw_complaint(&text(&explanation));
    }
}

fn text(explanation: &Explanation) -> String {
    let mut text = String::new();
    let refusing: Vec<_> = explanation.nodes.iter().filter(|node| !node.refused_by.is_empty()).collect();
    for node in refusing.iter().take(NODES_MAX) {
        text.push_str(&format!("  {}: {}\n", node.hostname, node.why));
    }
    if refusing.len() > NODES_MAX {
        let (more, service) = (refusing.len() - NODES_MAX, &explanation.service);
        text.push_str(&format!("  and {more} more nodes: skep service explain {service}\n"));
    }
    for hint in &explanation.hints {
        text.push_str(&format!("  to mend it: {hint}\n"));
    }
    text
}
