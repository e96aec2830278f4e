//! How many connections one guest may have.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::enrich::address::{household, is_public};

/// Who is connected, by household of the internet: none of these takes all connections that there may be. What comes from a network of
/// one's own may be a proxy, behind which is everybody.
#[derive(Debug)]
pub(super) struct Guests {
    /// Connections of one household.
    max: usize,
    here: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of a household, until it is dropped.
#[derive(Debug)]
pub(super) struct Guest(Arc<Guests>, IpAddr);

impl Guests {
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), here: Mutex::default() }
    }

    /// `None`: it has too many.
    pub(super) fn enter(guests: &Arc<Self>, address: IpAddr) -> Option<Guest> {
        let household = household(address);
        let mut here = guests.here();
        let count = here.entry(household).or_default();
        if *count >= guests.max && is_public(address) {
            return None;
        }
        *count += 1;
        drop(here);
        Some(Guest(Arc::clone(guests), household))
    }

    fn here(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut here = self.0.here();
        if let Some(count) = here.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                here.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_household_has_its_share_and_a_proxy_all() {
        let guests = Arc::new(Guests::new(2));
        let enter = |address: &str| Guests::enter(&guests, address.parse().unwrap());
        let one = enter("2a02:cf40:1:2::3");
        let other = enter("2a02:cf40:1:2::4");
        assert!(one.is_some() && other.is_some());
        assert!(enter("2a02:cf40:1:2::5").is_none());
        assert!(enter("2a02:cf40:1:3::5").is_some(), "another one");
        drop(one);
        assert!(enter("2a02:cf40:1:2::5").is_some());
        let inside: Vec<_> = (0..9).map(|_| enter("10.0.0.1")).collect();
        assert!(inside.iter().all(Option::is_some));
        drop((other, inside));
        assert!(guests.here().is_empty());
    }
}
