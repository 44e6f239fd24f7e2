//! The line between Orthanc and a bucket: latency, bandwidth and loss.

use std::time::Duration;

use fake_cloud::{BucketServer, Fault, FaultRule};

/// The shortest time after which Linux sends a packet again that nothing followed, in addition to the round-trip time.
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// A line to a bucket.
///
/// A request reaches the server after the latency, and each connection carries at most the bandwidth in each direction.
///
/// Loss has two effects on a real line. Senders reduce their rate, which is what a lower bandwidth means here. And if
/// nothing follows a lost packet, the sender notices only when its retransmission timer expires: here, a share of the
/// requests is carried out at once, and their answers arrive later by the latency and the shortest time of that timer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) latency: Duration,
    /// Bytes per second of each connection; 0 for any number.
    pub(super) bandwidth: u64,
    /// Share of the requests whose answer is sent again.
    pub(super) loss: f64,
}

impl Line {
    /// Makes the server behave as if it was at the end of this line.
    pub(super) fn lay(&self, server: &BucketServer) {
        server.latency(self.latency);
        server.bandwidth_per_connection(Some(self.bandwidth).filter(|bandwidth| *bandwidth > 0));
        if let Some(every) = self.lost() {
            let late = FaultRule::new(Fault::Delay(RETRANSMISSION + self.latency));
            server.faults().push(late.every(every).times(usize::MAX));
        }
    }

    /// Every this many requests, an answer is lost.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at least 1")]
    fn lost(&self) -> Option<usize> {
        (self.loss > 0.0).then(|| (1.0 / self.loss).round().max(1.0) as usize)
    }

    /// The least time in which this many connections carry files of these sizes, if each carries one after the other
    /// and nothing is lost: a file waits for the latency and for its bytes.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(super) fn carries(&self, sizes: impl Iterator<Item = usize>, connections: usize) -> Duration {
        let transfer = |bytes: usize| match self.bandwidth {
            0 => Duration::ZERO,
            bandwidth => Duration::from_secs_f64(bytes as f64 / bandwidth as f64),
        };
        let alone = |bytes: usize| self.latency + transfer(bytes);
        let times: Vec<Duration> = sizes.map(alone).collect();
        let together = times.iter().sum::<Duration>().div_f64(connections as f64);
        times.into_iter().max().unwrap_or_default().max(together)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line = Line { latency: Duration::from_millis(20), bandwidth: 80_000_000, loss: 0.0 };

    #[test]
    fn line_carries_files_at_once() {
        // 20 ms and 10 ms for each.
        assert_eq!(LINE.carries([800_000; 16].into_iter(), 8), Duration::from_millis(60));
        assert_eq!(LINE.carries([800_000; 16].into_iter(), 1), Duration::from_millis(480));
    }

    #[test]
    fn largest_file_has_one_connection() {
        assert_eq!(LINE.carries([8_000_000, 0, 0].into_iter(), 10), Duration::from_millis(120));
        assert_eq!(LINE.carries([].into_iter(), 10), Duration::ZERO);
    }

    #[test]
    fn bandwidth_need_not_be_limited() {
        let line = Line { bandwidth: 0, ..LINE };
        assert_eq!(line.carries([800_000; 16].into_iter(), 8), Duration::from_millis(40));
    }

    #[test]
    fn loss_is_a_share_of_the_requests() {
        let lost = |loss| Line { loss, ..LINE }.lost();
        assert_eq!([0.0, 0.01, 0.3, 1.0].map(lost), [None, Some(100), Some(3), Some(1)]);
    }
}
