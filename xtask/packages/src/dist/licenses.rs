//! The licences of everything that is linked into a library or program, in one text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use walkdir::WalkDir;
use xshell::{Shell, cmd};

use super::platform::Platform;
use crate::system::{output, target_folder};

/// Crates whose packages lack the text of their licence, and a file with that text.
const WITHOUT_TEXT: [(&str, &str); 11] = [
    ("base64-simd", MIT),
    ("dicom-core", MIT),
    ("dicom-dictionary-std", MIT),
    ("dicom-encoding", MIT),
    ("encoding-index-japanese", CC0),
    ("encoding-index-korean", CC0),
    ("encoding-index-simpchinese", CC0),
    ("encoding-index-singlebyte", CC0),
    ("encoding-index-tradchinese", CC0),
    ("encoding_index_tests", CC0),
    ("vsimd", MIT),
];
const MIT: &str = "ci/packages/licenses/MIT.txt";
const CC0: &str = "ci/packages/licenses/CC0-1.0.txt";

/// Something that is linked, with the texts that must accompany it.
struct Part {
    title: String,
    texts: Vec<PathBuf>,
}

/// Writes the licences of a package of the workspace to a folder: `NAME.txt`, and the standard library's own document.
pub(crate) fn collect(
    package: &str,
    name: &str,
    platform: Platform,
    results: &Path,
    shell: &Shell,
    folder: &Path,
) -> Result<()> {
    let mut parts = crates(package, platform, shell)?;
    parts.extend(runtimes(platform, shell)?);
    fs::write(folder.join(format!("{name}.txt")), document(name, &parts)?)?;
    let (source, target) = standard_library(results, shell)?;
    fs::copy(&source, folder.join(target)).with_context(|| format!("copying {}", source.display()))?;
    Ok(())
}

