//! Who answers: Kibana or OpenSearch Dashboards, of which version, and whether the place is there where dashboards are to go.
//!
//! Both answer `/api/status`. Kibana names itself in the header `kbn-name` and tells a `level`; OpenSearch Dashboards in
//! `osd-name`, and tells a `state` as Kibana did before 8. Whoever stands in front may take headers away, so the body counts too.

use std::fmt;

use elasticsearch::http::Method;
use elasticsearch::http::headers::HeaderMap;
use serde_json::Value as Json;

use super::{Answer, Kibana, text};
use crate::panels::kibana::Flavour;
use crate::sink::elasticsearch::SetupError;
use crate::transport::escaped;

/// Oldest versions for which the files are made.
const KIBANA_OLDEST: (u32, u32) = (8, 17);
const OPENSEARCH_OLDEST: (u32, u32) = (2, 0);
/// From this version on, what tells a `state` is Kibana before 8.
const KIBANA_7: u32 = 4;

/// Who answers.
#[derive(Debug, Clone)]
pub struct Who {
    /// Which of the two.
    pub flavour: Flavour,
    /// As it says, if it says.
    pub version: String,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.flavour {
            Flavour::Kibana => "Kibana",
            Flavour::OpenSearch => "OpenSearch Dashboards",
        };
        write!(f, "{name} {}", self.version)
    }
}

impl Kibana {
    /// Who answers, and what could not be found out.
    pub(super) async fn who(&self) -> Result<(Who, Vec<String>), SetupError> {
        let answer = self.ask(Method::Get, "/api/status", HeaderMap::new(), None).await?;
        match answer.status {
            // Whoever has not come up yet answers so too, in plain text.
            502..=504 => {
                return Err(SetupError::Away(anyhow::anyhow!(
                    "{} is not ready yet (status {}); try again in a while",
                    self.url(),
                    answer.status
                )));
            }
            401 | 403 => self.accept(&answer, "the version of the server")?,
            _ => {}
        }
        let told: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
        let version = text(&told, "/version/number");
        let flavour =
            flavour(&answer, &told, &version).ok_or_else(|| self.not_a_kibana(&answer))?;
        self.accept(&answer, "the version of the server")?;
        let who = Who { flavour, version };
        let (oldest, file) = match flavour {
            Flavour::Kibana => (KIBANA_OLDEST, "Kibana 8.17"),
            Flavour::OpenSearch => (OPENSEARCH_OLDEST, "OpenSearch Dashboards 2"),
        };
        let Some(version) = numbers(&who.version) else {
            let warning = format!(
                "{} does not tell its version to this account; the dashboards are for {file} and newer",
                self.url()
            );
            return Ok((who, vec![warning]));
        };
        if version < oldest {
            return Err(SetupError::Refused(anyhow::anyhow!(
                "{} is {who}, and the dashboards are for {file} and newer: upgrade it, or look at the page of callscope instead",
                self.url()
            )));
        }
        Ok((who, Vec::new()))
    }

    /// Whether the space or tenant is there. In one that is not, objects would be kept where nobody sees them.
    pub(super) async fn find_place(&self, who: &Who) -> Result<(), SetupError> {
        let space = &self.config.space;
        let refuse = |told: String| Err(SetupError::Refused(anyhow::anyhow!(told)));
        if space.is_empty() {
            return Ok(());
        }
        let path = match who.flavour {
            Flavour::Kibana => format!("/api/spaces/space/{}", escaped(space)),
            Flavour::OpenSearch => "/api/v1/configuration/account".to_owned(),
        };
        let answer = self.send(who, Method::Get, &path, "application/json", None).await?;
        match (who.flavour, answer.status) {
            (Flavour::Kibana, 404) => refuse(format!(
                "there is no space {space:?} in {}; create it there, or set another kibana.space",
                self.url()
            )),
            (Flavour::Kibana, _) => self.read(&answer, &format!("space {space:?}")).map(drop),
            (Flavour::OpenSearch, 404) => refuse(format!(
                "{} has no tenants, and kibana.space names one: {space:?}; leave it out",
                self.url()
            )),
            (Flavour::OpenSearch, _) => {
                let told = self.read(&answer, &format!("tenant {space:?}"))?;
                let is_known = ["global", "private"].contains(&space.as_str())
                    || told.pointer("/data/tenants").is_some_and(|all| all.get(space).is_some());
                if is_known {
                    return Ok(());
                }
                refuse(format!(
                    "there is no tenant {space:?} in {} that this account may use; create it there, or set another kibana.space",
                    self.url()
                ))
            }
        }
    }
}

fn flavour(answer: &Answer, told: &Json, version: &str) -> Option<Flavour> {
    if answer.headers.contains_key("osd-name") {
        return Some(Flavour::OpenSearch);
    }
    if answer.headers.contains_key("kbn-name") {
        return Some(Flavour::Kibana);
    }
    if told.pointer("/status/overall/level").is_some() {
        return Some(Flavour::Kibana);
    }
    told.pointer("/status/overall/state")?;
    let is_old_kibana = numbers(version).is_some_and(|(major, _)| major >= KIBANA_7);
    Some(if is_old_kibana { Flavour::Kibana } else { Flavour::OpenSearch })
}

/// Major and minor.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}
