//! No key and no credential of a key service reaches a log, an answer or a file.

use std::fs;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::fixture::{KeyService, wrapped_key};
use crate::Cloud;
use crate::hybrid::support::{expect_readable, files, upload};
use crate::orthanc::fixture::{Fixture, slices};
use crate::write_back::support::{StateFolder, write_back};

tests! { EveryCloud: nothing_secret_is_written_anywhere }

/// The shortest part of a key that would be recognized: 12 bytes.
const PART: usize = 12;

/// Returns the forms in which the beginning of a key could appear.
fn spellings(key: &[u8]) -> Vec<Vec<u8>> {
    let part = &key[..key.len().min(PART)];
    let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = part.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let texts = [STANDARD_NO_PAD.encode(part), URL_SAFE_NO_PAD.encode(part), hex.to_uppercase(), hex, list];
    texts.into_iter().map(String::into_bytes).collect()
}

fn nothing_secret_is_written_anywhere<C: Cloud>() -> Result<()> {
    let service = KeyService::start::<C>()?;
    let others = json!({C::HTTP_LOG_OPTION: true, "MaxRetries": 1, "OutageTimeout": 2});
    let options = service.options(&json!({"KeyDecayCount": 1}), &others);
    let mut fixture = service.configured::<C>(&options, real_orthanc::Builder::trace)?;
    let sent = upload(&fixture, 1, 2)?;
    let mut texts = Vec::new();
    for status in [401, 403, 429] {
        texts.extend(end(&fixture)?);
        fixture.start_again_with(&options)?;
        service.server.refuse(Some(status));
        let read = fixture.rest().get(&format!("{}/file", sent[0].0.path))?;
        // The first file key was wrapped at start.
        fixture.rest().upload(&slices(u64::from(status), 1)?[0])?;
        let stored = fixture.rest().post("/instances", &slices(u64::from(status) + 1, 1)?[0])?;
        ensure!(read.status >= 400 && stored.status >= 400, "{status}: {} {}", read.status, stored.status);
        texts.extend([read.body, stored.body]);
        service.server.refuse(None);
        expect_readable(&fixture, &sent)?;
    }
    texts.extend(end(&fixture)?);
    let others = crate::fixture::with(others, &write_back(&json!({"UploadDelay": 1})));
    fixture.start_again_with(&service.options(&json!({}), &others))?;
    upload(&fixture, 9, 2)?;
    StateFolder::of(&fixture.orthanc.storage_folder()).expect_uploaded()?;
    texts.extend(end(&fixture)?);

    let requests = texts.iter().map(|text| String::from_utf8_lossy(text).matches("status=2").count());
    ensure!(requests.sum::<usize>() > 20, "the log is not verbose");
    let mut secrets: Vec<_> = service.server.secrets().into_iter().map(String::into_bytes).collect();
    let file_keys = service.server.file_keys();
    ensure!(file_keys.len() >= 6, "{} file keys", file_keys.len());
    secrets.extend(file_keys.iter().flat_map(|key| spellings(key)));
    // A file of the cache is an envelope, which has the wrapped key but neither in hexadecimal digits nor in base64.
    let wrapped: Vec<_> =
        fixture.objects().values().filter_map(|object| wrapped_key(&object.bytes)).collect();
    ensure!(wrapped.len() >= 7, "{} wrapped keys", wrapped.len());
    secrets.extend(wrapped.iter().flat_map(|key| spellings(key)));
    secrets.extend(file_keys.iter().map(|key| key[..PART].to_vec()));
    for text in &texts {
        for secret in &secrets {
            let found = text.windows(secret.len()).position(|part| part == secret);
            ensure!(found.is_none(), "{}", String::from_utf8_lossy(line(text, found.unwrap_or_default())));
        }
    }
    Ok(())
}

/// Returns everything that Orthanc has written since its start, and what it answers about the plugin.
fn end<C: Cloud>(fixture: &Fixture<C>) -> Result<Vec<Vec<u8>>> {
    let mut texts = vec![fixture.orthanc.log().into_bytes()];
    for path in ["/object-storage/status", "/plugins", "/tools/metrics-prometheus"] {
        texts.push(fixture.rest().get(path)?.ok()?.body);
    }
    let state = fixture.orthanc.storage_folder().join(".orthanc-object-storage");
    for file in files(&state).into_iter().filter(|name| !name.ends_with('/')) {
        texts.push(fs::read(state.join(&file)).context(file)?);
    }
    Ok(texts)
}

/// Returns the line at a place in a text.
fn line(text: &[u8], at: usize) -> &[u8] {
    let start = text[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    text[start..].split(|byte| *byte == b'\n').next().unwrap_or_default()
}
