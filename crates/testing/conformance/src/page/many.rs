//! The page of an archive of many studies.

use std::time::Instant;

use anyhow::{Result, ensure};
use real_orthanc::dicom::{Labels, Study};
use serde_json::json;

use crate::Cloud;
use crate::orthanc::fixture::{Fixture, at_once};
use crate::page::support::{Page, VIEWS, id};

tests! {
    Long:
        many_studies_cost_no_more_requests,
}

const STUDIES: u64 = 20_000;
const CLIENTS: u64 = 16;

/// Most requests of a view when it is shown, with the document, and a poll on a slow machine.
const REQUESTS: usize = 10;
/// Most bytes of the answers.
const BYTES: u64 = 400_000;

fn fill<C: Cloud>(fixture: &Fixture<C>) -> Result<()> {
    at_once(CLIENTS, |client| {
        for number in (client..STUDIES).step_by(usize::try_from(CLIENTS)?) {
            let name = format!("PATIENT^{number:05}");
            let labels = Labels {
                patient_name: &name,
                patient_id: &format!("P-{number:05}"),
                accession: &format!("A-{number:05}"),
                date: "20260102",
                description: "One of many",
            };
            for file in Study(number).ct_series(1, 8, 8) {
                fixture.rest().upload(&labels.apply(&file?)?)?;
            }
        }
        Ok(())
    })?;
    Ok(())
}

fn many_studies_cost_no_more_requests<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({}))?;
    let begin = Instant::now();
    fill(&fixture)?;
    println!("Orthanc {:?}: {STUDIES} studies stored in {:?}", fixture.orthanc.version()?, begin.elapsed());
    let page = Page::open(&fixture)?;
    page.events()?;
    // Of what the browser has seen, so that nothing but the page counts.
    page.browser.open("about:blank")?;
    let begin = Instant::now();
    page.show("")?;
    page.wait_for_overview()?;
    println!("overview shown after {:?}", begin.elapsed());
    let mut views = vec![("load", page.expect_quiet()?)];
    for view in VIEWS {
        let begin = Instant::now();
        page.go(view)?;
        if view == "studies" {
            page.browser.click(&id("search-button"))?;
            page.browser.wait_for_text(&id("result-count"), "first 25 studies")?;
            println!("all studies: first page after {:?}", begin.elapsed());
            let begin = Instant::now();
            page.browser.click(&id("search-name"))?;
            page.browser.type_text("19999")?;
            page.browser.enter()?;
            page.browser.wait_for_text(&id("result-count"), "1 study")?;
            println!("one study by its name: found after {:?}", begin.elapsed());
        }
        views.push((view, page.expect_quiet()?));
    }
    for (view, events) in &views {
        println!("{view}: {} requests, {} bytes", events.requests.len(), events.received);
        ensure!(events.requests.len() <= REQUESTS, "{view}: {:#?}", events.requests);
        ensure!(events.received <= BYTES, "{view}: {} bytes", events.received);
    }
    Ok(())
}
