//! Several files and folders.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::path::Path;

use common::{Bench, OTHER, UUID, plaintext};

const DECRYPT: [&str; 3] = ["decrypt", "--key", "1:one.key"];

/// A bucket with objects of both structures in both formats, and the plugins' own folder.
fn bucket(bench: &Bench) {
    for (format, name) in [
        ("A1", format!("bucket/{UUID}.dcm.enc")),
        ("A2", format!("bucket/{OTHER}.unk.enc")),
        ("A1", format!("bucket/00/00/{OTHER}")),
        ("A2", format!("bucket/6a/3e/{UUID}")),
    ] {
        fs::create_dir_all(bench.path(&name).parent().unwrap()).unwrap();
        bench.done(&["encrypt", "--key", "1:one.key", "--format", format, "plain", &name]);
    }
    fs::create_dir(bench.path("bucket/.orthanc-object-storage")).unwrap();
    fs::write(bench.path("bucket/.orthanc-object-storage/key-1"), "{}").unwrap();
}

/// The plaintexts of [`bucket`].
fn images() -> Vec<String> {
    vec![format!("00/00/{OTHER}"), format!("{OTHER}.unk"), format!("6a/3e/{UUID}"), format!("{UUID}.dcm")]
}

/// All files below a folder, sorted.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()).iter().map(|below| format!("{name}/{below}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

fn stderr(bench: &Bench, code: i32, arguments: &[&str]) -> String {
    let output = bench.run(arguments, b"");
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty());
    message
}

