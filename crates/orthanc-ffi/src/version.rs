//! Versions of Orthanc.

use std::fmt;

/// The version of an Orthanc server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrthancVersion {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
    /// Revision.
    pub revision: u32,
}

impl OrthancVersion {
    /// The oldest supported version, the first with range reads.
    pub const OLDEST: Self = Self::new(1, 9, 0);
    /// A development version of Orthanc, newer than any release.
    pub const MAINLINE: Self = Self::new(u32::MAX, u32::MAX, u32::MAX);
    /// The first version with metrics that are integers.
    pub(crate) const WITH_INTEGER_METRICS: Self = Self::new(1, 12, 1);
    /// The first version whose log shows the names of threads.
    pub(crate) const WITH_THREAD_NAMES: Self = Self::new(1, 12, 2);
    /// The first version with a log service that takes the plugin's name.
    pub(crate) const WITH_LOG_MESSAGE: Self = Self::new(1, 12, 4);

    /// The first version that must be told of the end of a thread with a name.
    pub(crate) const WITH_ENDS_OF_THREADS: Self = Self::new(1, 13, 0);

    /// Creates a version from its three numbers.
    pub const fn new(major: u32, minor: u32, revision: u32) -> Self {
        Self { major, minor, revision }
    }

    /// Parses `mainline` or `major.minor.revision`, ignoring any suffix such as `-rc2`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "mainline" {
            return Some(Self::MAINLINE);
        }
        let mut parts = text.splitn(3, '.');
        let major = parts.next()?;
        let minor = parts.next()?;
        let revision = parts.next()?;
        let digits = revision.find(|c: char| !c.is_ascii_digit()).unwrap_or(revision.len());
        Some(Self::new(major.parse().ok()?, minor.parse().ok()?, revision[..digits].parse().ok()?))
    }
}

impl fmt::Display for OrthancVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::MAINLINE {
            return f.write_str("mainline");
        }
        write!(f, "{}.{}.{}", self.major, self.minor, self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_parsed_and_compared() {
        assert_eq!(OrthancVersion::parse("1.10.1"), Some(OrthancVersion::new(1, 10, 1)));
        assert_eq!(OrthancVersion::parse("1.12.4-rc2"), Some(OrthancVersion::new(1, 12, 4)));
        assert_eq!(OrthancVersion::parse("mainline"), Some(OrthancVersion::MAINLINE));
        for bad in ["", "1", "1.10", "1.x.1", "1.10.", "1.10.a", "99999999999.0.0"] {
            assert_eq!(OrthancVersion::parse(bad), None, "{bad}");
        }
        assert!(OrthancVersion::new(1, 8, 9) < OrthancVersion::OLDEST);
        assert!(OrthancVersion::new(1, 10, 0) > OrthancVersion::OLDEST);
        assert!(OrthancVersion::MAINLINE > OrthancVersion::new(1, 99, 99));
    }
}
