//! Times on a page, in UTC: the page has no script, so it does not know the time zone of its
//! reader.

use std::time::SystemTime;

use crate::server::unix_time::unix_seconds;

/// A time in the two forms of the `time` element.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Date {
    pub(super) machine: String,
    pub(super) human: String,
}

impl From<SystemTime> for Date {
    fn from(time: SystemTime) -> Self {
        let seconds = unix_seconds(time);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let (year, month, day) = civil(days);
        Self {
            machine: format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"),
            human: format!("{year:04}-{month:02}-{day:02}, {hour:02}:{minute:02} UTC"),
        }
    }
}

/// Year, month and day of the Gregorian calendar, from the days since 1970. A year here begins in
/// March, so that the leap day is its last one. Eras of 400 years all have the same number of days.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_follow_the_gregorian_calendar() {
        for (seconds, machine) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            let date = Date::from(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(date.machine, machine);
        }
        let date = Date::from(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        assert_eq!(date.human, "2027-01-15, 08:00 UTC");
    }
}
