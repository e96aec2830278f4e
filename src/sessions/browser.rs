//! Whose the reports of browsers are.
//!
//! openvidu-browser reports on each of its streams, and names neither the stream nor its own connection: it tells what the
//! *sender* of the stream said about itself when it joined. So a report is kept under a name that holds all by which its stream can
//! be found ([`Reporter`]), below a connection without id, and the stream is found when documents are written, among all that is
//! known by then: the order in which reports and events come changes nothing.
//!
//! Where an application puts its connection's id into the address that reports go to, the reporter is known, if it reports from the
//! address it has joined from. Otherwise it is who has joined from there with the same browser. If that can be more than one, nobody is
//! guessed: also where two senders told the same of themselves. Who came back is told from who was there before by what was open when
//! the report came ([`Visitor`]), as far as that was known.

use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::state::{Connection, Joined, Session, Stream};
use crate::enrich::address::{household, parse};

/// Connection id under which reports are kept: they name none.
pub const NOBODY: &str = "";
/// Begins the name of an endpoint that reports tell of.
const PREFIX: &str = "browser/";
/// Between what a client and what the server says of a connection, as OpenVidu puts them together (`getFullMetadata`).
const BETWEEN: &str = "%/%";
/// How long before its beginning and after its end somebody is looked for: clocks differ. Milliseconds.
const SLACK: i64 = 60_000;

/// Who has reported, and on what. The name of an endpoint holds all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reporter<'n> {
    /// When the session began, milliseconds since 1970.
    pub start: i64,
    /// Whether the stream is its own.
    pub sends: bool,
    /// Whose browser it is.
    pub client: Client<'n>,
    /// Who sends the stream.
    pub sender: Sender,
    /// [`hash`] of the connection of who sent it when the report came, if that was known.
    pub sender_visit: Option<u64>,
}

/// Who sends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// [`hash`] of what it told of itself when it joined.
    Told(u64),
    /// That is not known; a number by which the stream is told from others.
    Unknown(u64),
}

/// Whose browser reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Client<'n> {
    /// Its connection, where it has told that.
    pub connection: Option<&'n str>,
    /// Hash of its address, unless that must not be kept.
    pub address: Option<u64>,
    /// Hash of its platform, where that is told.
    pub platform: Option<u64>,
    /// [`hash`] of the connection that it was when the report came, if that was known.
    pub visit: Option<u64>,
}

/// What a text is called in a name.
#[must_use]
pub fn hash(text: &str) -> u64 {
    xxh3_64(text.as_bytes())
}

/// What an address is called in a name: that of a household, whatever its spelling.
#[must_use]
pub fn hash_address(text: &str) -> u64 {
    parse(text).map_or_else(|| hash(text), |address| hash(&household(address).to_string()))
}

impl<'n> Reporter<'n> {
    /// It with those of `present` who it can only be.
    #[must_use]
    pub fn among(mut self, present: &[Visitor]) -> Self {
        let senders = || present.iter().filter(|one| one.is_sender(&self));
        let reporters = present.iter().filter(|one| one.is_of(self.client));
        let visit = |one: Option<&Visitor>| one.map(|one| hash(&one.id));
        let reporter = match self.sends {
            true => only(reporters.filter(|one| one.is_sender(&self))),
            false => only(reporters),
        };
        let sender = only(senders().filter(|one| one.sends)).or_else(|| only(senders()));
        (self.client.visit, self.sender_visit) = (visit(reporter), visit(sender));
        self
    }

    /// Whether an endpoint is one that a browser told of.
    #[must_use]
    pub fn has_named(endpoint: &str) -> bool {
        endpoint.starts_with(PREFIX)
    }

    /// The part of a name that all endpoints of one reporter and one way share.
    #[must_use]
    pub fn client_of(endpoint: &str) -> &str {
        endpoint.rsplit_once('/').map_or(endpoint, |(client, _)| client)
    }

    /// How the names of all endpoints begin that come from its address, and of no other; `None`: the address is not kept.
    #[must_use]
    pub fn from_there(&self) -> Option<[String; 2]> {
        let address = self.client.address?;
        Some(["in", "out"].map(|way| format!("{PREFIX}{}/{way}/{address:x}~", self.start)))
    }

