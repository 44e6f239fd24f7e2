//! Answers that differ from those of the cloud: of proxies, which say nothing about objects, and of other makes of
//! servers, which are right.

use std::time::Duration;

use anyhow::Result;
use fake_cloud::{Fault, FaultRule, Odd, Operation};
use fake_orthanc::LogLevel;
use serde_json::{Value, json};
use storage_plugin::Provider;

use crate::Cloud;
use crate::fixture::codes::{BAD_RANGE, STORAGE_AREA_PLUGIN};
use crate::fixture::{
    DICOM, KEY, LoadedPlugin, UUID, configuration, content, eventually, load, object_url, refusal, request,
    section, uuid,
};

tests! {
    EveryCloud:
        web_page_is_not_an_answer,
        web_page_does_not_confirm_a_deletion,
        web_page_prevents_the_start,
        missing_permission_does_not_prevent_the_start,
        unusual_answers_are_read,
        store_without_etag_is_looked_at;
    OneCloud:
        chunked_object_of_any_size_is_read,
        whole_object_for_a_range_is_cut,
        archived_object_must_be_restored,
}

const SIZE: usize = 300_000;
/// Statuses of a proxy: a default page, and a login page.
const PAGES: [Odd; 2] = [Odd::WebPage(404), Odd::WebPage(200)];

/// Loads a plugin whose bucket contains the attachment.
fn with_attachment<C: Cloud>(options: &Value) -> Result<LoadedPlugin<C>> {
    let plugin = LoadedPlugin::<C>::with(options)?;
    plugin.insert(KEY, content(SIZE));
    Ok(plugin)
}

fn web_page_is_not_an_answer<C: Cloud>() -> Result<()> {
    let plugin = with_attachment::<C>(&json!({"MaxRetries": 1}))?;
    let bytes = content(SIZE);
    for page in PAGES {
        for operation in request::ALL {
            let run = || match operation {
                request::CREATE => plugin.orthanc.create(&uuid(1), DICOM, &bytes),
                request::READ => plugin.orthanc.read_whole(UUID, DICOM).map(|read| assert!(read == bytes)),
                _ => plugin.orthanc.read_range(UUID, DICOM, 1, 10).map(|read| assert!(read == bytes[1..11])),
            };
            plugin.requests();
            plugin.fault(operation, Fault::Odd(page), 1);
            assert_eq!(run(), Ok(()), "{page:?} {operation:?}: {:#?}", plugin.errors());
            assert_eq!(plugin.server.requests().of(operation), 2, "{page:?} {operation:?}");

            plugin.server.remove(C::BUCKET, &format!("{}.dcm", uuid(1)));
            plugin.fault(operation, Fault::Odd(page), usize::MAX);
            // The status of a missing object would tell Orthanc's clients that it is lost.
            assert_eq!(run(), Err(STORAGE_AREA_PLUGIN), "{page:?} {operation:?}");
            let line = plugin.new_error()?;
            assert!(line.contains("does not come from the storage server"), "{line}");
            plugin.server.faults().clear();
            plugin.settle();
        }
    }
    assert_eq!(plugin.stored(), [KEY]);
    plugin.check()
}

fn web_page_does_not_confirm_a_deletion<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&json!({"MaxRetries": 0}))?;
    for page in PAGES {
        // Two objects at once, then one alone.
        for count in [2, 1] {
            let names: Vec<_> = (0..count).map(|number| format!("{}.dcm", uuid(number))).collect();
            names.iter().for_each(|name| plugin.insert(name, "x"));
            let rules = [Operation::DeleteObject, Operation::DeleteObjects]
                .map(|operation| plugin.fault(operation, Fault::Odd(page), usize::MAX));
            for number in 0..count {
                plugin.remove(&uuid(number))?;
            }
            eventually("the deletion is tried", Duration::from_secs(60), || {
                rules.iter().any(|rule| rule.fired() > 0)
            })?;
            plugin.server.faults().clear();
            assert_eq!(
                plugin.stored(),
                [""; 0],
                "{page:?}: an object remains whose deletion was not confirmed"
            );
        }
    }
    plugin.check()
}

