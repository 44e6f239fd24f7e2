//! Answers with sizes that no object has.

use anyhow::Result;
use fake_orthanc::{FakeOrthanc, LogLevel};

use crate::Cloud;
use crate::fixture::codes::STORAGE_AREA_PLUGIN;
use crate::fixture::{DICOM, KEY, UUID, configuration, load, object_url, own_lines};
use crate::small_server::{Answer, SmallServer};

tests! {
    OneCloud:
        absurd_sizes_are_errors,
        absurd_ranges_are_errors,
}

const TEN: &str = "0123456789";

/// Loads a plugin whose server has the attachment, and answers with ten bytes and this status and header.
fn answering<C: Cloud>(status: u16, header: (&'static str, String)) -> Result<(FakeOrthanc, SmallServer)> {
    let server = SmallServer::start(move |request| {
        if !request.target.ends_with(KEY) {
            return Answer(404, Vec::new(), "<Error><Code>NoSuchKey</Code></Error>".to_owned());
        }
        let modified = ("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT".to_owned());
        let headers = vec![modified, ("ETag", "\"1\"".to_owned()), header.clone()];
        Answer(status, headers, TEN.to_owned())
    })?;
    let section =
        crate::with(C::section(&server.url("")), &serde_json::json!({"MaxRetries": 0, "CheckWrite": false}));
    Ok((load::<C>(configuration::<C>(section))??, server))
}

/// Checks that there is one error line, which names the object.
fn assert_one_error<C: Cloud>(orthanc: &FakeOrthanc, case: &str) {
    let errors = own_lines::<C>(&orthanc.logs(), LogLevel::Error);
    assert!(errors.len() == 1 && errors[0].contains(&object_url::<C>(KEY)), "{case}: {errors:#?}");
}

fn absurd_sizes_are_errors<C: Cloud>() -> Result<()> {
    for size in [1 << 62, i64::MAX as u64 + 1, u64::MAX - 2, u64::MAX] {
        let (orthanc, server) = answering::<C>(200, ("Content-Length", size.to_string()))?;
        let before = server.requests().len();
        assert!(orthanc.read_whole(UUID, DICOM).is_err(), "{size}");
        assert_eq!(server.requests().len() - before, 1, "{size}");
        assert_one_error::<C>(&orthanc, &size.to_string());
    }
    Ok(())
}

fn absurd_ranges_are_errors<C: Cloud>() -> Result<()> {
    let read = |range: &str| {
        let (orthanc, _) = answering::<C>(206, ("Content-Range", format!("bytes {range}")))?;
        anyhow::Ok((orthanc.read_range(UUID, DICOM, 0, TEN.len()), orthanc))
    };
    for range in ["0-18446744073709551615/18446744073709551615", "0-9/18446744073709551615"] {
        let (outcome, orthanc) = read(range)?;
        assert_eq!(outcome, Err(STORAGE_AREA_PLUGIN), "{range}");
        assert_one_error::<C>(&orthanc, range);
    }
    // The size of the whole object does not matter to a range.
    assert_eq!(read(&format!("0-9/{}", 1_u64 << 62))?.0.as_deref(), Ok(TEN.as_bytes()));
    Ok(())
}
