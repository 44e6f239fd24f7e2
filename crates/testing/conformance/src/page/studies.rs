//! The search for a study, and what can be done with one.

use anyhow::{Result, ensure};
use real_orthanc::dicom::Labels;
use serde_json::json;

use crate::Cloud;
use crate::hybrid::support::upload;
use crate::orthanc::fixture::Fixture;
use crate::page::support::{Page, id, upload_labelled};
use crate::write_back::support::{NEVER, write_back};

tests! {
    Once:
        study_is_found_moved_and_verified,
        names_are_text,
    long_series_is_looked_for_in_parts,
}

/// Waits until all files of the study that is shown are at this place.
fn wait_for_place(page: &Page, place: &str) -> Result<()> {
    let script = format!(
        "const places = [...document.querySelectorAll(\"{}\")].map(item => item.dataset.place);
         return places.length > 0 && places.every(found => found === {});",
        id("place"),
        json!(place)
    );
    page.browser.wait_for(&format!("all files are {place}"), &script)?;
    Ok(())
}

/// Clicks on an action of the study that is shown, and waits until its job is done. Returns what the page says of it.
fn act(page: &Page, action: &str) -> Result<String> {
    let all = format!("{} > li", id("activities"));
    let earlier = page.browser.run(&format!("return document.querySelectorAll(\"{all}\").length"))?;
    page.browser.click(&format!("[data-action='{action}']"))?;
    let newest = format!("{all}:first-child");
    page.browser.wait_for(
        &format!("the end of the job {action}"),
        &format!(
            "return document.querySelectorAll(\"{all}\").length > {earlier}
                 && document.querySelector(\"{newest}[data-state='Success']\") !== null"
        ),
    )?;
    page.browser.text(&newest)
}

fn study_is_found_moved_and_verified<C: Cloud>() -> Result<()> {
    let options = write_back(&json!({"UploadDelay": NEVER, "MaxCacheMB": 0}));
    let mut fixture = Fixture::<C>::with(&options)?;
    let labels = Labels {
        patient_name: "Müller^Jörg^Maria",
        patient_id: "P-7",
        accession: "A-1",
        ..Labels::default()
    };
    let sent = upload_labelled(&fixture, 1, 3, &labels)?;
    let page = Page::open(&fixture)?;
    page.go("studies")?;
    page.browser.click(&id("search-name"))?;
    page.browser.type_text("müller jörg")?;
    page.browser.enter()?;
    page.browser.wait_for_text(&id("result-count"), "1 study")?;
    let found = page.browser.text(&id("results"))?;
    ensure!(found.contains("Müller, Jörg Maria") && found.contains("P-7"), "{found}");
    page.browser.click(&format!("{} a", id("results")))?;
    wait_for_place(&page, "pending")?;
    act(&page, "upload")?;
    wait_for_place(&page, "object-storage")?;

    // With a cache, which is empty.
    fixture.start_again_with(&write_back(&json!({"CacheReads": false})))?;
    page.browser.reload()?;
    wait_for_place(&page, "object-storage")?;
    page.events()?;
    let done = act(&page, "prefetch")?;
    ensure!(done.contains("3 files copied"), "{done}");
    wait_for_place(&page, "cached")?;
    let done = act(&page, "verify")?;
    ensure!(done.contains("3 files without a problem"), "{done}");
    page.expect_quiet()?;

    // Somebody deletes the objects behind Orthanc's back. What is in the cache may be evicted at any time.
    for key in fixture.objects().into_keys() {
        fixture.bucket.remove(C::BUCKET, &key);
    }
    let done = act(&page, "verify")?;
    ensure!(done.contains("3 problems"), "{done}");
    wait_for_place(&page, "missing")?;
    page.browser.click(&format!("{} a[href^='#report=']", id("activities")))?;
    let report = page.browser.wait_for_text(&id("report"), "3 findings")?;
    ensure!(report.to_lowercase().contains("what to do"), "{report}");
    let findings =
        format!("return document.querySelectorAll(\"{}[data-problem='missing']\").length", id("finding"));
    ensure!(page.browser.run(&findings)? == 3, "{report}");
    // From the report back to the study, and directly by an address.
    page.browser.click(&format!("{} button, {} a", id("finding"), id("finding")))?;
    page.browser.wait_for_text("#title-study", "Müller")?;
    for end in [format!("?study={}", sent[0].study), format!("?series={}", sent[0].series)] {
        page.show(&end)?;
        wait_for_place(&page, "missing")?;
    }
    page.expect_quiet()?;
    Ok(())
}

fn names_are_text<C: Cloud>() -> Result<()> {
    const HOSTILE: &str = "<img src=x onerror=hacked()>^\"'&amp;</td>";
    let fixture = Fixture::<C>::start()?;
    let labels =
        Labels { patient_name: HOSTILE, patient_id: "<b>1</b>", description: HOSTILE, ..Labels::default() };
    let sent = upload_labelled(&fixture, 1, 1, &labels)?;
    for study in 2..=28 {
        let id = format!("P-{study}");
        upload_labelled(
            &fixture,
            study,
            1,
            &Labels { patient_name: "DOE^JANE", patient_id: &id, ..Labels::default() },
        )?;
    }
    let page = Page::open(&fixture)?;
    page.go("studies")?;
    page.browser.click(&id("search-name"))?;
    page.browser.type_text("<img src=x onerror=hacked()>")?;
    page.browser.enter()?;
    page.browser.wait_for_text(&id("result-count"), "1 study")?;
    let found = page.browser.text(&id("results"))?;
    ensure!(
        found.contains("<img src=x onerror=hacked()>, \"'&amp;</td>") && found.contains("<b>1</b>"),
        "{found}"
    );
    page.browser.click(&format!("{} a", id("results")))?;
    page.browser.wait_for_text("#title-study", "<img src=x")?;
    wait_for_place(&page, "object-storage")?;
    ensure!(
        page.browser.run("return document.querySelectorAll('img, b').length")? == 0,
        "a name became markup"
    );

    // A page of results, and the next one.
    page.go("studies")?;
    page.browser.run("document.querySelector('#search').reset()")?;
    page.browser.click(&id("search-button"))?;
    page.browser.wait_for_text(&id("result-count"), "first 25 studies")?;
    page.browser.click(&id("more-studies"))?;
    page.browser.wait_for_text(&id("result-count"), "28 studies")?;
    // Names of other elements, and quotation marks of JSON.
    page.browser.click(&id("search-patient-id"))?;
    page.browser.type_text("\"}],{'^\\")?;
    page.browser.enter()?;
    page.browser.wait_for_text(&id("view-studies"), "no study was found")?;
    ensure!(page.browser.run("return location.hash")? == "#studies");
    page.show(&format!("?study={}", sent[0].study.replace('-', "%27")))?;
    page.browser.wait_for_text(&id("study"), "no such study")?;
    let events = page.events()?;
    // The study that does not exist.
    ensure!(events.console.iter().all(|line| line.contains("404")), "{:#?}", events.console);
    Ok(())
}

fn long_series_is_looked_for_in_parts<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    let sent = upload(&fixture, 1, 60)?.swap_remove(0).0;
    fixture.bucket.reset_counts();
    let page = Page::open(&fixture)?;
    page.show(&format!("?study={}", sent.study))?;
    let checked = page.browser.wait_for_text(&id("checked"), "of 60 images")?;
    ensure!(checked.contains("50"), "{checked}");
    let requests = fixture.bucket.requests().total;
    ensure!(requests <= 50, "{requests} requests to the bucket");
    page.browser.click(&id("check-rest"))?;
    let is_gone = format!("return document.querySelector(\"{}\") === null", id("checked"));
    page.browser.wait_for("all images are checked", &is_gone)?;
    wait_for_place(&page, "object-storage")?;
    page.expect_quiet()?;
    Ok(())
}
