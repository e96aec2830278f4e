//! Places: what an address tells about where somebody is.
//!
//! [`GeoIp`] answers from databases in MaxMind's format that the operator brings; none is shipped. Several may be given
//! (say, one of cities and one of autonomous systems): city, region, country and coordinates come from the first that knows
//! any of them, never mixed, the autonomous system from the first that knows it. "No place is known" (`Ok(None)`) and "the
//! database is broken" (`Err`) are different answers. What is no address of the internet has no place and is not looked up.
//!
//! Files are read into memory whole (GeoLite2-City: about 60 MB), because a mapped file that is overwritten in place is
//! undefined behaviour. A lookup decodes an entry with names in eight languages: 2 µs, 3 µs with two databases. Of each
//! address there are at least two events, so [`Places`] remembers the latest addresses (40 ns).
//!
//! [`GeoIpFiles`] takes up a database that was replaced on disk, between two cycles, at the cost of one `stat` a file. A
//! replacement that is broken is reported once, and the old one stays.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maxminddb::{MaxMindDbError, Reader};
use serde::{Deserialize, Serialize};

use super::address;
use super::entry::Entry;

/// Entries looked at when a database is opened, to see that it can be read and holds places at all.
const PROBE_ENTRIES_MAX: usize = 200;

/// Addresses remembered with their places: about 2 MB.
const PLACES_MAX: usize = 8_192;

/// Where an address is, as far as the databases know. Names are English.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// `Europe`
    pub continent: Option<Box<str>>,
    /// `Germany`
    pub country: Option<Box<str>>,
    /// ISO 3166-1, two capitals: `DE`
    pub country_code: Option<Box<str>>,
    /// The largest part of the country: `Bavaria`
    pub region: Option<Box<str>>,
    /// `Munich`
    pub city: Option<Box<str>>,
    /// Degrees, -90 to 90. Present together with the longitude or not at all.
    pub latitude: Option<f64>,
    /// Degrees, -180 to 180.
    pub longitude: Option<f64>,
    /// Number of the autonomous system: 3320
    pub asn: Option<u32>,
    /// Who runs it: `Deutsche Telekom AG`
    pub as_organization: Option<Box<str>>,
}

impl Place {
    /// `City, Country`, or `Country` where the city is unknown: OpenVidu's own form. Nothing without a country.
    #[must_use]
    pub fn location(&self) -> Option<String> {
        let country = self.country.as_deref()?;
        Some(match self.city.as_deref() {
            Some(city) => format!("{city}, {country}"),
            None => country.to_owned(),
        })
    }

    /// `latitude,longitude` in degrees, the text form of a geo point.
    #[must_use]
    pub fn geo_points(&self) -> Option<String> {
        Some(format!("{},{}", self.latitude?, self.longitude?))
    }

    fn has_whereabouts(&self) -> bool {
        self.continent.is_some()
            || self.country.is_some()
            || self.country_code.is_some()
            || self.region.is_some()
            || self.city.is_some()
            || self.latitude.is_some()
    }

    fn has_network(&self) -> bool {
        self.asn.is_some() || self.as_organization.is_some()
    }

    /// Takes from `other` each of the two parts that is missing here.
    fn fill(&mut self, other: Place) {
        if !self.has_network() {
            self.asn = other.asn;
            self.as_organization = other.as_organization.clone();
        }
        if !self.has_whereabouts() {
            *self = Place { asn: self.asn, as_organization: self.as_organization.take(), ..other };
        }
    }
}

/// The databases, open.
#[derive(Debug, Default)]
pub struct GeoIp {
    databases: Vec<Database>,
}

#[derive(Debug)]
struct Database {
    path: PathBuf,
    reader: Reader<Vec<u8>>,
}

/// What a database says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About<'a> {
    /// The file.
    pub path: &'a Path,
    /// Such as `GeoLite2-City`.
    pub kind: &'a str,
    /// Seconds since 1970 at which it was built.
    pub built_at: u64,
}

