//! Warns of attachments that have been pending for too long.

use std::time::Duration;

/// Ages of the oldest pending attachment at which a warning is logged. After the last, once a day.
const STEPS: [Duration; 2] = [Duration::from_secs(5 * 60), Duration::from_secs(60 * 60)];
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The warnings that have been given.
#[derive(Debug, Default)]
pub(crate) struct AgeWarnings {
    given: u64,
}

/// What to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AgeMessage {
    Nothing,
    Warning,
    /// After a warning: nothing is too old any more.
    Over,
}

impl AgeWarnings {
    /// What to log about the oldest attachment; `None` if there is none.
    pub(crate) fn next(&mut self, age: Option<Duration>) -> AgeMessage {
        let due = age.map_or(0, steps);
        match due.cmp(&self.given) {
            std::cmp::Ordering::Greater => {
                self.given = due;
                AgeMessage::Warning
            }
            std::cmp::Ordering::Less if due == 0 => {
                self.given = 0;
                AgeMessage::Over
            }
            // A younger attachment is the oldest now.
            _ => {
                self.given = due;
                AgeMessage::Nothing
            }
        }
    }
}

/// Number of warnings for an attachment of this age.
fn steps(age: Duration) -> u64 {
    let steps = STEPS.iter().filter(|step| age >= **step).count() as u64;
    steps + age.as_secs() / DAY.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_become_rare() {
        let mut warnings = AgeWarnings::default();
        let mut given = Vec::new();
        for minute in 0..3 * 24 * 60 {
            if warnings.next(Some(Duration::from_secs(minute * 60))) == AgeMessage::Warning {
                given.push(minute);
            }
        }
        assert_eq!(given, [5, 60, 24 * 60, 2 * 24 * 60]);
        assert_eq!(warnings.next(Some(STEPS[0])), AgeMessage::Nothing);
        assert_eq!(warnings.next(Some(STEPS[1])), AgeMessage::Warning);
        assert_eq!(warnings.next(None), AgeMessage::Over);
        assert_eq!(warnings.next(None), AgeMessage::Nothing);
    }
}
