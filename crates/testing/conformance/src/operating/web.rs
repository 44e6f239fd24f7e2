//! What browsers meet: the page, the links to it in Orthanc Explorer, and the refusal of what other web sites send.

use anyhow::{Result, ensure};
use real_orthanc::rest::{Answer, Method};
use serde_json::json;

use crate::Cloud;
use crate::orthanc::fixture::Fixture;

tests! {
    OneCloud:
        page_can_be_opened_and_switched_off,
        other_web_sites_cannot_start_jobs,
}

/// The routes that change something.
const CHANGING: [&str; 7] = [
    "/move-storage",
    "/object-storage/flush",
    "/object-storage/prefetch",
    "/object-storage/reencrypt",
    "/object-storage/orphans",
    "/object-storage/restore",
    "/object-storage/verify",
];

fn page_can_be_opened_and_switched_off<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::start()?;
    let plugin = format!("/plugins/{}", C::NAME.replace(' ', "%20"));
    let rest = fixture.rest();
    for path in ["/object-storage/app/", "/object-storage/app"] {
        let page = rest.get(path)?.ok()?;
        ensure!(page.text().starts_with("<!DOCTYPE html>"), "{path}: {}", page.text());
        let known = rest.request(Method::GET, path, &[("If-None-Match", &page.etag)], None)?;
        ensure!(known.status == 304 && known.body.is_empty(), "{path}: {known:?}");
        ensure!(rest.post(path, b"")?.status == 405);
    }
    // Relative to the folder of Orthanc Explorer.
    ensure!(rest.get_json(&plugin)?["RootUri"] == "../object-storage/app/");
    ensure!(rest.get("/plugins/explorer.js")?.ok()?.text().contains("storage-location"));

    fixture.start_again_with(&json!({"EnablePage": false}))?;
    let rest = fixture.rest();
    ensure!(rest.get("/object-storage/app/")?.status == 404);
    ensure!(rest.get("/object-storage/status")?.status == 200);
    ensure!(rest.get_json(&plugin)?["RootUri"].is_null());
    ensure!(!rest.get("/plugins/explorer.js")?.ok()?.text().contains("storage-location"));
    Ok(())
}

fn other_web_sites_cannot_start_jobs<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let text = ("Content-Type", "text/plain");
    let json = ("Content-Type", "application/json; charset=utf-8");
    let origin = ("Origin", "https://example.com");
    let cross_site = ("Sec-Fetch-Site", "cross-site");
    let post = |path: &str, headers: &[(&str, &str)]| -> Result<Answer> {
        fixture.rest().request(Method::POST, path, headers, Some(b"[]"))
    };
    for path in CHANGING {
        for headers in [&[origin, form][..], &[origin, text], &[cross_site, form], &[origin]] {
            let answer = post(path, headers)?;
            ensure!(answer.status == 415, "{path} {headers:?}: {} {}", answer.status, answer.text());
            ensure!(answer.text().contains("application/json"), "{}", answer.text());
        }
        // The body is not an object, which comes after the check of the headers.
        for headers in [&[origin, cross_site, json][..], &[form], &[]] {
            let answer = post(path, headers)?;
            ensure!(answer.status == 400, "{path} {headers:?}: {} {}", answer.status, answer.text());
        }
        ensure!(fixture.rest().get(path)?.status == 405, "{path}");
    }
    let jobs = fixture.rest().get_json("/jobs")?;
    ensure!(jobs == json!([]), "{jobs}");
    Ok(())
}
