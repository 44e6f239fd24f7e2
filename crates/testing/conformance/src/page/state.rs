//! What the page shows of the state of the storage, and of Orthanc Explorer.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Cloud;
use crate::hybrid::support::upload;
use crate::orthanc::fixture::Fixture;
use crate::page::support::{Page, VIEWS, id};
use crate::write_back::support::without_uploads;

tests! {
    OneCloud:
        overview_shows_the_backlog;
    Once:
        empty_archive_is_explained,
}

fn overview_shows_the_backlog<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&without_uploads())?;
    upload(&fixture, 1, 3)?;
    let page = Page::open(&fixture)?;
    let loaded = page.expect_quiet()?;
    // The page itself, and what it asks.
    ensure!(loaded.requests.len() <= 8, "{:#?}", loaded.requests);
    let backlog = page.browser.wait_for_text(&id("backlog"), "3 files")?;
    ensure!(backlog.contains("kB"), "{backlog}");
    ensure!(page.browser.text(&id("bucket"))?.contains(C::BUCKET), "the bucket is not named");
    upload(&fixture, 2, 1)?;
    page.browser.wait_for_text(&id("backlog"), "4 files")?;
    fixture.rest().post("/object-storage/flush", b"")?.ok()?;
    page.browser.wait_for_text(&id("backlog"), "nothing")?;
    page.expect_quiet()?;
    Ok(())
}

fn empty_archive_is_explained<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({}))?;
    let page = Page::open(&fixture)?;
    for view in VIEWS {
        page.go(view)?;
        let text = page.browser.text(&id(&format!("view-{view}")))?;
        for raw in ["undefined", "NaN", "null", "[object", "{\""] {
            ensure!(!text.contains(raw), "{view} shows {raw}:\n{text}");
        }
    }
    page.expect_quiet()?;
    Ok(())
}
