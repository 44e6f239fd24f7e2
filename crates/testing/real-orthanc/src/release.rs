//! The Orthanc that this process starts: the installed one, or that of another Debian release.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use orthanc_roots::Release;

static RELEASE: OnceLock<Release> = OnceLock::new();

/// The environment variable with another program than the installed Orthanc.
const PROGRAM_VARIABLE: &str = "ORTHANC_PROGRAM";

/// The folder of Debian's plugins below the root.
const PLUGINS: &str = "usr/share/orthanc/plugins";

/// Makes this process use the Orthanc of a Debian release from now on. A later call has no effect.
pub fn use_release(release: Release) {
    RELEASE.get_or_init(|| release);
}

/// A plugin in the packages of the same Debian release as Orthanc, such as `libHousekeeper.so`. If `ORTHANC_PROGRAM` is
/// in the root of a release, it is that release.
pub fn plugin_of_debian(file: &str) -> PathBuf {
    plugins_of_debian().join(file)
}

/// The folder with the plugins of that release.
pub(crate) fn plugins_of_debian() -> PathBuf {
    root().join(PLUGINS)
}

/// The configuration files of that release, by name and text, sorted.
///
/// # Errors
/// If a file cannot be read. Debian 12 lets only Orthanc read its file of users, which is then the empty one that
/// the package has.
pub fn configuration_of_debian() -> io::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join("etc/orthanc"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Packages of ours may be installed.
        if !name.ends_with(".json") || name.ends_with("-storage.json") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => Ok(r#"{ "RegisteredUsers" : { } }"#.to_owned()),
            _ => Err(error),
        })?;
        files.push((name, text));
    }
    files.sort();
    Ok(files)
}

fn root() -> PathBuf {
    let of_release = RELEASE.get().map(|release| release.root());
    let of_program = || root_of(Path::new(&env::var_os(PROGRAM_VARIABLE)?));
    of_release.or_else(of_program).unwrap_or_else(|| PathBuf::from("/"))
}

/// The root that a program is in, if that is the root of a release.
fn root_of(program: &Path) -> Option<PathBuf> {
    let root = program.parent()?;
    root.join(PLUGINS).is_dir().then(|| root.to_owned())
}

/// Orthanc's program. The installed one is `ORTHANC_PROGRAM` if set, else from the search path, else Debian's, whose
/// folder is on the search path of root only.
pub(crate) fn program() -> io::Result<PathBuf> {
    if let Some(release) = RELEASE.get() {
        let program = release.program();
        return if program.is_file() { Ok(program) } else { Err(missing(&program)) };
    }
    if let Some(program) = env::var_os(PROGRAM_VARIABLE) {
        return Ok(program.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join("Orthanc")).find(|file| file.is_file());
    Ok(found.unwrap_or_else(|| PathBuf::from("/usr/sbin/Orthanc")))
}

fn missing(program: &Path) -> io::Error {
    let message = format!("there is no {}: run `cargo xtask install`", program.display());
    io::Error::new(io::ErrorKind::NotFound, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_in_a_root_is_recognised_by_the_plugins() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("Orthanc");
        assert_eq!(root_of(&program), None);
        fs::create_dir_all(root.path().join(PLUGINS)).unwrap();
        assert_eq!(root_of(&program).as_deref(), Some(root.path()));
        assert_eq!(root_of(Path::new("Orthanc")), None);
    }
}
