//! Members of the group: whether they read what this instance reads.
//!
//! A lane is a partition number over all topics. Of members that share a topic, whoever was given a part of a lane sees it by
//! that. Of members that share none each is given whole lanes, and the same ones: only what they have subscribed to tells.

use std::collections::BTreeSet;

/// What the members of a group show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Members {
    /// Not all of it at this moment: while partitions are being given out the brokers tell nothing.
    NotKnown,
    /// Nobody has the lanes of this instance.
    Fit,
    /// One reads these topics, and none of those that this instance reads.
    Stranger(BTreeSet<String>),
}

/// Topics that members of a group read beside `own`; `None`: not all of it is known at this moment.
pub(super) fn others<'a>(
    own: &[String],
    members: impl IntoIterator<Item = Option<&'a [u8]>>,
) -> Option<BTreeSet<String>> {
    let mut others = BTreeSet::new();
    for member in members {
        others.extend(member.and_then(subscription)?);
    }
    others.retain(|topic| !own.contains(topic));
    Some(others)
}

/// Looks at the subscriptions of all members of a group, one's own included. `own`: the topics that this instance reads.
pub(super) fn look<'a>(
    own: &[String],
    members: impl IntoIterator<Item = Option<&'a [u8]>>,
) -> Members {
    let mut shown = Members::NotKnown;
    let mut is_whole = true;
    for member in members {
        match member.and_then(subscription) {
            // Who reads nothing is given nothing.
            Some(topics)
                if !topics.is_empty() && !own.iter().any(|topic| topics.contains(topic)) =>
            {
                return Members::Stranger(topics);
            }
            Some(_) => shown = Members::Fit,
            None => is_whole = false,
        }
    }
    if is_whole { shown } else { Members::NotKnown }
}

/// Topics of a subscription, as members tell it to the brokers: version (2 bytes), number of topics (4 bytes), of each its length
/// (2 bytes) and name; what follows differs by version. Source: `ConsumerProtocolSubscription.json` of Apache Kafka.
fn subscription(mut bytes: &[u8]) -> Option<BTreeSet<String>> {
    let rest = &mut bytes;
    let version = i16::from_be_bytes(head(rest)?);
    let count = i32::from_be_bytes(head(rest)?);
    if version < 0 || count < 0 {
        return None;
    }
    (0..count).map(|_| name(rest)).collect()
}

fn name(bytes: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(i16::from_be_bytes(head(bytes)?)).ok()?;
    let (name, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    String::from_utf8(name.to_vec()).ok()
}

fn head<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(topics: &[&str]) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
        for topic in topics {
            bytes.extend(i16::try_from(topic.len()).unwrap().to_be_bytes());
            bytes.extend(topic.as_bytes());
        }
        // No data of one's own, no partitions held.
        bytes.extend([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn who_shares_no_topic_is_a_stranger_and_who_says_nothing_is_asked_again() {
        let own = ["a".to_owned(), "b".to_owned()];
        let stranger = |topics: &[&str]| {
            Members::Stranger(topics.iter().map(|topic| (*topic).to_owned()).collect())
        };
        let garbage = Some(vec![0, 1, 0x7f, 0xff, 0xff, 0xff, 0, 1, b'a']);
        for (members, expected) in [
            (vec![], Members::NotKnown),
            (vec![None], Members::NotKnown),
            (vec![Some(told(&["a", "b"]))], Members::Fit),
            (vec![Some(told(&["a", "b"])), Some(told(&["b", "c"]))], Members::Fit),
            (vec![Some(told(&["a", "b"])), None], Members::NotKnown),
            (vec![garbage.clone(), Some(told(&["a", "b"]))], Members::NotKnown),
            (vec![Some(vec![])], Members::NotKnown),
            (vec![Some(told(&["a", "b"])), Some(told(&["d", "c"]))], stranger(&["c", "d"])),
            (vec![garbage, None, Some(told(&["c"]))], stranger(&["c"])),
            (vec![Some(told(&[])), Some(told(&["a", "b"]))], Members::Fit),
        ] {
            assert_eq!(look(&own, members.iter().map(Option::as_deref)), expected, "{members:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_there_is_a_subscription_or_none(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            topics in prop::collection::btree_set("[a-z]{0,9}", 0..5),
            cut in 0_usize..60,
        ) {
            let _either = subscription(&bytes);
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            let whole = told(&names);
            prop_assert_eq!(subscription(&whole), Some(topics));
            // What follows the topics is not looked at.
            let cut = cut.min(whole.len());
            let is_read = subscription(&whole[..cut]).is_some();
            prop_assert_eq!(is_read, cut + 8 >= whole.len());
        }
    }
}
