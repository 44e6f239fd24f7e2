//! The man page and the completions know what the help text knows.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::Bench;

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn help() -> String {
    String::from_utf8(Bench::new().done(&["--help"])).unwrap()
}

/// The long options in a text.
fn options(text: &str) -> BTreeSet<&str> {
    text.split("--")
        .skip(1)
        .map(|rest| rest.split(|letter: char| !letter.is_ascii_lowercase() && letter != '-').next().unwrap())
        .filter(|option| !option.is_empty())
        .collect()
}

fn commands(help: &str) -> BTreeSet<&str> {
    help.lines().filter_map(|line| line.strip_prefix("  orthanc-envelope ")?.split(' ').next()).collect()
}

#[test]
fn man_page_and_completions_are_complete() {
    let help = help();
    let expected = options(&help);
    assert_eq!(expected.len(), 9, "{expected:?}");
    let commands = commands(&help);
    assert_eq!(commands.len(), 5, "{commands:?}");
    let fish = file("completions/orthanc-envelope.fish");
    let fish: String = fish.lines().filter(|line| line.starts_with("complete ")).collect();
    for (name, text) in [
        ("man", file("man/orthanc-envelope.1").replace("\\-", "-")),
        ("bash", file("completions/orthanc-envelope.bash")),
        ("zsh", file("completions/_orthanc-envelope")),
        ("fish", fish.replace(" -l ", " --")),
    ] {
        assert_eq!(options(&text), expected, "{name}");
        assert!(commands.iter().all(|command| text.contains(command)), "{name}");
    }
}

/// Returns what bash offers for the last of these words.
fn completions(bench: &Bench, words: &[&str]) -> Vec<String> {
    let script = r#"
        source "$1"; shift
        # Only an interactive completion has options.
        compopt() { :; }
        COMP_WORDS=(orthanc-envelope "$@"); COMP_CWORD=$#
        _orthanc_envelope
        printf '%s\n' "${COMPREPLY[@]}""#;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions/orthanc-envelope.bash");
    let output = Command::new("bash")
        .args(["-euc", script, "bash"])
        .arg(source)
        .args(words)
        .current_dir(bench.path("."))
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && message.is_empty(), "{words:?}: {message}");
    let mut lines: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.retain(|line| !line.is_empty());
    lines.sort();
    lines
}

#[cfg(unix)]
#[test]
fn bash_completes_commands_options_and_files() {
    let bench = Bench::new();
    for (words, expected) in [
        (&["d"][..], &["decrypt"][..]),
        (&["--v"], &["--version"]),
        (
            &["decrypt", "--"],
            &["--force", "--help", "--key", "--quiet", "--skip-existing", "--unwrapped-key", "--uuid"],
        ),
        (&["keygen", "--"], &["--help"]),
        (&["encrypt", "--format", ""], &["A1", "A2"]),
        (&["decrypt", "--key", "3"], &[]),
        // Bash makes three words of `3:on`, and two of `3:`.
        (&["decrypt", "--key", "3", ":", "on"], &["one.key"]),
        (&["decrypt", "--key", "3", ":"], &["one.key", "plain", "two.key"]),
        (&["decrypt", "--key", "3", ":", "one.key", "pl"], &["plain"]),
        (&["inspect", ""], &["one.key", "plain", "two.key"]),
    ] {
        assert_eq!(completions(&bench, words), expected, "{words:?}");
    }
}
