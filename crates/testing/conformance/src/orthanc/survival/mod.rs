//! Orthanc is killed or reset, or loses its bucket, while clients store, delete, move and read. Everything
//! that was acknowledged stays true, and nothing else is left.

pub(crate) mod clients;
mod hybrid;
pub(crate) mod known;
mod taking_over;
mod write_back;

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use fake_cloud::{BucketServer, Fault, FaultRule};

use self::clients::Clients;
use crate::fixture::Random;

modules![hybrid, taking_over, write_back];

/// Rounds between two looks at everything.
const CHECK_EVERY: usize = 10;

/// Runs `disturb` while the clients work, and the bucket fails one request of ten.
fn disturbed<T>(
    clients: &Clients,
    rest: &real_orthanc::Client,
    bucket: &BucketServer,
    random: &mut Random,
    disturb: impl FnOnce() -> Result<T>,
) -> Result<T> {
    clients.begin();
    let result = thread::scope(|scope| {
        let faults = scope.spawn(|| fail_requests(clients, bucket, random));
        let workers: Vec<_> = clients.work().map(|work| scope.spawn(move || work(rest))).collect();
        let result = disturb();
        clients.end();
        for worker in workers {
            worker.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        faults.join().map_err(|_| anyhow!("the thread of faults panicked"))?;
        result
    });
    bucket.faults().clear();
    result
}

/// Makes one request of ten fail: refused, reset, stalled, or carried out without an answer.
fn fail_requests(clients: &Clients, bucket: &BucketServer, random: &mut Random) {
    while clients.are_working() {
        let fault = match random.below(8) {
            0 => Fault::CloseAfterRequestBytes(random.below(9000)),
            1 => Fault::ResetAfterResponseBytes(random.below(9000)),
            2 | 3 => Fault::CloseBeforeResponse,
            4 => Fault::StallRequestAfter(0),
            5 => Fault::Delay(Duration::from_millis(300)),
            _ => Fault::slow_down(),
        };
        let passing = usize::try_from(random.below(20)).unwrap_or_default();
        bucket.faults().clear();
        let rule = bucket.faults().push(FaultRule::new(fault).skip(passing));
        while clients.are_working() && rule.fired() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
