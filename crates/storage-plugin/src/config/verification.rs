//! `Verification`: verifications that the plugin starts by itself.

use std::time::Duration;

use super::{ConfigError, Section};
use crate::verifying::{Depth, Schedule, Window};

/// The section.
pub(crate) const VERIFICATION: &str = "Verification";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const DEFAULT_WINDOW: &str = "02:00-06:00";
const DEFAULT_DAYS: u64 = 30;
/// About ten years.
const MOST_DAYS: u64 = 3660;

/// Reads the section; all options have defaults. `None` if there is no section.
pub(super) fn read(section: &mut Section<'_>) -> Result<Option<Schedule>, ConfigError> {
    section.subsection(VERIFICATION, |section| {
        let text = section.non_empty("Schedule")?.unwrap_or_else(|| DEFAULT_WINDOW.to_owned());
        let window = Window::parse(&text).ok_or_else(|| {
            let problem = format!("must be two times of a day like \"{DEFAULT_WINDOW}\", got {text:?}");
            section.error("Schedule", problem)
        })?;
        let days = section.number("EveryDays", DEFAULT_DAYS, 1..=MOST_DAYS)?;
        let names = Depth::ALL.map(Depth::as_str);
        let depth = section.choice("Depth", &names)?.and_then(Depth::of).unwrap_or(Depth::Checksum);
        Ok(Schedule { window, every: DAY.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX)), depth })
    })
}