    /// Reads the name of an endpoint; `None`: no browser told of it.
    #[must_use]
    pub fn read(endpoint: &'n str) -> Option<Self> {
        let mut parts = endpoint.strip_prefix(PREFIX)?.split('/');
        let mut next = || parts.next();
        let (start, way, client, sender) = (next()?, next()?, next()?, next()?);
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let mut client = client.split('~');
        let address = number(client.next()?);
        let connection = client.next().filter(|id| !id.is_empty());
        let (platform, visit) = (number(client.next()?), number(client.next()?));
        let client = Client { connection, address, platform, visit };
        let (sender, sender_visit) = sender.split_once('@').unwrap_or((sender, ""));
        let sender_visit = number(sender_visit);
        let sender = match sender.strip_prefix('~') {
            None => Sender::Told(number(sender)?),
            Some(stream) => Sender::Unknown(number(stream)?),
        };
        let (start, sends) = (start.parse().ok()?, way == "out");
        let reporter = Self { start, sends, client, sender, sender_visit };
        next().is_none().then_some(reporter)
    }

    /// The name of its endpoint.
    #[must_use]
    pub fn name(&self) -> String {
        let hash = |hash: Option<u64>| hash.map_or_else(String::new, |hash| format!("{hash:x}"));
        let Client { connection, address, platform, visit } = self.client;
        let connection = connection.unwrap_or_default();
        let client = format!("{}~{connection}~{}~{}", hash(address), hash(platform), hash(visit));
        let way = if self.sends { "out" } else { "in" };
        let sender = match self.sender {
            Sender::Told(sender) => format!("{sender:x}"),
            Sender::Unknown(stream) => format!("~{stream:x}"),
        };
        let visit = self.sender_visit.map_or_else(String::new, |visit| format!("@{visit:x}"));
        format!("{PREFIX}{}/{way}/{client}/{sender}{visit}", self.start)
    }
}

/// What is known of a connection that a report may be of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor {
    id: Box<str>,
    /// What it told of itself.
    sender: Option<u64>,
    address: Option<u64>,
    platform: Option<u64>,
    /// Whether it sends anything.
    sends: bool,
}

impl Visitor {
    /// Of a connection and its id.
    #[must_use]
    pub fn of(id: &str, connection: &Connection) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Told {
            ip: Option<String>,
            platform: Option<String>,
            client_data: String,
            server_data: String,
        }
        let read = |joined: &Joined| {
            let between =
                if joined.address.is_empty() || joined.data.is_empty() { "" } else { "," };
            serde_json::from_str(&format!("{{{}{between}{}}}", joined.address, joined.data)).ok()
        };
        let told: Option<Told> = connection.joined.as_ref().and_then(read);
        let Told { ip, platform, client_data, server_data } = told.unwrap_or_default();
        let sender = match (client_data.is_empty(), server_data.is_empty()) {
            (false, false) => format!("{client_data}{BETWEEN}{server_data}"),
            _ => client_data + &server_data,
        };
        Self {
            id: id.into(),
            sender: connection.joined.is_some().then(|| hash(&sender)),
            address: ip.as_deref().map(hash_address),
            platform: platform.as_deref().map(hash),
            sends: connection.streams.iter().any(|stream| stream.outbound),
        }
    }

    /// Whether it can be this one. What is not known or must not be kept is not compared; who names a connection is believed only
    /// from its address.
    fn is_of(&self, client: Client<'_>) -> bool {
        let fits =
            |told: Option<u64>, own: Option<u64>| told.is_none() || own.is_none() || told == own;
        let is_named = match client.connection {
            Some(id) => *self.id == *id,
            None => client.platform.is_some() && client.platform == self.platform,
        };
        is_named && fits(client.address, self.address) && self.is_visit(client.visit)
    }

    /// Whether it told of itself what the sender told.
    fn is_sender(&self, reporter: &Reporter<'_>) -> bool {
        self.sender.map(Sender::Told) == Some(reporter.sender)
            && self.is_visit(reporter.sender_visit)
    }

    fn is_visit(&self, visit: Option<u64>) -> bool {
        visit.is_none_or(|visit| visit == hash(&self.id))
    }
}

