//! The page while the bucket or Orthanc is unreachable.

use anyhow::{Result, ensure};

use crate::Cloud;
use crate::fixture::eventually;
use crate::hybrid::support::upload;
use crate::orthanc::fixture::Fixture;
use crate::page::support::{Page, id};
use crate::write_back::support::{SOON, write_back};
use serde_json::json;

tests! {
    Once:
        unreachable_bucket_is_shown,
        stopped_orthanc_is_shown,
}

fn unreachable_bucket_is_shown<C: Cloud>() -> Result<()> {
    let mut options = write_back(&json!({}));
    options["MaxRetries"] = json!(0);
    let fixture = Fixture::<C>::with(&options)?;
    fixture.bucket.stop();
    upload(&fixture, 1, 2)?;
    let works = || {
        fixture
            .rest()
            .get_json("/object-storage/status")
            .map(|status| status["WriteBack"]["BucketWorks"] == true)
    };
    eventually("the outage is noticed", SOON, || matches!(works(), Ok(false)))?;
    // The page loads although nothing answers in place of the bucket.
    let page = Page::open(&fixture)?;
    let backlog = page.browser.wait_for_text(&id("backlog"), "2 files")?;
    ensure!(backlog.contains("on the disk only"), "{backlog}");
    page.browser.wait_for_text(&id("problems"), "bucket")?;
    page.expect_quiet()?;
    fixture.bucket.start_again()?;
    page.wait_for_news(&id("backlog"), "nothing")?;
    page.wait_for_news(&id("problems"), "without problems")?;
    page.expect_quiet()?;
    Ok(())
}

fn stopped_orthanc_is_shown<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::start()?;
    let page = Page::open(&fixture)?;
    page.expect_quiet()?;
    fixture.orthanc.kill()?;
    page.browser.wait_for_text(&id("banner"), "cannot reach orthanc")?;
    // What was shown stays.
    page.wait_for_overview()?;
    fixture.orthanc.start_again()?;
    page.browser.wait_for("the end of the banner", "return document.querySelector('#banner').hidden")?;
    page.events()?;
    Ok(())
}
