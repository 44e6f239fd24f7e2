//! Transfers of large objects over simulated lines, in simulated time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod simulation;

use std::time::Duration;

use bucket::ReadRange;
use futures_util::future::join_all;
use tokio::time::sleep;

use simulation::{Fixture, LATENCY, LATER, MB, MEBIBYTE, NAME, SIZE, UNLIMITED};

#[tokio::test(start_paused = true)]
async fn busy_server_gets_one_request_for_each_download() {
    let it = Fixture::new(60.0 * MB, 60.0 * MB).await;
    let first = it.download().await;
    assert_eq!(it.store.take_requests(), (2, 2), "the second connection is tried once");
    for _ in 0..5 {
        let time = it.download().await;
        assert_eq!(it.store.take_requests(), (1, 1));
        assert!(first < time + LATENCY * 2, "{first:?} instead of {time:?}");
    }
    sleep(LATER).await;
    it.download().await;
    assert_eq!(it.store.take_requests(), (2, 2), "the second connection is tried again");
}

#[tokio::test(start_paused = true)]
async fn fast_connection_is_never_split() {
    let it = Fixture::new(200.0 * MB, UNLIMITED).await;
    for _ in 0..3 {
        it.download().await;
        assert_eq!(it.store.take_requests(), (1, 1));
        it.upload().await;
        assert_eq!(it.store.take_requests(), (1, 1));
        sleep(LATER).await;
    }
}

#[tokio::test(start_paused = true)]
async fn slow_connections_are_all_used() {
    for (each, wanted) in [(20.0, 7.0), (80.0, 5.0)] {
        let it = Fixture::new(each * MB, UNLIMITED).await;
        let first = it.download().await;
        it.store.take_requests();
        let second = it.download().await;
        let speedup = [first, second].map(|time| it.speedup(time));
        assert!(speedup[0] > 2.0 && speedup[1] > wanted, "{each} MB/s: {speedup:?}");
        let (requests, most) = it.store.take_requests();
        assert!(requests <= 52 && most <= 10, "{requests} requests, {most} at once");
    }
}

#[tokio::test(start_paused = true)]
async fn line_of_three_connections_is_filled() {
    let it = Fixture::new(20.0 * MB, 60.0 * MB).await;
    it.download().await;
    it.store.take_requests();
    let speedup = it.speedup(it.download().await);
    assert!(speedup > 2.6, "{speedup}");
    let (requests, most) = it.store.take_requests();
    assert!(requests < 30 && most <= 4, "{requests} requests, {most} at once");
}

#[tokio::test(start_paused = true)]
async fn changes_of_the_line_are_noticed() {
    let it = Fixture::new(20.0 * MB, UNLIMITED).await;
    it.download().await;
    it.upload().await;
    it.upload().await;
    it.store.set_line(20.0 * MB, 20.0 * MB);
    // A split transfer that is not faster ends the splitting.
    it.download().await;
    it.upload().await;
    it.store.take_requests();
    it.download().await;
    it.upload().await;
    assert_eq!(it.store.take_requests(), (2, 1));
    it.store.set_line(20.0 * MB, UNLIMITED);
    sleep(LATER).await;
    it.download().await;
    it.upload().await;
    it.upload().await;
    let speedup = [it.download().await, it.upload().await].map(|time| it.speedup(time));
    assert!(speedup.iter().all(|speedup| *speedup > 5.0), "{speedup:?}");
}

#[tokio::test(start_paused = true)]
async fn simultaneous_transfers_share_the_connections() {
    let it = Fixture::new(20.0 * MB, UNLIMITED).await;
    it.download().await;
    it.upload().await;
    it.upload().await;
    it.store.take_requests();
    join_all((0..10).map(|_| it.download())).await;
    let (requests, most) = it.store.take_requests();
    assert!(most <= 20 && requests <= 30, "{requests} downloads, {most} at once");
    join_all((0..10).map(|_| it.upload())).await;
    let (requests, most) = it.store.take_requests();
    assert!(most <= 20, "{requests} uploads, {most} at once");
}

