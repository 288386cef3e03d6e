//! One measured row: what was done, both values, and whether the goal is met.

use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Row {
    pub id: &'static str,
    pub work: String,
    pub anchor: String,
    pub anchor_value: f64,
    pub skep_value: f64,
    pub unit: &'static str,
    /// skep's value over the anchor's: under 1 is better where less is, over 1 where more is.
    pub ratio: f64,
    /// In `unit`.
    pub goal: f64,
    pub met: bool,
    #[serde(skip)]
    sense: Sense,
}

/// What skep may need at most, or must reach at least.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Clone, Copy, Debug)]
enum Sense {
    LessIsBetter,
    MoreIsBetter,
}

impl Row {
    pub fn new(id: &'static str, work: impl Into<String>, anchor: String, values: Values, goal: Goal) -> Row {
        let Values { anchor: anchor_value, skep: skep_value, unit } = values;
        let (sense, goal, met) = match goal {
            Goal::AtMost(goal) => (Sense::LessIsBetter, goal, skep_value <= goal),
            Goal::AtLeast(goal) => (Sense::MoreIsBetter, goal, skep_value >= goal),
        };
        let ratio = skep_value / anchor_value;
        Row { id, work: work.into(), anchor, anchor_value, skep_value, unit, ratio, goal, met, sense }
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a row is plain data")
    }

    pub fn print(&self) {
        let value =
            |number: f64| if number.is_nan() { "-".to_owned() } else { format!("{} {}", figure(number), self.unit) };
        let sign = match self.sense {
            Sense::LessIsBetter => "≤",
            Sense::MoreIsBetter => "≥",
        };
        println!(
            "{:<4} {:<54} {:>13} {:>13} {:>8} {:>15} {:<4} {}",
            self.id,
            self.work,
            value(self.anchor_value),
            value(self.skep_value),
            if self.ratio.is_finite() { format!("{:.3}", self.ratio) } else { "-".to_owned() },
            format!("{sign} {}", value(self.goal)),
            if self.met { "met" } else { "NOT" },
            self.anchor,
        );
    }
}

fn figure(number: f64) -> String {
    if number.abs() >= 1000.0 { format!("{number:.0}") } else { format!("{number:.2}") }
}

/// Both sides of a row, in one unit.
pub struct Values {
    pub anchor: f64,
    pub skep: f64,
    pub unit: &'static str,
}

pub fn print_head() {
    println!("{:<4} {:<54} {:>13} {:>13} {:>8} {:>15}      anchor", "row", "work", "anchor", "skep", "ratio", "goal");
}
