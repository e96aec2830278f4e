//! How good a network is, from what a browser measured: the levels that OpenVidu's paid edition tells of, 5 (excellent) to 0
//! (broken). How that edition finds them is not public; here it is the E-model of ITU-T G.107 in the short form that network
//! tools use: delay and jitter come to one delay, which costs little until people notice it, and each percent of loss costs much.

/// From which rating on a network has which level, the best first.
const LEVELS: [(f64, i64); 5] = [(80.0, 5), (70.0, 4), (60.0, 3), (50.0, 2), (30.0, 1)];

/// The level, from 0 to 5. `loss` in percent, `jitter` and `round_trip` in seconds; what is not known costs nothing.
pub(super) fn level(loss: f64, jitter: f64, round_trip: f64) -> i64 {
    let delay = 1000.0 * (round_trip.max(0.0) / 2.0 + 2.0 * jitter.max(0.0)) + 10.0;
    let noticed = if delay < 160.0 { delay / 40.0 } else { (delay - 120.0) / 10.0 };
    let rating = 93.2 - noticed - 2.5 * loss.max(0.0);
    LEVELS.iter().find(|(least, _)| rating >= *least).map_or(0, |(_, level)| *level)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_have_the_level_that_people_would_give_them() {
        for (loss, jitter, round_trip, expected) in [
            (0.0, 0.0, 0.0, 5),
            (0.5, 0.01, 0.06, 5),
            (3.0, 0.03, 0.2, 5),
            (6.0, 0.03, 0.2, 4),
            (5.0, 0.05, 0.3, 3),
            (8.0, 0.06, 0.3, 2),
            (2.0, 0.1, 0.6, 1),
            (20.0, 0.1, 0.4, 0),
            (50.0, 0.0, 0.0, 0),
            (0.0, 0.5, 2.0, 0),
        ] {
            assert_eq!(level(loss, jitter, round_trip), expected, "{loss} {jitter} {round_trip}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_gets_worse_is_better(
            (loss, jitter, trip) in (0.0..100.0, 0.0..10.0, 0.0..10.0),
            (more_loss, more_jitter, more_trip) in (0.0..100.0, 0.0..10.0, 0.0..10.0),
        ) {
            let before = level(loss, jitter, trip);
            let after = level(loss + more_loss, jitter + more_jitter, trip + more_trip);
            prop_assert!((0..=5).contains(&before) && after <= before);
        }
    }
}