/// Returns the crates that cargo links into a package, without those of the workspace.
fn crates(package: &str, platform: Platform, shell: &Shell) -> Result<Vec<Part>> {
    let triple = platform.triple();
    let options = ["--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let tree = output(cmd!(shell, "cargo tree --package {package} --target {triple} {options...}"))?;
    let metadata: Value =
        serde_json::from_str(&output(cmd!(shell, "cargo metadata --locked --format-version 1"))?)?;
    let mut parts = BTreeMap::new();
    for known in metadata["packages"].as_array().into_iter().flatten() {
        let text = |field: &str| known[field].as_str().unwrap_or_default();
        let (name, version) = (text("name"), text("version"));
        let line = format!("{name} v{version}");
        let linked = tree.lines().any(|linked| linked == line || linked.starts_with(&format!("{line} (")));
        if !linked || known["source"].is_null() {
            continue;
        }
        let folder = Path::new(text("manifest_path")).parent().context("a manifest must be in a folder")?;
        let mut texts = license_texts(folder)?;
        if let Some((_, file)) = WITHOUT_TEXT.iter().find(|(without, _)| *without == name) {
            texts.push(shell.current_dir().join(file));
        }
        ensure!(!texts.is_empty(), "{name} {version} ({}) has no text of its licence", text("license"));
        let title = format!("{name} {version}: {}, {}", text("license"), text("repository"));
        parts.insert(line, Part { title, texts });
    }
    ensure!(!parts.is_empty(), "cargo tree lists no crates of {package}:\n{tree}");
    Ok(parts.into_values().collect())
}

/// Returns the files in a crate, and in the C libraries that it contains, whose names say that they are a licence.
fn license_texts(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut texts = Vec::new();
    for entry in WalkDir::new(folder).sort_by_file_name() {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_uppercase();
        let is_license = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"]
            .iter()
            .any(|start| name.starts_with(start));
        if entry.file_type().is_file() && is_license && !name.ends_with(".RS") {
            texts.push(entry.into_path());
        }
    }
    Ok(texts)
}

/// Returns what the linker adds to a library besides crates.
fn runtimes(platform: Platform, shell: &Shell) -> Result<Vec<Part>> {
    let part = |title: &str, text: PathBuf| Part { title: title.to_owned(), texts: vec![text] };
    if platform == Platform::Windows {
        return Ok(vec![
            part("The runtime of mingw-w64", "/usr/share/doc/mingw-w64-common/copyright".into()),
            part("The runtime of GCC for mingw-w64", "/usr/share/doc/gcc-mingw-w64-base/copyright".into()),
        ]);
    }
    // The folder contains the version of Python.
    let zig = target_folder()?.join("dist-tools/zig/lib");
    let zig = shell
        .read_dir(&zig)?
        .into_iter()
        .map(|python| python.join("site-packages/ziglang"))
        .find(|folder| folder.is_dir())
        .with_context(|| format!("{} contains no zig", zig.display()))?;
    Ok(vec![
        part("The compiler's runtime of zig", zig.join("LICENSE")),
        part("The start code of glibc", zig.join("lib/libc/glibc/LICENSES")),
    ])
}

/// Returns the document with the licences of Rust's standard library, and its name in the packages.
fn standard_library(results: &Path, shell: &Shell) -> Result<(PathBuf, &'static str)> {
    if results.iter().any(|folder| folder == "debian-rust") {
        return Ok(("/usr/share/doc/rustc-web/copyright".into(), "rust-standard-library.txt"));
    }
    let root = output(cmd!(shell, "rustc --print sysroot"))?;
    let document = Path::new(root.trim()).join("share/doc/rust/COPYRIGHT-library.html");
    Ok((document, "rust-standard-library.html"))
}

/// Lists all parts, and then each of their texts once.
fn document(name: &str, parts: &[Part]) -> Result<String> {
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let mut list = format!("Software of others in {name}, and the numbers of its licences below.\n\n");
    let mut texts = String::new();
    for part in parts {
        let mut named = Vec::new();
        for file in &part.texts {
            let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
            let text = String::from_utf8_lossy(&bytes).replace('\r', "").trim().to_owned();
            ensure!(!text.is_empty(), "{} is empty", file.display());
            let next = numbers.len() + 1;
            let number = *numbers.entry(text.clone()).or_insert(next);
            if number == next {
                write!(texts, "\n{}\n[{number}]\n\n{text}\n", "-".repeat(80))?;
            }
            named.push(format!("[{number}]"));
        }
        named.dedup();
        writeln!(list, "{} {}", part.title, named.join(" "))?;
    }
    writeln!(list, "Rust's standard library: see rust-standard-library in this folder")?;
    Ok(list + &texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        file("one/LICENSE-MIT", "mit\r\n");
        file("one/library/COPYING", "zlib");
        file("one/src/license.rs", "code");
        file("two/license.md", "mit");
        let part = |name: &str| Part {
            title: name.to_owned(),
            texts: license_texts(&folder.path().join(name)).unwrap(),
        };
        let document = document("orthanc-test", &[part("one"), part("two")]).unwrap();
        assert!(document.contains("\none [1] [2]\ntwo [1]\n"), "{document}");
        assert_eq!(document.matches("\nmit\n").count(), 1, "{document}");
        assert!(!document.contains("code"), "{document}");
    }

    #[test]
    fn empty_text_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let part = Part { title: "one".to_owned(), texts: vec![file.path().to_owned()] };
        document("orthanc-test", &[part]).unwrap_err();
    }

    #[test]
    fn every_crate_has_the_text_of_its_license() {
        let shell = crate::system::shell().unwrap();
        for (package, platform) in [("google-cloud", Platform::Windows), ("envelope-cli", Platform::LinuxArm)]
        {
            let parts = crates(package, platform, &shell).unwrap();
            assert!(parts.len() > 15, "{package} on {platform:?} has only {} crates", parts.len());
        }
        let lists = |part: &Part, end: &str| part.texts.iter().any(|text| text.ends_with(end));
        let parts = crates("aws-s3", Platform::LinuxX86, &shell).unwrap();
        let cryptography = parts.iter().find(|part| part.title.starts_with("aws-lc-sys ")).unwrap();
        assert!(lists(cryptography, "aws-lc/LICENSE"), "the licence of aws-lc's own code is missing");
    }
}
