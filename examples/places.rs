//! Writes the GeoIP database of the places where simulated people call from, for `callscope demo` and tests.
#![allow(clippy::unwrap_used, reason = "whoever writes it sees what went wrong")]

use std::net::IpAddr;

use callscope::simulate::PLACES;
use mmdb_writer::{IpVersion, Value, Writer};

fn main() {
    let mut writer = Writer::builder("GeoLite2-City")
        .ip_version(IpVersion::V4)
        .build_epoch(std::time::UNIX_EPOCH)
        .build();
    let named = |name: &str| Value::map([("names", Value::map([("en", Value::from(name))]))]);
    for place in PLACES {
        let (city, country) = place.name.split_once(", ").unwrap();
        let at = [("latitude", Value::from(place.at.0)), ("longitude", Value::from(place.at.1))];
        let known =
            [("city", named(city)), ("country", named(country)), ("location", Value::map(at))];
        let address: IpAddr = place.address.parse().unwrap();
        writer.insert_range(address, address, &Value::map(known)).unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/simulate/places.mmdb");
    std::fs::write(path, writer.to_bytes().unwrap()).unwrap();
}
