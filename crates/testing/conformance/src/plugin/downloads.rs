//! Downloads that break in the middle, and content that is not what was stored.

use anyhow::Result;
use fake_cloud::{Fault, FaultRule};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::codes::{CORRUPTED_FILE, STORAGE_AREA_PLUGIN};
use crate::fixture::{DICOM, KEY, Setup, UUID, content, done, object_url, request};

tests![
    a_download_that_breaks_goes_on_at_the_byte_where_it_stopped,
    a_download_may_break_more_often_than_a_request_is_repeated,
    a_reset_connection_is_replaced_too,
    a_download_that_gets_nowhere_is_given_up,
    the_rest_of_a_broken_download_is_retried_as_any_request,
    a_download_goes_on_after_a_stall,
    an_object_that_was_replaced_in_the_middle_of_its_download_is_an_error,
    a_byte_that_changed_on_its_way_is_an_error,
];

/// Bytes of the attachment.
const SIZE: usize = 8_000_000;

/// A plugin whose bucket has the attachment.
fn setup<C: Cloud>(options: &Value) -> Result<Setup<C>> {
    let setup = Setup::<C>::with(options)?;
    setup.server.insert(C::BUCKET, KEY, content(SIZE));
    Ok(setup)
}

/// The ranges of the requests, `-` for a whole read.
fn ranges<C: Cloud>(setup: &Setup<C>) -> Vec<String> {
    setup.ranges().into_iter().map(|range| range.unwrap_or_else(|| "-".to_owned())).collect()
}

fn a_download_that_breaks_goes_on_at_the_byte_where_it_stopped<C: Cloud>() -> Result<()> {
    let setup = setup::<C>(&json!({}))?;
    setup.fault(request::READ, Fault::CloseAfterResponseBytes(3_000_001), 1);
    assert!(done(setup.host.read_whole(UUID, DICOM))? == content(SIZE));
    assert_eq!(ranges(&setup), ["-", "bytes=3000001-7999999"]);
    assert_eq!(setup.server.requests().body_bytes_sent, SIZE as u64, "no byte came twice");

    setup.server.reset_counts();
    setup.fault(request::READ_RANGE, Fault::CloseAfterResponseBytes(1_000_000), 1);
    assert!(done(setup.host.read_range(UUID, DICOM, 5, 4_000_000))? == content(SIZE)[5..4_000_005]);
    assert_eq!(ranges(&setup), ["bytes=5-4000004", "bytes=1000005-4000004"]);
    assert_eq!(setup.server.requests().body_bytes_sent, 4_000_000, "no byte came twice");
    setup.check()
}

fn a_download_may_break_more_often_than_a_request_is_repeated<C: Cloud>() -> Result<()> {
    let setup = setup::<C>(&json!({"MaxRetries": 1}))?;
    setup.fault(request::READ, Fault::CloseAfterResponseBytes(1_000_000), 1);
    setup.fault(request::READ_RANGE, Fault::CloseAfterResponseBytes(2_000_000), 3);
    assert!(done(setup.host.read_whole(UUID, DICOM))? == content(SIZE));
    let expected = [
        "-",
        "bytes=1000000-7999999",
        "bytes=3000000-7999999",
        "bytes=5000000-7999999",
        "bytes=7000000-7999999",
    ];
    assert_eq!(ranges(&setup), expected);
    assert_eq!(setup.server.requests().body_bytes_sent, SIZE as u64);
    setup.check()
}

fn a_reset_connection_is_replaced_too<C: Cloud>() -> Result<()> {
    let setup = setup::<C>(&json!({}))?;
    setup.fault(request::READ, Fault::ResetAfterResponseBytes(3_000_000), 1);
    assert!(done(setup.host.read_whole(UUID, DICOM))? == content(SIZE));
    // What the kernel had not handed over yet is lost with the connection, and asked for again.
    assert_eq!(setup.server.requests().total, 2);
    setup.check()
}

