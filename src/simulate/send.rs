//! Sending as OpenVidu does: one request at a time over one kept connection, POST with `application/json`, anything but 200
//! is an error that is not repeated, a broken connection is tried again up to 5 times.

use std::net::SocketAddr;
use std::str::FromStr;

use axum::body::Body;
use axum::http::{Request, StatusCode, Uri, header};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::Secret;

/// In which header a proxy tells for whom it asks.
pub const FORWARDED: &str = "x-forwarded-for";
/// Tries of one event.
const TRIES: usize = 5;

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The receiver answered something else than 200.
    #[error("the receiver answered {0}")]
    Refused(StatusCode),
    /// The connection broke every time.
    #[error("the connection broke {TRIES} times: {0}")]
    Broken(anyhow::Error),
}

/// The webhook of a callscope, as `http://HOST:PORT/webhook`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Host and port. The name is looked up for every connection: in a network of containers a restart moves it.
    host: String,
    path: String,
}

impl Webhook {
    /// The default source's at `address`.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        Self { host: address.to_string(), path: "/webhook".to_owned() }
    }
}

impl FromStr for Webhook {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse()?;
        let (Some("http"), Some(host)) = (uri.scheme_str(), uri.authority()) else {
            anyhow::bail!("an address such as http://127.0.0.1:7300/webhook is needed");
        };
        anyhow::ensure!(
            !host.as_str().contains('@') && uri.query().is_none(),
            "the secret is the first of sources.default.secrets, and stands in no address"
        );
        anyhow::ensure!(
            uri.path() == "/webhook" || uri.path().starts_with("/webhook/"),
            "a webhook ends in /webhook or /webhook/SOURCE"
        );
        let port = host.port_u16().unwrap_or(80);
        Ok(Self { host: format!("{}:{port}", host.host()), path: uri.path().to_owned() })
    }
}

impl std::fmt::Display for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.host, self.path)
    }
}

/// One sender thread of OpenVidu.
#[derive(Debug)]
pub struct Sender {
    webhook: Webhook,
    secret: Option<Secret>,
    connection: Option<SendRequest<Body>>,
    tasks: tokio::task::JoinSet<()>,
}

impl Sender {
    /// Sends to `webhook`.
    #[must_use]
    pub fn new(webhook: Webhook) -> Self {
        Self { webhook, secret: None, connection: None, tasks: tokio::task::JoinSet::new() }
    }

    /// Shows `secret`, as `OPENVIDU_WEBHOOK_HEADERS` makes OpenVidu do.
    #[must_use]
    pub fn with_secret(mut self, secret: &Secret) -> Self {
        self.secret = Some(secret.clone());
        self
    }

    /// Sends one event and waits for the answer.
    ///
    /// # Errors
    ///
    /// If it was not answered 200.
    pub async fn send(&mut self, body: &str) -> Result<(), SendError> {
        let path = self.webhook.path.clone();
        match self.post(&path, None, body).await? {
            StatusCode::OK => Ok(()),
            status => Err(SendError::Refused(status)),
        }
    }

    /// Posts to another path of the same host, as the proxy of somebody at `address` if there is one, and gives the answer.
    ///
    /// # Errors
    ///
    /// If the connection broke every time.
    pub async fn post(
        &mut self,
        path: &str,
        address: Option<&str>,
        body: &str,
    ) -> Result<StatusCode, SendError> {
        let mut broken = anyhow::anyhow!("not tried");
        for _ in 0..TRIES {
            match self.attempt(path, address, body).await {
                Ok(status) => return Ok(status),
                Err(error) => {
                    self.connection = None;
                    broken = error;
                }
            }
        }
        Err(SendError::Broken(broken))
    }

    async fn attempt(
        &mut self,
        path: &str,
        address: Option<&str>,
        body: &str,
    ) -> anyhow::Result<StatusCode> {
        while self.tasks.try_join_next().is_some() {}
        let connection = match &mut self.connection {
            Some(connection) if !connection.is_closed() => connection,
            slot => {
                let stream = TcpStream::connect(&self.webhook.host).await?;
                stream.set_nodelay(true)?;
                let (sender, connection) = handshake(TokioIo::new(stream)).await?;
                self.tasks.spawn(async move {
                    // What goes wrong is heard by the request that waits.
                    let _ended = connection.await;
                });
                slot.insert(sender)
            }
        };
        connection.ready().await?;
        let mut request = Request::post(path)
            .header(header::HOST, &self.webhook.host)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(secret) = &self.secret {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", secret.expose()));
        }
        if let Some(address) = address {
            request = request.header(FORWARDED, address);
        }
        let request = request.body(Body::from(body.to_owned()))?;
        let response = connection.send_request(request).await?;
        let status = response.status();
        axum::body::to_bytes(Body::new(response.into_body()), 1 << 20).await?;
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_an_address_of_http_without_secrets() {
        for (url, told) in [
            ("http://callscope:7300/webhook", "http://callscope:7300/webhook"),
            ("http://[::1]:7300/webhook/south", "http://[::1]:7300/webhook/south"),
            ("http://callscope/webhook", "http://callscope:80/webhook"),
        ] {
            assert_eq!(url.parse::<Webhook>().unwrap().to_string(), told);
        }
        for (url, reason) in [
            ("https://callscope/webhook", "such as http://"),
            ("callscope:7300", "such as http://"),
            ("http://callscope:7300", "ends in /webhook"),
            ("http://me:secret@callscope/webhook", "in no address"),
            ("http://callscope/webhook?secret=x", "in no address"),
        ] {
            let error = url.parse::<Webhook>().unwrap_err().to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }
}
