//! What the servers need before the first document: lifecycle, template, alias.
//!
//! First everything is looked at, then only what differs is sent. What a server cannot do is found out before the template is
//! made, so that the template names nothing that is not there.

use elasticsearch::http::Method;
use serde_json::{Value, json};

use super::difference::{Change, changes};
use super::template::{FIELDS_THAT_MATTER, Server};
use super::{ElasticsearchSink, NOT_A_SEARCH_SERVER};
use crate::config::Period;

/// Why setting up did not work.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The settings, or what is there already, have to be changed first.
    #[error("{0:#}")]
    Refused(anyhow::Error),
    /// The account may not, or not yet: goes on by itself when it may.
    #[error("{0:#}")]
    Denied(anyhow::Error),
    /// No answer; worth another try.
    #[error("{0:#}")]
    Away(anyhow::Error),
}

/// What setup would do.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// In the order in which they are sent.
    pub steps: Vec<Step>,
    /// What is left out or stays wrong, and what to do about it.
    pub warnings: Vec<String>,
    /// Existing indices that will not do, and what to do about it.
    pub faults: Vec<String>,
}

/// Something that is there afterwards.
#[derive(Debug, Clone)]
pub struct Step {
    /// What it is, for people.
    pub what: String,
    /// Where it goes.
    pub path: String,
    /// What goes there.
    pub body: Value,
    /// What stands there now, if anything.
    pub before: Option<Value>,
}

impl Step {
    /// What it changes, by path. Nothing: it is not sent.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        changes(self.before.as_ref().unwrap_or(&Value::Null), &self.body)
    }

    /// Whether all of it is there already.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.before.is_some() && self.changes().is_empty()
    }
}

impl ElasticsearchSink {
    pub(super) fn template_name(&self) -> String {
        format!("{}-events", self.config.index)
    }

    /// Which indices are written.
    fn pattern(&self) -> String {
        match self.config.period {
            Period::None => self.config.index.clone(),
            Period::Month | Period::Day => format!("{}-events-*", self.config.index),
        }
    }

    /// Sets up and says in the log what is left out or wrong.
    pub(super) async fn set_up(&self) -> Result<(), SetupError> {
        let plan = self.plan().await?;
        self.apply(&plan).await?;
        for told in plan.warnings.iter().chain(&plan.faults) {
            tracing::warn!(reason = told, "setup leaves something out or finds it wrong");
        }
        Ok(())
    }

    /// Does what `plan` says.
    ///
    /// # Errors
    ///
    /// If the servers do not answer, or refuse; the message says what to do.
    pub async fn apply(&self, plan: &Plan) -> Result<(), SetupError> {
        for step in plan.steps.iter().filter(|step| !step.is_done()) {
            let (status, answer) = self
                .ask(Method::Put, &step.path, Some(step.body.to_string()))
                .await
                .map_err(SetupError::Away)?;
            match status {
                200..=299 => tracing::debug!(path = step.path, "created or changed"),
                409 => {
                    let error = anyhow::anyhow!("{}: somebody else changes it too", step.what);
                    return Err(SetupError::Away(error));
                }
                _ => return Err(refusal(status, &answer, &step.what)),
            }
        }
        Ok(())
    }

    /// What setup would do, with what stands there now. Nothing is changed.
    ///
    /// # Errors
    ///
    /// If the servers do not answer, or refuse; the message says what to do.
    pub async fn plan(&self) -> Result<Plan, SetupError> {
        let server = self.server().await?;
        let mut plan = Plan::default();
        self.refuse_plain_index().await?;
        let lifecycle = self.lifecycle(&server, &mut plan.warnings).await?;
        let body = self.template(&server, lifecycle.is_some());
        plan.steps.extend(lifecycle);
        let name = self.template_name();
        let path = format!("/_index_template/{name}");
        let before = self.look(&path, &format!("index template {name}")).await?;
        let before = before.map(|told| part(&told, "/index_templates/0/index_template"));
        plan.steps.push(Step { what: format!("index template {name}"), path, body, before });
        plan.steps.extend(optional(self.missing_alias().await, &mut plan.warnings)?);
        plan.faults = optional(self.wrong_types().await, &mut plan.warnings)?;
        Ok(plan)
    }

