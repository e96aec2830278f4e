//! Places: what an address tells, from any MaxMind-format database the operator has.
//!
//! Two layouts are known: the nested one of GeoLite2 and GeoIP2 (`city.names.en`), and the flat one of others (`city`,
//! `country_code`, coordinates as text). Of several databases each fills what the ones before it left open, so a City and an
//! ASN file go together. Files are read into memory; a file that is replaced by rename is noticed by [`GeoIp::is_stale`].
//! Addresses that no database can know (private, local, documentation) give nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use maxminddb::Reader;
use serde::Deserialize;

use crate::json::Object;

/// Why databases cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the GeoIP database {}: {reason}; put a complete file in its place or take it out of geoip.databases", path.display())]
pub struct GeoIpError {
    path: PathBuf,
    reason: String,
}

/// Databases, in the order in which they are asked.
#[derive(Debug, Default)]
pub struct GeoIp {
    databases: Vec<Database>,
}

#[derive(Debug)]
struct Database {
    path: PathBuf,
    reader: Reader<Vec<u8>>,
    /// Size and time of the file that was read.
    stamp: Option<(u64, SystemTime)>,
}

/// What an address tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Place {
    /// Name of the continent.
    pub continent: Option<String>,
    /// Name of the country.
    pub country: Option<String>,
    /// ISO 3166-1 code of two letters.
    pub country_code: Option<String>,
    /// Name of the largest part of the country.
    pub region: Option<String>,
    /// Name of the city.
    pub city: Option<String>,
    /// Latitude and longitude in degrees.
    pub point: Option<(f64, f64)>,
    /// Autonomous system number.
    pub asn: Option<u32>,
    /// Who runs the autonomous system.
    pub as_organization: Option<String>,
}

impl GeoIp {
    /// Reads all databases.
    ///
    /// # Errors
    ///
    /// If one is missing or broken.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self, GeoIpError> {
        let databases =
            paths.iter().map(|path| Database::open(path.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { databases })
    }

    /// Whether a file on disk is another one than was read.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.databases.iter().any(|database| {
            let stamp = stamp(&database.path);
            stamp.is_some() && stamp != database.stamp
        })
    }

    /// What is known of `address`. A record that a database cannot decode is unknown.
    #[must_use]
    pub fn lookup(&self, address: IpAddr) -> Option<Place> {
        if self.databases.is_empty() || !is_public(address) {
            return None;
        }
        let mut place = Place::default();
        for database in &self.databases {
            database.fill(&mut place, address);
        }
        (place != Place::default()).then_some(place)
    }
}

impl Database {
    fn open(path: &Path) -> Result<Self, GeoIpError> {
        let error = |reason: String| GeoIpError { path: path.into(), reason };
        let stamp = stamp(path);
        let reader = Reader::open_readfile(path).map_err(|cause| error(cause.to_string()))?;
        // A cut file opens well enough; looking something up shows whether its data are there.
        for address in
            [IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)), IpAddr::V4(Ipv4Addr::new(223, 255, 255, 254))]
        {
            let found = reader.lookup(address).map_err(|cause| error(cause.to_string()))?;
            found.decode::<Record<'_>>().map_err(|cause| error(cause.to_string()))?;
        }
        Ok(Self { path: path.into(), reader, stamp })
    }

    fn fill(&self, place: &mut Place, address: IpAddr) {
        let Ok(Some(record)) =
            self.reader.lookup(address).and_then(|found| found.decode::<Record<'_>>())
        else {
            return;
        };
        let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let fill = |slot: &mut Option<String>, value: Option<&str>| {
            if slot.is_none() {
                *slot = text(value);
            }
        };
        fill(&mut place.continent, record.continent.as_ref().and_then(Named::name));
        fill(
            &mut place.country,
            record.country.as_ref().and_then(Named::name).or(record.country_name),
        );
        fill(
            &mut place.country_code,
            record.country.as_ref().and_then(Named::code).or(record.country_code),
        );
        let region = record
            .subdivisions
            .as_ref()
            .and_then(|regions| regions.first())
            .and_then(|region| region.names.as_ref());
        fill(
            &mut place.region,
            region.and_then(|names| names.en).or(record.state1).or(record.region),
        );
        fill(&mut place.city, record.city.as_ref().and_then(Named::name));
        if place.country.is_none() {
            // The flat layout often has the code alone; a code is better than nothing.
            place.country.clone_from(&place.country_code);
        }
        if place.point.is_none() {
            let nested = record
                .location
                .as_ref()
                .and_then(|point| Some((point.latitude?, point.longitude?)));
            let flat = || {
                Some((record.latitude.as_ref()?.degrees()?, record.longitude.as_ref()?.degrees()?))
            };
            let point = nested.or_else(flat);
            place.point = point.filter(|(lat, lon)| {
                (-90.0..=90.0).contains(lat) && (-180.0..=180.0).contains(lon)
            });
        }
        if place.asn.is_none() {
            place.asn = record.autonomous_system_number;
        }
        fill(&mut place.as_organization, record.autonomous_system_organization);
    }
}

fn stamp(path: &Path) -> Option<(u64, SystemTime)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

