//! The changelog in Debian's format.

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use super::debian::MAINTAINER;
use crate::system::{VERSION, output};

/// Lines are at most this long.
const WIDTH: usize = 80;

/// Converts `CHANGELOG.md` for a package. What is not released yet has the version of this workspace, and its date is
/// `SOURCE_DATE_EPOCH`.
pub(crate) fn for_debian(package: &str, markdown: &str, shell: &Shell) -> Result<String> {
    let mut changelog = String::new();
    for section in markdown.split("\n## [").skip(1) {
        let (heading, body) = section.split_once('\n').context("a section has only a heading")?;
        let (name, day) = heading.split_once(']').context("a heading must be [VERSION] - DATE")?;
        let entries = entries(body);
        // Before the first change of the next version.
        if entries.is_empty() {
            continue;
        }
        let (version, time) = match day.trim_start_matches([' ', '-']) {
            "" => (VERSION, format!("@{}", shell.var("SOURCE_DATE_EPOCH")?)),
            day => (name, format!("{day} UTC")),
        };
        let date = output(cmd!(shell, "date --utc --rfc-email --date={time}"))?;
        if !changelog.is_empty() {
            changelog.push('\n');
        }
        let signature = format!(" -- {MAINTAINER}  {}", date.trim());
        changelog += &format!("{package} ({version}) unstable; urgency=medium\n\n{entries}\n{signature}\n");
    }
    ensure!(
        changelog.starts_with(&format!("{package} ({VERSION})")),
        "the changelog lacks version {VERSION}"
    );
    Ok(changelog)
}

/// Returns the items of a section with what they do: `Added: …`.
fn entries(body: &str) -> String {
    let mut kind = "";
    let mut entries = String::new();
    for line in body.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            kind = heading;
        } else if let Some(text) = line.strip_prefix("- ") {
            entries += &wrapped("  * ", &format!("{kind}: {text}"));
        } else if let Some(text) = line.trim().strip_prefix("- ") {
            entries += &wrapped("    - ", text);
        }
    }
    entries
}

/// Breaks a text into lines, the first of which begins with `start`, and the others with as many blanks.
fn wrapped(start: &str, text: &str) -> String {
    let mut lines = String::new();
    let mut line = start.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines += line.trim_end();
            lines.push('\n');
            line = " ".repeat(start.len());
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    lines + line.trim_end() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell() -> Shell {
        let shell = crate::system::shell().unwrap();
        shell.set_var("SOURCE_DATE_EPOCH", "0");
        shell
    }

    #[test]
    fn sections_become_versions() {
        let long = "word ".repeat(30);
        let markdown = format!(
            "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- One\n\n### Fixed\n\n- {long}\n\n\
             ## [2.0.0] - 2026-01-02\n\n### Added\n\n- Zero\n"
        );
        let changelog = for_debian("orthanc-test", &markdown, &shell()).unwrap();
        let expected =
            format!("orthanc-test ({VERSION}) unstable; urgency=medium\n\n  * Added: One\n  * Fixed: word");
        assert!(changelog.starts_with(&expected), "{changelog}");
        assert!(
            changelog.contains(&format!("\n\n -- {MAINTAINER}  Thu, 01 Jan 1970 00:00:00 +0000\n")),
            "{changelog}"
        );
        assert!(changelog.contains("\northanc-test (2.0.0) unstable;"), "{changelog}");
        assert!(changelog.ends_with("  Fri, 02 Jan 2026 00:00:00 +0000\n"), "{changelog}");
        let mut text = changelog.lines().filter(|line| !line.starts_with(" -- "));
        assert!(text.all(|line| line.len() <= WIDTH), "{changelog}");
    }

    #[test]
    fn changelog_without_this_version_is_refused() {
        let markdown = "\n## [Unreleased]\n\n## [2.0.0] - 2026-01-02\n\n### Added\n\n- Zero\n";
        for_debian("orthanc-test", markdown, &shell()).unwrap_err();
    }
}
