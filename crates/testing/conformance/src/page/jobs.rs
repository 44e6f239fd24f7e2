//! Jobs and their reports.

use anyhow::{Result, ensure};

use crate::Cloud;
use crate::fixture::request;
use crate::hybrid::support::upload;
use crate::operating::support::JOB;
use crate::orthanc::fixture::Fixture;
use crate::page::support::{Page, id};

tests! {
    Once:
        verification_is_paused_and_cancelled,
}

/// Waits until the page shows this number of jobs in this state.
fn wait_for_jobs(page: &Page, state: &str, count: usize) -> Result<()> {
    let selector = format!("[data-type='VerifyStorage'][data-state='{state}']");
    let script = format!(
        "document.dispatchEvent(new Event('visibilitychange'));
         return document.querySelectorAll(\"{selector}\").length === {count}"
    );
    page.browser.wait_for(&format!("{count} jobs in the state {state}"), &script)?;
    Ok(())
}

/// Starts a verification of the archive. Returns what is asked before.
fn verify_archive(page: &Page) -> Result<String> {
    page.browser.click(&id("verify-all"))?;
    let question = page.browser.wait_for_text(&id("dialog"), "verify the whole archive")?;
    page.browser.click(&id("dialog-ok"))?;
    page.browser.wait_for_text(&id("jobs-said"), "has been started")?;
    Ok(question)
}

fn verification_is_paused_and_cancelled<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    upload(&fixture, 1, 5)?;
    let page = Page::open(&fixture)?;
    page.go("jobs")?;
    page.browser.wait_for_text(&id("jobs-empty"), "no job")?;
    // A question that is not agreed to.
    page.browser.click(&id("verify-all"))?;
    page.browser.escape()?;
    page.browser.wait_for("the end of the question", "return !document.querySelector('#dialog').open")?;
    ensure!(fixture.rest().get("/jobs")?.text().trim() == "[]");

    let held = fixture.bucket.hold(request::READ_RANGE);
    let question = verify_archive(&page)?;
    ensure!(question.contains("costs"), "{question}");
    ensure!(held.wait_until(1, JOB), "no verification");
    wait_for_jobs(&page, "Running", 1)?;
    let bar = "return document.querySelector('#jobs progress')?.getAttribute('aria-label')";
    ensure!(page.browser.run(bar)?.as_str().is_some_and(|label| label.contains("Verification")));
    page.browser.click("[data-action='pause']")?;
    wait_for_jobs(&page, "Paused", 1)?;
    page.browser.click("[data-action='resume']")?;
    wait_for_jobs(&page, "Running", 1)?;
    verify_archive(&page)?;
    wait_for_jobs(&page, "Running", 2)?;
    page.browser.click("[data-action='cancel']")?;
    wait_for_jobs(&page, "Running", 1)?;
    held.release();
    wait_for_jobs(&page, "Success", 1)?;
    let done = page.browser.text(&id("jobs"))?;
    ensure!(done.contains("5 files without a problem"), "{done}");

    page.go("reports")?;
    page.browser.wait_for_text(&id("reports"), "nothing found")?;
    page.browser.click(&format!("{} [data-state='Success'] a", id("reports")))?;
    page.browser.wait_for_text(&id("report"), "nothing was found")?;
    page.go("security")?;
    page.wait_for_news(&id("census"), "not encrypted")?;
    page.go("overview")?;
    page.wait_for_news(&id("verification"), "no problem")?;
    page.expect_quiet()?;
    Ok(())
}
