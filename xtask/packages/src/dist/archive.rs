//! Archives whose bytes depend on their contents alone: sorted entries, one owner, one time.

use std::io::{Cursor, Write};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use zip::write::SimpleFileOptions;

use super::contents::Entry;

/// A `.tar.gz` of the entries, in their order, with `seconds` since 1970 as the time of each. Folders are entries of
/// their own only with `folders`: dpkg wants them.
pub(crate) fn tar_gz(entries: &[Entry], seconds: u64, folders: bool) -> Result<Vec<u8>> {
    // No name and no time in the header, which the library leaves out by default.
    let compressed = GzBuilder::new().write(Vec::new(), Compression::best());
    let mut archive = tar::Builder::new(compressed);
    let mut made = Vec::new();
    for entry in entries {
        if folders {
            for folder in folders_of(&entry.path) {
                if !made.contains(&folder) {
                    let mut header = header(seconds, 0o755, 0);
                    header.set_entry_type(tar::EntryType::Directory);
                    archive.append_data(&mut header, &folder, std::io::empty())?;
                    made.push(folder);
                }
            }
        }
        let mut header = header(seconds, entry.mode, entry.bytes.len() as u64);
        archive
            .append_data(&mut header, &entry.path, entry.bytes.as_slice())
            .with_context(|| format!("adding {} to an archive", entry.path))?;
    }
    Ok(archive.into_inner()?.finish()?)
}

fn header(seconds: u64, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_mtime(seconds);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    // Both fit into their fields.
    let _ = header.set_username("root");
    let _ = header.set_groupname("root");
    header
}

/// All folders above `usr/share/x`, the outermost first: `usr/`, `usr/share/`.
fn folders_of(path: &str) -> Vec<String> {
    path.match_indices('/').map(|(index, _)| path[..=index].to_owned()).collect()
}

/// A `.zip` of the entries, for Windows. Its times have no zone and begin in 1980: that is what all entries have.
pub(crate) fn zip(entries: &[Entry]) -> Result<Vec<u8>> {
    let options = SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .compression_level(Some(9))
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o644);
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for entry in entries {
        archive.start_file(&entry.path, options)?;
        archive.write_all(&entry.bytes)?;
    }
    Ok(archive.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn entries() -> Vec<Entry> {
        vec![Entry::new("etc/a", "one"), Entry::new("usr/share/b", vec![7; 100_000])]
    }

    #[test]
    fn an_archive_comes_back_with_one_owner_and_one_time() {
        let bytes = tar_gz(&entries(), 1_700_000_000, true).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let mut paths = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 1_700_000_000);
            assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (0, 0));
            paths.push(String::from_utf8(entry.path_bytes().into_owned()).unwrap());
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if paths.last().unwrap().ends_with('b') {
                assert_eq!(content, vec![7; 100_000]);
            }
        }
        assert_eq!(paths, ["etc/", "etc/a", "usr/", "usr/share/", "usr/share/b"]);
    }

    #[test]
    fn the_header_of_gzip_has_no_name_and_no_time() {
        let bytes = tar_gz(&entries(), 1_700_000_000, false).unwrap();
        assert_eq!(bytes[3..8], [0; 5]);
    }

    #[test]
    fn a_zip_is_the_same_twice_and_can_be_read() {
        let bytes = zip(&entries()).unwrap();
        assert_eq!(bytes, zip(&entries()).unwrap());
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
        let mut content = String::new();
        archive.by_name("etc/a").unwrap().read_to_string(&mut content).unwrap();
        assert_eq!(content, "one");
    }
}
