use std::fs;

use bucket::{Bucket, BucketOptions, ObjectStorage};
use chrono::Utc;
use crypto_envelope::{FileKey, FileKeyOptions, FileKeys, KeyService, KeyServiceError, Service, Wrapped};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hybrid::Purpose;
use object_store::memory::InMemory;
use storage_layout::Layout;
use tempfile::TempDir;

use super::*;
use crate::jobs::Reports;
use crate::operations::metrics::{PASSED, Request};
use crate::verifying::{Depth, Schedule, Window};

const PLACE: &str = "memory://bucket, root \"\"";

/// The figures of a plugin with a bucket in memory, and its state directory.
fn figures(schedule: Option<Schedule>) -> (Figures, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let purpose = Purpose { bucket: "memory://bucket".to_owned(), settings: String::new() };
    let state = Arc::new(StateDirectory::open(folder.path(), &purpose).unwrap());
    let bucket = Bucket::new(BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket"));
    let objects = ObjectStorage::new(bucket, Layout::default(), false, false);
    let reports = Some(Arc::new(Reports::new(&state)));
    let figures = Figures {
        metrics: Arc::default(),
        storage: HybridStorage::objects_only(objects),
        state: Some(state),
        deletion_delay: Duration::ZERO,
        stow: None,
        key_calls: None,
        verifications: Arc::new(Verifications::new(reports, PLACE.into(), schedule)),
    };
    (figures, folder)
}

/// Writes the report of a verification that began on a day of November, with other fields than those of a complete one.
fn report(figures: &Figures, day: u32, failures: u64, changes: &Value) {
    let mut summary = json!({
        "JobId": format!("job-{day}"), "Type": "VerifyStorage", "State": "Success", "Place": PLACE,
        "Everything": true, "Depth": "size", "VerifiedAttachments": 9, "Failures": failures,
        "Started": format!("2026-11-{day:02}T02:00:00Z"), "Ended": format!("2026-11-{day:02}T03:00:00Z"),
    });
    for (field, value) in changes.as_object().unwrap() {
        summary[field] = value.clone();
    }
    let folder = figures.state.as_ref().unwrap().folder().join("reports");
    fs::create_dir_all(&folder).unwrap();
    let name = format!("VerifyStorage-202611{day:02}T020000.000Z-00000000.json");
    fs::write(folder.join(name), summary.to_string()).unwrap();
}

fn value(figures: &Figures, name: &str) -> Option<u64> {
    figures.values().into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

#[test]
fn last_complete_verification_comes_from_its_report() {
    let day = Duration::from_secs(24 * 60 * 60);
    let window = Window::parse("02:00-06:00").unwrap();
    let (figures, _folder) = figures(Some(Schedule { window, every: day * 30, depth: Depth::Size }));
    let known = || {
        let shown = figures.to_json()["Verification"].take();
        (shown["Last"]["JobId"].clone(), shown["NextDue"].clone(), value(&figures, "verification_failures"))
    };
    assert_eq!(known(), (Value::Null, Value::Null, None));
    assert_eq!(value(&figures, "verification_age_seconds"), None);
    assert_eq!(value(&figures, "verification_every_seconds"), Some(30 * 86400));

    report(&figures, 1, 0, &json!({"Scheduled": true}));
    let next = json!("2026-12-01T02:00:00Z");
    assert_eq!(known(), (json!("job-1"), next.clone(), Some(0)));
    report(&figures, 2, 3, &json!({}));
    report(&figures, 3, 1, &json!({"Everything": null}));
    report(&figures, 4, 1, &json!({"State": "Failure"}));
    report(&figures, 5, 1, &json!({"State": "Running", "Ended": null}));
    report(&figures, 6, 1, &json!({"Place": "memory://other"}));
    assert_eq!(known(), (json!("job-2"), next, Some(3)));
    let age = (Utc::now() - "2026-11-02T03:00:00Z".parse::<chrono::DateTime<Utc>>().unwrap()).num_seconds();
    let shown = value(&figures, "verification_age_seconds").unwrap();
    assert!(i64::try_from(shown).unwrap().abs_diff(age) < 60, "{shown} {age}");
    assert_eq!(figures.to_json()["Problems"][0]["Id"], "VerificationFailures");
}

#[tokio::test(start_paused = true)]
async fn history_has_a_sample_for_each_minute() {
    let (figures, _folder) = figures(None);
    let history = Arc::new(History::new(SystemTime::UNIX_EPOCH));
    let sampling = tokio::spawn(figures.clone().sample(Arc::clone(&history)));
    tokio::time::sleep(STEP / 2).await;
    figures.metrics.count(Request::Create, Duration::from_millis(3), Some(10));
    figures.metrics.count(Request::ReadRange, Duration::from_millis(1), Some(5));
    figures.metrics.failed(Request::Read, "REASON", false);
    tokio::time::sleep(STEP).await;
    figures.metrics.count(Request::Read, Duration::from_millis(1), None);
    tokio::time::sleep(STEP * 2).await;
    sampling.abort();
    let shown = history.to_json(180, 0);
    assert_eq!(shown["Times"].as_array().unwrap().len(), 3);
    assert_eq!(shown["Create"]["Requests"], json!([1, 0, 0]));
    assert_eq!(shown["Read"]["Requests"], json!([1, 1, 0]));
    assert_eq!(shown["Read"]["Failures"], json!([0, 1, 0]));
    assert_eq!(shown["Outage"], json!([1, 1, 1]));
}

/// Fails every other time.
#[derive(Debug, Default)]
struct Alternating(std::sync::atomic::AtomicBool);

impl KeyService for Alternating {
    fn service(&self) -> Service {
        Service::AwsKms
    }

    fn has_key(&self, _: &str) -> bool {
        true
    }

    fn wrap<'a>(&'a self, _: &'a FileKey) -> BoxFuture<'a, Result<Wrapped, KeyServiceError>> {
        let fails = self.0.fetch_xor(true, std::sync::atomic::Ordering::Relaxed);
        let answer = if fails {
            Err(KeyServiceError::Unavailable("REASON".to_owned()))
        } else {
            Ok(Wrapped { key: String::new(), wrapped: vec![7; 32] })
        };
        async { answer }.boxed()
    }

    fn unwrap<'a>(&'a self, _: &'a str, _: &'a [u8]) -> BoxFuture<'a, Result<FileKey, KeyServiceError>> {
        async { Err(KeyServiceError::Refused("REASON".to_owned())) }.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn requests_to_the_key_service_are_counted() {
    let calls = Arc::<KeyServiceCalls>::default();
    let (figures, _folder) = figures(None);
    let figures = Figures { key_calls: Some(Arc::clone(&calls)), ..figures };
    let keys = FileKeys::new(
        Some(calls.counting(Arc::<Alternating>::default())),
        [],
        FileKeyOptions { decay: 1, pool: 0 },
    );
    let problems = || figures.to_json()["Problems"].take();
    keys.next().await.unwrap();
    assert_eq!(problems(), json!([]));
    keys.next().await.unwrap_err();
    assert_eq!(problems()[0]["Id"], "KeyServiceFailed");
    tokio::time::advance(PASSED).await;
    assert_eq!(problems(), json!([]), "nobody has tried again");
    keys.next().await.unwrap();
    let shown = ["key_service_requests", "key_service_failures"].map(|name| value(&figures, name));
    assert_eq!(shown, [Some(3), Some(1)]);
    let json = calls.to_json();
    assert_eq!((&json["Count"], &json["Failures"]), (&json!(3), &json!(1)));
}
