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
        let explorer =
            format!("{}/app/explorer.html?token=a%2Bb#{level}?uuid={resource}", fixture.orthanc.url());
        page.browser.open(&explorer)?;
        page.browser.reload()?;
        let link = format!("document.querySelector('#{level}-storage-location')");
        // Visible, and styled as the links next to it.
        page.browser
            .wait_for(&format!("the link of the {level}"), &format!("return {link}?.offsetHeight > 20"))?;
        let opened = page.browser.run(&format!(
            "window.open = address => window.opened = new URL(address, location).href; {link}.click();
             return window.opened"
        ))?;
        // The page sends the same header as Orthanc Explorer, which does not decode the token.
        let expected = format!("{}{APP}?{level}={resource}&token=a%252Bb", fixture.orthanc.url());
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
    period_changes_during_a_request(&page)
}

/// Answers requests for the history like the plugin, with one more sample each time. The second answer is late.
const LATE_HISTORY: &str = "
const realFetch = window.fetch;
let newest = 1795000000, asked = 0;
window.fetch = async (address, options) => {
    const url = new URL(address);
    if (!url.pathname.endsWith('/object-storage/history')) return realFetch(address, options);
    const [minutes, since] = ['minutes', 'since'].map(name => Number(url.searchParams.get(name)));
    const step = minutes === 1440 ? 120 : 60;
    newest += 60;
    const times = Array.from({length: 100}, (_, index) => newest - (99 - index) * step).filter(time => time > since);
    if (++asked === 2) await new Promise(resolve => window.release = resolve);
    return new Response(JSON.stringify({
        Since: '2026-11-27T00:00:00Z', StepSeconds: step, Times: times,
        Create: {Requests: times.map(() => 1)}, Read: {Requests: times.map(() => 1)},
    }));
};";

fn period_changes_during_a_request(page: &Page) -> Result<()> {
    page.browser.run_first(LATE_HISTORY)?;
    page.browser.open("about:blank")?;
    page.show("")?;
    let drawn = "const chart = document.querySelector('[data-chart=requests] svg.plot');
        return chart !== null && chart !== window.earlier && chart.getAttribute('aria-label')";
    page.browser.wait_for("the charts", drawn)?;
    let choose = "window.earlier = document.querySelector('[data-chart=requests] svg.plot');
        document.dispatchEvent(new Event('visibilitychange'));
        const period = document.querySelector('#period');
        period.value = '1440';
        period.dispatchEvent(new Event('change'));
        return window.release !== undefined";
    page.browser.wait_for("the late request", choose)?;
    page.browser.run("window.release()")?;
    let day = page.browser.wait_for("the charts of a day", drawn)?;
    // One store in a sample of two minutes.
    ensure!(day.as_str().is_some_and(|label| label.contains("Stores: 0.5 at the end")), "{day}");
    ensure!(
        page.browser.text(&id("view-overview"))?.contains("24 hours"),
        "the choice of the period is gone"
    );
    Ok(())
}
