//! Schedules against times that the IANA database's own reader (Python's zoneinfo) and cron's manual name.

use super::*;

/// Seconds since 1970 of a date and time in UTC.
fn utc(text: &str) -> Timestamp {
    let numbers: Vec<i64> = text.split(['-', ' ', ':']).map(|part| part.parse().unwrap()).collect();
    let &[year, month, day, hour, minute, second] = numbers.as_slice() else { panic!("{text}") };
    let days = Civil::days(year, month as u32, day as u32);
    Timestamp((days * DAY + hour * 3600 + minute * 60 + second) as u64 * NANOS)
}

fn shown(at: Timestamp) -> String {
    let seconds = (at.0 / NANOS) as i64;
    let Civil { year, month, day, .. } = Civil::of(seconds);
    let time = seconds.rem_euclid(DAY);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60)
}

fn check(cron: &str, zone: &str, after: &str, expected: &[&str]) {
    let (parsed, zone): (Cron, _) = (cron.parse().unwrap(), TimeZone::named(zone).unwrap());
    let mut at = utc(after);
    for expected in expected {
        at = parsed.next(at, &zone).unwrap();
        assert_eq!(shown(at), *expected, "{cron} in {zone} after {after}");
    }
}

#[test]
fn fields_name_times() {
    check("0 3 * * *", "", "2027-01-15 12:00:00", &["2027-01-16 03:00:00", "2027-01-17 03:00:00"]);
    check("*/15 9-10 * * *", "", "2027-01-15 09:50:00", &["2027-01-15 10:00:00", "2027-01-15 10:15:00"]);
    check("@hourly", "", "2027-12-31 23:00:00", &["2028-01-01 00:00:00", "2028-01-01 01:00:00"]);
    check("0 12 29 2 *", "", "2027-01-01 00:00:00", &["2028-02-29 12:00:00", "2032-02-29 12:00:00"]);
    check("*/20 * * * * *", "", "2027-01-01 00:00:05", &["2027-01-01 00:00:20", "2027-01-01 00:00:40"]);
    check("0 8 * * mon-fri", "", "2027-01-01 09:00:00", &["2027-01-04 08:00:00", "2027-01-05 08:00:00"]);
    check("0 0 * JAN sun", "", "2027-01-01 00:00:00", &["2027-01-03 00:00:00"]);
    check("0 0 * * 7", "", "2027-01-01 00:00:00", &["2027-01-03 00:00:00"]);
    // Restricted both ways, either is enough: the 13th, and Fridays.
    check(
        "0 0 13 * 5",
        "",
        "2027-01-07 00:00:00",
        &["2027-01-08 00:00:00", "2027-01-13 00:00:00", "2027-01-15 00:00:00"],
    );
    // A step from a star is no restriction of that kind.
    check("0 0 */2 * 5", "", "2027-01-01 00:00:00", &["2027-01-15 00:00:00", "2027-01-29 00:00:00"]);
}

#[test]
fn the_wall_is_the_zones_and_each_of_its_times_comes_once() {
    check("0 3 * * *", "Europe/Berlin", "2027-01-15 12:00:00", &["2027-01-16 02:00:00"]);
    check("0 3 * * *", "Europe/Berlin", "2027-07-15 12:00:00", &["2027-07-16 01:00:00"]);
    // On 28 March 02:00 becomes 03:00: 02:30 comes half an hour after the jump.
    check("30 2 * * *", "Europe/Berlin", "2027-03-27 12:00:00", &["2027-03-28 01:30:00", "2027-03-29 00:30:00"]);
    // On 31 October 03:00 becomes 02:00: the first 02:30 counts.
    check("30 2 * * *", "Europe/Berlin", "2027-10-30 12:00:00", &["2027-10-31 00:30:00", "2027-11-01 01:30:00"]);
    // Every hour is every hour.
    let hours = ["2027-10-31 00:30:00", "2027-10-31 01:30:00", "2027-10-31 02:30:00"];
    check("30 * * * *", "Europe/Berlin", "2027-10-30 23:45:00", &hours);
    check("0 0 * * *", "Australia/Lord_Howe", "2027-04-03 00:00:00", &["2027-04-03 13:00:00", "2027-04-04 13:30:00"]);
}

