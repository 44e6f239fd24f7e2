//! The page for everybody: contrast, screen readers, the keyboard, and narrow windows.

use anyhow::{Result, ensure};
use browser::{Browser, Scheme};
use serde_json::json;

use crate::Cloud;
use crate::hybrid::support::upload;
use crate::operating::support::{depth, run};
use crate::orthanc::fixture::Fixture;
use crate::page::support::{Page, VIEWS, id};
use crate::write_back::support::without_uploads;

tests! {
    Once:
        every_view_is_accessible,
        keyboard_is_enough,
}

/// Checks the page as it is shown, in a wide window and in a narrow one with dark colours.
fn check(browser: &Browser, view: &str) -> Result<()> {
    for (scheme, width, height) in [(Scheme::Light, 1280, 800), (Scheme::Dark, 360, 740)] {
        browser.resize(width, height)?;
        browser.prefer(scheme)?;
        let violations = browser.violations()?;
        ensure!(violations.is_empty(), "{view} in {scheme:?}: {violations:#?}");
        let overflow = browser.overflow()?;
        ensure!(overflow.is_empty(), "{view} at {width} pixels: {overflow:#?}");
    }
    browser.resize(1280, 800)?;
    Ok(())
}

fn every_view_is_accessible<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&without_uploads())?;
    let sent = upload(&fixture, 1, 2)?;
    fixture.rest().post("/object-storage/flush", b"")?.ok()?;
    upload(&fixture, 2, 2)?;
    for key in fixture.objects().into_keys().take(1) {
        fixture.bucket.remove(C::BUCKET, &key);
    }
    run(&fixture, "verify", &depth("exists"))?;
    let page = Page::open(&fixture)?;
    for view in VIEWS {
        page.go(view)?;
        match view {
            "studies" => {
                page.browser.click(&id("search-button"))?;
                page.browser.wait_for_text(&id("result-count"), "2 studies")?;
            }
            "jobs" => drop(page.browser.wait_for_text(&id("jobs"), "1 problem")?),
            "reports" => drop(page.browser.wait_for_text(&id("reports"), "1 finding")?),
            "security" => {
                page.browser.click(&id("run-audit"))?;
                page.browser
                    .wait_for("the audit", "return !document.querySelector('#run-audit').disabled")?;
            }
            _ => {}
        }
        check(&page.browser, view)?;
    }
    page.go("jobs")?;
    page.browser.click(&id("verify-all"))?;
    check(&page.browser, "the question")?;
    page.browser.escape()?;
    page.go("reports")?;
    page.browser.click(&format!("{} a", id("reports")))?;
    page.browser.wait_for_text(&id("report"), "1 finding")?;
    check(&page.browser, "the report")?;
    page.show(&format!("?study={}", sent[0].0.study))?;
    page.browser.wait_for_text(&id("study"), "missing")?;
    check(&page.browser, "the study")
}

/// Presses Tab until an element has the focus, and Enter if it is to be pressed.
fn reach(page: &Page, selector: &str, press: bool) -> Result<()> {
    ensure!(page.browser.tab_to(selector, 30)?, "{selector} cannot be reached with the keyboard");
    ensure!(page.browser.shows_focus()?, "{selector} does not show that it has the focus");
    if press { page.browser.enter() } else { Ok(()) }
}

fn keyboard_is_enough<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({}))?;
    upload(&fixture, 1, 2)?;
    let page = Page::open(&fixture)?;
    reach(&page, "#skip", true)?;
    ensure!(page.browser.run("return document.activeElement.id")? == "main");
    page.show("")?;
    page.wait_for_overview()?;
    reach(&page, "a[data-view='studies']", true)?;
    reach(&page, &id("search-patient-id"), false)?;
    page.browser.type_text("DEMO-1")?;
    page.browser.enter()?;
    page.browser.wait_for_text(&id("result-count"), "1 study")?;
    reach(&page, &format!("{} td a", id("results")), true)?;
    page.browser.wait_for_text(&id("series-list"), "in the bucket")?;
    reach(&page, "[data-action='verify']", true)?;
    page.browser.wait_for_text(&id("activities"), "2 files without a problem")?;
    // A question takes the focus, and Escape leaves it.
    page.show("#jobs")?;
    reach(&page, &id("verify-all"), true)?;
    let is_inside = "return document.querySelector('#dialog').contains(document.activeElement)";
    page.browser.wait_for("the focus is in the question", is_inside)?;
    page.browser.escape()?;
    let is_back = format!("return document.activeElement.matches(\"{}\")", id("verify-all"));
    page.browser.wait_for("the focus is back", &is_back)?;
    reach(&page, "#jobs a, #jobs button", false)?;
    page.expect_quiet()?;
    Ok(())
}
