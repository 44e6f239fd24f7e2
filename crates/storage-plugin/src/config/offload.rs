//! `Offload`: moves unused studies from the file system to the bucket.

use super::{ConfigError, Section};

pub(crate) const OFFLOAD: &str = "Offload";

/// When studies are moved from the file system to the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffloadOptions {
    /// Days after which an unused study is moved; `None`: never because of its age.
    pub(crate) after_days: Option<u64>,
    /// Minimum free space on the disk, in bytes; 0: no limit.
    pub(crate) keep_free: u64,
    /// Maximum size of all attachments on the file system, in bytes; 0: no limit.
    pub(crate) max_file_system: u64,
    /// Time of day at which studies are moved because of their age; `None`: always.
    pub(crate) schedule: Option<Schedule>,
    /// Whether attachments that are read from the bucket return to the file system.
    pub(crate) bring_back: bool,
}

/// A period of the day, in minutes since midnight, local time. The period may extend past midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    from: u32,
    to: u32,
}

impl Schedule {
    /// Parses `HH:MM-HH:MM`.
    fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('-')?;
        let schedule = Self { from: minutes(from)?, to: minutes(to)? };
        (schedule.from != schedule.to).then_some(schedule)
    }

    /// Whether the period includes this minute of the day.
    pub(crate) fn contains(self, minute: u32) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

fn minutes(text: &str) -> Option<u32> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let number = |digits: &str| match digits.len() {
        2 if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse::<u32>().ok(),
        _ => None,
    };
    let minute = number(minutes).filter(|minute| *minute < 60)?;
    Some(number(hours)? * 60 + minute).filter(|minutes| *minutes <= 24 * 60)
}

impl OffloadOptions {
    pub(crate) fn read(section: &mut Section<'_>) -> Result<Option<Self>, ConfigError> {
        let Some(offload) = section.subsection(OFFLOAD, Self::read_options)?.flatten() else {
            return Ok(None);
        };
        if offload.after_days.is_none() && offload.keep_free == 0 && offload.max_file_system == 0 {
            let problem =
                "must set AfterDays, KeepFreeMB or MaxFileSystemMB; otherwise no study is ever moved";
            return Err(section.error(OFFLOAD, problem));
        }
        Ok(Some(offload))
    }

    /// Returns `None` if the section is empty.
    fn read_options(section: &mut Section<'_>) -> Result<Option<Self>, ConfigError> {
        const MEGABYTE: u64 = 1024 * 1024;
        const MAX_MEGABYTES: u64 = 1 << 40;
        if section.is_empty() {
            return Ok(None);
        }
        let days = section.number("AfterDays", 0, 0..=36_500)?;
        let keep_free = section.number("KeepFreeMB", 0, 0..=MAX_MEGABYTES)? * MEGABYTE;
        let max_file_system = section.number("MaxFileSystemMB", 0, 0..=MAX_MEGABYTES)? * MEGABYTE;
        let schedule = match section.non_empty("Schedule")? {
            None => None,
            Some(text) => Some(Schedule::parse(&text).ok_or_else(|| {
                section.error("Schedule", format!("must be a period such as \"02:00-06:00\", got {text:?}"))
            })?),
        };
        let bring_back = section.flag("BringBack", false)?;
        let after_days = (days > 0).then_some(days);
        Ok(Some(Self { after_days, keep_free, max_file_system, schedule, bring_back }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_may_extend_past_midnight() {
        let night = Schedule::parse("22:30-06:00").unwrap();
        for (minute, expected) in
            [(22 * 60 + 29, false), (22 * 60 + 30, true), (0, true), (359, true), (360, false)]
        {
            assert_eq!(night.contains(minute), expected, "{minute}");
        }
        let morning = Schedule::parse("02:00 - 06:00").unwrap();
        for (minute, expected) in [(119, false), (120, true), (359, true), (360, false), (1400, false)] {
            assert_eq!(morning.contains(minute), expected, "{minute}");
        }
        assert!(Schedule::parse("00:00-24:00").unwrap().contains(1439));
    }

    #[test]
    fn malformed_schedule_is_refused() {
        for text in [
            "",
            "2-6",
            "02:00",
            "02:00-02:00",
            "25:00-02:00",
            "02:60-03:00",
            "2:00-6:00",
            "aa:00-06:00",
            "24:01-06:00",
        ] {
            assert_eq!(Schedule::parse(text), None, "{text}");
        }
    }
}