/// Both layouts at once.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    continent: Option<Named<'a>>,
    #[serde(borrow)]
    country: Option<Named<'a>>,
    #[serde(borrow)]
    city: Option<Named<'a>>,
    #[serde(borrow)]
    subdivisions: Option<Vec<Region<'a>>>,
    location: Option<Point>,
    country_code: Option<&'a str>,
    country_name: Option<&'a str>,
    state1: Option<&'a str>,
    region: Option<&'a str>,
    #[serde(borrow)]
    latitude: Option<Degrees<'a>>,
    #[serde(borrow)]
    longitude: Option<Degrees<'a>>,
    autonomous_system_number: Option<u32>,
    autonomous_system_organization: Option<&'a str>,
}

/// A thing with names, or its name alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Named<'a> {
    Flat(&'a str),
    Nested {
        #[serde(borrow)]
        names: Option<Names<'a>>,
        iso_code: Option<&'a str>,
    },
}

#[derive(Deserialize)]
struct Names<'a> {
    en: Option<&'a str>,
}

#[derive(Deserialize)]
struct Region<'a> {
    #[serde(borrow)]
    names: Option<Names<'a>>,
}

#[derive(Deserialize)]
struct Point {
    latitude: Option<f64>,
    longitude: Option<f64>,
}

/// Degrees as a number, or as its text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Degrees<'a> {
    Number(f64),
    Text(&'a str),
}

impl<'a> Named<'a> {
    fn name(&self) -> Option<&'a str> {
        match self {
            Self::Flat(name) => Some(name),
            Self::Nested { names, .. } => names.as_ref()?.en,
        }
    }

    fn code(&self) -> Option<&'a str> {
        match self {
            Self::Flat(_) => None,
            Self::Nested { iso_code, .. } => *iso_code,
        }
    }
}

impl Degrees<'_> {
    fn degrees(&self) -> Option<f64> {
        match self {
            Self::Number(degrees) => Some(*degrees),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

impl Place {
    /// As OpenVidu writes it: `City, Country`, or `Country` alone.
    #[must_use]
    pub fn location(&self) -> Option<String> {
        let country = self.country.as_deref()?;
        Some(
            self.city
                .as_deref()
                .map_or_else(|| country.to_owned(), |city| format!("{city}, {country}")),
        )
    }

    /// `lat,lon` in degrees.
    #[must_use]
    pub fn geo_points(&self) -> Option<String> {
        self.point.map(|(latitude, longitude)| format!("{latitude},{longitude}"))
    }

    /// The object `geo` of documents.
    #[must_use]
    pub fn json(&self) -> String {
        let mut json = Object::with_capacity(160);
        json.text_if("continent", self.continent.as_deref());
        json.text_if("country", self.country.as_deref());
        json.text_if("countryCode", self.country_code.as_deref());
        json.text_if("region", self.region.as_deref());
        json.text_if("city", self.city.as_deref());
        if let Some(asn) = self.asn {
            json.integer("asn", i64::from(asn));
        }
        json.text_if("asOrganization", self.as_organization.as_deref());
        json.finish()
    }
}

/// The address in a text: blanks, brackets, a zone and a port are left out. An IPv4 address written as IPv6 is IPv4.
#[must_use]
pub fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let text = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inner, _)) => inner,
        None => text,
    };
    let text = text.split('%').next().unwrap_or(text);
    let parsed = text.parse::<IpAddr>().ok();
    parsed
        .or_else(|| text.rsplit_once(':')?.0.parse::<Ipv4Addr>().ok().map(IpAddr::V4))
        .map(|address| address.to_canonical())
}

/// Whether somebody in the world can have this address.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, third, _] = address.octets();
            let shared = first == 100 && (64..128).contains(&second);
            let benchmark = first == 198 && (18..20).contains(&second);
            let assigned = first == 192 && second == 0 && third == 0;
            !(address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_documentation()
                || address.is_unspecified()
                || shared
                || benchmark
                || assigned
                || first == 0
                || first >= 224)
        }
        IpAddr::V6(address) => {
            let first = address.segments().first().copied().unwrap_or(0);
            let second = address.segments().get(1).copied().unwrap_or(0);
            let documentation = first == 0x2001 && second == 0x0db8;
            // Global unicast is 2000::/3.
            (0x2000..0x4000).contains(&first) && !documentation && address != Ipv6Addr::UNSPECIFIED
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_found_in_what_proxies_write() {
        let cases = [
            ("93.184.216.34", Some("93.184.216.34")),
            (" 93.184.216.34:5000 ", Some("93.184.216.34")),
            ("[2606:2800:220:1::1]:443", Some("2606:2800:220:1::1")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("::ffff:93.184.216.34", Some("93.184.216.34")),
            ("unknown", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(
                address(text).map(|address| address.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn addresses_of_nobody_are_not_looked_up() {
        for text in [
            "10.1.2.3",
            "127.0.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "192.0.2.7",
            "224.0.0.1",
            "0.1.2.3",
            "::1",
            "fe80::1",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(!is_public(address(text).unwrap()), "{text}");
        }
        for text in ["8.8.8.8", "2606:2800:220:1::1"] {
            assert!(is_public(address(text).unwrap()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_not(text in ".*") {
            let _found = address(&text);
        }
    }
}
