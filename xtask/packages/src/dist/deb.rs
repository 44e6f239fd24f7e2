//! Debian packages.

use anyhow::{Context, Result};
use real_orthanc::workspace::Plugin;

use super::archive::tar_gz;
use super::contents::{self, Entry};
use super::platform::Platform;

/// Where Debian's Orthanc looks for plugins.
pub(crate) const PLUGINS: &str = "usr/share/orthanc/plugins";
/// Where it looks for its configuration; it reads every file that ends in `.json`.
pub(crate) const CONFIGURATION: &str = "etc/orthanc";

/// As Debian's own plugins: Orthanc is started anew once all packages are in place.
const TRIGGERS: &str = "activate-await orthanc-restart-trigger\n";

/// A package that puts a plugin's library into Orthanc's folder.
pub(crate) fn build(
    plugin: Plugin,
    platform: Platform,
    version: &str,
    library: &[u8],
    seconds: u64,
) -> Result<Vec<u8>> {
    let files = files(plugin, platform, library)?;
    let control = control(plugin, platform, version, &files)?;
    let mut package = ar::Builder::new(Vec::new());
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", tar_gz(&control, seconds, true)?),
        ("data.tar.gz", tar_gz(&files, seconds, true)?),
    ];
    for (name, bytes) in members {
        let mut header = ar::Header::new(name.into(), bytes.len() as u64);
        header.set_mode(0o100_644);
        header.set_mtime(seconds);
        package.append(&header, bytes.as_slice()).context("putting the package together")?;
    }
    package.into_inner().context("putting the package together")
}

/// What is installed, sorted by path.
fn files(plugin: Plugin, platform: Platform, library: &[u8]) -> Result<Vec<Entry>> {
    let documentation = format!("usr/share/doc/{}", plugin.distribution());
    let sample = contents::names(plugin)?.sample;
    let mut files = vec![
        Entry::new(format!("{PLUGINS}/{}", platform.library(plugin)), library),
        Entry::new(format!("{CONFIGURATION}/{sample}"), contents::sample(plugin, platform)?),
        Entry::new(format!("{documentation}/copyright"), COPYRIGHT),
        Entry::new(format!("{documentation}/changelog.md"), contents::read("CHANGELOG.md")?),
    ];
    for path in contents::DOCUMENTATION {
        let name = path.rsplit('/').next().unwrap_or(path);
        files.push(Entry::new(format!("{documentation}/{name}"), contents::read(path)?));
    }
    files.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(files)
}

/// What dpkg reads.
fn control(plugin: Plugin, platform: Platform, version: &str, files: &[Entry]) -> Result<Vec<Entry>> {
    let names = contents::names(plugin)?;
    let architecture = platform.debian_architecture().context("a Debian package for another system")?;
    let size = files.iter().map(|file| file.bytes.len().div_ceil(1024)).sum::<usize>();
    let control = format!(
        "Package: {package}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {MAINTAINER}\n\
         Installed-Size: {size}\nDepends: orthanc, libc6 (>= 2.17)\nSection: science\nPriority: optional\n\
         Description: Orthanc plugin that stores DICOM files in {cloud}\n \
         The storage area of Orthanc, a DICOM server, in a bucket instead of on a disk.\n \
         It takes the place of the C++ plugin of the Orthanc project: same library name,\n \
         configuration, object names and encrypted format.\n .\n \
         After the installation, write the section {section} in\n \
         /{CONFIGURATION}/{sample}, and restart Orthanc.\n",
        package = plugin.distribution(),
        cloud = names.cloud,
        sample = names.sample,
        section = names.section,
    );
    let script = |name: &str, text: &str| Entry { mode: 0o755, ..Entry::new(name, text.as_bytes()) };
    Ok(vec![
        Entry::new("conffiles", format!("/{CONFIGURATION}/{}\n", names.sample)),
        Entry::new("control", control),
        script("postinst", &POSTINST.replace("@SAMPLE@", &format!("/{CONFIGURATION}/{}", names.sample))),
        Entry::new("triggers", TRIGGERS),
    ])
}

const MAINTAINER: &str = "The authors of these plugins <noreply@localhost>";

const COPYRIGHT: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: the authors of these plugins
License: GPL-3.0-or-later
 On Debian systems, the full text of the GNU General Public License version 3
 is in /usr/share/common-licenses/GPL-3.
 .
 The library has parts under other licences, which the software bill of
 materials lists that is published beside this package.
";

/// The file will hold keys: only root and Orthanc may read it. An administrator's own choice stays.
const POSTINST: &str = r#"#!/bin/sh
set -e
if [ "$1" = configure ] && [ -z "$2" ] && [ -f @SAMPLE@ ]; then
    if getent group orthanc > /dev/null; then
        chown root:orthanc @SAMPLE@
        chmod 640 @SAMPLE@
    fi
fi
"#;
