//! GeoIP databases of both layouts, written here, read back, replaced on disk, and broken.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails shows where")]

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use callscope::enrich::place::{GeoIp, GeoIpError, GeoIpFiles, Place, Places};
use mmdb_writer::{IpVersion, Value, Writer};
use tempfile::TempDir;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A database whose entries cover the ranges given.
fn database(kind: &str, version: IpVersion, entries: &[(&str, &str, Value)]) -> Vec<u8> {
    let mut writer = Writer::builder(kind).ip_version(version).build();
    for (first, last, value) in entries {
        writer.insert_range(address(first), address(last), value).unwrap();
    }
    writer.to_bytes().unwrap()
}

fn names(english: &str, german: &str) -> Value {
    Value::map([("de", Value::from(german)), ("en", Value::from(english))])
}

fn munich() -> Value {
    Value::map([
        ("city", Value::map([("names", names("Munich", "München"))])),
        (
            "continent",
            Value::map([("code", Value::from("EU")), ("names", names("Europe", "Europa"))]),
        ),
        (
            "country",
            Value::map([
                ("geoname_id", Value::from(2_921_044_u32)),
                ("iso_code", Value::from("DE")),
                ("names", names("Germany", "Deutschland")),
            ]),
        ),
        (
            "location",
            Value::map([
                ("accuracy_radius", Value::from(20_u16)),
                ("latitude", Value::from(48.1374_f64)),
                ("longitude", Value::from(11.5755_f64)),
                ("time_zone", Value::from("Europe/Berlin")),
            ]),
        ),
        ("subdivisions", Value::array([Value::map([("names", names("Bavaria", "Bayern"))])])),
    ])
}

fn country_only() -> Value {
    Value::map([(
        "country",
        Value::map([("iso_code", Value::from("FR")), ("names", names("France", "Frankreich"))]),
    )])
}

fn nested() -> Vec<u8> {
    database(
        "GeoLite2-City",
        IpVersion::V6,
        &[
            ("81.2.69.0", "81.2.69.255", munich()),
            ("88.1.0.0", "88.1.255.255", country_only()),
            ("2a02:cf40::", "2a02:cf40:ffff:ffff:ffff:ffff:ffff:ffff", munich()),
            // What a database must not be asked for, although it has it.
            ("10.0.0.0", "10.255.255.255", munich()),
            ("203.0.113.0", "203.0.113.255", munich()),
        ],
    )
}

fn flat(city: &str) -> Vec<u8> {
    let entry = Value::map([
        ("city", Value::from(city)),
        ("country_code", Value::from("DE")),
        ("latitude", Value::from("48.1374")),
        ("longitude", Value::from("11.5755")),
        ("postcode", Value::from("")),
        ("state1", Value::from("Bavaria")),
        ("state2", Value::from("")),
        ("timezone", Value::from("Europe/Berlin")),
    ]);
    database("ipv4-city", IpVersion::V4, &[("81.2.69.0", "81.2.69.255", entry)])
}

fn systems() -> Vec<u8> {
    let entry = Value::map([
        ("autonomous_system_number", Value::from(3320_u32)),
        ("autonomous_system_organization", Value::from("Deutsche Telekom AG")),
    ]);
    database(
        "GeoLite2-ASN",
        IpVersion::V6,
        &[("81.2.69.0", "81.2.69.255", entry.clone()), ("90.0.0.0", "90.0.0.255", entry)],
    )
}

fn put(directory: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// As an operator should: a new file, then a rename.
fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::rename(new, path).unwrap();
}

fn place(geoip: &GeoIp, text: &str) -> Option<Place> {
    geoip.lookup(address(text)).unwrap()
}

