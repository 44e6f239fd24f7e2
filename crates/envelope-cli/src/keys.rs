//! Key files.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use crypto_envelope::{KeyRing, MasterKey, parse_file_key, parse_key_file};
use zeroize::Zeroizing;

use crate::args::{KeyArgument, is_shown, usage};

/// Reads keys, of which the first one encrypts.
pub(crate) fn read_ring(keys: &[KeyArgument]) -> anyhow::Result<KeyRing> {
    let (first, others) = keys.split_first().ok_or_else(|| usage("no key"))?;
    let current = read_key(first)?;
    let previous =
        others.iter().map(|key| Ok((key.id, read_key(key)?))).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(KeyRing::new(first.id, current, previous)?)
}

/// Reads a file key, which a key service has unwrapped.
pub(crate) fn read_unwrapped(file: &Path) -> anyhow::Result<KeyRing> {
    let content = read_key_file(file, "the unwrapped key")?;
    let key = parse_file_key(&content).with_context(|| file.display().to_string())?;
    Ok(KeyRing::of_file_key(key))
}

fn read_key(argument: &KeyArgument) -> anyhow::Result<MasterKey> {
    let content = read_key_file(&argument.file, &format!("key {}", argument.id))?;
    parse_key_file(&content).with_context(|| argument.file.display().to_string())
}

fn read_key_file(file: &Path, key: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let name = file.display();
    let content = Zeroizing::new(fs::read(file).with_context(|| {
        if is_shown(file.as_os_str()) {
            format!("cannot read {name}")
        } else {
            format!("cannot read the file of {key}, whose name is not shown because it may be a key")
        }
    })?);
    // The group of a key that Orthanc uses may read it.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o027 != 0) {
            eprintln!("warning: other users can access the key file {name}; run chmod 640 on it");
        }
    }
    Ok(content)
}