#[test]
fn zones_are_as_far_from_utc_as_the_database_says() {
    let at = |text: &str| (utc(text).0 / NANOS) as i64;
    let times = [
        "2027-01-15 12:30:00",
        "2027-07-01 00:30:00",
        "2027-03-28 00:30:00",
        "2027-03-28 01:30:00",
        "2027-10-31 00:30:00",
        "2027-10-31 01:30:00",
        "2027-04-03 15:30:00",
        "2027-11-07 06:30:00",
    ];
    let known: [(&str, [i64; 8]); 10] = [
        ("Europe/Berlin", [60, 120, 60, 120, 120, 60, 120, 60]),
        ("America/New_York", [-300, -240, -240, -240, -240, -240, -240, -300]),
        ("Australia/Lord_Howe", [660, 630, 660, 660, 660, 660, 630, 660]),
        ("Pacific/Chatham", [825, 765, 825, 825, 825, 825, 765, 825]),
        ("Europe/Dublin", [0, 60, 0, 60, 60, 0, 60, 0]),
        ("Antarctica/Troll", [0, 120, 0, 120, 120, 0, 120, 0]),
        ("Asia/Tehran", [210; 8]),
        ("America/Sao_Paulo", [-180; 8]),
        ("Asia/Kolkata", [330; 8]),
        ("Pacific/Auckland", [780, 720, 780, 780, 780, 780, 720, 780]),
    ];
    for (name, minutes) in known {
        let zone = TimeZone::named(name).unwrap();
        assert_eq!(times.map(|time| zone.offset_at(at(time)) / 60), minutes, "{name}");
    }
}

#[test]
fn what_is_no_schedule_is_refused_with_what_would_be_one() {
    let refused = |text: &str| text.parse::<Cron>().unwrap_err().to_string();
    assert_eq!(refused("0 25 * * *"), "`25` is no hour; it must be 0-23");
    assert_eq!(refused("0 3 * * friday"), "`friday` is no day of the week; it must be 0-7 or SUN-SAT");
    assert_eq!(refused("*/0 * * * *"), "`*/0` is no minute; it must be 0-59");
    assert_eq!(refused("5-1 * * * *"), "`5-1` is no minute; it must be 0-59");
    assert_eq!(refused("@often"), "`@often` is not known; use @yearly, @monthly, @weekly, @daily or @hourly");
    assert_eq!(refused("0 0 31 2 *"), "`0 0 31 2 *` never comes: no month has that day");
    assert!(refused("3 * * *").contains("has 4 fields"));
    assert_eq!(TimeZone::named("berlin").unwrap_err(), "time zone `berlin` is not known; did you mean Europe/Berlin?");
    assert!(TimeZone::named("Mars/Olympus").unwrap_err().contains("Europe/Berlin"));
}

proptest::proptest! {
    /// Due times ascend, are due by the clock on the wall, and none is left out between two of them.
    #[test]
    fn times_ascend_and_none_is_left_out(start in 1_800_000_000u64..1_900_000_000, minute in 0u32..60, hour in 0u32..24) {
        let zone = TimeZone::named("America/New_York").unwrap();
        let cron: Cron = format!("{minute} {hour} * * *").parse().unwrap();
        let first = cron.next(Timestamp(start * NANOS), &zone).unwrap();
        let second = cron.next(first, &zone).unwrap();
        let apart = second.since(first).as_secs();
        proptest::prop_assert!(first.0 > start * NANOS);
        proptest::prop_assert!((22 * 3600..=26 * 3600).contains(&apart), "{apart} s apart");
        let every_hour: Cron = format!("{minute} * * * *").parse().unwrap();
        let mut at = Timestamp(start * NANOS);
        for _ in 0..30 {
            let next = every_hour.next(at, &zone).unwrap();
            proptest::prop_assert!(at.0 == start * NANOS || next.since(at).as_secs() == 3600);
            at = next;
        }
    }
}
