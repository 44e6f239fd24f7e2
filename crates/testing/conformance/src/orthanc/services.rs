//! What the plugin shows through Orthanc's own services: metrics, and the names of threads in the log.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::Cloud;
use crate::fixture::documented::expect_metrics;
use crate::fixture::within;
use crate::orthanc::fixture::{Fixture, slice};

tests! {
    OneCloud:
        metrics_count_requests,
        log_names_the_threads,
}

fn metrics_count_requests<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    let file = slice()?;
    let uploaded = fixture.rest().upload(&file)?;
    fixture.rest().delete(&uploaded.path)?.ok()?;
    fixture.settle();
    let metrics = fixture.rest().get("/tools/metrics-prometheus")?.ok()?.text();
    expect_metrics(&metrics)?;
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("object_storage_{name} ")));
        line.and_then(|values| values.split(' ').next()).with_context(|| format!("no {name} in {metrics}"))
    };
    for (name, expected) in [
        ("create_requests", 1),
        ("create_bytes", file.len()),
        ("create_failures", 0),
        ("create_running", 0),
        ("retries", 0),
        ("remove_requests", 1),
        ("deletions_pending", 0),
    ] {
        ensure!(value(name)?.parse::<f64>()? == expected as f64, "{name}: {}", value(name)?);
        let is_integer = value(name)?.parse::<u64>().is_ok();
        ensure!(is_integer || fixture.orthanc.version()? < [1, 12, 1], "{name}: {}", value(name)?);
    }
    Ok(())
}

fn log_names_the_threads<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({"MaxRetries": 0}))?;
    let uploaded = fixture.rest().upload(&slice()?)?;
    fixture.bucket.stop();
    fixture.rest().delete(&uploaded.path)?.ok()?;
    let line_of_thread = || {
        let log = fixture.orthanc.log();
        log.lines().find(|line| line.contains("deletions pending")).map(str::to_owned)
    };
    ensure!(
        within(Duration::from_secs(30), || line_of_thread().is_some()),
        "no line:\n{}",
        fixture.orthanc.log()
    );
    let line = line_of_thread().context("no line")?;
    let has_names = fixture.orthanc.version()? >= [1, 12, 2];
    ensure!(line.contains(" OBJECT-STORAGE ") == has_names, "{line}");
    // The plugin's name is there once, whether the plugin or Orthanc writes it.
    assert_eq!(line.matches(C::NAME).count(), 1, "{line}");
    Ok(())
}
