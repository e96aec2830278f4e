//! Sending as OpenVidu does: one request at a time over one kept connection, POST with `application/json`, anything but 200
//! is an error that is not repeated, a broken connection is tried again up to 5 times.

use std::net::SocketAddr;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::Secret;

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

/// One sender thread of OpenVidu.
#[derive(Debug)]
pub struct Sender {
    address: SocketAddr,
    path: String,
    secret: Option<Secret>,
    connection: Option<SendRequest<Body>>,
    tasks: tokio::task::JoinSet<()>,
}

impl Sender {
    /// Sends to `path` at `address`.
    #[must_use]
    pub fn new(address: SocketAddr, path: &str) -> Self {
        Self {
            address,
            path: path.to_owned(),
            secret: None,
            connection: None,
            tasks: tokio::task::JoinSet::new(),
        }
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
        let mut broken = anyhow::anyhow!("not tried");
        for _ in 0..TRIES {
            match self.attempt(body).await {
                Ok(StatusCode::OK) => return Ok(()),
                Ok(status) => return Err(SendError::Refused(status)),
                Err(error) => {
                    self.connection = None;
                    broken = error;
                }
            }
        }
        Err(SendError::Broken(broken))
    }

    async fn attempt(&mut self, body: &str) -> anyhow::Result<StatusCode> {
        while self.tasks.try_join_next().is_some() {}
        let connection = match &mut self.connection {
            Some(connection) if !connection.is_closed() => connection,
            slot => {
                let stream = TcpStream::connect(self.address).await?;
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
        let mut request = Request::post(&self.path)
            .header(header::HOST, self.address.to_string())
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(secret) = &self.secret {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", secret.expose()));
        }
        let request = request.body(Body::from(body.to_owned()))?;
        let response = connection.send_request(request).await?;
        let status = response.status();
        axum::body::to_bytes(Body::new(response.into_body()), 1 << 20).await?;
        Ok(status)
    }
}