fn web_page_prevents_the_start<C: Cloud>() -> Result<()> {
    for page in PAGES {
        let server = C::server()?;
        server.faults().push(FaultRule::new(Fault::Odd(page)).on(request::READ).times(usize::MAX));
        let line = refusal::<C, _>(load::<C>(configuration::<C>(section::<C>(&server, &json!({}))))?)?;
        let (server, option) = (C::Provider::SERVER, C::Provider::ENDPOINT_OPTION);
        let expected = format!("this does not look like {server}: correct {option}");
        assert!(line.contains(C::URL) && line.contains(&expected), "{line}");
    }
    Ok(())
}

fn missing_permission_does_not_prevent_the_start<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let denied = Fault::status(403, C::MISSING_PERMISSION);
    server.faults().push(FaultRule::new(denied).on(request::READ).times(usize::MAX));
    let section = section::<C>(&server, &json!({}));
    let plugin = LoadedPlugin::<C>::load(server, configuration::<C>(section))?;
    let warnings = plugin.lines(LogLevel::Warning);
    let names_it = |line: &String| line.contains(C::URL) && line.contains(C::Provider::READ_PERMISSIONS);
    assert!(warnings.iter().any(names_it), "{warnings:#?}");
    plugin.create(UUID, b"x")?;
    assert_eq!(plugin.orthanc.read_whole(UUID, DICOM), Err(STORAGE_AREA_PLUGIN));
    plugin.check()
}

fn unusual_answers_are_read<C: Cloud>() -> Result<()> {
    let plugin = with_attachment::<C>(&json!({}))?;
    let bytes = content(SIZE);
    for odd in [Odd::NoVersion, Odd::WeakEtag, Odd::Chunked, Odd::RangeWithOk] {
        for operation in [request::READ, request::READ_RANGE] {
            plugin.fault(operation, Fault::Odd(odd), usize::MAX);
        }
        // A chunked answer does not say how large the object is. A range does.
        let expected = if odd == Odd::Chunked { 2 } else { 1 };
        plugin.requests();
        assert!(plugin.read(UUID)? == bytes, "{odd:?}");
        assert_eq!(plugin.requests(), expected, "{odd:?}");
        for (start, len) in [(0, 1), (0, SIZE), (7, 1000), (SIZE - 1, 1)] {
            assert!(plugin.range(UUID, start as u64, len)? == bytes[start..start + len], "{odd:?} {start}");
            // Without an ETag, only the server's checksum can be compared.
            // Nor does a chunked answer to a request without a range, which S3's checksum comes with, say how large the object
            // is.
            let takes_more = len == SIZE && matches!(odd, Odd::NoVersion | Odd::Chunked);
            let expected = 1 + if takes_more { C::CHECKSUM_REQUESTS } else { 0 };
            assert_eq!(plugin.requests(), expected, "{odd:?} {start}");
        }
        assert_eq!(plugin.orthanc.read_range(UUID, DICOM, SIZE as u64, 1), Err(BAD_RANGE));
        plugin.new_error()?;

        plugin.server.faults().clear();
        // The answers before and after an interruption are of one kind, or of two.
        for (first, second) in [(true, true), (true, false), (false, true)] {
            plugin.requests();
            let cut = 100_000;
            let fault = if first { Fault::OddAndCut(odd, cut) } else { Fault::CloseAfterResponseBytes(cut) };
            plugin.fault(request::READ_RANGE, fault, 1);
            if second {
                plugin.fault(request::READ_RANGE, Fault::Odd(odd), usize::MAX);
            }
            assert!(plugin.range(UUID, 5, 200_000)? == bytes[5..200_005], "{odd:?} {first} {second}");
            assert_eq!(plugin.requests(), 2, "{odd:?} {first} {second}");
            plugin.server.faults().clear();
        }
    }
    assert_eq!(plugin.errors().len(), 4);
    plugin.check()
}