/// A connection and how it is known.
#[derive(Debug, Clone)]
struct Card<'s> {
    id: &'s str,
    connection: &'s Connection,
    visitor: Visitor,
}

impl<'s> Card<'s> {
    /// Streams that it sends.
    fn sent(&self) -> impl Iterator<Item = &'s Stream> + use<'s> {
        let streams = self.connection.streams.iter();
        streams.filter(|stream| stream.outbound && stream.named().is_some())
    }

    fn is_there(&self, at: i64) -> bool {
        let start = self.connection.start().unwrap_or(i64::MAX);
        let end = self.connection.end.as_ref().map_or(i64::MAX, |end| end.time);
        (start.saturating_sub(SLACK)..=end.saturating_add(SLACK)).contains(&at)
    }
}

/// Whose a report is.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'s> {
    /// Id of the connection.
    pub connection_id: &'s str,
    /// What is known of it.
    pub connection: &'s Connection,
    /// The stream; absent where none of it is known yet.
    pub stream: Option<&'s Stream>,
}

/// Everybody who may have reported.
#[derive(Debug)]
pub struct Directory<'s>(Vec<Card<'s>>);

impl<'s> Directory<'s> {
    /// Of these connections and their ids.
    pub fn new(connections: impl Iterator<Item = (&'s str, &'s Connection)>) -> Self {
        let card = |(id, connection)| Card { id, connection, visitor: Visitor::of(id, connection) };
        Self(connections.map(card).collect())
    }

    /// Of all connections of a session.
    #[must_use]
    pub fn of(session: &'s Session) -> Self {
        Self::new(session.connections.iter().map(|(id, connection)| (&**id, &**connection)))
    }

    /// Who has reported so; `None`: nobody, or more than one can have. `at`: who was there then, milliseconds since 1970; `None`: at
    /// any time.
    #[must_use]
    pub fn owner(&self, reporter: &Reporter<'_>, at: Option<i64>) -> Option<Owner<'s>> {
        let there = || self.0.iter().filter(|card| at.is_none_or(|at| card.is_there(at)));
        let reporters = || there().filter(|card| card.visitor.is_of(reporter.client));
        let own = |card: &Card<'s>, stream| Owner {
            connection_id: card.id,
            connection: card.connection,
            stream,
        };
        let is_sender = |card: &&Card<'s>| card.visitor.is_sender(reporter);
        if reporter.sends {
            // Who names its connection need not be known by what it told of itself, which may not be kept.
            let is_known = reporter.client.connection.is_some()
                || matches!(reporter.sender, Sender::Unknown(_));
            let card = only(reporters().filter(|card| is_known || is_sender(card)))?;
            return Some(own(card, card.sent().max_by_key(start)));
        }
        // What people told of themselves may not be kept of anybody (`privacy.drop_fields`).
        let is_kept = there().any(|card| card.visitor.sender.is_some_and(|told| told != hash("")));
        let is_told = is_kept || there().any(|card| is_sender(&card));
        if matches!(reporter.sender, Sender::Unknown(_)) || !is_told {
            let card = only(reporters())?;
            // Whoever receives one stream alone has reported on it.
            let received = || card.connection.streams.iter().filter(|stream| !stream.outbound);
            let latest = received().max_by_key(start);
            let is_alone = |stream: &&Stream| received().all(|other| other.id == stream.id);
            return Some(own(card, latest.filter(is_alone)));
        }
        // Of several who told the same of themselves it is who sends.
        let senders = || there().filter(is_sender);
        let sender =
            only(senders().filter(|card| card.visitor.sends)).or_else(|| only(senders()))?;
        let is_sent = |stream: &&Stream| sender.sent().any(|sent| sent.id == stream.id);
        let received = |card: &Card<'s>| {
            let streams = card.connection.streams.iter();
            streams.filter(|stream| !stream.outbound && is_sent(stream)).max_by_key(start)
        };
        // Somebody who receives nothing of the sender did not report on it, unless nothing is known of what it receives.
        let others = || reporters().filter(|card| card.id != sender.id);
        let is_blank =
            |card: &&Card<'s>| card.connection.streams.iter().all(|stream| stream.outbound);
        let card = only(others().filter(|card| received(card).is_some()))
            .or_else(|| only(others()).filter(is_blank))?;
        Some(own(card, received(card)))
    }
}

