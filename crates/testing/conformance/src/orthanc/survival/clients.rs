//! Clients that store, delete, move and read at the same time.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use real_orthanc::Client;
use real_orthanc::dicom::Study;
use serde_json::json;

use super::known::{Known, State};

/// The pause of a client after an error.
const PAUSE: Duration = Duration::from_millis(20);
/// The interval in which all clients begin a change at the same time, if they keep time.
const BEAT: Duration = Duration::from_millis(500);

/// The clients, which begin and end together.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) known: Known,
    start: Instant,
    /// Whether all changes begin on a beat, so that Orthanc is idle in between.
    keep_time: bool,
    working: AtomicBool,
    /// Stores and deletions without an answer.
    in_flight: AtomicUsize,
    /// Number of successful moves.
    moves: AtomicUsize,
    /// Failed reads of what was stored before and after them.
    failed_reads: AtomicUsize,
    /// Width and height of each image, in pixels.
    edge: u16,
    /// Instances that stay stored, so that there is something to read and move.
    keep: usize,
    studies: AtomicU64,
    random: AtomicU64,
}

type Work<'a> = Box<dyn FnOnce(&Client) -> Result<()> + Send + 'a>;

impl Clients {
    pub(super) fn new(keep_time: bool) -> Self {
        Self {
            known: Known::default(),
            start: Instant::now(),
            keep_time,
            working: AtomicBool::default(),
            in_flight: AtomicUsize::default(),
            moves: AtomicUsize::default(),
            failed_reads: AtomicUsize::default(),
            edge: 64,
            keep: 8,
            studies: AtomicU64::default(),
            random: AtomicU64::default(),
        }
    }

    /// The clients store so much that a cache of 1 MB must evict.
    pub(super) fn that_fill_a_cache(self) -> Self {
        Self { edge: 192, keep: 40, ..self }
    }

    pub(super) fn begin(&self) {
        self.working.store(true, Ordering::SeqCst);
    }

    pub(super) fn end(&self) {
        self.working.store(false, Ordering::SeqCst);
    }

    pub(super) fn are_working(&self) -> bool {
        self.working.load(Ordering::SeqCst)
    }

    /// Fails if the clients did not do everything.
    pub(super) fn expect_all_kinds(&self) -> Result<()> {
        let moves = self.moves.load(Ordering::Relaxed);
        println!("{}, {moves} moves", self.known.summary());
        ensure!(moves > 0, "nothing was moved");
        self.known.expect_all_kinds()
    }

    pub(super) fn failed_reads(&self) -> usize {
        self.failed_reads.load(Ordering::SeqCst)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// What each client does until the end.
    pub(super) fn work(&self) -> impl Iterator<Item = Work<'_>> {
        let work: [Work<'_>; 6] = [
            Box::new(|rest| self.store(rest)),
            Box::new(|rest| self.store(rest)),
            Box::new(|rest| self.delete(rest)),
            Box::new(|rest| self.delete(rest)),
            Box::new(|rest| self.move_studies(rest)),
            Box::new(|rest| self.read(rest)),
        ];
        work.into_iter()
    }

    fn store(&self, rest: &Client) -> Result<()> {
        while self.are_working() {
            let study = self.studies.fetch_add(1, Ordering::Relaxed);
            for file in Study(study).ct_series(3, self.edge, self.edge) {
                let file = file?;
                let number = self.known.send(file.clone());
                let answer = self.counted(|| rest.post("/instances", &file));
                match answer {
                    Ok(answer) if answer.status == 200 => {
                        self.known.stored(number, real_orthanc::Uploaded::parse(&answer)?);
                    }
                    Ok(_) => self.known.set(number, State::Refused),
                    // The answer was lost.
                    Err(_) => thread::sleep(PAUSE),
                }
                if !self.are_working() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn delete(&self, rest: &Client) -> Result<()> {
        while self.are_working() {
            let Some((number, uploaded)) = self.known.delete_one(self.random(), self.keep) else {
                thread::sleep(PAUSE);
                continue;
            };
            match self.counted(|| rest.delete(&uploaded.path)) {
                Ok(answer) if answer.status == 200 => self.known.set(number, State::Deleted),
                _ => thread::sleep(PAUSE),
            }
        }
        Ok(())
    }

    fn move_studies(&self, rest: &Client) -> Result<()> {
        while self.are_working() {
            if let Some((_, instance)) = self.known.any_stored(self.random())
                && let Some(uploaded) = instance.uploaded
            {
                let target = if self.random().is_multiple_of(2) { "object-storage" } else { "file-system" };
                let body = json!({"Resources": [uploaded.study], "TargetStorage": target});
                self.wait_for_beat();
                // The study may have been deleted, and Orthanc may be down.
                let answer = rest.post_json("/move-storage", &body);
                if answer.is_ok_and(|answer| answer.status == 200) {
                    self.moves.fetch_add(1, Ordering::Relaxed);
                }
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn read(&self, rest: &Client) -> Result<()> {
        while self.are_working() {
            let Some((number, instance)) = self.known.any_stored(self.random()) else {
                thread::sleep(PAUSE);
                continue;
            };
            let Some(uploaded) = instance.uploaded else { continue };
            match rest.get(&format!("{}/file", uploaded.path)) {
                Ok(answer) if answer.status == 200 => {
                    ensure!(answer.body == instance.file, "the bytes of {} differ", uploaded.id);
                }
                Ok(answer) if answer.status == 404 => {
                    let state = self.known.state(number);
                    ensure!(state != State::Stored, "{} is {state:?} and not found", uploaded.id);
                }
                _ => {
                    let failed = self.known.state(number) == State::Stored;
                    self.failed_reads.fetch_add(usize::from(failed), Ordering::SeqCst);
                    thread::sleep(PAUSE);
                }
            }
        }
        Ok(())
    }

    /// Makes a change of Orthanc's content.
    fn counted<T>(&self, request: impl FnOnce() -> T) -> T {
        self.wait_for_beat();
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let result = request();
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        result
    }

    fn wait_for_beat(&self) {
        if self.keep_time {
            let beats = self.start.elapsed().div_duration_f64(BEAT).ceil();
            thread::sleep((self.start + BEAT.mul_f64(beats)).saturating_duration_since(Instant::now()));
        }
    }

    /// A number that looks random.
    fn random(&self) -> u64 {
        let next = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        next.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 20
    }
}
