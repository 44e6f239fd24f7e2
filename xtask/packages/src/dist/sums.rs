//! `SHA256SUMS`, as `sha256sum --check` reads it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

pub(crate) const FILE: &str = "SHA256SUMS";

/// The SHA-256 of some bytes, in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Names of all files in a folder but the sums themselves, sorted.
pub(crate) fn files(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_file() && name != FILE {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Writes the sums of all files in a folder.
pub(crate) fn write(folder: &Path) -> Result<()> {
    let mut lines = String::new();
    for name in files(folder)? {
        lines.push_str(&format!("{}  {name}\n", sha256(&fs::read(folder.join(&name))?)));
    }
    fs::write(folder.join(FILE), lines).context("writing the sums")
}

/// An error unless every file is listed and as it was.
pub(crate) fn check(folder: &Path) -> Result<()> {
    let path = folder.join(FILE);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("reading {}; cargo xtask dist makes it", path.display()))?;
    let mut listed = Vec::new();
    for line in text.lines() {
        let (sum, name) = line.split_once("  ").with_context(|| format!("{FILE} has the line {line}"))?;
        let bytes = fs::read(folder.join(name)).with_context(|| format!("reading {name}"))?;
        ensure!(sha256(&bytes) == sum, "{name} is not what {FILE} says: it was changed or made partly");
        listed.push(name.to_owned());
    }
    let there = files(folder)?;
    ensure!(listed == there, "{FILE} lists {listed:?}, but there are {there:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_changed_does_not_pass() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        fs::write(file("a"), "abc").unwrap();
        fs::write(file("b"), "").unwrap();
        write(folder.path()).unwrap();
        check(folder.path()).unwrap();
        let sums = fs::read_to_string(file(FILE)).unwrap();
        assert!(
            sums.starts_with("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a\n"),
            "{sums}"
        );
        fs::write(file("c"), "").unwrap();
        assert!(check(folder.path()).is_err(), "a file more");
        fs::remove_file(file("c")).unwrap();
        fs::write(file("a"), "abd").unwrap();
        assert!(check(folder.path()).is_err(), "a byte changed");
        fs::remove_file(file("a")).unwrap();
        assert!(check(folder.path()).is_err(), "a file less");
    }
}
