//! One measured row: what was done, both values, and whether the goal is met.

use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Row {
    pub id: &'static str,
    pub work: &'static str,
    pub anchor: String,
    pub anchor_value: f64,
    pub skep_value: f64,
    pub unit: &'static str,
    /// skep's value over the anchor's: under 1 is better.
    pub ratio: f64,
    /// The most that skep may need, in `unit`.
    pub goal: f64,
    pub met: bool,
}

impl Row {
    pub fn new(id: &'static str, work: &'static str, anchor: String, values: Values, goal: f64) -> Row {
        let Values { anchor: anchor_value, skep: skep_value, unit } = values;
        let (ratio, met) = (skep_value / anchor_value, skep_value <= goal);
        Row { id, work, anchor, anchor_value, skep_value, unit, ratio, goal, met }
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a row is plain data")
    }

    pub fn print(&self) {
        let value = |number: f64| format!("{number:.2} {}", self.unit);
        println!(
            "{:<4} {:<46} {:>12} {:>12} {:>7.3} {:>12} {:<4} {}",
            self.id,
            self.work,
            value(self.anchor_value),
            value(self.skep_value),
            self.ratio,
            format!("≤ {}", value(self.goal)),
            if self.met { "met" } else { "NOT" },
            self.anchor,
        );
    }
}

/// Both sides of a row, in one unit.
pub struct Values {
    pub anchor: f64,
    pub skep: f64,
    pub unit: &'static str,
}

pub fn print_head() {
    println!("{:<4} {:<46} {:>12} {:>12} {:>7} {:>12}      anchor", "row", "work", "anchor", "skep", "ratio", "goal");
}