fn start(stream: &&Stream) -> i64 {
    stream.start
}

/// The one, if there is no other.
fn only<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::state::{End, Teller};
    use proptest::prelude::*;

    fn connection(start: i64, (ip, data): (&str, &str), streams: &[(bool, &str)]) -> Connection {
        let joined = Joined {
            by: Teller::Join,
            start,
            time: start,
            place: "".into(),
            address: format!("\"ip\":\"{ip}\",\"platform\":\"Chrome 129\"").into(),
            data: format!("\"clientData\":\"{data}\",\"serverData\":\"srv\"").into(),
            user: None,
            tenant: None,
        };
        let stream = |(outbound, id): &(bool, &str)| Stream {
            outbound: *outbound,
            id: (*id).into(),
            start,
            ..Stream::default()
        };
        Connection {
            joined: Some(joined),
            streams: streams.iter().map(stream).collect(),
            ..Connection::default()
        }
    }

    fn machine(ip: &str) -> Client<'static> {
        let (address, platform) = (Some(hash_address(ip)), Some(hash("Chrome 129")));
        Client { address, platform, ..Client::default() }
    }

    fn report<'n>(sends: bool, client: Client<'n>, sender: &str) -> Reporter<'n> {
        let sender = Sender::Told(hash(&format!("{sender}%/%srv")));
        Reporter { start: 7, sends, client, sender, sender_visit: None }
    }

    #[test]
    fn a_report_is_whose_it_can_only_be() {
        let ana = connection(100, ("1.1.1.1", "ana"), &[(true, "str_A"), (false, "str_B")]);
        let bo = connection(100, ("2.2.2.2", "bo"), &[(true, "str_B"), (false, "str_A")]);
        // Two at one address with one browser: whose report it is cannot be told.
        let cy = connection(100, ("3.3.3.3", "cy"), &[(false, "str_A")]);
        let di = connection(100, ("3.3.3.3", "di"), &[(false, "str_A"), (true, "str_D")]);
        let all = [("a", &ana), ("b", &bo), ("c", &cy), ("d", &di)];
        let directory = Directory::new(all.into_iter());
        let owner = |reporter: Reporter<'_>| {
            let owner = directory.owner(&reporter, Some(200))?;
            Some((owner.connection_id, owner.stream.map(|stream| &*stream.id)))
        };
        assert_eq!(owner(report(true, machine("1.1.1.1"), "ana")), Some(("a", Some("str_A"))));
        assert_eq!(owner(report(false, machine("1.1.1.1"), "bo")), Some(("a", Some("str_B"))));
        assert_eq!(owner(report(false, machine("2.2.2.2"), "ana")), Some(("b", Some("str_A"))));
        assert_eq!(owner(report(false, machine("3.3.3.3"), "ana")), None);
        assert_eq!(owner(report(true, machine("3.3.3.3"), "di")), Some(("d", Some("str_D"))));
        assert_eq!(owner(report(true, machine("9.9.9.9"), "ana")), None);
        assert_eq!(owner(report(false, machine("1.1.1.1"), "nobody")), None);
        let named = |connection, ip| Client { connection: Some(connection), ..machine(ip) };
        assert_eq!(owner(report(false, named("c", "3.3.3.3"), "ana")), Some(("c", Some("str_A"))));
        assert_eq!(owner(report(true, named("d", "3.3.3.3"), "?")), Some(("d", Some("str_D"))));
        // Who tells another's connection is not believed.
        assert_eq!(owner(report(true, named("a", "3.3.3.3"), "ana")), None);
        assert_eq!(owner(report(false, named("b", "3.3.3.3"), "ana")), None);
    }

    #[test]
    fn who_came_back_is_told_from_who_was_there_before() {
        let mut before = connection(100_000, ("1.1.1.1", "ana"), &[(true, "str_1")]);
        before.end = Some(End { time: 200_000, reason: None });
        let after = connection(400_000, ("1.1.1.1", "ana"), &[(true, "str_2")]);
        let directory = Directory::new([("a", &before), ("b", &after)].into_iter());
        let owner = |at| {
            let found = directory.owner(&report(true, machine("1.1.1.1"), "ana"), at);
            found.map(|owner| owner.connection_id)
        };
        let known = [Some(150_000), Some(300_000), Some(450_000), None].map(owner);
        assert_eq!(known, [Some("a"), None, Some("b"), None]);
        // What was open when it came tells them apart for good.
        let told = |present: &[Visitor]| report(true, machine("1.1.1.1"), "ana").among(present);
        let first = told(&[Visitor::of("a", &before)]);
        let second = told(&[Visitor::of("b", &after)]);
        let owners =
            [first, second].map(|told| directory.owner(&told, None).unwrap().connection_id);
        assert_eq!(owners, ["a", "b"]);
        assert_eq!(told(&[]), report(true, machine("1.1.1.1"), "ana"));
    }

    #[test]
    fn who_receives_is_known_through_visits_of_who_sends() {
        let mut before = connection(100_000, ("1.1.1.1", "ana"), &[(true, "str_1")]);
        before.end = Some(End { time: 200_000, reason: None });
        let after = connection(400_000, ("1.1.1.1", "ana"), &[(true, "str_2")]);
        let bo = connection(100_000, ("2.2.2.2", "bo"), &[(false, "str_1"), (false, "str_2")]);
        let directory = Directory::new([("a", &before), ("b", &after), ("c", &bo)].into_iter());
        let stream = |present: &[(&str, &Connection)]| {
            let present = present.iter().map(|(id, known)| Visitor::of(id, known));
            let told = report(false, machine("2.2.2.2"), "ana").among(&present.collect::<Vec<_>>());
            let owner = directory.owner(&told, None)?;
            Some((owner.connection_id, owner.stream.map(|stream| &*stream.id)))
        };
        assert_eq!(stream(&[("a", &before), ("c", &bo)]), Some(("c", Some("str_1"))));
        assert_eq!(stream(&[("b", &after), ("c", &bo)]), Some(("c", Some("str_2"))));
        assert_eq!(stream(&[("c", &bo)]), None);
    }

    #[test]
    fn of_those_who_told_the_same_of_themselves_it_is_who_sends() {
        let ana = connection(100, ("1.1.1.1", "x"), &[(true, "str_A")]);
        let bo = connection(100, ("2.2.2.2", "x"), &[(false, "str_A")]);
        let cy = connection(100, ("3.3.3.3", "x"), &[(false, "str_A")]);
        let all = [("a", &ana), ("b", &bo), ("c", &cy)];
        let directory = Directory::new(all.into_iter());
        let present: Vec<Visitor> = all.iter().map(|(id, known)| Visitor::of(id, known)).collect();
        for present in [&present[..], &[]] {
            let told = report(false, machine("3.3.3.3"), "x").among(present);
            let owner = directory.owner(&told, None).unwrap();
            assert_eq!((owner.connection_id, &*owner.stream.unwrap().id), ("c", "str_A"));
        }
    }

    #[test]
    fn an_address_is_its_household_whatever_its_spelling() {
        let java = connection(100, ("2001:db8:1:2:0:0:0:5", "ana"), &[(true, "str_A")]);
        let directory = Directory::new([("a", &java)].into_iter());
        let is_found =
            |address| directory.owner(&report(true, machine(address), "ana"), None).is_some();
        assert!(is_found("2001:db8:1:2::5") && is_found("2001:db8:1:2::77"));
        assert!(!is_found("2001:db8:1:3::5"));
    }

    proptest! {
        #[test]
        fn names_are_read_back(
            start in 0..i64::MAX, sends: bool, number: u64, is_told: bool, id in prop::option::of("[A-Za-z0-9_]{1,40}"),
            [address, platform, visit, sender_visit]: [Option<u64>; 4],
        ) {
            let client = Client { connection: id.as_deref(), address, platform, visit };
            let sender = if is_told { Sender::Told(number) } else { Sender::Unknown(number) };
            let reporter = Reporter { start, sends, client, sender, sender_visit };
            let name = reporter.name();
            prop_assert_eq!(Reporter::read(&name), Some(reporter));
        }

        #[test]
        fn no_name_makes_it_fail(name in "(browser/)?\\PC{0,40}") {
            let read = Reporter::read(&name);
            prop_assert!(read.is_none() || Reporter::has_named(&name));
        }
    }
}
