//! The key in the service gets another version.

use anyhow::{Result, ensure};
use serde_json::json;

use super::fixture::KeyService;
use crate::Cloud;
use crate::hybrid::support::{expect_no_errors, expect_readable, upload};

tests! { OneCloud: new_objects_have_the_new_version_and_old_ones_theirs }

fn new_objects_have_the_new_version_and_old_ones_theirs<C: Cloud>() -> Result<()> {
    let service = KeyService::start::<C>()?;
    let options = service.options(&json!({}), &json!({}));
    let mut fixture = service.orthanc::<C>(&options)?;
    let old = upload(&fixture, 1, 2)?;
    service.server.rotate()?;
    // Orthanc has a file key that is good for more objects.
    let with_old_key = upload(&fixture, 2, 1)?;
    service.expect_counts(1, 0)?;
    fixture.start_again_with(&options)?;
    let new = upload(&fixture, 3, 2)?;
    for sent in [&old, &with_old_key, &new] {
        expect_readable(&fixture, sent)?;
    }
    service.expect_counts(1, 1)?;
    expect_no_errors(&fixture)?;

    fixture.orthanc.kill()?;
    service.server.disable_first();
    fixture.orthanc.start_again()?;
    expect_readable(&fixture, &new)?;
    expect_no_errors(&fixture)?;
    for (uploaded, _) in [&old[0], &old[1], &with_old_key[0]] {
        let answer = fixture.rest().get(&format!("{}/file", uploaded.path))?;
        ensure!(answer.status != 200, "the object was read");
        let errors = fixture.log_lines('E');
        let last = errors.last().map_or("", String::as_str);
        ensure!(
            last.contains(service.server.name()) && last.to_lowercase().contains("disabled"),
            "{errors:#?}"
        );
    }
    let sent = upload(&fixture, 4, 2)?;
    expect_readable(&fixture, &sent)?;
    expect_readable(&fixture, &new)
}
