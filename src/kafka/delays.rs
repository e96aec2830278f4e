//! Delays before Kafka is tried again.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// The first and the longest one.
const DELAY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Each delay is twice as long as the one before, up to the longest.
pub(super) struct Delays {
    next: Duration,
    /// When the try under way began.
    begun: Instant,
}

impl Delays {
    /// Before the first try.
    pub(super) fn new() -> Self {
        Self { next: DELAY.0, begun: Instant::now() }
    }

    /// Waits after a try that has ended. `false`: it is not to be tried again, since `stop` has come.
    pub(super) async fn wait(&mut self, stop: &CancellationToken) -> bool {
        let delay = self.after(self.begun.elapsed());
        tokio::select! {
            biased;
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(delay) => {}
        }
        self.begun = Instant::now();
        true
    }

    /// The delay that is due.
    pub(super) fn grown(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(DELAY.1);
        delay
    }

    /// The delay after a try that went on for `ran`: what has worked for long begins with the first one again.
    fn after(&mut self, ran: Duration) -> Duration {
        if ran > DELAY.1 {
            self.next = DELAY.0;
        }
        self.grown()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_the_longest_until_a_try_went_on_for_long() {
        let mut delays = Delays::new();
        let grown: Vec<Duration> = (0..9).map(|_| delays.after(DELAY.1)).collect();
        assert_eq!(grown[..3], [DELAY.0, DELAY.0 * 2, DELAY.0 * 4]);
        assert_eq!(grown[6..], [DELAY.1; 3]);
        assert_eq!(delays.after(DELAY.1 + DELAY.0), DELAY.0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_told_to_stop_waits_for_nothing() {
        let (mut delays, stop) = (Delays::new(), CancellationToken::new());
        assert!(delays.wait(&stop).await);
        stop.cancel();
        assert!(!delays.wait(&stop).await);
    }
}
