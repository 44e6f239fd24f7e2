//! What the audit measures on this machine.

use std::fs;
use std::path::{Path, PathBuf};

use security_audit::{Access, FileFact, LuaScript, defines_filter};
use serde_json::{Map, Value};

/// Maximum number of files to look at in a folder, or in a list of the configuration.
const MOST_FILES: usize = 1000;
/// Largest Lua script to read, in bytes.
const LARGEST_SCRIPT: u64 = 1 << 20;

/// Whether this process runs as root; `None` where that cannot be determined.
pub(super) fn is_root() -> Option<bool> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    // "Uid:", then the real and the effective id.
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    Some(ids.split_whitespace().nth(1)? == "0")
}

/// The path of the configuration on Orthanc's command line: the last argument that is not an option. Orthanc's own answer
/// to plugins names another folder in some versions.
pub(super) fn configuration_path() -> Option<PathBuf> {
    let line = fs::read("/proc/self/cmdline").ok()?;
    let arguments = line.split(|byte| *byte == 0).skip(1).map(String::from_utf8_lossy);
    let last = arguments.filter(|argument| !argument.is_empty() && !argument.starts_with('-')).last()?;
    Some(PathBuf::from(last.into_owned())).filter(|path| path.exists())
}

/// The configuration files that Orthanc reads: one file, or all JSON files in a folder, and the folder if others can add a
/// file; `None` if there are none.
pub(super) fn configuration_files(path: &Path) -> Option<Vec<FileFact>> {
    if !path.is_dir() {
        return path.exists().then(|| vec![fact(path)]);
    }
    let is_read = |path: &PathBuf| path.extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
    let entries = fs::read_dir(path).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<_> = entries.filter(is_read).take(MOST_FILES).collect();
    files.sort();
    // Without a file, this is not the configuration.
    if files.is_empty() {
        return None;
    }
    let folder = Some(fact(path)).filter(|folder| folder.access.is_some_and(|access| access.others_write));
    Some(files.iter().map(|file| fact(file)).chain(folder).collect())
}

/// The files with keys and credentials that options of Orthanc and of the plugin's section name, besides master keys.
pub(super) fn secret_files(
    configuration: &Map<String, Value>,
    section: &str,
    absolute: impl Fn(&Path) -> PathBuf,
) -> Vec<FileFact> {
    let orthanc = ["SslCertificate", "DicomTlsPrivateKey"].map(|option| configuration.get(option));
    let own = configuration.get(section).and_then(|section| section.get("ServiceAccountFile"));
    let paths = orthanc.into_iter().chain([own]).filter_map(|path| path?.as_str());
    // Files of features that are off may be missing.
    let files = paths.map(|path| absolute(Path::new(path))).filter(|path| path.is_file());
    files.map(|path| fact(&path)).collect()
}

/// The scripts in `LuaScripts`. `absolute` resolves their paths as Orthanc does.
pub(super) fn lua_scripts(
    configuration: &Map<String, Value>,
    absolute: impl Fn(&Path) -> PathBuf,
) -> Vec<LuaScript> {
    let paths = configuration.get("LuaScripts").and_then(Value::as_array).into_iter().flatten();
    let script = |path: &str| {
        let file = absolute(Path::new(path));
        let is_small = fs::metadata(&file).is_ok_and(|file| file.is_file() && file.len() <= LARGEST_SCRIPT);
        let text = is_small.then(|| fs::read(&file).ok()).flatten();
        let defines_filter = text.map(|text| defines_filter(&String::from_utf8_lossy(&text)));
        LuaScript { path: path.to_owned(), access: fact(&file).access, defines_filter }
    };
    paths.filter_map(Value::as_str).take(MOST_FILES).map(script).collect()
}

/// The files with master keys that the plugin's section, or the older one at the root, names.
pub(super) fn key_files(configuration: &Map<String, Value>, section: &str) -> Vec<FileFact> {
    const ENCRYPTION: &str = "StorageEncryption";
    let own = configuration.get(section).and_then(|section| section.get(ENCRYPTION));
    let Some(encryption) = own.or_else(|| configuration.get(ENCRYPTION)) else { return Vec::new() };
    let previous = encryption.get("PreviousMasterKeys").and_then(Value::as_array).into_iter().flatten();
    let entries = encryption.get("MasterKey").into_iter().chain(previous);
    // [id, path]; keys in a service are objects.
    let paths = entries.filter_map(|entry| entry.get(1)?.as_str());
    paths.take(MOST_FILES).map(|path| fact(Path::new(path))).collect()
}

/// The folder of the index, as Orthanc resolves it.
pub(super) fn index(configuration: &Map<String, Value>, absolute: impl Fn(&Path) -> PathBuf) -> FileFact {
    let option = |name: &str| configuration.get(name).and_then(Value::as_str);
    let path = option("IndexDirectory").or_else(|| option("StorageDirectory")).unwrap_or("OrthancStorage");
    fact(&absolute(Path::new(path)))
}

/// Looks at a file or folder.
pub(super) fn fact(path: &Path) -> FileFact {
    FileFact { path: path.display().to_string(), access: access(path) }
}

#[cfg(unix)]
fn access(path: &Path) -> Option<Access> {
    use std::os::unix::fs::MetadataExt as _;

    // The folders on the way to a link matter as much as those on the way to the file.
    let link = std::path::absolute(path).ok()?;
    let path = fs::canonicalize(path).ok()?;
    let metadata = fs::metadata(&path).ok()?;
    // Who may enter a folder can read its files if their permissions allow it.
    let read = if metadata.is_dir() { 0o005 } else { 0o004 };
    let can_reach = can_reach(&path);
    let others_write =
        (can_reach && metadata.mode() & 0o002 != 0) || can_replace(&path) || can_replace(&link);
    Some(Access {
        others_read: can_reach && metadata.mode() & read != 0,
        others_write,
        device: metadata.dev(),
    })
}

