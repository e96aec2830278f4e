//! One entry of a GeoIP database, in whichever layout it is written.
//!
//! Two families are in use. *Nested*: `country.names.en`, `country.iso_code`, `subdivisions[0].names.en`,
//! `location.latitude` (GeoLite2, `GeoIP2`, DB-IP). *Flat*: `country_code`, `state1`, `city`, `latitude` as text
//! (ip-location-db), or `country`, `country_name`, `asn` as text (`IPinfo`). The two share no name with two meanings, so one
//! tolerant reader takes both, entry by entry. A field of an unexpected type counts as absent; only damaged bytes are an
//! error.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::countries;
use super::place::Place;

/// What an entry says, borrowed from the database.
#[derive(Debug, Default)]
pub(super) struct Entry<'a> {
    continent: Field<'a>,
    country: Field<'a>,
    region: Field<'a>,
    city: Field<'a>,
    latitude: Option<f64>,
    longitude: Option<f64>,
    asn: Option<u32>,
    as_organization: Option<&'a str>,
}

impl Entry<'_> {
    /// The place, as far as the entry tells it. May be empty.
    pub(super) fn place(&self) -> Place {
        let code = self.country.code.or(self.country.text.filter(|text| is_code(text)));
        let country =
            self.country.text.filter(|text| !is_code(text)).or_else(|| countries::name(code?));
        let continent_code = self.continent.code.or(self.continent.text);
        let continent = self
            .continent
            .text
            .filter(|text| !is_code(text))
            .or_else(|| countries::continent_name(continent_code?))
            .or_else(|| countries::continent(code?));
        let (latitude, longitude) = match (self.latitude, self.longitude) {
            (Some(latitude), Some(longitude))
                if latitude.abs() <= 90.0 && longitude.abs() <= 180.0 =>
            {
                (Some(latitude), Some(longitude))
            }
            _ => (None, None),
        };
        Place {
            continent: continent.map(Box::from),
            country: country.map(Box::from),
            country_code: code.map(Box::from),
            region: self.region.text.map(Box::from),
            city: self.city.text.map(Box::from),
            latitude,
            longitude,
            asn: self.asn,
            as_organization: self.as_organization.map(Box::from),
        }
    }
}

