//! Nodes that can take tasks of one demand, by branch of its placement preferences.
//!
//! Services with equal constraints, platforms, levels, reservations, host ports and preferences share a class.
//! While tasks are placed room only shrinks, so a node without room leaves its class for good.

use std::collections::BTreeMap;

use skep_model::{Constraint, ConstraintOp, PortProtocol, Preference};

use crate::columns::{Columns, platforms_key};
use crate::filter::Filter;
use crate::fleet::NodeView;
use crate::loads::Bits;

/// Classes that are kept: one has a bit for each node and branch, and there may be as many as services.
const CLASSES_KEPT: usize = 4096;

#[derive(Debug, Default)]
pub struct Classes<'a> {
    columns: Columns<'a>,
    eligible: BTreeMap<Asked<'a>, Vec<Branch>>,
    classes: BTreeMap<Demand<'a>, Class>,
    /// That of a group whose company matters: it is nobody else's.
    own: Option<Class>,
}

/// What a node can satisfy or not, whatever runs on it, and what makes branches of the nodes that do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Asked<'a> {
    constraints: Vec<(&'a str, bool, &'a str)>,
    platforms: Vec<[&'a str; 3]>,
    preferences: Vec<&'a str>,
    level: u32,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Demand<'a> {
    asked: Asked<'a>,
    cpus: u64,
    memory: u64,
    generic: Vec<(&'a str, u64)>,
    ports: Vec<(PortProtocol, u16)>,
}

/// The nodes of one demand that are not known to have no room.
#[derive(Debug)]
pub struct Class {
    pub branches: Vec<Branch>,
    /// Why no node fits, and how many tasks had been placed when that was found.
    pub explained: Option<(u64, String)>,
}

/// Nodes that are alike to the placement preferences; all of them when there are none.
#[derive(Debug, Clone)]
pub struct Branch {
    /// The value of each preference's label, the outermost first.
    pub name: Vec<String>,
    pub nodes: Bits,
}

impl<'a> Classes<'a> {
    pub fn of(&mut self, filter: &Filter<'a>, views: &[NodeView<'a>]) -> &mut Class {
        let Some(company) = &filter.company else { return self.shared(filter, views) };
        let mut branches = self.shared(filter, views).branches.clone();
        for branch in &mut branches {
            let refused = (0..views.len()).filter(|at| !company.contains(&views[*at].node.id));
            refused.for_each(|at| branch.nodes.remove(at));
        }
        self.own.insert(Class { branches, explained: None })
    }

    fn shared(&mut self, filter: &Filter<'a>, views: &[NodeView<'a>]) -> &mut Class {
        let demand = Demand::new(filter);
        if self.classes.len() >= CLASSES_KEPT && !self.classes.contains_key(&demand) {
            self.classes.clear();
            self.eligible.clear();
        }
        let Self { columns, eligible, classes, own: _ } = self;
        classes.entry(demand).or_insert_with_key(|demand| {
            let branches = eligible.entry(demand.asked.clone()).or_insert_with(|| {
                let nodes = columns.eligible(filter, views);
                branches(&filter.placement.preferences, &nodes, views)
            });
            Class { branches: branches.clone(), explained: None }
        })
    }
}

impl<'a> Demand<'a> {
    fn new(filter: &Filter<'a>) -> Self {
        let placement = filter.placement;
        let constraint = |constraint: &'a Constraint| {
            (constraint.key.as_str(), constraint.op == ConstraintOp::Equal, constraint.value.as_str())
        };
        let asked = Asked {
            constraints: placement.constraints.iter().map(constraint).collect(),
            platforms: platforms_key(&placement.platforms),
            preferences: placement.preferences.iter().map(|preference| preference.spread.as_str()).collect(),
            level: filter.level,
        };
        Self {
            asked,
            cpus: filter.cpus.0,
            memory: filter.memory.0,
            generic: filter.generic.iter().map(|wanted| (wanted.kind.as_str(), wanted.amount)).collect(),
            ports: filter.ports.clone(),
        }
    }
}

fn branches(preferences: &[Preference], eligible: &[usize], views: &[NodeView]) -> Vec<Branch> {
    let mut nodes: BTreeMap<Vec<String>, Bits> = BTreeMap::new();
    for at in eligible {
        let name = branch_of(preferences, &views[*at]);
        nodes.entry(name).or_insert_with(|| Bits::none(views.len())).insert(*at);
    }
    nodes.into_iter().map(|(name, nodes)| Branch { name, nodes }).collect()
}

/// The node's value at each preference's label; a label that is not there is a branch of its own.
pub fn branch_of(preferences: &[Preference], view: &NodeView) -> Vec<String> {
    let value = |spread: &str| -> Option<&String> {
        match spread.strip_prefix("node.labels.") {
            Some(name) => view.node.spec.labels.get(name),
            None => view.node.description.as_ref()?.engine_labels.get(spread.strip_prefix("engine.labels.")?),
        }
    };
    preferences.iter().map(|preference| value(&preference.spread).cloned().unwrap_or_default()).collect()
}
