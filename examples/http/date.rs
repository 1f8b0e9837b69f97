//! The time as HTTP writes it.

use std::cell::{Ref, RefCell};
use std::time::SystemTime;

/// A core's `Date` header, written once a second.
#[derive(Default)]
pub(crate) struct Date(RefCell<(u64, String)>);

impl Date {
    pub(crate) fn text(&self) -> Ref<'_, String> {
        let second = second();
        if self.0.borrow().0 != second || self.0.borrow().1.is_empty() {
            *self.0.borrow_mut() = (second, format_date(second));
        }
        Ref::map(self.0.borrow(), |(_, text)| text)
    }
}

/// The seconds since 1970.
pub(crate) fn second() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, of seconds since 1970.
pub(crate) fn format_date(second: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let (days, time) = (second / 86_400, second % 86_400);
    // Years that begin with March end with the leap day; eras of 400 of them are all alike.
    let since = days + 719_468;
    let (era, day_of_era) = (since / 146_097, since % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + u64::from(month >= 10);
    let (weekday, month) = (DAYS[(days % 7) as usize], MONTHS[month as usize]);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}
