//! `cargo xtask dist --check`: a set that is there already, read back from its own files.

use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;

use super::library::Facts;
use super::platform::Platform;
use super::sums;

/// One file of the set, for the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) file: String,
    pub(crate) bytes: u64,
    /// Size of the library in it, and what that asks of the system.
    pub(crate) library: String,
}

/// Checks the sums, and every library inside of every archive.
pub(crate) fn run(folder: &Path) -> Result<Vec<Row>> {
    sums::check(folder)?;
    let names = sums::files(folder)?;
    ensure!(!names.is_empty(), "there is nothing in {}", folder.display());
    names.into_iter().map(|file| row(folder, file)).collect()
}

fn row(folder: &Path, file: String) -> Result<Row> {
    let bytes = fs::read(folder.join(&file)).with_context(|| format!("reading {file}"))?;
    let library = match library(&file, &bytes).with_context(|| format!("reading {file}"))? {
        None => String::new(),
        Some((platform, library)) => {
            let facts = Facts::read(&library, platform)?;
            facts.check(platform).with_context(|| format!("the library in {file}"))?;
            let size = format!("{:.1} MB", megabytes(library.len()));
            match facts.glibc {
                Some((major, minor)) => format!("{size}, glibc {major}.{minor}"),
                None => size,
            }
        }
    };
    Ok(Row { file, bytes: bytes.len() as u64, library })
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

/// The library in an archive, and the platform that it is for; none where a file is no archive of a plugin.
pub(crate) fn library(file: &str, bytes: &[u8]) -> Result<Option<(Platform, Vec<u8>)>> {
    let ends_with = |end: &str| file.ends_with(end);
    let found = if ends_with(".zip") {
        Some((Platform::Windows, from_zip(bytes)?))
    } else if ends_with("_amd64.deb") {
        Some((Platform::LinuxX86, from_tar(&data_of_package(bytes)?)?))
    } else if ends_with("_arm64.deb") {
        Some((Platform::LinuxArm, from_tar(&data_of_package(bytes)?)?))
    } else if ends_with("-linux-x86_64.tar.gz") {
        Some((Platform::LinuxX86, from_tar(bytes)?))
    } else if ends_with("-linux-aarch64.tar.gz") {
        Some((Platform::LinuxArm, from_tar(bytes)?))
    } else {
        None
    };
    Ok(found)
}

fn from_tar(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut archive = tar::Archive::new(GzDecoder::new(bytes));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.extension().is_some_and(|end| end == "so") {
            let mut library = Vec::new();
            entry.read_to_end(&mut library)?;
            return Ok(library);
        }
    }
    anyhow::bail!("there is no library in it")
}

fn data_of_package(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut package = ar::Archive::new(bytes);
    while let Some(entry) = package.next_entry() {
        let mut entry = entry?;
        if entry.header().identifier() == b"data.tar.gz" {
            let mut data = Vec::new();
            entry.read_to_end(&mut data)?;
            return Ok(data);
        }
    }
    anyhow::bail!("it is no Debian package")
}

fn from_zip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes))?;
    for index in 0..archive.len() {
        let mut file = archive.by_index(index)?;
        if file.name()?.ends_with(".dll") {
            let mut library = Vec::new();
            file.read_to_end(&mut library)?;
            return Ok(library);
        }
    }
    anyhow::bail!("there is no library in it")
}
