//! HTTP to the servers that settings name: who asks, and whose certificates are believed.

use std::fmt::Display;
use std::time::Duration;

use anyhow::Context;
use elasticsearch::auth::Credentials;
use elasticsearch::cert::{Certificate, CertificateValidation};
use elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::Secret;

/// All but what a path may hold as it is (RFC 3986, unreserved).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A name as part of a path.
pub(crate) fn escaped(name: &str) -> impl Display {
    utf8_percent_encode(name, ESCAPED)
}

/// A server, and what its section of the settings says of it.
#[derive(Debug)]
pub(crate) struct Server<'c> {
    /// Name of the section.
    pub(crate) section: &'static str,
    /// Name of the setting that holds the address.
    pub(crate) setting: &'static str,
    pub(crate) url: &'c str,
    pub(crate) username: &'c str,
    pub(crate) password: &'c Secret,
    pub(crate) api_key: &'c Secret,
    pub(crate) ca: &'c str,
    pub(crate) timeout: Duration,
}

impl Server<'_> {
    /// Makes ready to reach it. Nothing is sent yet.
    pub(crate) fn connect(&self) -> anyhow::Result<Transport> {
        let Self { section, setting, url, ca, .. } = self;
        let parsed =
            url.parse().with_context(|| format!("{section}.{setting}: {url:?} is no address"))?;
        let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(parsed))
            .enable_meta_header(false)
            .disable_proxy()
            .timeout(self.timeout);
        if !self.api_key.is_empty() {
            builder = builder.auth(Credentials::EncodedApiKey(self.api_key.expose().to_owned()));
        } else if !self.username.is_empty() {
            let password = self.password.expose().to_owned();
            builder = builder.auth(Credentials::Basic(self.username.to_owned(), password));
        }
        if !ca.is_empty() {
            let pem =
                std::fs::read(ca).with_context(|| format!("cannot read {section}.ca {ca}"))?;
            let certificate = Certificate::from_pem(&pem)
                .with_context(|| format!("{section}.ca {ca} holds no certificate in PEM form"))?;
            builder = builder.cert_validation(CertificateValidation::Full(certificate));
        }
        builder.build().with_context(|| format!("cannot use {section}.{setting} {url:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_paths_as_they_are() {
        assert_eq!(escaped("ses_A~1-x.y").to_string(), "ses_A~1-x.y");
        assert_eq!(escaped("a b/é?").to_string(), "a%20b%2F%C3%A9%3F");
    }
}
