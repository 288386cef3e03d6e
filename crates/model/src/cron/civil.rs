//! Dates of the Gregorian calendar, without a clock or a zone.

/// Seconds of a day.
pub const DAY: i64 = 86_400;

/// A day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    pub year: i64,
    pub month: u32,
    pub day: u32,
    /// 0 is Sunday.
    pub weekday: u32,
}

impl Civil {
    /// The day of a time in seconds since 1970.
    pub fn of(seconds: i64) -> Self {
        let days = seconds.div_euclid(DAY);
        // Years that begin in March end with the leap day; 400 of them have 146097 days.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let day = (of_year - (153 * march_month + 2) / 5 + 1) as u32;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 } as u32;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        // The first of January 1970 was a Thursday.
        Self { year, month, day, weekday: (days + 4).rem_euclid(7) as u32 }
    }

    /// Days since 1970.
    pub fn days(year: i64, month: u32, day: u32) -> i64 {
        let year = year - i64::from(month <= 2);
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let march_month = i64::from((month + 9) % 12);
        let of_year = (153 * march_month + 2) / 5 + i64::from(day) - 1;
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
    }
}
