//! Days and dates of the Gregorian calendar.

const DAY_SECONDS: i64 = 86400;
/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: i64 = 719_468;

/// A time of day on a date, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DateTime {
    /// 0 to 9999.
    year: u16,
    /// 1 to 12.
    pub(super) month: u8,
    /// 1 to 31.
    pub(super) day: u8,
    /// 0 to 23.
    pub(super) hour: u8,
    /// 0 to 59.
    pub(super) minute: u8,
    /// 0 to 59.
    pub(super) second: u8,
    /// 1 to 7, from Sunday.
    pub(super) weekday: u8,
}

fn small(n: i64) -> u8 {
    u8::try_from(n).unwrap_or(0)
}

impl DateTime {
    /// A date that there is, else nothing.
    pub(super) fn new(year: u16, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> Option<Self> {
        if year > 9999 || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let time = Self { year, month, day, hour, minute, second, weekday: 1 };
        // A day that the month does not have comes out as one of the next.
        let same = Self::from_unix(time.to_unix());
        (same.month == month && same.day == day).then_some(same)
    }

    /// Seconds since 1970-01-01 00:00; outside the years 0 to 9999, the nearest of those.
    pub(super) fn from_unix(seconds: i64) -> Self {
        // 0000-01-01 to 9999-12-31.
        let seconds = seconds.clamp(-62_167_219_200, 253_402_300_799);
        let (days, second_of_day) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS));
        // Years are counted from March, so that a leap day is a year's last.
        let shifted = days + EPOCH;
        let (era, day_of_era) = (shifted.div_euclid(ERA_DAYS), shifted.rem_euclid(ERA_DAYS));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        Self {
            year: u16::try_from(year).unwrap_or(0),
            month: small(month),
            day: small(day_of_year - (153 * month_from_march + 2) / 5 + 1),
            hour: small(second_of_day / 3600),
            minute: small(second_of_day / 60 % 60),
            second: small(second_of_day % 60),
            // 1970-01-01 was a Thursday.
            weekday: small((days + 4).rem_euclid(7) + 1),
        }
    }

    /// Seconds since 1970-01-01 00:00.
    pub(super) fn to_unix(self) -> i64 {
        let (month, day) = (i64::from(self.month), i64::from(self.day));
        let year = i64::from(self.year) - i64::from(month <= 2);
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let month_from_march = if month > 2 { month - 3 } else { month + 9 };
        let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * ERA_DAYS + day_of_era - EPOCH;
        days * DAY_SECONDS + i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second)
    }

    pub(super) fn year_of_century(self) -> u8 {
        small(i64::from(self.year % 100))
    }

    pub(super) fn century(self) -> u8 {
        small(i64::from(self.year / 100))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_dates() {
        for (seconds, (year, month, day), weekday) in [
            (0, (1970, 1, 1), 5),
            (951_782_400, (2000, 2, 29), 3),
            (1_709_164_800, (2024, 2, 29), 5),
            (4_107_542_400, (2100, 3, 1), 2),
            (253_402_300_799, (9999, 12, 31), 6),
        ] {
            let time = DateTime::from_unix(seconds);
            assert_eq!((time.year, time.month, time.day, time.weekday), (year, month, day, weekday), "{seconds}");
        }
        assert_eq!(DateTime::new(2100, 2, 29, 0, 0, 0), None);
        assert_eq!(DateTime::new(2023, 13, 1, 0, 0, 0), None);
        assert_eq!(DateTime::new(2023, 1, 0, 0, 0, 0), None);
    }

    proptest! {
        #[test]
        fn there_and_back(seconds in -62_167_219_200i64..=253_402_300_799) {
            prop_assert_eq!(DateTime::from_unix(seconds).to_unix(), seconds);
        }
        #[test]
        fn no_number_is_too_large(seconds in any::<i64>(), fields in any::<(u16, u8, u8, u8, u8, u8)>()) {
            let _ = DateTime::from_unix(seconds);
            let (year, month, day, hour, minute, second) = fields;
            let _ = DateTime::new(year, month, day, hour, minute, second);
        }
    }
}
