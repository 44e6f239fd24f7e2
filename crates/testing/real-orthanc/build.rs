//! Lists the plugins of this workspace by the facts in their `Cargo.toml`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use plugin_build::Facts;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../plugins");
    println!("cargo::rerun-if-changed=build.rs");
    // A new plugin changes this file.
    println!("cargo::rerun-if-changed=../../../Cargo.lock");
    let mut folders = fs::read_dir(&folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<PathBuf>, _>>()?;
    folders.sort();
    let mut list = String::from("&[");
    for folder in folders {
        println!("cargo::rerun-if-changed={}", folder.join("Cargo.toml").display());
        let Facts { package, library, section, title, distribution, sample, .. } = Facts::read(&folder)?;
        list.push_str(&format!(
            "Facts {{ package: {package:?}, library: {library:?}, section: {section:?}, title: {title:?}, \
             distribution: {distribution:?}, sample: {sample:?} }}, "
        ));
    }
    list.push(']');
    fs::write(Path::new(&std::env::var("OUT_DIR")?).join("plugins.rs"), list)?;
    Ok(())
}
