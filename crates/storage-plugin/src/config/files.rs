//! Files that options name, in messages: their names, who may read those with a key, and the commands that change it.

use std::io;
use std::path::Path;

/// Describes the name of a file for a message. A name that may be the file's content by mistake, such as a key
/// in JSON, PEM or base64, is not quoted.
pub fn describe_file(name: &Path) -> String {
    /// The longest name of a file on the usual file systems.
    const LONGEST_NAME: usize = 255;
    let text = name.to_string_lossy();
    if text.len() > LONGEST_NAME || text.contains(['{', '\n']) {
        return "a text that is not the name of a file".to_owned();
    }
    format!("{name:?}")
}

/// Adds to `error`, which occurred when the file was read, as which user Orthanc runs and what to do.
pub fn explain_unreadable(path: &Path, error: &io::Error) -> String {
    match (error.kind(), advice(path)) {
        (io::ErrorKind::PermissionDenied, Some(advice)) => format!("{error}; {advice}"),
        _ => error.to_string(),
    }
}

/// Logs a warning if other users can read the key file, or its group can change it. The group may read it: this is how
/// Orthanc, which does not own it, reads it.
#[cfg(unix)]
pub(super) fn warn_if_shared(path: &Path) {
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o027 != 0) {
        let commands = unix::commands(path, &unix::Account::own());
        tracing::warn!("other users can access the key file {path:?}; run {commands}");
    }
}

#[cfg(not(unix))]
pub(super) fn warn_if_shared(_path: &Path) {}

#[cfg(unix)]
fn advice(path: &Path) -> Option<String> {
    Some(unix::advice(path, &unix::Account::own()))
}

#[cfg(not(unix))]
fn advice(_path: &Path) -> Option<String> {
    None
}

#[cfg(unix)]
mod unix {
    use std::fs;
    use std::io::ErrorKind;
    use std::path::Path;

    /// The user and the group of this process, by name, or by number if they have none on this machine.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Account {
        pub(super) user: String,
        pub(super) group: String,
    }

    impl Account {
        /// Reads the account from the files of Linux. Elsewhere, it is most likely `orthanc`.
        pub(super) fn own() -> Self {
            let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
            let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
            Self::find(&status, &read("/etc/passwd"), &read("/etc/group"))
        }

        fn find(status: &str, users: &str, groups: &str) -> Self {
            // "Uid:", then the real and the effective id.
            let id = |kind: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(kind))?;
                line.split_whitespace().nth(1)
            };
            // "name:x:id:…"
            let name = |table: &str, id: Option<&str>| {
                let Some(id) = id else { return "orthanc".to_owned() };
                let entry = table.lines().find(|line| line.split(':').nth(2) == Some(id));
                entry.and_then(|line| line.split(':').next()).unwrap_or(id).to_owned()
            };
            Self { user: name(users, id("Uid:")), group: name(groups, id("Gid:")) }
        }
    }

    /// Returns what to do so that this account can read `path`.
    pub(super) fn advice(path: &Path, account: &Account) -> String {
        let Account { user, group } = account;
        match closed_folder(path) {
            Some(folder) => {
                let folder = quoted(folder);
                format!(
                    "Orthanc runs as the user {user}, who may not enter the folder {folder}; move the file to another folder, or run chgrp {group} {folder} \
                     && chmod g+x {folder}"
                )
            }
            None => format!("Orthanc runs as the user {user}; run {}", commands(path, account)),
        }
    }

    /// The commands after which only root can change a file, and only this account's group can read it.
    pub(super) fn commands(path: &Path, account: &Account) -> String {
        let file = quoted(path);
        format!("chown root:{} {file} && chmod 640 {file}", account.group)
    }

    /// Returns the first folder on the way to `path` that this process may not enter.
    fn closed_folder(path: &Path) -> Option<&Path> {
        let is_closed = |folder: &&Path| {
            fs::metadata(folder.join(".")).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
        };
        let folders: Vec<_> =
            path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()).collect();
        folders.into_iter().rev().find(is_closed)
    }

    /// Quotes a path for a shell, if needed.
    fn quoted(path: &Path) -> String {
        let text = path.to_string_lossy();
        let is_plain = |letter: char| letter.is_alphanumeric() || "/._-".contains(letter);
        if text.chars().all(is_plain) {
            text.into_owned()
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        const STATUS: &str = "Name:\tOrthanc\nUid:\t0\t104\t0\t0\nGid:\t0\t111\t0\t0\n";

        #[test]
        fn account_has_names_where_they_are_known() {
            let users = "root:x:0:0:root:/root:/bin/sh\northanc:x:104:111::/var/lib/orthanc:/bin/sh\n";
            let account =
                |user: &str, group: &str| Account { user: user.to_owned(), group: group.to_owned() };
            let groups = "root:x:0:\nimaging:x:111:\n";
            assert_eq!(Account::find(STATUS, users, groups), account("orthanc", "imaging"));
            assert_eq!(Account::find(STATUS, "", ""), account("104", "111"));
            assert_eq!(Account::find("", users, groups), account("orthanc", "orthanc"));
        }

        #[test]
        fn only_missing_permissions_are_explained() {
            let explained = |kind: ErrorKind| {
                super::super::explain_unreadable(Path::new("/etc/orthanc/master-1.key"), &kind.into())
            };
            let denied = explained(ErrorKind::PermissionDenied);
            assert!(denied.contains("Orthanc runs as the user ") && denied.contains("; run "), "{denied}");
            assert_eq!(explained(ErrorKind::NotFound), "entity not found");
        }

        #[test]
        fn commands_can_be_copied() {
            let account = Account::find(STATUS, "", "imaging:x:111:");
            assert_eq!(
                commands(Path::new("/etc/orthanc/master-1.key"), &account),
                "chown root:imaging /etc/orthanc/master-1.key && chmod 640 /etc/orthanc/master-1.key"
            );
            assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
        }

        #[test]
        fn readable_folders_are_not_closed() {
            let folder = tempfile::tempdir().unwrap();
            assert_eq!(closed_folder(&folder.path().join("no/such.key")), None);
            assert_eq!(closed_folder(Path::new("no.key")), None);
            let account = Account::find(STATUS, "orthanc:x:104:1::/:", "orthanc:x:111:");
            assert!(
                advice(&folder.path().join("a"), &account)
                    .starts_with("Orthanc runs as the user orthanc; run chown")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_instead_of_a_file_is_not_quoted() {
        assert_eq!(describe_file(Path::new("/etc/key.json")), "\"/etc/key.json\"");
        for content in ["{\"private_key\": \"hunter2\"}", "-----BEGIN\nhunter2", &"hunter2".repeat(37)] {
            assert!(!describe_file(Path::new(content)).contains("hunter2"), "{content}");
        }
    }
}