/// Whether all folders on the way are open to every user.
#[cfg(unix)]
fn can_reach(path: &Path) -> bool {
    path.ancestors().skip(1).all(|folder| mode(folder).is_some_and(|mode| mode & 0o001 != 0))
}

/// Whether every user can put something else in the place of a file, or of a folder on the way to it.
#[cfg(unix)]
fn can_replace(path: &Path) -> bool {
    // In a folder with the sticky bit, such as /tmp, only the owner of a file can replace it.
    let is_shared = |mode: u32| mode & 0o003 == 0o003 && mode & 0o1000 == 0;
    path.ancestors().skip(1).any(|folder| mode(folder).is_some_and(is_shared) && can_reach(folder))
}

#[cfg(unix)]
fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;

    fs::metadata(path).ok().map(|metadata| metadata.mode())
}

#[cfg(not(unix))]
fn access(_path: &Path) -> Option<Access> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;

    #[test]
    fn closed_folder_protects_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("orthanc.json");
        fs::write(&file, "{}").unwrap();
        fs::write(folder.path().join("notes.txt"), "").unwrap();
        let change = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let seen = || {
            let files = configuration_files(folder.path()).unwrap();
            assert_eq!(files.len(), 1);
            assert_eq!(configuration_files(&file).unwrap()[0].access, files[0].access);
            let Access { others_read, others_write, .. } = files[0].access.unwrap();
            (others_read, others_write)
        };
        change(&file, 0o646);
        change(folder.path(), 0o750);
        assert_eq!(seen(), (false, false));
        change(folder.path(), 0o755);
        assert_eq!(seen(), (true, true));
        change(&file, 0o640);
        assert_eq!(seen(), (false, false));
        assert_eq!(configuration_files(&folder.path().join("missing")), None);
        assert_eq!(fact(&folder.path().join("missing")).access, None);
    }

    #[test]
    fn open_folder_lets_others_replace_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        let file = inner.join("orthanc.json");
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "{}").unwrap();
        let link = folder.path().join("link.json");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let change = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let others_write = |path: &Path| fact(path).access.unwrap().others_write;
        let seen = |outer, mode| {
            change(folder.path(), outer);
            change(&inner, mode);
            let files = configuration_files(&inner).unwrap();
            let listed = files.iter().any(|file| file.access.unwrap().others_write);
            (others_write(&file), others_write(&link), listed)
        };
        change(&file, 0o640);
        assert_eq!(seen(0o755, 0o755), (false, false, false));
        assert_eq!(seen(0o755, 0o777), (true, true, true));
        // With the sticky bit, others can only add files.
        assert_eq!(seen(0o755, 0o1777), (false, false, true));
        assert_eq!(seen(0o777, 0o755), (true, true, true));
        assert_eq!(seen(0o777, 0o700), (true, true, true), "the whole folder can be replaced");
        assert_eq!(seen(0o750, 0o777), (false, false, false));
    }

    #[test]
    fn keys_and_scripts_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str, mode| {
            let path = folder.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        open("http.pem", 0o644);
        open("dicom.key", 0o640);
        open("account.json", 0o666);
        open("filter.lua", 0o666);
        let configuration = json!({
            "SslCertificate": "http.pem", "DicomTlsPrivateKey": "dicom.key", "LuaScripts": ["filter.lua"],
            "GoogleCloudStorage": {"ServiceAccountFile": "account.json"},
        });
        let configuration = configuration.as_object().unwrap();
        let absolute = |path: &Path| folder.path().join(path);
        let files = secret_files(configuration, "GoogleCloudStorage", absolute);
        let rights = |access: Option<Access>| access.map(|access| (access.others_read, access.others_write));
        let rights_of_files: Vec<_> = files.iter().map(|file| rights(file.access).unwrap()).collect();
        assert_eq!(rights_of_files, [(true, false), (false, false), (true, true)]);
        let scripts = lua_scripts(configuration, absolute);
        assert_eq!(rights(scripts[0].access), Some((true, true)));
        let missing = json!({"SslCertificate": "missing.pem"});
        assert_eq!(secret_files(missing.as_object().unwrap(), "GoogleCloudStorage", absolute), []);
    }

    #[test]
    fn key_files_of_all_forms_are_found() {
        let paths = |configuration: &Value| -> Vec<_> {
            let files = key_files(configuration.as_object().unwrap(), "AwsS3Storage");
            files.into_iter().map(|file| file.path).collect()
        };
        let keys = json!({"MasterKey": [2, "/2.key"], "PreviousMasterKeys": [[1, "/1.key"], {"AwsKms": {}}]});
        assert_eq!(paths(&json!({"AwsS3Storage": {"StorageEncryption": keys}})), ["/2.key", "/1.key"]);
        assert_eq!(paths(&json!({"StorageEncryption": keys})), ["/2.key", "/1.key"]);
        assert!(
            paths(&json!({"AwsS3Storage": {"StorageEncryption": {"MasterKey": {"AwsKms": {}}}}})).is_empty()
        );
        assert!(paths(&json!({"AwsS3Storage": {"StorageEncryption": "A2"}})).is_empty());
    }

    #[test]
    fn filter_is_found_in_scripts() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.lua"), "function IncomingHttpRequestFilter(a) end").unwrap();
        let configuration = json!({"LuaScripts": ["a.lua", "missing.lua", 7]});
        let scripts = lua_scripts(configuration.as_object().unwrap(), |path| folder.path().join(path));
        let found: Vec<_> = scripts.iter().map(|script| script.defines_filter).collect();
        assert_eq!(found, [Some(true), None]);
    }
}