#[test]
fn whole_bucket_is_decrypted_by_one_command() {
    let bench = Bench::new();
    bucket(&bench);
    let message = stderr(&bench, 0, &[&DECRYPT[..], &["bucket", "images"]].concat());
    assert_eq!(message, "orthanc-envelope: files decrypted: 4\n");
    assert_eq!(files(&bench.path("images")), images());
    assert!(images().iter().all(|name| bench.read(&format!("images/{name}")) == plaintext()));
    #[cfg(unix)]
    for (name, mode) in [("images", 0o700), ("images/6a", 0o700), (&*format!("images/{UUID}.dcm"), 0o600)] {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(bench.path(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
    }
    // And back, into a folder that exists.
    fs::create_dir(bench.path("new")).unwrap();
    let encrypt = ["encrypt", "--key", "2:two.key", "--format", "A2", "--quiet", "images", "new"];
    assert_eq!(stderr(&bench, 0, &encrypt), "");
    let mut names = files(&bench.path("bucket"));
    names.retain(|name| !name.starts_with(".orthanc"));
    assert_eq!(files(&bench.path("new")), names);
    assert!(names.iter().all(|name| bench.read(&format!("new/{name}")).starts_with(b"A2\x02\0\0\0")));
}

#[test]
fn files_go_into_a_folder() {
    let bench = Bench::new();
    bucket(&bench);
    let one = format!("bucket/{UUID}.dcm.enc");
    // One file: the folder exists, or has a slash.
    fs::create_dir(bench.path("out")).unwrap();
    for out in ["out", "new/folder/"] {
        bench.done(&[&DECRYPT[..], &[&one, out]].concat());
        assert_eq!(files(&bench.path(out)), [format!("{UUID}.dcm")]);
    }
    // Several files.
    let other = format!("bucket/00/00/{OTHER}");
    let message = stderr(&bench, 0, &[&DECRYPT[..], &[&one, &other, "several"]].concat());
    assert_eq!(message, "orthanc-envelope: files decrypted: 2\n");
    assert_eq!(files(&bench.path("several")), [OTHER.to_owned(), format!("{UUID}.dcm")]);
}

#[test]
fn failure_does_not_stop_the_others() {
    let bench = Bench::new();
    bucket(&bench);
    let mut altered = bench.read(&format!("bucket/{UUID}.dcm.enc"));
    altered[1000] ^= 1;
    fs::write(bench.path(&format!("bucket/{UUID}.dcm.enc")), altered).unwrap();
    fs::write(bench.path(&format!("bucket/{UUID}.clear")), plaintext()).unwrap();
    let message = stderr(&bench, 3, &[&DECRYPT[..], &["bucket", "missing", "images"]].concat());
    assert!(message.contains(&format!("{UUID}.dcm.enc: the A1 envelope is not authentic")), "{message}");
    assert!(message.contains(&format!("{UUID}.clear: the content is not an A1 or A2 envelope")), "{message}");
    assert!(message.contains("cannot read missing: "), "{message}");
    assert!(message.ends_with("orthanc-envelope: files decrypted: 3, failed: 3\n"), "{message}");
    assert_eq!(files(&bench.path("images")), &images()[..3]);
    // Without a file that was altered, the exit code is that of the missing one.
    stderr(&bench, 1, &[&DECRYPT[..], &["--force", "bucket/6a", "missing", "images"]].concat());
}

#[test]
fn existing_files_are_kept_skipped_or_replaced() {
    let bench = Bench::new();
    bucket(&bench);
    fs::create_dir(bench.path("images")).unwrap();
    let existing = format!("images/{UUID}.dcm");
    fs::write(bench.path(&existing), "mine").unwrap();
    let run = |code, options: &[&str]| {
        stderr(&bench, code, &[&DECRYPT[..], options, &["bucket", "images"]].concat())
    };
    let message = run(1, &[]);
    assert!(message.contains(&format!("{UUID}.dcm exists; use --force to replace it, or --skip-existing")));
    assert!(message.ends_with(" files decrypted: 3, failed: 1\n"), "{message}");
    let message = run(0, &["--skip-existing"]);
    assert_eq!(message, "orthanc-envelope: files decrypted: 0, skipped because their output exists: 4\n");
    assert_eq!(bench.read(&existing), b"mine");
    fs::remove_file(bench.path(&format!("images/6a/3e/{UUID}"))).unwrap();
    let message = run(0, &["--skip-existing"]);
    assert_eq!(message, "orthanc-envelope: files decrypted: 1, skipped because their output exists: 3\n");
    assert_eq!(run(0, &["--force"]), "orthanc-envelope: files decrypted: 4\n");
    assert!(bench.read(&existing) == plaintext());
    // What one run has written is not replaced by the same run.
    fs::create_dir(bench.path("second")).unwrap();
    let name = format!("{UUID}.dcm.enc");
    fs::copy(bench.path(&format!("bucket/{name}")), bench.path(&format!("second/{name}"))).unwrap();
    for option in ["--force", "--skip-existing"] {
        let message = stderr(&bench, 1, &[&DECRYPT[..], &[option, "bucket", "second", "images"]].concat());
        assert!(message.contains("another input has the same output"), "{message}");
        assert!(message.ends_with("failed: 1\n"), "{message}");
    }
}

#[test]
fn inspect_goes_through_folders() {
    let bench = Bench::new();
    bucket(&bench);
    let text = String::from_utf8(bench.done(&["inspect", "bucket"])).unwrap();
    assert_eq!(text.lines().count(), 4, "{text}");
    fs::write(bench.path("bucket/clear"), "text").unwrap();
    let message = stderr_and_lines(&bench, 3, &["inspect", "bucket"], 4);
    assert!(message.ends_with("orthanc-envelope: 1 of 5 files failed\n"), "{message}");
}

fn stderr_and_lines(bench: &Bench, code: i32, arguments: &[&str], lines: usize) -> String {
    let output = bench.run(arguments, b"");
    assert_eq!(output.status.code(), Some(code));
    assert_eq!(output.stdout.iter().filter(|&&byte| byte == b'\n').count(), lines);
    String::from_utf8(output.stderr).unwrap()
}

#[cfg(unix)]
mod unix {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    #[test]
    fn links_and_special_files_are_reported() {
        let bench = Bench::new();
        bucket(&bench);
        symlink(bench.path("bucket/00"), bench.path("bucket/linked")).unwrap();
        symlink("nowhere", bench.path("bucket/dangling")).unwrap();
        symlink(bench.path("bucket"), bench.path("bucket/6a/loop")).unwrap();
        let _socket = UnixListener::bind(bench.path("bucket/socket")).unwrap();
        let message = stderr(&bench, 1, &[&DECRYPT[..], &["bucket", "images"]].concat());
        for name in ["linked", "dangling", "6a/loop"] {
            assert!(message.contains(&format!("bucket/{name} is a symbolic link")), "{message}");
        }
        assert!(message.contains("bucket/socket must be a file or a folder"), "{message}");
        assert!(message.ends_with("files decrypted: 4, failed: 4\n"), "{message}");
        // A link that is an argument is followed.
        let message = stderr(&bench, 0, &[&DECRYPT[..], &["bucket/linked", "linked"]].concat());
        assert_eq!(message, "orthanc-envelope: files decrypted: 1\n");
        assert_eq!(files(&bench.path("linked")), [format!("00/{OTHER}")]);
    }

    #[test]
    fn output_in_the_input_is_refused() {
        let bench = Bench::new();
        bucket(&bench);
        symlink("bucket", bench.path("linked")).unwrap();
        for out in ["bucket", "bucket/images", "linked/new/folder", "./bucket/../bucket/images"] {
            let message = bench.fails(2, &[&DECRYPT[..], &["bucket", out]].concat());
            assert!(message.contains(&format!("{out} must not be in the input bucket")), "{message}");
        }
        assert!(!bench.path("bucket/images").exists());
        // The reverse is harmless: files are decrypted to the current folder.
        bench.done(&[&DECRYPT[..], &["--quiet", "bucket", "."]].concat());
        assert!(bench.read(&format!("{UUID}.dcm")) == plaintext());
        let bare = format!("bucket/6a/3e/{UUID}");
        let message = bench.fails(2, &[&DECRYPT[..], &["--force", &bare, "bucket/6a/3e"]].concat());
        assert!(message.contains("cannot be both input and output"), "{message}");
        assert!(bench.read(&bare).starts_with(b"A2"));
    }

    #[test]
    fn names_need_not_be_text() {
        let bench = Bench::new();
        bucket(&bench);
        let name = OsStr::from_bytes(b"\xFF\x1B]0;title\x07.enc");
        fs::copy(bench.path(&format!("bucket/00/00/{OTHER}")), bench.path("bucket").join(name)).unwrap();
        let newline = bench.path("bucket/a\northanc-envelope: 9 files decrypted");
        fs::write(newline, "not an envelope").unwrap();
        let message = stderr(&bench, 3, &[&DECRYPT[..], &["bucket", "images"]].concat());
        assert_eq!(message.lines().count(), 2, "{message:?}");
        assert!(message.ends_with("files decrypted: 5, failed: 1\n"), "{message}");
        let plain = bench.path("images").join(OsStr::from_bytes(b"\xFF\x1B]0;title\x07"));
        assert!(fs::read(plain).unwrap() == plaintext());
    }

    #[test]
    fn full_disk_stops_the_command() {
        let bench = Bench::new();
        bucket(&bench);
        for i in 0..20 {
            let envelope = bench.path(&format!("bucket/{UUID}.dcm.enc"));
            fs::copy(envelope, bench.path(&format!("bucket/{i}.enc"))).unwrap();
        }
        let script = r#"mkdir small && mount -t tmpfs -o size=1m none small && "$@"; code=$?; find small -type f | wc -l; exit $code"#;
        let program = env!("CARGO_BIN_EXE_orthanc-envelope");
        // Root may mount a file system; others may in a namespace of their own.
        let namespaces = [&["--mount"][..], &["--user", "--map-root-user", "--mount"]];
        let may_unshare = |namespace: &&[&str]| {
            Command::new("unshare").args(*namespace).arg("true").status().unwrap().success()
        };
        let output = Command::new("unshare")
            .args(namespaces.into_iter().find(may_unshare).unwrap())
            .args(["sh", "-c", script, "sh", program])
            .args(DECRYPT)
            .args(["bucket", "small"])
            .current_dir(bench.path("."))
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        let lines: Vec<_> = message.lines().collect();
        let [reason, last] = lines[..] else { panic!("{message}") };
        assert!(reason.contains("No space left on device"), "{message}");
        assert!(
            last.contains(": stopped, repeat the command with --skip-existing to continue; files"),
            "{message}"
        );
        // What is there is whole, and nothing else is there.
        let stored = String::from_utf8(output.stdout).unwrap();
        assert!(last.ends_with(&format!("files decrypted: {}, failed: 1", stored.trim())), "{message}");
    }
}
