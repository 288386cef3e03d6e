//! Time zones: how far each is from UTC, by the rule that it follows from now on.
//!
//! Schedules look ahead only, so that of each zone its last rule is enough, and all of them fit into a small table.
//! Rules that governments change come with a new build.

use std::str::FromStr;

use super::civil::{Civil, DAY};
use crate::Timestamp;

const ZONES: &str = include_str!("zones.txt");

/// A zone's rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeZone {
    name: String,
    /// Seconds east of UTC.
    standard: i64,
    summer: Option<Summer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Summer {
    offset: i64,
    begins: Turn,
    ends: Turn,
}

/// A moment of each year, by the clock that it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    month: u32,
    /// 5 is the last of the month.
    week: u32,
    weekday: u32,
    /// Seconds from the day's midnight; may lie outside the day.
    time: i64,
}

impl TimeZone {
    /// The zone of that name, whichever case it is written in; empty is UTC. The error is for the user.
    pub fn named(name: &str) -> Result<Self, String> {
        let name = if name.is_empty() { "UTC" } else { name };
        let lines = ZONES.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(": "));
        let names = || lines.clone().flat_map(|(rule, names)| names.split(' ').map(move |name| (rule, name)));
        if let Some((rule, known)) = names().find(|(_, known)| known.eq_ignore_ascii_case(name)) {
            return Ok(read(known, rule).expect("the table's lines have the table's form"));
        }
        let city = |known: &str| known.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(name));
        let help = match names().find(|(_, known)| city(known)) {
            Some((_, known)) => format!("did you mean {known}?"),
            None => "write it as Europe/Berlin or America/New_York".to_owned(),
        };
        Err(format!("time zone `{name}` is not known; {help}"))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A time as its clocks show it: `2027-01-15 03:00 Europe/Berlin`; seconds where there are any.
    pub fn shown(&self, at: Timestamp) -> String {
        let at = i64::try_from(at.0 / 1_000_000_000).unwrap_or(i64::MAX / 2);
        let wall = at + self.offset_at(at);
        let (Civil { year, month, day, .. }, time) = (Civil::of(wall), wall.rem_euclid(DAY));
        let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
        let seconds = if second == 0 { String::new() } else { format!(":{second:02}") };
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}{seconds} {}", self.name)
    }

    /// Seconds that its clocks are ahead of UTC at a time in seconds since 1970.
    pub(super) fn offset_at(&self, at: i64) -> i64 {
        let Some(summer) = self.summer else { return self.standard };
        let year = Civil::of(at + self.standard).year;
        let begins = summer.begins.of(year) - self.standard;
        let ends = summer.ends.of(year) - summer.offset;
        let in_summer = match begins < ends {
            true => (begins..ends).contains(&at),
            // South of the equator it is summer around the new year.
            false => !(ends..begins).contains(&at),
        };
        if in_summer { summer.offset } else { self.standard }
    }

    /// When its clocks first show a time; for one that they leave out, as long after the jump as it lies in the gap.
    pub(super) fn instant_of(&self, wall: i64) -> i64 {
        let offsets = [Some(self.standard), self.summer.map(|summer| summer.offset)];
        let offsets = || offsets.into_iter().flatten();
        let shown =
            offsets().map(|offset| (wall - offset, offset)).filter(|(at, offset)| self.offset_at(*at) == *offset);
        let left_out = wall - offsets().min().unwrap_or(self.standard);
        shown.map(|(at, _)| at).min().unwrap_or(left_out)
    }
}

impl Turn {
    /// Seconds from 1970 to the moment in that year, as the clock shows it.
    fn of(self, year: i64) -> i64 {
        let first = Civil::days(year, self.month, 1);
        let skipped = (self.weekday + 7 - Civil::of(first * DAY).weekday) % 7;
        let mut day = first + i64::from(skipped + 7 * (self.week - 1));
        let (next_year, next_month) = if self.month == 12 { (year + 1, 1) } else { (year, self.month + 1) };
        while day >= Civil::days(next_year, next_month, 1) {
            day -= 7;
        }
        day * DAY + self.time
    }
}

/// A rule of the table.
fn read(name: &str, rule: &str) -> Option<TimeZone> {
    let mut parts = rule.split(' ');
    let standard = parts.next()?.parse().ok()?;
    let summer = match parts.next() {
        None => None,
        Some(offset) => {
            let (offset, begins, ends) = (offset.parse().ok()?, turn(parts.next()?)?, turn(parts.next()?)?);
            Some(Summer { offset, begins, ends })
        }
    };
    Some(TimeZone { name: name.to_owned(), standard, summer })
}

fn turn(text: &str) -> Option<Turn> {
    let (date, time) = text.split_once('/')?;
    let mut numbers = date.split('.').map(u32::from_str);
    let mut next = || numbers.next()?.ok();
    Some(Turn { month: next()?, week: next()?, weekday: next()?, time: time.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_rule() {
        let lines = ZONES.lines().filter(|line| !line.starts_with('#'));
        for line in lines {
            let (rule, names) = line.split_once(": ").unwrap();
            assert!(read("x", rule).is_some() && !names.is_empty(), "{line}");
        }
    }
}
