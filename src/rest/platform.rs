//! One platform's REST API: who answers there, and with what.

use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use reqwest::StatusCode;

use super::answer::Naming;
use super::split::SplitError;
use super::trust;
use crate::config::RestConfig;
use crate::journal::AppendError;

/// The user name of OpenVidu's REST API.
const USER: &str = "OPENVIDUAPP";
/// Largest answer about anything but sessions, in bytes.
const SMALL: usize = 1 << 20;
/// Longest text that is taken for a version, in bytes.
const VERSION_BYTES_MAX: usize = 64;

/// Why a poll came to nothing, or to less than all.
#[derive(Debug, thiserror::Error)]
pub(super) enum PollError {
    #[error("no answer from {0}")]
    Away(String),
    #[error(
        "{0} refuses the secret; set sources.NAME.rest.secret to the platform's OPENVIDU_SECRET"
    )]
    Secret(String),
    #[error("{path} was answered {status}")]
    Status { path: String, status: StatusCode },
    #[error("{0}; see that sources.NAME.rest.url is that of an OpenVidu 2")]
    Foreign(#[from] SplitError),
    #[error(
        "{0} was answered with no version; see that sources.NAME.rest.url is that of an OpenVidu 2"
    )]
    NoVersion(&'static str),
    #[error("the answer broke off after {0} bytes")]
    Cut(u64),
    #[error(
        "the answer was not whole in time, after {0} bytes; sources.NAME.rest.request_timeout is the limit"
    )]
    Slow(u64),
    #[error("the answer is larger than {0} bytes; sources.NAME.rest.bytes_max is the limit")]
    TooLarge(u64),
    #[error("{0} sessions or parts of them could not be read: {1}")]
    Odd(usize, String),
    #[error(transparent)]
    Journal(#[from] AppendError),
}

impl PollError {
    /// Whether the platform answered, and only a part of the answer is missing.
    pub(super) fn is_partial(&self) -> bool {
        matches!(self, Self::Cut(_) | Self::Slow(_) | Self::TooLarge(_) | Self::Odd(..))
    }
}

/// Where an API lies, and how its version names sessions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Api {
    pub(super) prefix: &'static str,
    pub(super) naming: Naming,
}

/// Where it is asked.
#[derive(Debug)]
pub(super) struct Platform {
    config: RestConfig,
    client: reqwest::Client,
}

impl Platform {
    /// As the settings say. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// If the certificate cannot be used.
    pub(super) fn new(config: &RestConfig) -> anyhow::Result<Self> {
        let mut client = reqwest::Client::builder()
            .timeout(config.request_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if !config.ca.is_empty() {
            let ca = Path::new(&config.ca);
            let pem =
                std::fs::read(ca).with_context(|| format!("cannot read ca {}", ca.display()))?;
            let trust = trust::config(&pem)
                .with_context(|| format!("ca {} cannot be used", ca.display()))?;
            client = client.use_preconfigured_tls(trust);
        }
        Ok(Self { config: config.clone(), client: client.build()? })
    }

    /// Finds out which version answers, and what it says of itself.
    pub(super) async fn version(&self) -> Result<(Api, String), PollError> {
        match self.version_at("openvidu/api/config/openvidu-version", "openvidu/api/").await {
            // Up to 2.15 it lies elsewhere, and an application may answer here.
            Err(
                PollError::NoVersion(_) | PollError::Status { status: StatusCode::NOT_FOUND, .. },
            ) => {
                let (api, version) = self.version_at("config/openvidu-version", "api/").await?;
                Ok((Api { naming: Naming::Plain, ..api }, version))
            }
            known => known,
        }
    }

    /// The same of an API below `prefix`, whose version stands at `path`.
    async fn version_at(
        &self,
        path: &'static str,
        prefix: &'static str,
    ) -> Result<(Api, String), PollError> {
        let text = self.small(path).await?;
        let text = text.map_err(|status| PollError::Status { path: path.to_owned(), status })?;
        let version = version(&text).ok_or(PollError::NoVersion(path))?;
        let naming = if is_before_2_17(version) { Naming::Plain } else { Naming::Unique };
        Ok((Api { prefix, naming }, version.to_owned()))
    }

    /// The answer to a question, whatever its status but that the secret is refused.
    pub(super) async fn ask(&self, path: &str) -> Result<reqwest::Response, PollError> {
        let url = format!("{}/{path}", self.config.url.trim_end_matches('/'));
        let asked = self.client.get(&url).basic_auth(USER, Some(self.config.secret.expose()));
        let answer = asked.send().await.map_err(|error| {
            tracing::debug!(error = %error, path, "asking the REST API");
            PollError::Away(format!("{url}: {}", cause(&error)))
        })?;
        match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(PollError::Secret(url)),
            _ => Ok(answer),
        }
    }

    /// A small answer, or the status of one that is none.
    pub(super) async fn small(&self, path: &str) -> Result<Result<Bytes, StatusCode>, PollError> {
        let mut answer = self.ask(path).await?;
        if answer.status() != StatusCode::OK {
            return Ok(Err(answer.status()));
        }
        let mut text = Vec::new();
        while let Some(chunk) =
            answer.chunk().await.map_err(|_| PollError::Cut(text.len() as u64))?
        {
            text.extend_from_slice(&chunk);
            if text.len() > SMALL {
                return Err(PollError::TooLarge(SMALL as u64));
            }
        }
        Ok(Ok(text.into()))
    }
}

/// The version in an answer, such as `2.29.0`, in quotes or not. What an application shows to everybody is none.
fn version(answer: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(answer).ok()?.trim().trim_matches('"');
    let is_version = text.len() <= VERSION_BYTES_MAX
        && text.contains(|character: char| character.is_ascii_digit())
        && !text.contains(['<', '{', '\n']);
    is_version.then_some(text)
}

/// Whether a version names sessions by their `sessionId` alone.
fn is_before_2_17(text: &str) -> bool {
    let mut numbers = text.split(|character: char| !character.is_ascii_digit());
    let mut next = || numbers.find(|number| !number.is_empty())?.parse::<u32>().ok();
    next().zip(next()).is_some_and(|version| version < (2, 17))
}

/// The innermost reason: those around it repeat the address.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_application_shows_is_no_version() {
        assert_eq!(version(b"\"2.29.0\"\n"), Some("2.29.0"));
        assert_eq!(version(b"2.12.0"), Some("2.12.0"));
        for other in ["", "pro", "<!doctype html>v2", "{\"version\":2}", "Not found\n404"] {
            assert_eq!(version(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn versions_tell_how_sessions_are_named() {
        for (text, before) in [
            ("2.16.0", true),
            ("\"2.12.0\"", true),
            ("2.17.0", false),
            ("2.32.2", false),
            ("OpenVidu 2.9", true),
            ("", false),
            ("pro", false),
        ] {
            assert_eq!(is_before_2_17(text), before, "{text}");
        }
    }
}