/// Two capital letters: a code where others write a name.
fn is_code(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

impl<'de> Deserialize<'de> for Entry<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry of a GeoIP database")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry<'de>, A::Error> {
        let mut entry = Entry::default();
        while let Some(key) = map.next_key::<&str>()? {
            match key {
                "continent" | "continent_name" => entry.continent.fill(&map.next_value()?),
                "continent_code" => entry.continent.fill_code(&map.next_value()?),
                "country" | "country_name" => entry.country.fill(&map.next_value()?),
                "country_code" | "country_iso_code" => entry.country.fill_code(&map.next_value()?),
                "subdivisions" | "region" | "region_name" | "stateprov" | "state" | "state1" => {
                    entry.region.fill(&map.next_value()?);
                }
                "city" | "city_name" => entry.city.fill(&map.next_value()?),
                "location" => {
                    let location: Field<'_> = map.next_value()?;
                    entry.latitude = entry.latitude.or(location.latitude);
                    entry.longitude = entry.longitude.or(location.longitude);
                }
                "latitude" | "lat" => {
                    entry.latitude = entry.latitude.or(map.next_value::<Field<'_>>()?.number());
                }
                "longitude" | "lon" | "lng" => {
                    entry.longitude = entry.longitude.or(map.next_value::<Field<'_>>()?.number());
                }
                "traits" => {
                    let traits: Field<'_> = map.next_value()?;
                    entry.asn = entry.asn.or(traits.asn);
                    entry.as_organization = entry.as_organization.or(traits.organization);
                }
                "autonomous_system_number" | "asn" | "as_number" => {
                    entry.asn = entry.asn.or(map.next_value::<Field<'_>>()?.as_asn());
                }
                "autonomous_system_organization" | "as_organization" | "as_name" => {
                    let organization: Field<'_> = map.next_value()?;
                    entry.as_organization = entry.as_organization.or(organization.text);
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(entry)
    }
}

/// One value: a text, a number, or of an object the members that matter, of a list the first element.
#[derive(Debug, Default)]
struct Field<'a> {
    text: Option<&'a str>,
    code: Option<&'a str>,
    whole: Option<u64>,
    fraction: Option<f64>,
    latitude: Option<f64>,
    longitude: Option<f64>,
    asn: Option<u32>,
    organization: Option<&'a str>,
}

impl<'a> Field<'a> {
    /// Takes what is not yet known. Of a code and a name under two keys the name wins the text.
    fn fill(&mut self, other: &Field<'a>) {
        if self.text.is_none_or(is_code) {
            if let Some(text) = self.text.filter(|_| other.text.is_some()) {
                self.code = self.code.or(Some(text));
            }
            self.text = other.text.or(self.text);
        } else if let Some(text) = other.text.filter(|text| is_code(text)) {
            self.code = self.code.or(Some(text));
        }
        self.code = self.code.or(other.code);
    }

    fn fill_code(&mut self, other: &Field<'a>) {
        self.code = other.text.or(self.code);
    }

    fn number(&self) -> Option<f64> {
        self.fraction
            .or_else(|| self.whole.and_then(|whole| u32::try_from(whole).ok()).map(f64::from))
            .or_else(|| self.text?.trim().parse().ok())
            .filter(|number| number.is_finite())
    }

    fn as_asn(&self) -> Option<u32> {
        self.whole.and_then(|whole| u32::try_from(whole).ok()).or_else(|| {
            let text = self.text?.trim();
            text.strip_prefix("AS").unwrap_or(text).parse().ok()
        })
    }

    fn of_text(text: &'a str) -> Self {
        let text = text.trim();
        // "-" is what IP2Location writes for nothing.
        Self { text: Some(text).filter(|text| !text.is_empty() && *text != "-"), ..Self::default() }
    }
}

impl<'de> Deserialize<'de> for Field<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Field<'de>, E> {
        Ok(Field::of_text(text))
    }

    fn visit_u64<E>(self, whole: u64) -> Result<Field<'de>, E> {
        Ok(Field { whole: Some(whole), ..Field::default() })
    }

    fn visit_i64<E>(self, whole: i64) -> Result<Field<'de>, E> {
        Ok(Field {
            whole: u64::try_from(whole).ok(),
            fraction: i32::try_from(whole).ok().map(f64::from),
            ..Field::default()
        })
    }

    fn visit_f64<E>(self, fraction: f64) -> Result<Field<'de>, E> {
        Ok(Field { fraction: Some(fraction), ..Field::default() })
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field<'de>, E> {
        Ok(Field::default())
    }

    fn visit_u128<E>(self, _: u128) -> Result<Field<'de>, E> {
        Ok(Field::default())
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Field<'de>, E> {
        Ok(Field::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field<'de>, A::Error> {
        let first = seq.next_element()?.unwrap_or_default();
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(first)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field<'de>, A::Error> {
        let mut field = Field::default();
        while let Some(key) = map.next_key::<&str>()? {
            match key {
                "names" | "name" | "en" => {
                    field.text = field.text.or(map.next_value::<Field<'_>>()?.text);
                }
                "iso_code" | "code" => field.code = map.next_value::<Field<'_>>()?.text,
                "latitude" | "lat" => field.latitude = map.next_value::<Field<'_>>()?.number(),
                "longitude" | "lon" | "lng" => {
                    field.longitude = map.next_value::<Field<'_>>()?.number();
                }
                "autonomous_system_number" => {
                    field.asn = map.next_value::<Field<'_>>()?.as_asn();
                }
                "autonomous_system_organization" => {
                    field.organization = map.next_value::<Field<'_>>()?.text;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(field)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place(entry: &serde_json::Value) -> Place {
        let text = entry.to_string();
        serde_json::from_str::<Entry<'_>>(&text).unwrap().place()
    }

    #[test]
    fn nested_entries_give_english_names() {
        let place = place(&json!({
            "city": {"geoname_id": 2950159, "names": {"de": "Berlin", "en": "Berlin"}},
            "continent": {"code": "EU", "names": {"de": "Europa", "en": "Europe"}},
            "country": {"iso_code": "DE", "names": {"de": "Deutschland", "en": "Germany"}},
            "location": {"accuracy_radius": 20, "latitude": 52.5196, "longitude": 13.4069},
            "registered_country": {"iso_code": "FR", "names": {"en": "France"}},
            "subdivisions": [{"iso_code": "BE", "names": {"en": "Land Berlin"}}, {"names": {"en": "x"}}],
            "traits": {"autonomous_system_number": 3320, "autonomous_system_organization": "DTAG"}
        }));
        assert_eq!(place.continent.as_deref(), Some("Europe"));
        assert_eq!(place.country.as_deref(), Some("Germany"));
        assert_eq!(place.country_code.as_deref(), Some("DE"));
        assert_eq!(place.region.as_deref(), Some("Land Berlin"));
        assert_eq!(place.city.as_deref(), Some("Berlin"));
        assert_eq!(place.geo_points().as_deref(), Some("52.5196,13.4069"));
        assert_eq!(place.asn, Some(3320));
        assert_eq!(place.as_organization.as_deref(), Some("DTAG"));
    }

    #[test]
    fn flat_entries_give_the_same() {
        let place = place(&json!({
            "country_code": "DE", "state1": "Land Berlin", "state2": "", "city": "Berlin", "postcode": "",
            "latitude": "52.5196", "longitude": "13.4069", "timezone": "Europe/Berlin"
        }));
        assert_eq!(place.country.as_deref(), Some("Germany"));
        assert_eq!(place.continent.as_deref(), Some("Europe"));
        assert_eq!(place.region.as_deref(), Some("Land Berlin"));
        assert_eq!(place.location().as_deref(), Some("Berlin, Germany"));
        assert_eq!(place.geo_points().as_deref(), Some("52.5196,13.4069"));
    }

    #[test]
    fn codes_under_the_key_of_a_name_are_codes_in_either_order() {
        for entry in [
            json!({"country": "DE", "country_name": "Germany", "continent": "EU", "continent_name": "Europe",
                   "asn": "AS3320", "as_name": "Deutsche Telekom AG"}),
            json!({"country_name": "Germany", "country": "DE", "continent_name": "Europe", "continent": "EU",
                   "asn": 3320, "as_name": "Deutsche Telekom AG"}),
            json!({"country": "DE", "continent_code": "EU", "as_number": 3320,
                   "autonomous_system_organization": "Deutsche Telekom AG"}),
        ] {
            let place = place(&entry);
            assert_eq!(place.country.as_deref(), Some("Germany"), "{entry}");
            assert_eq!(place.country_code.as_deref(), Some("DE"), "{entry}");
            assert_eq!(place.continent.as_deref(), Some("Europe"), "{entry}");
            assert_eq!(place.asn, Some(3320), "{entry}");
            assert_eq!(place.as_organization.as_deref(), Some("Deutsche Telekom AG"), "{entry}");
        }
    }

    #[test]
    fn values_of_an_unexpected_type_count_as_absent() {
        let place = place(&json!({
            "country": ["x"], "country_code": 7, "city": {"names": []}, "latitude": true, "longitude": {},
            "location": "52.5,13.4", "asn": -1, "subdivisions": {}, "traits": [[1]], "continent": {"code": {}}
        }));
        assert_eq!(place, Place { country: Some("x".into()), ..Place::default() });
    }

    #[test]
    fn signs_for_nothing_are_nothing() {
        for nothing in ["", " ", "-"] {
            let place =
                place(&json!({"country_code": nothing, "city": nothing, "region": nothing}));
            assert_eq!(place, Place::default());
        }
    }

    #[test]
    fn impossible_coordinates_are_no_point() {
        for (latitude, longitude) in
            [("91", "0"), ("0", "180.5"), ("NaN", "1"), ("inf", "1"), ("", "1")]
        {
            let place = place(&json!({"latitude": latitude, "longitude": longitude}));
            assert_eq!(place.geo_points(), None, "{latitude},{longitude}");
        }
    }
}
