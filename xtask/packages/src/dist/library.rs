//! What a built library asks of the system that loads it, read from the file itself.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::NameOrOrdinal;
use object::read::elf::{FileHeader, SectionHeader};
use object::read::pe::PeFile64;
use object::{Endianness, Object};

use super::platform::Platform;

/// The functions that Orthanc looks for. Nothing else is to be seen from outside on Linux: two plugins in one process
/// must not find each other's functions.
const ENTRY_POINTS: [&str; 4] =
    ["OrthancPluginFinalize", "OrthancPluginGetName", "OrthancPluginGetVersion", "OrthancPluginInitialize"];

/// The newest glibc that may be asked for: that of CentOS 7 (2012).
pub(crate) const GLIBC: (u32, u32) = (2, 17);

/// Libraries that every glibc system has.
const LINUX_LIBRARIES: [&str; 6] =
    ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1"];

/// Libraries of the dynamic linker's own names, which differ between processors.
const LINUX_LOADERS: [&str; 2] = ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"];

/// Libraries that every Windows since 8.1 has. None of a compiler's: a DLL has to work alone.
const WINDOWS_LIBRARIES: [&str; 10] = [
    "advapi32.dll",
    "api-ms-win-core-synch-l1-2-0.dll",
    "bcrypt.dll",
    "bcryptprimitives.dll",
    "crypt32.dll",
    "kernel32.dll",
    "msvcrt.dll",
    "ntdll.dll",
    "userenv.dll",
    "ws2_32.dll",
];

/// Facts of a library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The libraries that it loads.
    pub(crate) needs: BTreeSet<String>,
    /// The functions that it shows.
    pub(crate) exports: BTreeSet<String>,
    /// The newest version of glibc that it asks for.
    pub(crate) glibc: Option<(u32, u32)>,
    /// Whether it still has the names of its inner functions.
    pub(crate) has_symbols: bool,
}

impl Facts {
    /// Reads them from the bytes of a library.
    pub(crate) fn read(bytes: &[u8], platform: Platform) -> Result<Self> {
        match platform {
            Platform::LinuxX86 | Platform::LinuxArm => elf(bytes),
            Platform::Windows => pe(bytes),
        }
        .with_context(|| format!("reading a library for {}", platform.name()))
    }

    /// An error with what keeps the library from being shipped.
    pub(crate) fn check(&self, platform: Platform) -> Result<()> {
        for name in ENTRY_POINTS {
            ensure!(self.exports.contains(name), "it does not have the function {name}");
        }
        ensure!(!self.has_symbols, "it is not stripped");
        let windows = platform == Platform::Windows;
        let known = |name: &String| {
            let name = name.as_str();
            let linux = LINUX_LIBRARIES.contains(&name) || LINUX_LOADERS.contains(&name);
            if windows { WINDOWS_LIBRARIES.contains(&name.to_ascii_lowercase().as_str()) } else { linux }
        };
        let strange: Vec<_> = self.needs.iter().filter(|name| !known(name)).collect();
        ensure!(strange.is_empty(), "it needs libraries that not every system has: {strange:?}");
        if windows {
            return Ok(());
        }
        let visible: Vec<_> =
            self.exports.iter().filter(|name| !ENTRY_POINTS.contains(&name.as_str())).collect();
        ensure!(visible.is_empty(), "it shows functions beside the four: {visible:?}");
        let glibc = self.glibc.context("it names no version of glibc")?;
        ensure!(glibc <= GLIBC, "it needs glibc {}.{}, beyond {}.{}", glibc.0, glibc.1, GLIBC.0, GLIBC.1);
        Ok(())
    }
}

fn elf(bytes: &[u8]) -> Result<Facts> {
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes)?;
    let mut facts = Facts {
        has_symbols: sections.iter().any(|section| section.sh_type(endian) == object::elf::SHT_SYMTAB),
        ..Facts::default()
    };
    let (entries, link) = sections.dynamic(endian, bytes)?.context("there is no dynamic section")?;
    let strings = sections.strings(endian, bytes, link)?;
    for entry in entries.iter().filter(|entry| entry.d_tag.get(endian) == DT_NEEDED) {
        let offset = u32::try_from(entry.d_val.get(endian)).context("a name's place")?;
        let name = strings.get(offset).ok().context("a name that is not there")?;
        facts.needs.insert(text(name));
    }
    if let Some((mut needs, link)) = sections.gnu_verneed(endian, bytes)? {
        let strings = sections.strings(endian, bytes, link)?;
        while let Some((_, mut versions)) = needs.next()? {
            while let Some(version) = versions.next()? {
                facts.glibc = facts.glibc.max(glibc_version(&text(version.name(endian, strings)?)));
            }
        }
    }
    facts.exports = exports(&object::File::parse(bytes)?)?;
    Ok(facts)
}

/// `GLIBC_2.17` and `GLIBC_2.2.5` as numbers; none for other names.
fn glibc_version(name: &str) -> Option<(u32, u32)> {
    let mut numbers = name.strip_prefix("GLIBC_")?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn pe(bytes: &[u8]) -> Result<Facts> {
    let file = PeFile64::parse(bytes)?;
    let mut facts = Facts { has_symbols: file.has_debug_symbols(), ..Facts::default() };
    for import in file.imports()? {
        facts.needs.insert(text(import?.library()));
    }
    facts.exports = exports(&file)?;
    Ok(facts)
}

/// Names of what a library shows.
fn exports<'data>(file: &impl Object<'data>) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for export in file.exports()? {
        if let NameOrOrdinal::Name(name) = export?.name() {
            names.insert(text(name));
        }
    }
    Ok(names)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            needs: ["libc.so.6".to_owned()].into(),
            exports: ENTRY_POINTS.map(str::to_owned).into(),
            glibc: Some((2, 17)),
            has_symbols: false,
        }
    }

    #[track_caller]
    fn refused(facts: &Facts, with: &str) {
        let error = facts.check(Platform::LinuxX86).unwrap_err().to_string();
        assert!(error.contains(with), "{error}");
    }

    #[test]
    fn a_library_that_runs_everywhere_passes() {
        good().check(Platform::LinuxX86).unwrap();
    }

    #[test]
    fn a_library_that_would_not_load_on_an_old_system_is_refused() {
        refused(&Facts { glibc: Some((2, 18)), ..good() }, "glibc 2.18");
        refused(&Facts { needs: ["libgcc_s.so.1".to_owned()].into(), ..good() }, "libgcc_s");
    }

    #[test]
    fn a_library_that_shows_too_much_or_too_little_is_refused() {
        let mut more = good();
        more.exports.insert("crc_fast_checksum".to_owned());
        refused(&more, "crc_fast_checksum");
        let mut less = good();
        less.exports.remove("OrthancPluginFinalize");
        refused(&less, "OrthancPluginFinalize");
        refused(&Facts { has_symbols: true, ..good() }, "stripped");
    }

    #[test]
    fn versions_of_glibc_are_compared_as_numbers() {
        assert_eq!(glibc_version("GLIBC_2.2.5"), Some((2, 2)));
        assert!(glibc_version("GLIBC_2.4") < glibc_version("GLIBC_2.17"));
        assert_eq!(glibc_version("GCC_3.0"), None);
    }
}