    /// What stands at `path`, if anything.
    async fn look(&self, path: &str, what: &str) -> Result<Option<Value>, SetupError> {
        match self.ask(Method::Get, path, None).await.map_err(SetupError::Away)? {
            (200, told) => Ok(Some(told)),
            (404, _) => Ok(None),
            (status, told) => Err(refusal(status, &told, what)),
        }
    }

    /// The policy that deletes old indices, where the settings want one and the server has such a thing.
    async fn lifecycle(
        &self,
        server: &Server,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Step>, SetupError> {
        let days = self.config.retention.as_secs() / 86_400;
        if days == 0 {
            return Ok(None);
        }
        if self.config.period == Period::None {
            warnings.push(
                "elasticsearch.retention is left out: with elasticsearch.period = \"none\" there is one index, which never ends"
                    .to_owned(),
            );
            return Ok(None);
        }
        let (mut path, body) = if server.is_opensearch { self.ism(days) } else { self.ilm(days) };
        let what = format!("lifecycle policy {}: delete after {days} days", self.template_name());
        let (status, told) = self.ask(Method::Get, &path, None).await.map_err(SetupError::Away)?;
        let before = match status {
            200 if server.is_opensearch => {
                let number = |name: &str| told.get(name).cloned().unwrap_or_default();
                path = format!(
                    "{path}?if_seq_no={}&if_primary_term={}",
                    number("_seq_no"),
                    number("_primary_term")
                );
                Some(json!({ "policy": told.get("policy") }))
            }
            200 => {
                let policy = told.get(self.template_name()).and_then(|told| told.get("policy"));
                Some(json!({ "policy": policy }))
            }
            404 => None,
            401 | 403 | 429 | 500.. => return Err(refusal(status, &told, &what)),
            _ => {
                warnings.push(format!(
                    "elasticsearch.retention is left out: the server has no lifecycle management (status {status}), indices are kept for ever; \
                     delete old ones yourself, or set elasticsearch.retention = \"0s\""
                ));
                return Ok(None);
            }
        };
        Ok(Some(Step { what, path, body, before }))
    }

    /// The alias for indices that were made without the template.
    async fn missing_alias(&self) -> Result<Option<Step>, SetupError> {
        if self.config.period == Period::None {
            return Ok(None);
        }
        let (alias, pattern) = (&self.config.index, self.pattern());
        let what = format!("alias {alias}");
        let found = self.look(&format!("/{pattern}/_alias"), &what).await?.unwrap_or_default();
        let none = serde_json::Map::new();
        let without: Vec<&str> = found
            .as_object()
            .unwrap_or(&none)
            .iter()
            .filter(|(_, told)| told.pointer(&format!("/aliases/{alias}")).is_none())
            .map(|(index, _)| index.as_str())
            .collect();
        if without.is_empty() {
            return Ok(None);
        }
        Ok(Some(Step {
            what: format!("alias {alias} for {}", some_of(&without)),
            path: format!("/{pattern}/_alias/{alias}"),
            body: json!({}),
            before: None,
        }))
    }

    /// Indices that were made without the template and now guess, or have guessed, what they hold.
    async fn wrong_types(&self) -> Result<Vec<String>, SetupError> {
        let names: Vec<&str> = FIELDS_THAT_MATTER.iter().map(|(name, _)| *name).collect();
        let path = format!("/{}/_mapping/field/{}", self.pattern(), names.join(","));
        let found = self.look(&path, "mappings").await?.unwrap_or_default();
        let none = serde_json::Map::new();
        let mut faults = Vec::new();
        for (name, expected) in FIELDS_THAT_MATTER {
            let wrong: Vec<(&str, &str)> = found
                .as_object()
                .unwrap_or(&none)
                .iter()
                .map(|(index, told)| {
                    let kind = told.pointer(&format!("/mappings/{name}/mapping/{name}/type"));
                    (index.as_str(), kind.and_then(Value::as_str).unwrap_or("nothing"))
                })
                .filter(|(_, kind)| kind != expected)
                .collect();
            if let Some((_, kind)) = wrong.first() {
                let indices: Vec<&str> = wrong.iter().map(|(index, _)| *index).collect();
                faults.push(format!(
                    "{name} is mapped as {kind}, not {expected}, in {}: it was made without the index template, and searches go wrong there; \
                     reindex it to another name, delete it, and reindex it back, or set another elasticsearch.index",
                    some_of(&indices)
                ));
            }
        }
        Ok(faults)
    }

    async fn server(&self) -> Result<Server, SetupError> {
        let (mut status, mut told) =
            self.ask(Method::Get, "/", None).await.map_err(SetupError::Away)?;
        if status == 405 {
            // Builds of Elasticsearch without the module that answers there.
            (status, told) = self
                .ask(Method::Get, "/_nodes/_local/none", None)
                .await
                .map_err(SetupError::Away)?;
            let node = told
                .get("nodes")
                .and_then(Value::as_object)
                .and_then(|nodes| nodes.values().next());
            told = json!({ "version": { "number": node.and_then(|node| node.get("version")).cloned() } });
        }
        if status != 200 {
            return Err(refusal(status, &told, "the version of the server"));
        }
        let version = told.get("version").cloned().unwrap_or_default();
        let Some(number) = version.get("number").and_then(Value::as_str) else {
            return Err(SetupError::Refused(anyhow::anyhow!(
                "{} does not tell its version: {NOT_A_SEARCH_SERVER}",
                self.config.urls.join(" or ")
            )));
        };
        let mut parts = number.split('.').map(|part| part.parse().unwrap_or(0));
        let version_number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let is_opensearch =
            version.get("distribution").and_then(Value::as_str) == Some("opensearch");
        Ok(Server { is_opensearch, version: version_number })
    }

    /// An index that has the alias's name stands in its way; OpenVidu Pro makes such a one.
    async fn refuse_plain_index(&self) -> Result<(), SetupError> {
        let index = &self.config.index;
        if self.config.period == Period::None {
            return Ok(());
        }
        let found = self.look(&format!("/{index}/_alias"), "alias").await?.unwrap_or_default();
        if found.as_object().is_some_and(|found| found.contains_key(index)) {
            return Err(SetupError::Refused(anyhow::anyhow!(name_is_taken(index))));
        }
        Ok(())
    }
}

/// What to do about an index that has the name of the alias.
pub(super) fn name_is_taken(index: &str) -> String {
    format!(
        "there is an index called {index} already, so no alias can have that name; set elasticsearch.period = \"none\" to write into it, \
         set another elasticsearch.index, or reindex it to another name and delete it"
    )
}

/// An account that may write needs not be allowed to look at what was there before.
fn optional<T: Default>(
    looked: Result<T, SetupError>,
    warnings: &mut Vec<String>,
) -> Result<T, SetupError> {
    match looked {
        Err(SetupError::Denied(error)) => {
            warnings.push(format!("existing indices are not looked at: {error:#}"));
            Ok(T::default())
        }
        looked => looked,
    }
}

fn some_of(indices: &[&str]) -> String {
    let some = indices.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    match indices.len().saturating_sub(3) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}

fn part(told: &Value, pointer: &str) -> Value {
    told.pointer(pointer).cloned().unwrap_or_default()
}

fn refusal(status: u16, answer: &Value, what: &str) -> SetupError {
    let reason = answer
        .pointer("/error/reason")
        .and_then(Value::as_str)
        .map_or_else(|| answer.to_string(), str::to_owned);
    match status {
        401 | 403 => SetupError::Denied(anyhow::anyhow!(
            "{what}: the server refuses (status {status}: {reason}); see elasticsearch.username, .password and .api_key, and that they may manage templates and write indices"
        )),
        429 | 500..=599 => SetupError::Away(anyhow::anyhow!("{what}: status {status}: {reason}")),
        _ => SetupError::Refused(anyhow::anyhow!(
            "{what}: the server refuses (status {status}: {reason})"
        )),
    }
}