fn a_download_that_gets_nowhere_is_given_up<C: Cloud>() -> Result<()> {
    let setup = setup::<C>(&json!({"MaxRetries": 2}))?;
    setup.fault(request::READ, Fault::CloseAfterResponseBytes(3_000_000), 1);
    setup.fault(request::READ_RANGE, Fault::CloseAfterResponseBytes(0), usize::MAX);
    assert_eq!(setup.host.read_whole(UUID, DICOM), Err(STORAGE_AREA_PLUGIN));
    assert_eq!(setup.server.requests().total, 3);
    let line = setup.only_error();
    assert!(
        line.starts_with(&format!("cannot read {}: the connection broke: ", object_url::<C>(KEY))),
        "{line}"
    );
    assert!(line.ends_with("after 3 attempts"), "{line}");
    setup.check()
}

fn the_rest_of_a_broken_download_is_retried_as_any_request<C: Cloud>() -> Result<()> {
    let setup = setup::<C>(&json!({}))?;
    setup.fault(request::READ, Fault::CloseAfterResponseBytes(3_000_000), 1);
    setup.fault(request::READ_RANGE, Fault::slow_down(), 2);
    assert!(done(setup.host.read_whole(UUID, DICOM))? == content(SIZE));
    assert_eq!(setup.server.requests().total, 4);
    setup.check()
}

fn a_download_goes_on_after_a_stall<C: Cloud>() -> Result<()> {
    let setup = setup::<C>(&json!({"ConnectionTimeout": 1}))?;
    setup.fault(request::READ, Fault::StallResponseAfter(1_000_000), 1);
    setup.fault(request::READ_RANGE, Fault::StallResponseAfter(3_000_000), 1);
    assert!(done(setup.host.read_whole(UUID, DICOM))? == content(SIZE));
    assert_eq!(ranges(&setup), ["-", "bytes=1000000-7999999", "bytes=4000000-7999999"]);
    setup.check()
}

fn an_object_that_was_replaced_in_the_middle_of_its_download_is_an_error<C: Cloud>() -> Result<()> {
    let setup = setup::<C>(&json!({}))?;
    for (size, ranged) in
        [(SIZE, false), (SIZE, true), (SIZE + 1, false), (3_500_000, false), (3_500_000, true), (0, true)]
    {
        setup.server.insert(C::BUCKET, KEY, content(SIZE));
        setup.server.reset_counts();
        let before = setup.errors().len();
        let operation = if ranged { request::READ_RANGE } else { request::READ };
        setup.fault(operation, Fault::CloseAfterResponseBytes(3_000_000), 1);
        let replacement = Fault::ReplaceObject(vec![7; size].into());
        setup.server.faults().push(FaultRule::new(replacement).on(request::READ_RANGE));
        let outcome = if ranged {
            setup.host.read_range(UUID, DICOM, 1, SIZE - 2)
        } else {
            setup.host.read_whole(UUID, DICOM)
        };
        assert_eq!(outcome.map(|bytes| bytes.len()), Err(CORRUPTED_FILE), "{size} bytes, a range: {ranged}");
        assert_eq!(setup.requests(), 2, "it is not tried again");
        let errors = setup.errors().split_off(before);
        assert_eq!(errors.len(), 1, "{errors:#?}");
        let cause = format!(
            "cannot read {}: the content is damaged: the object changed while it was read",
            object_url::<C>(KEY)
        );
        assert!(errors[0].starts_with(&cause), "{errors:#?}");
    }
    setup.check()
}

fn a_byte_that_changed_on_its_way_is_an_error<C: Cloud>() -> Result<()> {
    let setup = setup::<C>(&json!({}))?;
    for offset in [0, 5_000_000, SIZE as u64 - 1] {
        setup.fault(request::READ, Fault::CorruptResponseByte(offset), 1);
        let before = setup.errors().len();
        assert_eq!(setup.host.read_whole(UUID, DICOM).map(|bytes| bytes.len()), Err(CORRUPTED_FILE));
        let line = format!(
            "cannot read {}: the content is damaged: its {} is not that of the stored object",
            object_url::<C>(KEY),
            C::CHECKSUM
        );
        assert_eq!(setup.errors().split_off(before), [line]);
    }
    // Also in the part that was asked for later.
    setup.fault(request::READ, Fault::CloseAfterResponseBytes(3_000_000), 1);
    setup.fault(request::READ_RANGE, Fault::CorruptResponseByte(17), 1);
    assert_eq!(setup.host.read_whole(UUID, DICOM).map(|bytes| bytes.len()), Err(CORRUPTED_FILE));
    assert!(done(setup.host.read_whole(UUID, DICOM))? == content(SIZE));
    setup.check()
}
