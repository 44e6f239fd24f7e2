//! Tests of the scripts in `ci/packages`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

/// Runs a script. Returns its output, or its errors if it fails.
fn script(name: &str, arguments: &[&OsStr]) -> Result<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ci/packages").join(name);
    let output =
        Command::new(script).args(arguments).env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Compiles a library with Orthanc's entry points and checks it.
fn check_library(code: &str, options: &[&str]) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("plugin.c");
    let library = folder.path().join("plugin.so");
    let entry_points = "
        #include <stdlib.h>
        int OrthancPluginInitialize(void *context) { return malloc(1) == context; }
        void OrthancPluginFinalize(void) {}
        const char *OrthancPluginGetName(void) { return 0; }";
    fs::write(&source, format!("{entry_points}\n{code}\n")).unwrap();
    let compiler =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).args(options).output();
    let compiler = compiler.unwrap();
    assert!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
    script("check-binary.sh", &[library.as_os_str(), OsStr::new("library")])
}

#[test]
fn unportable_libraries_are_refused() {
    let version = "const char *OrthancPluginGetVersion(void) { return 0; }";
    assert_eq!(check_library(version, &["-s"]).unwrap(), "glibc 2.2.5\n");
    let refused = |code: &str, options: &[&str], reason: &str| {
        let error = check_library(code, options).unwrap_err();
        assert!(error.contains(reason), "{error}");
    };
    refused(version, &[], "is not stripped");
    refused("", &["-s"], "must export Orthanc's four functions only");
    refused(&format!("{version} int more;"), &["-s"], "must export Orthanc's four functions only");
    refused(version, &["-s", "-Wl,--no-as-needed", "-lgcc_s"], "needs libgcc_s.so.1");
    let random =
        "#include <sys/random.h>\nstatic void __attribute__((constructor)) f() { getrandom(0, 0, 0); }";
    refused(&format!("{version}\n{random}"), &["-s"], "requires glibc 2.25");
}

#[test]
fn changed_set_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let check = || script("check.sh", &[folder.path().as_os_str()]);
    fs::write(file("a"), "abc").unwrap();
    let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    fs::write(file("SHA256SUMS"), format!("{sum}  a\n")).unwrap();
    check().unwrap();
    fs::write(file("b"), "").unwrap();
    check().expect_err("an additional file");
    fs::remove_file(file("b")).unwrap();
    fs::write(file("a"), "abd").unwrap();
    check().expect_err("a changed byte");
    fs::remove_file(file("a")).unwrap();
    check().expect_err("a missing file");
}

/// Packs a folder with these files, which were written in this order, at this time and with this mode.
fn archive(files: [&str; 2], seconds: u64, mode: u32) -> Vec<u8> {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("plugin");
    fs::create_dir(&folder).unwrap();
    for name in files {
        let mut file = File::create(folder.join(name)).unwrap();
        file.write_all(name.as_bytes()).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        file.set_permissions(Permissions::from_mode(mode)).unwrap();
    }
    let archive = parent.path().join("archive.tar.gz");
    script("archive.sh", &[folder.as_os_str(), archive.as_os_str()]).unwrap();
    fs::read(archive).unwrap()
}

#[test]
fn same_files_give_the_same_archive() {
    let first = archive(["LICENSE", "plugin.so"], 1_600_000_000, 0o600);
    let second = archive(["plugin.so", "LICENSE"], 1_650_000_000, 0o755);
    assert!(first == second && !first.is_empty(), "the bytes differ");
}