#[test]
fn cities_and_autonomous_systems_come_from_their_own_databases() {
    let directory = tempfile::tempdir().unwrap();
    let city = put(&directory, "city.mmdb", &nested());
    let systems = put(&directory, "asn.mmdb", &systems());
    for paths in [[&city, &systems], [&systems, &city]] {
        let geoip = GeoIp::open(&paths).unwrap();
        let found = place(&geoip, "81.2.69.142").unwrap();
        assert_eq!(
            found,
            Place {
                continent: Some("Europe".into()),
                country: Some("Germany".into()),
                country_code: Some("DE".into()),
                region: Some("Bavaria".into()),
                city: Some("Munich".into()),
                latitude: Some(48.1374),
                longitude: Some(11.5755),
                asn: Some(3320),
                as_organization: Some("Deutsche Telekom AG".into()),
            }
        );
        assert_eq!(found.location().as_deref(), Some("Munich, Germany"));
        assert_eq!(found.geo_points().as_deref(), Some("48.1374,11.5755"));
        assert_eq!(place(&geoip, "90.0.0.1").unwrap().location(), None);
        assert_eq!(place(&geoip, "90.0.0.1").unwrap().asn, Some(3320));
        assert_eq!(place(&geoip, "91.0.0.1"), None);
    }
}

#[test]
fn a_flat_database_gives_the_same_place_as_a_nested_one() {
    let directory = tempfile::tempdir().unwrap();
    let nested = GeoIp::open(&[put(&directory, "nested.mmdb", &nested())]).unwrap();
    let flat = GeoIp::open(&[put(&directory, "flat.mmdb", &flat("Munich"))]).unwrap();
    assert!(place(&nested, "81.2.69.1").is_some());
    assert_eq!(place(&nested, "81.2.69.1"), place(&flat, "81.2.69.1"));
}

#[test]
fn mapped_addresses_are_looked_up_as_ipv4_whatever_the_database_has() {
    let directory = tempfile::tempdir().unwrap();
    for bytes in [nested(), flat("Munich")] {
        let geoip = GeoIp::open(&[put(&directory, "any.mmdb", &bytes)]).unwrap();
        assert_eq!(place(&geoip, "::ffff:81.2.69.142"), place(&geoip, "81.2.69.142"));
        assert!(place(&geoip, "::ffff:81.2.69.142").is_some());
    }
}

#[test]
fn ipv6_is_unknown_to_a_database_of_ipv4_and_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let nested = GeoIp::open(&[put(&directory, "nested.mmdb", &nested())]).unwrap();
    assert!(place(&nested, "2a02:cf40::1").is_some());
    let flat = GeoIp::open(&[put(&directory, "flat.mmdb", &flat("Munich"))]).unwrap();
    assert_eq!(place(&flat, "2a02:cf40::1"), None);
}

#[test]
fn an_entry_may_know_the_country_alone() {
    let directory = tempfile::tempdir().unwrap();
    let geoip = GeoIp::open(&[put(&directory, "city.mmdb", &nested())]).unwrap();
    let found = place(&geoip, "88.1.2.3").unwrap();
    assert_eq!(found.location().as_deref(), Some("France"));
    assert_eq!((found.city.as_deref(), found.geo_points()), (None, None));
}

#[test]
fn places_of_two_databases_are_never_mixed() {
    let directory = tempfile::tempdir().unwrap();
    let country = database(
        "Country",
        IpVersion::V4,
        &[("81.2.69.0", "81.2.69.255", country_only()), ("1.1.1.0", "1.1.1.255", country_only())],
    );
    let country = put(&directory, "country.mmdb", &country);
    let city = put(&directory, "city.mmdb", &nested());
    let geoip = GeoIp::open(&[&country, &city]).unwrap();
    assert_eq!(place(&geoip, "81.2.69.1").unwrap().location().as_deref(), Some("France"));
    let geoip = GeoIp::open(&[&city, &country]).unwrap();
    assert_eq!(place(&geoip, "81.2.69.1").unwrap().location().as_deref(), Some("Munich, Germany"));
    assert_eq!(place(&geoip, "1.1.1.1").unwrap().location().as_deref(), Some("France"));
}

