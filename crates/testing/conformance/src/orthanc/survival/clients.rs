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
pub(crate) struct Clients {
    pub(crate) known: Known,
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
    /// Number of times that a disturbance has begun or ended, which is odd during one. Otherwise, reads must succeed.
    disturbances: AtomicUsize,
    /// The pause after each read.
    read_pause: Duration,
    /// Width and height of each image, in pixels.
    edge: u16,
    /// Instances that stay stored, so that there is something to read and move.
    keep: usize,
    studies: AtomicU64,
    random: AtomicU64,
}

type Work<'a> = Box<dyn FnOnce(&Client) -> Result<()> + Send + 'a>;

impl Clients {
    pub(crate) fn new(keep_time: bool) -> Self {
        Self {
            known: Known::default(),
            start: Instant::now(),
            keep_time,
            working: AtomicBool::default(),
            in_flight: AtomicUsize::default(),
            moves: AtomicUsize::default(),
            failed_reads: AtomicUsize::default(),
            disturbances: AtomicUsize::new(1),
            read_pause: Duration::ZERO,
            edge: 64,
            keep: 8,
            studies: AtomicU64::default(),
            random: AtomicU64::default(),
        }
    }

    /// The clients store so much that a cache of 1 MB must evict.
    pub(crate) fn that_fill_a_cache(self) -> Self {
        Self { edge: 192, keep: 40, ..self }
    }

    /// The clients leave time for jobs, and need not find everything readable only while [`disturb`](Self::disturb) works.
    pub(crate) fn beside_jobs(self) -> Self {
        Self { read_pause: PAUSE, disturbances: AtomicUsize::new(0), ..self }
    }

    /// Does something during which reads may fail.
    pub(crate) fn disturb<T>(&self, disturb: impl FnOnce() -> T) -> T {
        self.disturbances.fetch_add(1, Ordering::SeqCst);
        let result = disturb();
        self.disturbances.fetch_add(1, Ordering::SeqCst);
        result
    }

    pub(crate) fn begin(&self) {
        self.working.store(true, Ordering::SeqCst);
    }

    pub(crate) fn end(&self) {
        self.working.store(false, Ordering::SeqCst);
    }

    pub(crate) fn are_working(&self) -> bool {
        self.working.load(Ordering::SeqCst)
    }

    /// Fails if the clients did not do everything.
    pub(crate) fn expect_all_kinds(&self) -> Result<()> {
        let moves = self.moves.load(Ordering::Relaxed);
        println!("{}, {moves} moves", self.known.summary());
        ensure!(moves > 0, "nothing was moved");
        self.known.expect_all_kinds()
    }

    pub(crate) fn failed_reads(&self) -> usize {
        self.failed_reads.load(Ordering::SeqCst)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// What each client does until the end.
    pub(crate) fn work(&self) -> impl Iterator<Item = Work<'_>> {
        let moves: Work<'_> = Box::new(|rest| self.move_studies(rest));
        self.work_without_moves().chain([moves])
    }

    /// What each client does until the end if only jobs move what is stored.
    pub(crate) fn work_without_moves(&self) -> impl Iterator<Item = Work<'_>> {
        let work: [Work<'_>; 5] = [
            Box::new(|rest| self.store(rest)),
            Box::new(|rest| self.store(rest)),
            Box::new(|rest| self.delete(rest)),
            Box::new(|rest| self.delete(rest)),
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
            let before = self.disturbances.load(Ordering::SeqCst);
            match rest.get(&format!("{}/file", uploaded.path)) {
                Ok(answer) if answer.status == 200 => {
                    ensure!(answer.body == instance.file, "the bytes of {} differ", uploaded.id);
                }
                Ok(answer) if answer.status == 404 => {
                    let state = self.known.state(number);
                    ensure!(state != State::Stored, "{} is {state:?} and not found", uploaded.id);
                }
                answer => {
                    let failed = self.known.state(number) == State::Stored;
                    self.failed_reads.fetch_add(usize::from(failed), Ordering::SeqCst);
                    let is_calm =
                        before.is_multiple_of(2) && before == self.disturbances.load(Ordering::SeqCst);
                    ensure!(!(failed && is_calm), "{} is unreadable: {answer:?}", uploaded.id);
                    thread::sleep(PAUSE);
                }
            }
            thread::sleep(self.read_pause);
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
