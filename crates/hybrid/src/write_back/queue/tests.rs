use storage_layout::{Attachment, ContentType};
use tokio::time::advance;

use super::*;

fn job(number: usize) -> Job {
    let uuid = format!("fb4b5a2e-8b2d-4c5f-9d62-{number:012x}");
    let name =
        StoredName { attachment: Attachment::new(&uuid, ContentType::DICOM).unwrap(), encrypted: false };
    Job { name, size: 10, checksum: Some(0), since: SystemTime::now(), repeated: false }
}

fn queue(files: usize) -> Queue {
    let queue = Queue::default();
    (0..files).for_each(|number| queue.add(job(number), Duration::ZERO));
    queue
}

fn failed(outage: bool) -> Outcome {
    Outcome::Failed { error: "REASON".to_owned(), outage }
}

/// The number of the next file if no attachments arrive; `None` if it is nobody's turn.
fn next(queue: &Queue) -> Option<usize> {
    queue.state.lock().arrived = None;
    let uuid = queue.next()?.name.attachment.uuid;
    usize::from_str_radix(&uuid.as_str()[24..], 16).ok()
}

#[tokio::test(start_paused = true)]
async fn files_are_uploaded_in_the_order_of_their_arrival() {
    let queue = queue(3);
    queue.add_found(Job { checksum: None, ..job(10) }, Duration::ZERO);
    queue.add_found(Job { checksum: None, ..job(11) }, Duration::ZERO);
    // Known already.
    queue.add_found(job(1), Duration::ZERO);
    let order: Vec<_> = std::iter::from_fn(|| next(&queue)).collect();
    assert_eq!(order.len(), 5);
    assert_eq!(order.iter().copied().filter(|number| *number < 10).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(order.iter().copied().filter(|number| *number >= 10).collect::<Vec<_>>(), [10, 11]);
    assert_eq!(queue.totals().files, 5);
}

#[tokio::test(start_paused = true)]
async fn file_that_is_being_stored_is_not_one_of_an_earlier_process() {
    let queue = Queue::default();
    queue.announce(job(0).name);
    queue.announce(job(1).name);
    // The folder is read at this moment.
    queue.add_found(job(0), Duration::ZERO);
    queue.add_found(job(1), Duration::ZERO);
    queue.add(job(0), Duration::from_secs(60));
    queue.withdraw(&job(1).name);
    assert_eq!((next(&queue), queue.totals().files), (None, 1));
    advance(Duration::from_secs(60)).await;
    assert_eq!(next(&queue), Some(0));
}

#[tokio::test(start_paused = true)]
async fn delay_holds_back_an_upload() {
    let queue = Queue::default();
    queue.add(job(0), Duration::from_secs(60));
    assert_eq!(next(&queue), None);
    tokio::time::timeout(Duration::from_secs(59), queue.wait()).await.ok();
    let start = Instant::now();
    while next(&queue).is_none() {
        queue.wait().await;
    }
    assert!(start.elapsed() <= Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn files_wait_while_attachments_arrive() {
    let queue = Queue::default();
    let start = Instant::now();
    let mut uploads = Vec::new();
    // One every 100 ms.
    for number in 0..100 {
        queue.announce(job(number).name);
        queue.add(job(number), Duration::ZERO);
        uploads.extend(queue.next().map(|upload| (upload.name, start.elapsed())));
        advance(Duration::from_millis(100)).await;
    }
    // Each waits for five seconds.
    assert_eq!(uploads.len(), 50);
    for (number, (name, time)) in uploads.iter().enumerate() {
        let expected = LONGEST_WAIT + Duration::from_millis(100) * u32::try_from(number).unwrap();
        assert_eq!((*name, time.as_millis()), (job(number).name, expected.as_millis()));
    }

    // A store that has only begun holds them up, too.
    queue.announce(job(100).name);
    let last = Instant::now();
    assert_eq!(queue.next().map(|upload| upload.name), Some(job(50).name));
    assert_eq!(queue.next(), None);
    while queue.next().is_none() {
        queue.wait().await;
    }
    assert!((100..=QUIET.as_millis() + 1).contains(&last.elapsed().as_millis()), "{:?}", last.elapsed());
}

#[tokio::test(start_paused = true)]
async fn worker_is_woken_up_only_by_what_is_due_first() {
    let queue = Queue::default();
    let wakes = async |number, delay| {
        queue.add(job(number), delay);
        tokio::time::timeout(Duration::from_millis(1), queue.wait()).await.is_ok()
    };
    assert!(wakes(0, Duration::from_secs(60)).await);
    assert!(!wakes(1, Duration::from_secs(60)).await);
    assert!(wakes(2, Duration::ZERO).await);
}

#[tokio::test(start_paused = true)]
async fn flush_does_not_wait_until_no_attachments_arrive() {
    advance(Duration::from_secs(3600)).await;
    let queue = queue(3);
    queue.hurry();
    queue.add(job(3), Duration::ZERO);
    let at_once: Vec<_> = std::iter::from_fn(|| queue.next()).map(|upload| upload.name).collect();
    assert_eq!(at_once, [0, 1, 2].map(|number| job(number).name));
}

#[tokio::test(start_paused = true)]
async fn bad_file_does_not_hold_up_others() {
    let queue = queue(4);
    assert_eq!(next(&queue), Some(0));
    queue.finish(&job(0).name, failed(false));
    for number in 1..4 {
        assert_eq!(next(&queue), Some(number));
        queue.finish(&job(number).name, Outcome::Uploaded);
    }
    // Its own pauses: 1, 2, 4 s, …
    for pause in [1, 2, 4, 8] {
        assert_eq!(next(&queue), None);
        advance(Duration::from_secs(pause)).await;
        let repeated = queue.next().unwrap();
        assert!(repeated.repeated);
        queue.finish(&repeated.name, failed(false));
        queue.state.lock().failures_in_a_row = 0;
    }
    assert_eq!(queue.totals().files, 1);
}

#[tokio::test(start_paused = true)]
async fn outage_is_probed_with_one_file_at_a_time() {
    let queue = queue(100);
    for number in 0..8 {
        assert_eq!(next(&queue), Some(number));
    }
    for number in 0..8 {
        queue.finish(&job(number).name, failed(true));
    }
    assert!(queue.totals().is_outage);
    let mut probed = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(600) {
        queue.wait().await;
        if let Some(number) = next(&queue) {
            assert_eq!(next(&queue), None, "two at once");
            probed.push(number);
            queue.finish(&job(number).name, failed(true));
        }
    }
    // The longest pause is 15 s, and each probe is with another file.
    assert!((35..60).contains(&probed.len()), "{}", probed.len());
    probed.sort_unstable();
    probed.dedup();
    assert!(probed.len() >= 35, "{probed:?}");

    advance(LONGEST_OUTAGE_PAUSE).await;
    let number = next(&queue).unwrap();
    queue.finish(&job(number).name, Outcome::Uploaded);
    assert!(!queue.totals().is_outage);
    assert_eq!(queue.totals().last_error, None);
    let at_once = std::iter::from_fn(|| next(&queue)).count();
    assert_eq!(at_once, 99, "all others may go now");
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_are_an_outage_whatever_their_reason_is() {
    let queue = queue(10);
    for number in 0..3 {
        assert_eq!(next(&queue), Some(number));
        queue.finish(&job(number).name, failed(false));
    }
    assert!(queue.totals().is_outage);
    assert_eq!(next(&queue), None);
}

#[tokio::test(start_paused = true)]
async fn file_that_is_forgotten_while_it_is_uploaded_does_not_return() {
    for outcome in [failed(true), Outcome::Later, Outcome::Uploaded] {
        let queue = queue(1);
        assert_eq!(next(&queue), Some(0));
        queue.forget(&job(0).name);
        queue.finish(&job(0).name, outcome);
        advance(Duration::from_secs(3600)).await;
        assert_eq!((next(&queue), queue.totals().files, queue.totals().uploading), (None, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn flush_ends_when_its_files_are_uploaded() {
    let queue = Queue::default();
    queue.add_found(job(10), Duration::ZERO);
    queue.add(job(0), Duration::from_secs(3600));
    let snapshot = queue.hurry();
    queue.add(job(1), Duration::ZERO);
    assert_eq!(queue.progress(snapshot), Progress::Working);
    let mut uploaded = 0;
    while queue.progress(snapshot) == Progress::Working {
        let job = queue.next().unwrap();
        queue.finish(&job.name, Outcome::Uploaded);
        uploaded += 1;
    }
    assert_eq!((queue.progress(snapshot), uploaded >= 2), (Progress::Done, true));
}

#[tokio::test(start_paused = true)]
async fn flush_fails_once_everything_that_is_left_has_failed() {
    let queue = queue(2);
    let snapshot = queue.hurry();
    assert_eq!(next(&queue), Some(0));
    queue.finish(&job(0).name, failed(false));
    assert_eq!(queue.progress(snapshot), Progress::Working);
    assert_eq!(next(&queue), Some(1));
    assert_eq!(queue.progress(snapshot), Progress::Working);
    queue.finish(&job(1).name, Outcome::Uploaded);
    let failure = Progress::Failed { files: 1, error: "REASON".to_owned() };
    assert_eq!(queue.progress(snapshot), failure);
    // The next flush tries again.
    let snapshot = queue.hurry();
    assert_eq!(queue.progress(snapshot), Progress::Working);
    assert_eq!(next(&queue), Some(0));
}

#[tokio::test(start_paused = true)]
async fn flush_fails_at_the_first_failure_of_an_outage() {
    let queue = queue(1000);
    let snapshot = queue.hurry();
    assert_eq!(next(&queue), Some(0));
    queue.finish(&job(0).name, failed(true));
    assert_eq!(queue.progress(snapshot), Progress::Failed { files: 1000, error: "REASON".to_owned() });
}

#[tokio::test(start_paused = true)]
async fn file_that_fails_like_an_outage_does_not_hold_up_others() {
    let queue = queue(200);
    let (mut attempts, mut uploaded) = (0, 0);
    // Ten uploads a second.
    for _ in 0..600 {
        while let Some(number) = next(&queue) {
            if number == 0 {
                attempts += 1;
                queue.finish(&job(0).name, failed(true));
                continue;
            }
            uploaded += 1;
            queue.finish(&job(number).name, Outcome::Uploaded);
            break;
        }
        advance(Duration::from_millis(100)).await;
    }
    assert_eq!(uploaded, 199);
    assert!((5..=10).contains(&attempts), "{attempts} attempts in a minute");
}

#[tokio::test(start_paused = true)]
async fn only_file_is_tried_every_15_seconds_in_an_outage() {
    let queue = queue(1);
    assert_eq!(next(&queue), Some(0));
    queue.finish(&job(0).name, failed(true));
    let start = Instant::now();
    let mut last = start;
    while start.elapsed() < Duration::from_secs(600) {
        queue.wait().await;
        if next(&queue).is_some() {
            assert!(last.elapsed() <= LONGEST_OUTAGE_PAUSE, "{:?}", last.elapsed());
            last = Instant::now();
            queue.finish(&job(0).name, failed(true));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn file_that_fails_again_and_again_is_no_outage() {
    let queue = queue(1);
    for _ in 0..10 {
        advance(LONGEST_PAUSE).await;
        assert_eq!(next(&queue), Some(0));
        queue.finish(&job(0).name, failed(false));
    }
    assert!(!queue.totals().is_outage);
    assert!(queue.totals().last_error.is_some());
    queue.add(job(1), Duration::ZERO);
    assert_eq!(next(&queue), Some(1));
    queue.finish(&job(1).name, Outcome::Uploaded);
    assert!(queue.totals().last_error.is_some(), "one still fails");
}

#[tokio::test(start_paused = true)]
async fn oldest_file_is_the_oldest_whatever_the_order_of_their_arrival_is() {
    let queue = queue(1);
    let since = SystemTime::now() - Duration::from_secs(1000);
    queue.add_found(Job { since: since + Duration::from_secs(1), ..job(1) }, Duration::ZERO);
    queue.add_found(Job { since, ..job(2) }, Duration::ZERO);
    assert_eq!(queue.totals().oldest, Some(since));
    queue.forget(&job(2).name);
    assert_eq!(queue.totals().oldest, Some(since + Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn attempt_that_began_before_a_flush_does_not_fail_it() {
    let queue = queue(1);
    assert_eq!(next(&queue), Some(0));
    let snapshot = queue.hurry();
    queue.finish(&job(0).name, failed(true));
    assert_eq!(queue.progress(snapshot), Progress::Working);
    advance(LONGEST_OUTAGE_PAUSE).await;
    assert_eq!(next(&queue), Some(0));
    queue.finish(&job(0).name, failed(true));
    assert!(matches!(queue.progress(snapshot), Progress::Failed { files: 1, .. }));
}