#[test]
fn addresses_that_are_not_of_the_internet_have_no_place() {
    let directory = tempfile::tempdir().unwrap();
    let geoip = GeoIp::open(&[put(&directory, "city.mmdb", &nested())]).unwrap();
    for text in ["10.1.2.3", "::ffff:10.1.2.3", "203.0.113.5", "127.0.0.1", "::", "fd00::1"] {
        assert_eq!(place(&geoip, text), None, "{text}");
    }
}

#[test]
fn without_databases_every_place_is_unknown() {
    let geoip = GeoIp::open::<&Path>(&[]).unwrap();
    assert!(geoip.is_empty());
    assert_eq!(place(&geoip, "81.2.69.142"), None);
}

#[test]
fn errors_name_the_file_and_say_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.mmdb");
    let error = GeoIp::open(&[&missing]).unwrap_err();
    assert!(matches!(error, GeoIpError::Unreadable { .. }));
    let message = error.to_string();
    assert!(message.contains(missing.to_str().unwrap()), "{message}");
    assert!(message.contains("geoip.databases"), "{message}");

    let mut cut = nested();
    cut.truncate(cut.len() / 2);
    let proxies = Value::map([("is_anonymous", Value::from(true))]);
    let proxies =
        database("GeoIP2-Anonymous-IP", IpVersion::V4, &[("1.1.1.0", "1.1.1.255", proxies)]);
    for (name, bytes, expected) in [
        ("empty.mmdb", Vec::new(), "is broken; download it again"),
        ("text.mmdb", b"<html>404</html>".to_vec(), "is broken; download it again"),
        ("cut.mmdb", cut, "is broken; download it again"),
        ("proxies.mmdb", proxies, "(type \"GeoIP2-Anonymous-IP\") holds neither places nor"),
    ] {
        let path = put(&directory, name, &bytes);
        let message = GeoIp::open(&[&path]).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }
    assert!(matches!(GeoIp::open(&[directory.path()]).unwrap_err(), GeoIpError::Unreadable { .. }));
}

#[test]
fn damage_found_by_a_lookup_is_an_error_and_not_unknown() {
    let directory = tempfile::tempdir().unwrap();
    // The probe of the first entries must not reach the damaged one.
    let far = Value::map([("city", Value::from("a city of this name and no other"))]);
    let mut entries = vec![("200.0.0.0".to_owned(), "200.0.0.255".to_owned(), far)];
    for third in 0..=255_u8 {
        let near = Value::map([
            ("country_code", Value::from("DE")),
            ("asn", Value::from(u32::from(third))),
        ]);
        entries.push((format!("1.1.{third}.0"), format!("1.1.{third}.255"), near));
    }
    let entries: Vec<_> = entries
        .iter()
        .map(|(first, last, value)| (first.as_str(), last.as_str(), value.clone()))
        .collect();
    let mut bytes = database("City", IpVersion::V4, &entries);
    let needle = b"a city of this name";
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at] = 0xff;
    let geoip = GeoIp::open(&[put(&directory, "city.mmdb", &bytes)]).unwrap();
    assert!(place(&geoip, "1.1.7.1").is_some());
    assert_eq!(place(&geoip, "9.9.9.9"), None);
    let error = geoip.lookup(address("200.0.0.1")).unwrap_err();
    assert!(matches!(error, GeoIpError::Broken { .. }), "{error}");
}

