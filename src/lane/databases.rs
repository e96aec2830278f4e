//! The GeoIP databases in use, looked at now and then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::enrich::place::{GeoIp, GeoIpFiles};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(10);

/// Finds out that databases were replaced, and tells of it.
#[derive(Debug)]
pub struct Databases {
    files: GeoIpFiles,
    looked: Instant,
}

impl Databases {
    /// Of files that were read just now.
    #[must_use]
    pub fn new(files: GeoIpFiles) -> Self {
        Self { files, looked: Instant::now() }
    }

    /// The databases anew, if they were replaced by others that can be read.
    pub fn renewed(&mut self) -> Option<Arc<GeoIp>> {
        if self.looked.elapsed() < EVERY {
            return None;
        }
        self.looked = Instant::now();
        match self.files.reload()? {
            Ok(geoip) => {
                tracing::info!("GeoIP databases were replaced");
                Some(geoip)
            }
            Err(error) => {
                tracing::warn!(error = %error, "GeoIP databases were replaced by broken ones; the old ones stay in use");
                None
            }
        }
    }
}
