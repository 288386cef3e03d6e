//! Times that a schedule names: the five fields of cron, or six with seconds before them, or a word such as `@daily`.
//!
//! A time is one of the clock on a wall in the schedule's zone. What an hour's jump in spring leaves out comes when the
//! jump is over, and what autumn repeats comes once; a schedule of every hour follows the hours that there are.

mod civil;
mod zone;

use std::fmt;
use std::str::FromStr;

use civil::{Civil, DAY};
pub use zone::TimeZone;

use crate::Timestamp;

/// Within so many days each possible date comes, the 29th of February on a given weekday included.
const DAYS_SEARCHED: u32 = 28 * 366 + 8 * 366;
const HOUR: i64 = 3600;
const NANOS: u64 = 1_000_000_000;

/// When something is due, over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cron {
    seconds: Set,
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    weekdays: Set,
    /// Either of the two is enough when both are restricted, as cron has it.
    any_day: bool,
    any_weekday: bool,
}

/// Numbers below 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Set(u64);

impl Set {
    fn has(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }

    /// The least of at least `from`.
    fn from(self, from: u32) -> Option<u32> {
        let rest = if from > 63 { 0 } else { self.0 >> from << from };
        (rest != 0).then(|| rest.trailing_zeros())
    }
}

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    #[error(
        "`{0}` has {1} fields; write five (minute hour day month weekday, such as `0 3 * * *`), six with seconds \
         first, or @daily"
    )]
    Fields(String, usize),
    #[error("`{0}` is not known; use @yearly, @monthly, @weekly, @daily or @hourly")]
    Word(String),
    #[error("`{value}` is no {field}; it must be {expected}")]
    Value { field: &'static str, value: String, expected: &'static str },
    #[error("`{0}` never comes: no month has that day")]
    Never(String),
}

struct Field {
    name: &'static str,
    expected: &'static str,
    range: (u32, u32),
    words: &'static [&'static str],
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Field; 6] = [
    Field { name: "second", expected: "0-59", range: (0, 59), words: &[] },
    Field { name: "minute", expected: "0-59", range: (0, 59), words: &[] },
    Field { name: "hour", expected: "0-23", range: (0, 23), words: &[] },
    Field { name: "day of the month", expected: "1-31", range: (1, 31), words: &[] },
    Field { name: "month", expected: "1-12 or JAN-DEC", range: (1, 12), words: &MONTHS },
    Field { name: "day of the week", expected: "0-7 or SUN-SAT", range: (0, 7), words: &WEEKDAYS },
];

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let words = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            word if word.starts_with('@') => return Err(CronError::Word(word.to_owned())),
            fields => fields,
        };
        let mut fields: Vec<&str> = words.split_whitespace().collect();
        match fields.len() {
            5 => fields.insert(0, "0"),
            6 => {}
            count => return Err(CronError::Fields(text.to_owned(), count)),
        }
        let mut sets = [Set(0); 6];
        for ((set, field), text) in sets.iter_mut().zip(&FIELDS).zip(&fields) {
            *set = field.parse(text)?;
        }
        let [seconds, minutes, hours, days, months, weekdays] = sets;
        // Sunday is 0 and 7.
        let weekdays = Set((weekdays.0 | weekdays.0 >> 7) & 0x7f);
        let open = |text: &str| text.starts_with(['*', '?']);
        let (any_day, any_weekday) = (open(fields[3]), open(fields[5]));
        let cron = Cron { seconds, minutes, hours, days, months, weekdays, any_day, any_weekday };
        match cron.ever_comes() {
            true => Ok(cron),
            false => Err(CronError::Never(text.to_owned())),
        }
    }
}

impl Field {
    fn parse(&self, text: &str) -> Result<Set, CronError> {
        let mut set = 0;
        for part in text.split(',') {
            let wrong = || CronError::Value { field: self.name, value: part.to_owned(), expected: self.expected };
            let (range, step) = match part.split_once('/') {
                None => (part, None),
                Some((range, step)) => (range, Some(step.parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(wrong)?)),
            };
            let (first, last) = match range.split_once('-') {
                _ if matches!(range, "*" | "?") => self.range,
                Some((first, last)) => (self.number(first).ok_or_else(wrong)?, self.number(last).ok_or_else(wrong)?),
                None => {
                    let first = self.number(range).ok_or_else(wrong)?;
                    (first, if step.is_some() { self.range.1 } else { first })
                }
            };
            if first > last {
                return Err(wrong());
            }
            set |= (first..=last).step_by(step.unwrap_or(1) as usize).fold(0, |set, number| set | 1 << number);
        }
        Ok(Set(set))
    }