#[test]
fn a_replaced_database_is_taken_up_and_a_broken_one_is_reported_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = put(&directory, "city.mmdb", &flat("Munich"));
    let (mut files, mut geoip) = GeoIpFiles::open(&[&path]).unwrap();
    let city = |geoip: &Arc<GeoIp>| place(geoip, "81.2.69.1").unwrap().city.unwrap();
    assert_eq!(&*city(&geoip), "Munich");
    assert!(!files.changed());
    assert!(files.reload().is_none());

    replace(&path, &flat("Passau"));
    assert!(files.changed());
    geoip = files.reload().unwrap().unwrap();
    assert_eq!(&*city(&geoip), "Passau");
    assert!(files.reload().is_none());

    replace(&path, b"no database");
    assert!(matches!(files.reload(), Some(Err(GeoIpError::Broken { .. }))));
    assert!(files.reload().is_none(), "the same broken file is not reported again");
    assert!(!files.changed());
    assert_eq!(&*city(&geoip), "Passau", "what is open stays usable");

    fs::remove_file(&path).unwrap();
    assert!(matches!(files.reload(), Some(Err(GeoIpError::Unreadable { .. }))));
    assert!(files.reload().is_none());

    replace(&path, &flat("Regensburg"));
    geoip = files.reload().unwrap().unwrap();
    assert_eq!(&*city(&geoip), "Regensburg");
    assert!(files.reload().is_none());
}

#[test]
fn a_replacement_of_the_same_size_and_time_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = put(&directory, "city.mmdb", &flat("Munich"));
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let (mut files, _) = GeoIpFiles::open(&[&path]).unwrap();
    let new = put(&directory, "new", &flat("Zurich"));
    fs::File::options().write(true).open(&new).unwrap().set_modified(time).unwrap();
    assert_eq!(fs::metadata(&new).unwrap().len(), fs::metadata(&path).unwrap().len());
    fs::rename(new, &path).unwrap();
    let geoip = files.reload().unwrap().unwrap();
    assert_eq!(place(&geoip, "81.2.69.1").unwrap().city.as_deref(), Some("Zurich"));
}

#[test]
fn databases_say_what_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = put(&directory, "city.mmdb", &nested());
    let geoip = GeoIp::open(&[&path]).unwrap();
    let about: Vec<_> = geoip.about().collect();
    assert_eq!(about.len(), 1);
    assert_eq!((about[0].path, about[0].kind), (path.as_path(), "GeoLite2-City"));
}

#[test]
fn remembered_places_are_those_of_the_databases_until_these_are_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = put(&directory, "city.mmdb", &flat("Munich"));
    let geoip = Arc::new(GeoIp::open(&[&path]).unwrap());
    let mut places = Places::new(Arc::clone(&geoip));
    let first = places.lookup(address("81.2.69.1")).unwrap().unwrap();
    let second = places.lookup(address("81.2.69.1")).unwrap().unwrap();
    assert!(Arc::ptr_eq(&first, &second), "the second time it is remembered");
    assert_eq!(places.lookup(address("9.9.9.9")).unwrap(), None);
    assert_eq!(places.lookup(address("9.9.9.9")).unwrap(), None);
    // More addresses than are remembered.
    for number in 0..20_000_u32 {
        let address = IpAddr::V4((0x5102_0000 + number).into());
        assert_eq!(
            places.lookup(address).unwrap().as_deref(),
            geoip.lookup(address).unwrap().as_ref()
        );
    }

    replace(&path, &flat("Passau"));
    places.replace(Arc::new(GeoIp::open(&[&path]).unwrap()));
    let place = places.lookup(address("81.2.69.1")).unwrap().unwrap();
    assert_eq!(place.city.as_deref(), Some("Passau"));
}

#[test]
fn the_demo_knows_where_its_people_are() {
    use callscope::simulate::{PLACES, PLACES_DATABASE};
    let directory = TempDir::new().unwrap();
    let geoip = GeoIp::open(&[put(&directory, "places.mmdb", PLACES_DATABASE)]).unwrap();
    for known in PLACES {
        let found = place(&geoip, known.address).unwrap();
        assert_eq!(found.location().as_deref(), Some(known.name));
        let (latitude, longitude) = known.at;
        assert_eq!(found.geo_points(), Some(format!("{latitude},{longitude}")));
    }
}
