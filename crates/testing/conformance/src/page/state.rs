//! What the page shows of the state of the storage, and of Orthanc Explorer.

use anyhow::{Context, Result, ensure};
use real_orthanc::rest::Uploaded;
use serde_json::json;

use crate::Cloud;
use crate::hybrid::support::upload;
use crate::orthanc::fixture::Fixture;
use crate::page::support::{APP, Page, VIEWS, id};
use crate::write_back::support::without_uploads;

tests! {
    OneCloud:
        overview_shows_the_backlog;
    Once:
        empty_archive_is_explained,
}

fn overview_shows_the_backlog<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&without_uploads())?;
    let sent = upload(&fixture, 1, 3)?.swap_remove(0).0;
    let page = Page::open(&fixture)?;
    let loaded = page.expect_quiet()?;
    // The page itself, and what it asks.
    ensure!(loaded.requests.len() <= 8, "{:#?}", loaded.requests);
    let backlog = page.browser.wait_for_text(&id("backlog"), "3 files")?;
    ensure!(backlog.contains("kB"), "{backlog}");
    ensure!(page.browser.text(&id("identity"))?.contains(C::BUCKET), "the bucket is not named");
    upload(&fixture, 2, 1)?;
    page.wait_for_news(&id("backlog"), "4 files")?;
    fixture.rest().post("/object-storage/flush", b"")?.ok()?;
    page.wait_for_news(&id("backlog"), "nothing")?;
    page.expect_quiet()?;
    explorer_opens_the_page(&page, &fixture, &sent)
}

/// Orthanc Explorer has a link on the pages of a patient, a study and a series.
fn explorer_opens_the_page<C: Cloud>(page: &Page, fixture: &Fixture<C>, sent: &Uploaded) -> Result<()> {
    let patient = fixture.rest().get_json(&format!("/studies/{}/patient", sent.study))?["ID"].take();
    let patient = patient.as_str().context("no patient")?.to_owned();
    for (level, resource) in [("patient", &patient), ("study", &sent.study), ("series", &sent.series)] {
        page.browser.open(&format!("{}/app/explorer.html#{level}?uuid={resource}", fixture.orthanc.url()))?;
        page.browser.reload()?;
        let link = format!("document.querySelector('#{level}-storage-location')");
        // Visible, and styled as the links next to it.
        page.browser
            .wait_for(&format!("the link of the {level}"), &format!("return {link}?.offsetHeight > 20"))?;
        let opened = page.browser.run(&format!(
            "window.open = address => window.opened = new URL(address, location).href; {link}.click();
             return window.opened"
        ))?;
        let expected = format!("{}{APP}?{level}={resource}", fixture.orthanc.url());
        ensure!(opened == expected, "{opened}");
        page.browser.open(&expected)?;
        page.browser.wait_for_text(&id("series-list"), "cache")?;
    }
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
