//! Runs the binary, and checks its output, errors and exit codes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::path::Path;

use common::{Bench, OTHER, UUID, plaintext};
use crypto_envelope::{FileKey, KeyWrap, Service, ServiceWrap, encrypt_a2_with_file_key};

fn snapshot(name: &str, messages: &str) {
    insta::with_settings!({
        snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../testing/messages"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!(name, messages) });
}

#[test]
fn new_key_is_private_and_never_overwrites() {
    let bench = Bench::new();
    let key = bench.read("one.key");
    assert_eq!(key.len(), 45);
    assert_ne!(key, bench.read("two.key"));
    bench.fails(1, &["keygen", "one.key"]);
    assert_eq!(bench.read("one.key"), key);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(bench.path("one.key")).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn both_formats_work_with_files_and_pipes() {
    let bench = Bench::new();
    let name = format!("{UUID}.dcm.enc");
    for format in ["A1", "A2"] {
        bench.done(&["encrypt", "--key", "1:one.key", "--format", format, "--force", "plain", &name]);
        assert!(bench.read(&name).starts_with(format.as_bytes()));
        let out = format!("out-{format}");
        bench.done(&["decrypt", "--key", "2:two.key", "--key", "1:one.key", &name, &out]);
        assert!(bench.read(&out) == plaintext());
        assert!(bench.done(&["decrypt", "--key", "1:one.key", &name, "-"]) == plaintext());

        let arguments = ["encrypt", "--key", "1:one.key", "--format", format, "--uuid", UUID, "-", "-"];
        let envelope = bench.run(&arguments, &plaintext());
        assert!(envelope.status.success());
        let arguments = ["decrypt", "--key", "1:one.key", "--uuid", UUID, "-", "-"];
        let plain = bench.run(&arguments, &envelope.stdout);
        assert!(plain.status.success() && plain.stdout == plaintext());
    }
}

#[test]
fn key_that_a_service_has_unwrapped_decrypts() {
    let bench = Bench::new();
    let name = format!("{UUID}.dcm.enc");
    let file_key = FileKey::new(&[7; 32]);
    for (service, key) in
        [(Service::AzureKeyVault, "https://v.vault.azure.net/keys/k/1"), (Service::AwsKms, "")]
    {
        let wrap = KeyWrap::Service(ServiceWrap { service, key, wrapped: b"wrapped" });
        let envelope = encrypt_a2_with_file_key(&wrap, &file_key, UUID, &plaintext()).unwrap();
        fs::write(bench.path(&name), envelope).unwrap();
        let found = String::from_utf8(bench.done(&["inspect", &name])).unwrap();
        assert!(found.trim_end().ends_with(format!("key wrapped by {service} {key}").trim_end()), "{found}");
        assert_eq!(bench.done(&["wrapped-key", &name]), b"d3JhcHBlZA==\n");
        let error = bench.fails(3, &["decrypt", "--key", "1:one.key", &name, "out"]);
        assert!(error.contains("--unwrapped-key") && error.contains(&service.to_string()), "{error}");

        fs::copy(bench.path("one.key"), bench.path("other.key")).unwrap();
        write_private(&bench.path("file.key"), b"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n");
        bench.fails(3, &["decrypt", "--unwrapped-key", "other.key", &name, "out"]);
        assert!(!bench.path("out").exists());
        bench.done(&["decrypt", "--unwrapped-key", "file.key", "--force", &name, "out"]);
        assert!(bench.read("out") == plaintext());
        fs::remove_file(bench.path("out")).unwrap();
    }
    bench.done(&["encrypt", "--key", "1:one.key", "--format", "A2", "--force", "plain", &name]);
    let error = bench.fails(1, &["wrapped-key", &name]);
    assert!(error.contains("no key service"), "{error}");
    bench.fails(3, &["decrypt", "--unwrapped-key", "file.key", &name, "out"]);
    bench.fails(2, &["decrypt", "--unwrapped-key", "file.key", "--key", "1:one.key", &name, "out"]);
    bench.fails(2, &["decrypt", "--unwrapped-key", "plain", &name, "out"]);
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn uuid_option_takes_precedence_over_the_name() {
    let bench = Bench::new();
    let bare = ["encrypt", "--key", "1:one.key", "--format", "A2", "plain"];
    bench.done(&[&bare[..], &[UUID]].concat());
    for name in [format!("{UUID}.dcm.enc"), format!("{UUID}.unk.enc")] {
        fs::copy(bench.path(UUID), bench.path(&name)).unwrap();
        bench.done(&["decrypt", "--key", "1:one.key", "--force", &name, "out"]);
    }
    fs::copy(bench.path(UUID), bench.path(OTHER)).unwrap();
    bench.done(&["decrypt", "--key", "1:one.key", "--uuid", UUID, OTHER, "out1"]);
    assert!(bench.fails(3, &["decrypt", "--key", "1:one.key", OTHER, "out2"]).contains(OTHER));
    assert!(bench.fails(2, &[&bare[..], &["nameless"]].concat()).contains("--uuid"));
    // A1 requires no UUID.
    bench.done(&["encrypt", "--key", "1:one.key", "plain", "nameless"]);
    bench.done(&["decrypt", "--key", "1:one.key", "nameless", "out3"]);
}

#[test]
fn unverified_output_is_not_written() {
    let bench = Bench::new();
    for format in ["A1", "A2"] {
        bench.done(&["encrypt", "--key", "1:one.key", "--format", format, "--force", "plain", UUID]);
        let mut altered = bench.read(UUID);
        *altered.last_mut().unwrap() ^= 1;
        fs::write(bench.path(UUID), &altered).unwrap();
        fs::write(bench.path("out"), "earlier content").unwrap();
        let names = bench.names();
        let message = bench.fails(3, &["decrypt", "--key", "1:one.key", "--force", UUID, "out"]);
        assert!(message.contains(UUID) && message.contains("not authentic"), "{message}");
        assert_eq!(bench.read("out"), b"earlier content");
        assert_eq!(bench.names(), names, "a temporary file was left behind");

        let output = bench.run(&["decrypt", "--key", "1:one.key", UUID, "-"], b"");
        assert_eq!(output.status.code(), Some(3));
        let released = if format == "A1" { 0 } else { 131_072 };
        assert!(output.stdout == plaintext()[..released], "{format}: {} bytes", output.stdout.len());
    }
}

#[test]
fn wrong_keys_and_other_files_are_refused() {
    let bench = Bench::new();
    bench.done(&["encrypt", "--key", "7:one.key", "--format", "A2", "plain", UUID]);
    fs::copy(bench.path(UUID), bench.path("renamed")).unwrap();
    // The copy has the permissions of a key file.
    fs::copy(bench.path("one.key"), bench.path("short.key")).unwrap();
    fs::write(bench.path("short.key"), "AAAA").unwrap();
    let mut messages = String::new();
    for (code, arguments) in [
        (3, &["decrypt", "--key", "1:one.key", UUID, "out"][..]),
        (3, &["decrypt", "--key", "7:two.key", UUID, "out"]),
        (3, &["decrypt", "--key", "7:one.key", "plain", "out"]),
        (2, &["decrypt", "--key", "7:one.key", "renamed", "out"]),
        (2, &["decrypt", "--key", "7:one.key", "--uuid", "no-uuid", UUID, "out"]),
        (1, &["decrypt", "--key", "7:one.key", "missing", "out"]),
        (1, &["decrypt", "--key", "7:missing", UUID, "out"]),
        (2, &["decrypt", "--key", "7:short.key", UUID, "out"]),
        (2, &["decrypt", "--key", "7:one.key", "--key", "7:two.key", UUID, "out"]),
        (1, &["decrypt", "--key", "7:one.key", UUID, "plain"]),
        (1, &["keygen", "one.key"]),
    ] {
        messages += &format!("{}\n    {}", arguments.join(" "), bench.fails(code, arguments));
    }
    bench.fails(1, &["decrypt", "--key", "7:one.key", UUID, "no/such/folder/out"]);
    assert!(!bench.path("out").exists());
    snapshot("envelope-cli-files", &messages);
}

#[test]
fn inspect_requires_no_key() {
    let bench = Bench::new();
    bench.done(&["encrypt", "--key", "7:one.key", "plain", "old"]);
    bench.done(&["encrypt", "--key", "4294967295:one.key", "--format", "A2", "plain", UUID]);
    let text = String::from_utf8(bench.done(&["inspect", "old", UUID])).unwrap();
    assert_eq!(
        text,
        format!(
            "old: A1, master key 7, envelope 150086 bytes, plaintext 150000 bytes\n\
             {UUID}: A2, master key 4294967295, envelope 150130 bytes, plaintext 150000 bytes, segments 3 of 65536 \
             bytes, key wrapped with AES-256-KWP\n"
        )
    );
    let output = bench.run(&["inspect", "plain", "old", "missing"], b"");
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.starts_with(b"old: A1"));
    assert!(
        String::from_utf8(output.stderr).unwrap().contains("plain: the content is not an A1 or A2 envelope")
    );
    assert!(bench.fails(3, &["inspect", "plain"]).contains("not an A1 or A2 envelope"));
}

#[test]
fn invalid_command_lines_are_refused() {
    let bench = Bench::new();
    let mut messages = String::new();
    for arguments in [
        &[][..],
        &["shred", "plain"],
        &["keygen"],
        &["keygen", "a", "b"],
        &["keygen", "--key", "1:one.key", "a"],
        &["inspect"],
        &["inspect", "--uuid", UUID, "plain"],
        &["encrypt", "plain", "out"],
        &["encrypt", "--key", "1:one.key", "--key", "2:two.key", "plain", "out"],
        &["encrypt", "--key", "1:one.key", "plain"],
        &["encrypt", "--key", "1:one.key", "--format", "A3", "plain", "out"],
        &["decrypt", "plain", "out"],
        &["decrypt", "--key", "one.key", "plain", "out"],
        &["decrypt", "--key", "-1:one.key", "plain", "out"],
        &["decrypt", "--key", "4294967296:one.key", "plain", "out"],
        &["decrypt", "--key", "1:", "plain", "out"],
        &["decrypt", "--key", "1:one.key", "--format", "A1", "plain", "out"],
        &["decrypt", "--verbose", "plain", "out"],
        &["decrypt", "--key", "1:one.key", "--force", "--skip-existing", "plain", "out"],
        &["decrypt", "--key", "1:one.key", "--uuid", UUID, "plain", "one.key", "out"],
        &["decrypt", "--key", "1:one.key", "plain", "-", "out"],
        &["decrypt", "--key", "1:one.key", "plain", "one.key", "two.key"],
        &["decrypt", "--key", "1:one.key", ".", "out"],
        &["decrypt", "--key", "1:one.key", "plain", "plain"],
        &["decrypt", "--key", "1:one.key", "plain", ""],
        &["inspect", ""],
    ] {
        let message = bench.fails(2, arguments);
        assert!(message.contains("--help"), "{arguments:?}: {message}");
        messages += &format!("{}\n    {message}", arguments.join(" "));
    }
    assert!(!bench.path("out").exists());
    snapshot("envelope-cli-arguments", &messages);
    assert!(String::from_utf8(bench.done(&["--help"])).unwrap().contains("Exit codes"));
    assert!(bench.done(&["--version"]).starts_with(b"orthanc-envelope "));
}

#[test]
fn no_message_shows_a_key() {
    let bench = Bench::new();
    let key = String::from_utf8(bench.read("one.key")).unwrap();
    let base64 = key.trim();
    let hexadecimal = "0123456789abcdef".repeat(4);
    let url_safe = base64.replace(['+', '/'], "-");
    let rooted = format!("/{}", &base64[1..]);
    let in_two_folders = format!("{}/{}", &base64[..20], &base64[21..]);
    for key in [base64, &base64[1..], &base64[..42], &hexadecimal, &url_safe, &rooted, &in_two_folders] {
        let with_id = format!("1:{key}");
        for arguments in [
            &["decrypt", "--key", &with_id, "plain", "out"][..],
            &["decrypt", "--key", key, "plain", "out"],
            &["decrypt", "--key", "1", key, "plain", "out"],
            &["encrypt", "--key", "1:one.key", "--format", key, "plain", "out"],
            &[key],
        ] {
            let output = bench.run(arguments, b"");
            let message = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success() && !message.contains(&key[1..key.len() - 1]), "{message}");
        }
    }
}

#[test]
fn inspect_looks_beyond_two_bytes() {
    let bench = Bench::new();
    let dicom = [b"A1\x07\0\0\0".as_slice(), &[0; 122], b"DICM", &plaintext()].concat();
    fs::write(bench.path("image"), &dicom).unwrap();
    assert!(bench.fails(3, &["inspect", "image"]).contains("image: the content is not an A1 or A2 envelope"));
    // The name says that the file is an envelope.
    fs::write(bench.path("image.enc"), dicom).unwrap();
    assert!(bench.done(&["inspect", "image.enc"]).starts_with(b"image.enc: A1, master key 7"));
}

#[cfg(unix)]
#[test]
fn unsafe_files_are_reported() {
    use std::os::unix::fs::PermissionsExt as _;

    let bench = Bench::new();
    for (mode, is_safe) in [(0o600, true), (0o640, true), (0o644, false), (0o660, false), (0o601, false)] {
        fs::set_permissions(bench.path("one.key"), fs::Permissions::from_mode(mode)).unwrap();
        let output = bench.run(&["encrypt", "--key", "1:one.key", "--force", "plain", "out"], b"");
        assert!(output.status.success());
        let expected = "warning: other users can access the key file one.key; run chmod 640 on it\n";
        let expected = if is_safe { "" } else { expected };
        assert_eq!(String::from_utf8(output.stderr).unwrap(), expected, "{mode:o}");
    }
    assert_eq!(fs::metadata(bench.path("out")).unwrap().permissions().mode() & 0o777, 0o600);
    bench.fails(2, &["encrypt", "--key", "2:two.key", "plain", "/dev/null"]);
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}
