//! Which partition a record belongs in.
//!
//! A record is keyed by `sessionId`, so that all incarnations of a session, in all versions of events, are in one partition.
//! Keys go to partitions as Java's clients send them (murmur2), so that other producers put them there too.

use crate::event::Event;
use crate::sessions;

/// The key of an event. `None`: it belongs to no session, and to any partition.
#[must_use]
pub fn of<'e>(event: &'e Event<'_>) -> Option<&'e str> {
    sessions::session_id_of(event)
}

/// The partition of `count` that Java's clients choose for `key`; `None` where there is none.
#[must_use]
pub fn partition(key: &[u8], count: i32) -> Option<i32> {
    let positive = murmur2(key) & 0x7fff_ffff;
    i32::try_from(positive).ok()?.checked_rem(count)
}

/// `org.apache.kafka.common.utils.Utils.murmur2`, whose result Java takes as signed.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (byte, shift) in rest.iter().zip([0, 8, 16]) {
            hash ^= u32::from(*byte) << shift;
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `UtilsTest.testMurmur2` of Apache Kafka.
    #[test]
    fn hashes_are_those_of_java() {
        for (text, expected) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), expected, "{text}");
        }
        assert_eq!(partition(b"abc", 12), Some(479_470_107 % 12));
        assert_eq!(partition(b"abc", 0), None);
    }
}