/// Why a database cannot be used. Each message names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum GeoIpError {
    /// The file is missing or not readable.
    #[error(
        "GeoIP database {} cannot be read; put the file there, make it readable, or take it out of geoip.databases",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is there, but it is not (or no longer) a whole database.
    #[error(
        "GeoIP database {} is broken; download it again and replace the file by rename",
        path.display()
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: MaxMindDbError,
    },
    /// A database of something else, such as anonymous proxies.
    #[error(
        "GeoIP database {} (type {kind:?}) holds neither places nor autonomous systems; \
         use one of cities, countries or autonomous systems",
        path.display()
    )]
    NoPlaces {
        /// The file.
        path: PathBuf,
        /// The type it gives itself.
        kind: String,
    },
}

impl GeoIp {
    /// Reads the databases in `paths`. No path: every place is unknown.
    ///
    /// # Errors
    ///
    /// The first file that is missing, broken, or not about places.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self, GeoIpError> {
        let (geoip, _stamps) = Self::open_stamped(paths)?;
        Ok(geoip)
    }

    /// Where `address` is. `Ok(None)`: nowhere that the databases know.
    ///
    /// # Errors
    ///
    /// [`GeoIpError::Broken`] if a database turns out to be damaged at this entry.
    pub fn lookup(&self, address: IpAddr) -> Result<Option<Place>, GeoIpError> {
        let address = address.to_canonical();
        if self.databases.is_empty() || !address::is_public(address) {
            return Ok(None);
        }
        let mut place = Place::default();
        for database in &self.databases {
            if let Some(found) = database.lookup(address)? {
                place.fill(found);
            }
        }
        Ok(Some(place).filter(|place| place.has_whereabouts() || place.has_network()))
    }

    /// Whether there is no database at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.databases.is_empty()
    }

    /// What the databases say about themselves, in the order of the settings.
    pub fn about(&self) -> impl Iterator<Item = About<'_>> {
        self.databases.iter().map(|database| About {
            path: &database.path,
            kind: &database.reader.metadata().database_type,
            built_at: database.reader.metadata().build_epoch,
        })
    }

    fn open_stamped<P: AsRef<Path>>(paths: &[P]) -> Result<(Self, Vec<Stamp>), GeoIpError> {
        let mut databases = Vec::with_capacity(paths.len());
        let mut stamps = Vec::with_capacity(paths.len());
        for path in paths {
            let (database, stamp) = Database::open(path.as_ref())?;
            databases.push(database);
            stamps.push(stamp);
        }
        Ok((Self { databases }, stamps))
    }
}

