//! What nodes have under the keys of constraints, read once for all services that ask.
//!
//! A key's column holds a number for each node's value, so that a constraint compares numbers and not text.

use std::collections::BTreeMap;

use skep_model::{Constraint, ConstraintOp, PlatformSpec};

use crate::filter::Filter;
use crate::fleet::NodeView;
use crate::platform;

/// Columns by key, and platform lists by the nodes that can run one of them.
#[derive(Debug, Default)]
pub struct Columns<'a> {
    by_key: BTreeMap<&'a str, Column>,
    by_platforms: BTreeMap<Vec<[&'a str; 3]>, Vec<bool>>,
}

#[derive(Debug, Default)]
struct Column {
    /// In lower case: case does not count.
    numbers: BTreeMap<String, u32>,
    /// By node; `None` where the node has no such value.
    of_node: Vec<Option<u32>>,
}

impl<'a> Columns<'a> {
    /// Nodes that take tasks and satisfy the constraints, platforms and level of `filter`, in order.
    pub fn eligible(&mut self, filter: &Filter<'a>, views: &[NodeView<'a>]) -> Vec<usize> {
        let placement = filter.placement;
        let mut eligible: Vec<usize> = (0..views.len()).filter(|at| views[*at].takes_tasks()).collect();
        for constraint in &placement.constraints {
            self.retain(&mut eligible, constraint, views);
        }
        if !placement.platforms.is_empty() {
            let runs = self.by_platforms.entry(platforms_key(&placement.platforms));
            let runs = runs
                .or_insert_with(|| views.iter().map(|view| platform::runs(view.node, &placement.platforms)).collect());
            eligible.retain(|at| runs[*at]);
        }
        if filter.level > 0 {
            eligible.retain(|at| views[*at].node.level() >= filter.level);
        }
        eligible
    }

    fn retain(&mut self, eligible: &mut Vec<usize>, constraint: &'a Constraint, views: &[NodeView<'a>]) {
        // Addresses are compared as addresses.
        if constraint.key == "node.ip" {
            eligible.retain(|at| views[*at].node.satisfies(std::slice::from_ref(constraint)));
            return;
        }
        let column = self.by_key.entry(&constraint.key).or_insert_with(|| Column::read(&constraint.key, views));
        let wanted = column.numbers.get(&constraint.value.to_ascii_lowercase()).copied();
        let equal = constraint.op == ConstraintOp::Equal;
        eligible.retain(|at| (wanted.is_some() && column.of_node[*at] == wanted) == equal);
    }
}

impl Column {
    fn read(key: &str, views: &[NodeView]) -> Column {
        let mut column = Column::default();
        for view in views {
            let value = view.node.constraint_value(key).map(|value| value.to_ascii_lowercase());
            let next = column.numbers.len() as u32;
            let number = value.map(|value| *column.numbers.entry(value).or_insert(next));
            column.of_node.push(number);
        }
        column
    }
}

pub fn platforms_key(platforms: &[PlatformSpec]) -> Vec<[&str; 3]> {
    platforms.iter().map(|spec| [spec.os.as_str(), &spec.architecture, &spec.variant]).collect()
}