#[tokio::test(start_paused = true)]
async fn slow_reader_holds_little_memory() {
    let it = Fixture::new(20.0 * MB, UNLIMITED).await;
    for _ in 0..2 {
        it.store.line.lock().received = 0;
        let mut download = it.bucket.get(NAME, ReadRange::Whole).await.unwrap();
        let mut returned = 0;
        while let Some(chunk) = download.next().await.unwrap() {
            returned += chunk.len();
            let held = it.store.line.lock().received.saturating_sub(returned);
            assert!(held <= 24 * MEBIBYTE, "{held} bytes");
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(returned, SIZE);
    }
}

#[tokio::test(start_paused = true)]
async fn uploads_are_split_while_that_is_faster() {
    let it = Fixture::new(20.0 * MB, UNLIMITED).await;
    it.upload().await;
    assert_eq!(it.store.take_requests(), (1, 1), "nothing is known of the line");
    it.upload().await;
    let (requests, most) = it.store.take_requests();
    assert_eq!((requests, most), (22, 8));
    let speedup = it.speedup(it.upload().await);
    assert!(speedup > 5.0, "{speedup}");
    assert_eq!(it.store.take_requests(), (22, 10));
}

#[tokio::test(start_paused = true)]
async fn busy_server_gets_one_request_for_each_upload() {
    let it = Fixture::new(60.0 * MB, 60.0 * MB).await;
    it.upload().await;
    it.upload().await;
    assert_eq!(it.store.take_requests().1, 2, "two connections are tried");
    for _ in 0..5 {
        it.upload().await;
        assert_eq!(it.store.take_requests(), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn steady_clients_are_split() {
    let it = Fixture::new(20.0 * MB, UNLIMITED).await;
    let client = async |delay| {
        sleep(Duration::from_millis(delay)).await;
        let mut time = Duration::ZERO;
        for _ in 0..5 {
            time += it.download().await;
        }
        time
    };
    let (first, second) = tokio::join!(client(0), client(10));
    // One connection each would take 26 s.
    assert!(first.max(second) < Duration::from_secs(9), "{first:?}, {second:?}");
}

#[tokio::test(start_paused = true)]
async fn steady_clients_of_a_busy_server_are_not_split() {
    let it = Fixture::new(UNLIMITED, 60.0 * MB).await;
    let client = async |delay| {
        sleep(Duration::from_millis(delay)).await;
        for _ in 0..5 {
            it.download().await;
        }
    };
    tokio::join!(client(0), client(1000));
    let (requests, most) = it.store.take_requests();
    assert!(requests <= 12 && most <= 4, "{requests} requests, {most} at once");
}

#[tokio::test(start_paused = true)]
async fn steady_clients_notice_that_the_server_became_busy() {
    let it = Fixture::new(20.0 * MB, UNLIMITED).await;
    it.download().await;
    let client = async |delay| {
        sleep(Duration::from_millis(delay)).await;
        it.download().await;
        it.store.set_line(20.0 * MB, 20.0 * MB);
        it.download().await;
        it.store.take_requests();
        it.download().await;
    };
    tokio::join!(client(0), client(10));
    assert_eq!(it.store.take_requests(), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn fluctuating_server_gets_one_request_for_each_download() {
    let mut most = Vec::new();
    for seed in 1..=20 {
        let it = Fixture::new(UNLIMITED, 50.0 * MB).await;
        it.store.fluctuate(seed);
        let mut requests = Vec::new();
        for _ in 0..3 {
            it.download().await;
            requests.push(it.store.take_requests().0);
        }
        assert!(requests[0] > 1, "nothing was tried");
        most.push(requests);
    }
    let few = most.iter().flatten().filter(|requests| **requests <= 2).count();
    let single = most.iter().flatten().filter(|requests| **requests == 1).count();
    assert!(few >= 59 && single >= 39, "{most:?}");
}

#[tokio::test(start_paused = true)]
async fn fluctuating_connections_are_all_used() {
    let mut fast = 0;
    for seed in 1..=20 {
        let it = Fixture::new(20.0 * MB, UNLIMITED).await;
        it.store.fluctuate(seed);
        it.download().await;
        fast += usize::from(it.speedup(it.download().await) >= 5.0);
    }
    assert!(fast >= 19, "{fast} of 20");
}

#[tokio::test(start_paused = true)]
async fn slow_start_and_burst_are_ignored() {
    // TCP begins slowly, shapers with a burst.
    for beginning in [0.3, 40.0] {
        let it = Fixture::new(50.0 * MB, UNLIMITED).await;
        it.store.line.lock().beginning = beginning;
        for _ in 0..2 {
            it.download().await;
        }
        let speedup = it.speedup(it.download().await);
        assert!(speedup > 3.0, "{speedup} with {beginning} at the beginning");
        let it = Fixture::new(50.0 * MB, 50.0 * MB).await;
        it.store.line.lock().beginning = beginning;
        let mut requests = Vec::new();
        for _ in 0..3 {
            it.download().await;
            requests.push(it.store.take_requests().0);
        }
        assert_eq!(requests, [2, 1, 1], "with {beginning} at the beginning");
    }
}

#[tokio::test(start_paused = true)]
async fn short_downloads_are_seldom_tried() {
    for latency in [20, 60, 100] {
        let it = Fixture::new(60.0 * MB, 60.0 * MB).await;
        it.shorten(16 * MEBIBYTE).await;
        it.store.line.lock().latency = Duration::from_millis(latency);
        for _ in 0..20 {
            it.download().await;
        }
        // With the longest latency, the trial ends too late to be judged, and is repeated after 1 and 2 s.
        let trials = if latency == 100 { 3 } else { 1 };
        assert_eq!(it.store.take_requests(), (20 + trials, 2), "{latency} ms");
    }
}

/// While the reader is busy, bytes arrive in a buffer, and make the line look fast afterwards.
#[tokio::test(start_paused = true)]
async fn pause_of_the_reader_does_not_end_the_search() {
    for pause_at in [6, 8, 10, 12, 14] {
        let it = Fixture::new(20.0 * MB, UNLIMITED).await;
        let mut download = it.bucket.get(NAME, ReadRange::Whole).await.unwrap();
        let mut returned = 0;
        while let Some(chunk) = download.next().await.unwrap() {
            let before = returned;
            returned += chunk.len();
            if (before..returned).contains(&(pause_at * MEBIBYTE)) {
                sleep(Duration::from_millis(300)).await;
            }
        }
        drop(download);
        sleep(Duration::from_secs(2)).await;
        it.download().await;
        let speedup = it.speedup(it.download().await);
        assert!(speedup > 5.0, "{speedup} after a pause at {pause_at} MiB");
    }
}

#[tokio::test(start_paused = true)]
async fn stop_during_a_trial_ends_its_requests() {
    let it = Fixture::new(20.0 * MB, UNLIMITED).await;
    let mut download = it.bucket.get(NAME, ReadRange::Whole).await.unwrap();
    while it.store.line.lock().busy < 2 {
        download.next().await.unwrap().expect("there was no trial");
    }
    drop(download);
    sleep(LATENCY).await;
    assert_eq!(it.store.line.lock().busy, 0);
    it.download().await;
    let speedup = it.speedup(it.download().await);
    assert!(speedup > 5.0, "{speedup}");
}

#[tokio::test(start_paused = true)]
async fn download_is_split_again_when_others_end() {
    let it = Fixture::new(20.0 * MB, UNLIMITED).await;
    it.download().await;
    let long = it.download();
    let short = async {
        sleep(Duration::from_millis(50)).await;
        let beginning = || it.download_range(ReadRange::Range(0..17 * MEBIBYTE as u64));
        join_all((0..5).map(|_| beginning())).await;
    };
    let (time, ()) = tokio::join!(long, short);
    let speedup = it.speedup(time);
    assert!(speedup > 2.5, "{speedup}");
}

#[tokio::test(start_paused = true)]
async fn late_acknowledgement_does_not_split_uploads() {
    for size in [4, 8, 16] {
        let it = Fixture::new(200.0 * MB, UNLIMITED).await;
        it.store.line.lock().acknowledgement = LATENCY * 2;
        it.upload_beginning(size * MEBIBYTE).await;
        it.store.take_requests();
        it.upload_beginning(20 * MEBIBYTE).await;
        assert_eq!(it.store.take_requests(), (1, 1), "after {size} MiB");
    }
}

#[tokio::test(start_paused = true)]
async fn panic_in_a_range_reaches_the_reader() {
    let it = Fixture::new(20.0 * MB, UNLIMITED).await;
    it.store.line.lock().panics = true;
    let bucket = it.bucket.clone();
    let read = tokio::spawn(async move {
        let mut download = bucket.get(NAME, ReadRange::Whole).await.unwrap();
        while download.next().await.unwrap().is_some() {}
    });
    let error = read.await.unwrap_err();
    let panic = error.into_panic();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"a bug"));
}