    fn number(&self, text: &str) -> Option<u32> {
        let word = self.words.iter().position(|word| text.eq_ignore_ascii_case(word));
        let named = word.map(|at| at as u32 + self.range.0);
        let number = || text.parse::<u32>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        named.or_else(number).filter(|number| (self.range.0..=self.range.1).contains(number))
    }
}

impl Cron {
    /// The first time after `after` that is due.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let after = i64::try_from(after.0 / NANOS).ok()?;
        let next = match self.hours.0 == 0xff_ffff {
            true => self.next_of_every_hour(after, zone),
            false => self.next_on_the_wall(after, zone),
        };
        next.and_then(|seconds| u64::try_from(seconds).ok()).map(|seconds| Timestamp(seconds.saturating_mul(NANOS)))
    }

    /// By the hours that there are, those that a change of the clock repeats included.
    fn next_of_every_hour(&self, after: i64, zone: &TimeZone) -> Option<i64> {
        let mut at = after + 1;
        for _ in 0..DAYS_SEARCHED * 25 {
            let wall = at + zone.offset_at(at);
            if !self.is_day(Civil::of(wall)) {
                at = zone.instant_of(wall.div_euclid(DAY) * DAY + DAY).max(at + 1);
                continue;
            }
            let hour = wall.div_euclid(HOUR) * HOUR;
            match self.within_hour((wall - hour) as u32) {
                Some(seconds) => return Some(at - wall + hour + i64::from(seconds)),
                None => at += hour + HOUR - wall,
            }
        }
        None
    }

    /// By the clock on the wall: each of its times once.
    fn next_on_the_wall(&self, after: i64, zone: &TimeZone) -> Option<i64> {
        // Where the clock was put back, times that it showed are passed over until one lies ahead.
        let mut wall = after + zone.offset_at(after) + 1;
        for _ in 0..DAYS_SEARCHED {
            let day = wall.div_euclid(DAY) * DAY;
            let found = self.is_day(Civil::of(day)).then(|| self.within_day((wall - day) as u32)).flatten();
            match found {
                Some(seconds) => {
                    let at = zone.instant_of(day + i64::from(seconds));
                    if at > after {
                        return Some(at);
                    }
                    wall = day + i64::from(seconds) + 1;
                }
                None => wall = day + DAY,
            }
        }
        None
    }

    fn within_day(&self, from: u32) -> Option<u32> {
        let hour = from / 3600;
        let this_hour = || self.within_hour(from % 3600).map(|seconds| hour * 3600 + seconds);
        let later = || Some(self.hours.from(hour + 1)? * 3600 + self.within_hour(0)?);
        self.hours.has(hour).then(this_hour).flatten().or_else(later)
    }

    fn within_hour(&self, from: u32) -> Option<u32> {
        let minute = from / 60;
        let this_minute = || self.seconds.from(from % 60).map(|second| minute * 60 + second);
        let later = || Some(self.minutes.from(minute + 1)? * 60 + self.seconds.from(0)?);
        self.minutes.has(minute).then(this_minute).flatten().or_else(later)
    }

    fn is_day(&self, date: Civil) -> bool {
        let (day, weekday) = (self.days.has(date.day), self.weekdays.has(date.weekday));
        let fits = match (self.any_day, self.any_weekday) {
            (false, false) => day || weekday,
            _ => day && weekday,
        };
        fits && self.months.has(date.month)
    }

    /// Whether any month has one of the days: only the 30th and 31st, and the 29th of February, can be missing.
    fn ever_comes(&self) -> bool {
        let longest = |month: u32| match month {
            2 => 29,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let by_weekday = !self.any_day && !self.any_weekday;
        by_weekday || (1..=12).any(|month| self.months.has(month) && (1..=longest(month)).any(|day| self.days.has(day)))
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