fn store_without_etag_is_looked_at<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    for operation in [request::CREATE, request::HEAD] {
        plugin.fault(operation, Fault::Odd(Odd::NoVersion), usize::MAX);
    }
    plugin.create(UUID, &content(SIZE))?;
    let requests = plugin.server.requests();
    assert_eq!((requests.of(request::CREATE), requests.of(request::HEAD), requests.total), (1, 1, 2));
    assert!(plugin.read(UUID)? == content(SIZE));
    plugin.check()
}

fn chunked_object_of_any_size_is_read<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    for operation in [request::READ, request::READ_RANGE] {
        plugin.fault(operation, Fault::Odd(Odd::Chunked), usize::MAX);
    }
    for size in [0, 1, 20_000_000] {
        plugin.insert(KEY, content(size));
        assert!(plugin.read(UUID)? == content(size), "{size}");
    }
    // The end of the connection is not the end of the object.
    plugin.server.faults().clear();
    plugin.requests();
    plugin.fault(request::READ, Fault::Odd(Odd::Chunked), 1);
    plugin.fault(request::READ_RANGE, Fault::OddAndCut(Odd::Chunked, 7_000_000), 1);
    assert!(plugin.read(UUID)? == content(20_000_000));
    assert_eq!(
        plugin.ranges(),
        [None, Some("bytes=0-".to_owned()), Some("bytes=7000000-19999999".to_owned())]
    );
    // Only the service knows that an object is empty.
    plugin.insert(KEY, content(SIZE));
    for before in [None, Some(Odd::Chunked)] {
        let refused = if before.is_some() { request::READ_RANGE } else { request::READ };
        before.into_iter().for_each(|odd| drop(plugin.fault(request::READ, Fault::Odd(odd), 1)));
        plugin.fault(refused, Fault::status(416, "Other"), 1);
        assert_eq!(plugin.orthanc.read_whole(UUID, DICOM), Err(BAD_RANGE), "{before:?}");
        assert!(plugin.new_error()?.contains("HTTP 416"));
    }
    // The size of a large object is known from the range, if no answer has a length.
    plugin.insert(KEY, content(20_000_000));
    for operation in request::ALL.into_iter().chain([request::HEAD]) {
        plugin.fault(operation, Fault::Odd(Odd::Chunked), usize::MAX);
    }
    assert!(plugin.range(UUID, 0, 20_000_000)? == content(20_000_000));
    plugin.check()
}

fn whole_object_for_a_range_is_cut<C: Cloud>() -> Result<()> {
    // The rest of such an answer must not hold the only connection while a checksum is asked for.
    let plugin = with_attachment::<C>(&json!({"MaxConnections": 1}))?;
    plugin.fault(request::READ_RANGE, Fault::Odd(Odd::WholeForRange), usize::MAX);
    let bytes = content(SIZE);
    for (start, len) in [(0, 1), (0, SIZE), (7, 1000), (150_000, 100_000), (SIZE - 1, 1)] {
        assert!(plugin.range(UUID, start as u64, len)? == bytes[start..start + len], "{start}");
        assert_eq!(plugin.requests(), 1, "{start}");
    }
    for (start, len) in [(SIZE, 1), (SIZE - 1, 2)] {
        assert_eq!(plugin.orthanc.read_range(UUID, DICOM, start as u64, len), Err(BAD_RANGE), "{start}");
        assert!(plugin.new_error()?.contains(&object_url::<C>(KEY)));
    }
    plugin.check()?;

    let plugin = LoadedPlugin::<C>::with(&json!({"MaxConnections": 1}))?;
    plugin.fault(request::READ_RANGE, Fault::Odd(Odd::WholeForRange), usize::MAX);
    let large = content(20_000_000);
    plugin.insert(KEY, large.clone());
    assert!(plugin.range(UUID, 0, large.len())? == large);
    assert_eq!(plugin.server.requests().of(request::HEAD), C::CHECKSUM_REQUESTS);
    plugin.check()
}

fn archived_object_must_be_restored<C: Cloud>() -> Result<()> {
    let plugin = with_attachment::<C>(&json!({}))?;
    plugin.server.archive(C::BUCKET, KEY);
    plugin.expect_archived(&object_url::<C>(KEY))?;
    plugin.remove(UUID)?;
    assert_eq!(plugin.stored(), [""; 0]);
    plugin.check()
}