impl Database {
    fn open(path: &Path) -> Result<(Self, Stamp), GeoIpError> {
        let unreadable = |source| GeoIpError::Unreadable { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        // Of the open file, not of the path: the two may already be different files.
        let stamp = Stamp::of(&file.metadata().map_err(unreadable)?);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(unreadable)?;
        let reader = Reader::from_source(bytes)
            .map_err(|source| GeoIpError::Broken { path: path.to_owned(), source })?;
        let database = Self { path: path.to_owned(), reader };
        database.probe()?;
        Ok((database, stamp))
    }

    /// Decodes the first entries. One of them must know a place or an autonomous system.
    fn probe(&self) -> Result<(), GeoIpError> {
        let broken = |source| self.broken(source);
        let mut knows = false;
        let networks = self.reader.networks(maxminddb::WithinOptions::default()).map_err(broken)?;
        for network in networks.take(PROBE_ENTRIES_MAX) {
            let entry = network.and_then(|network| network.decode::<Entry<'_>>());
            let place = entry.map_err(broken)?.map(|entry| entry.place());
            knows |= place.is_some_and(|place| place.has_whereabouts() || place.has_network());
        }
        if knows {
            Ok(())
        } else {
            let kind = self.reader.metadata().database_type.clone();
            Err(GeoIpError::NoPlaces { path: self.path.clone(), kind })
        }
    }

    fn lookup(&self, address: IpAddr) -> Result<Option<Place>, GeoIpError> {
        if address.is_ipv6() && self.reader.metadata().ip_version == 4 {
            return Ok(None);
        }
        self.reader
            .lookup(address)
            .and_then(|found| found.decode::<Entry<'_>>())
            .map(|entry| entry.map(|entry| entry.place()))
            .map_err(|source| self.broken(source))
    }

    fn broken(&self, source: MaxMindDbError) -> GeoIpError {
        GeoIpError::Broken { path: self.path.clone(), source }
    }
}

/// The databases with the places of the addresses asked for lately, for one thread.
#[derive(Debug)]
pub struct Places {
    geoip: Arc<GeoIp>,
    known: HashMap<IpAddr, Option<Arc<Place>>, foldhash::fast::RandomState>,
}

impl Places {
    /// No address is known yet.
    #[must_use]
    pub fn new(geoip: Arc<GeoIp>) -> Self {
        Self { geoip, known: HashMap::default() }
    }

    /// As [`GeoIp::lookup`].
    ///
    /// # Errors
    ///
    /// As [`GeoIp::lookup`]; nothing is remembered then.
    pub fn lookup(&mut self, address: IpAddr) -> Result<Option<Arc<Place>>, GeoIpError> {
        if self.geoip.is_empty() {
            return Ok(None);
        }
        if let Some(place) = self.known.get(&address) {
            return Ok(place.clone());
        }
        let place = self.geoip.lookup(address)?.map(Arc::new);
        // Beginning anew costs each open address one lookup, and needs no order to be kept.
        if self.known.len() >= PLACES_MAX {
            self.known.clear();
        }
        self.known.insert(address, place.clone());
        Ok(place)
    }

    /// Goes on with other databases.
    pub fn replace(&mut self, geoip: Arc<GeoIp>) {
        self.geoip = geoip;
        self.known.clear();
    }
}

/// The databases of the settings, watched for replacement.
#[derive(Debug)]
pub struct GeoIpFiles {
    paths: Vec<PathBuf>,
    /// Of the files as last tried; `None` for one that was not there.
    seen: Vec<Option<Stamp>>,
}

impl GeoIpFiles {
    /// Reads the databases in `paths`, as [`GeoIp::open`] does, and remembers which files they were.
    ///
    /// # Errors
    ///
    /// As [`GeoIp::open`].
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<(Self, Arc<GeoIp>), GeoIpError> {
        let (geoip, stamps) = GeoIp::open_stamped(paths)?;
        let paths = paths.iter().map(|path| path.as_ref().to_owned()).collect();
        Ok((Self { paths, seen: stamps.into_iter().map(Some).collect() }, Arc::new(geoip)))
    }

    /// Whether a file is another one than when it was last tried.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.stamps() != self.seen
    }

    /// The databases anew, if a file was replaced since they were last tried; `None` if all are the same.
    ///
    /// After an error the caller keeps what it has. The same files are not tried, and so not reported, again.
    ///
    /// # Errors
    ///
    /// As [`GeoIp::open`].
    pub fn reload(&mut self) -> Option<Result<Arc<GeoIp>, GeoIpError>> {
        let stamps = self.stamps();
        if stamps == self.seen {
            return None;
        }
        self.seen = stamps;
        Some(GeoIp::open_stamped(&self.paths).map(|(geoip, stamps)| {
            self.seen = stamps.into_iter().map(Some).collect();
            Arc::new(geoip)
        }))
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        self.paths.iter().map(|path| path.metadata().ok().as_ref().map(Stamp::of)).collect()
    }
}

/// What tells one file from the next under the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified_s: metadata.mtime(),
            modified_ns: metadata.mtime_nsec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use mmdb_writer::{Value, Writer};

    use super::*;

    #[test]
    fn no_more_than_the_latest_addresses_are_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("country.mmdb");
        let mut writer = Writer::new("Country");
        let france = Value::map([("country_code", Value::from("FR"))]);
        writer
            .insert_range("80.0.0.0".parse().unwrap(), "89.0.0.0".parse().unwrap(), &france)
            .unwrap();
        std::fs::write(&path, writer.to_bytes().unwrap()).unwrap();
        let mut places = Places::new(Arc::new(GeoIp::open(&[path]).unwrap()));
        for number in 0..3 * u32::try_from(PLACES_MAX).unwrap() {
            places.lookup(IpAddr::V4((0x5101_0000 + number).into())).unwrap();
            assert!((1..=PLACES_MAX).contains(&places.known.len()));
        }
    }
}
