//! `health`: ask the `serve` of the same settings how it is. A container whose image has no other program is judged by it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::print;
use crate::cli::{ExitCode, Failure};
use crate::config::Config;

/// Whoever takes longer is not well.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Much more than all reasons together.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Prints what is answered to `path`. Anything but a success ends with [`ExitCode::Unreachable`].
pub(super) async fn run(config: &Config, path: &str) -> Result<ExitCode, Failure> {
    let address = own(config.http.listen);
    let asked = tokio::time::timeout(ANSWER_WITHIN, ask(address, path)).await;
    let (status, told) = asked
        .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {ANSWER_WITHIN:?}")))
        .with_context(|| format!("http://{address}{path}"))
        .map_err(Failure::with(ExitCode::Unreachable))?;
    print(told.trim_end())?;
    Ok(if status.is_success() { ExitCode::Ok } else { ExitCode::Unreachable })
}

/// Where this machine reaches who listens on `listen`.
fn own(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let request =
        Request::get(path).header(header::HOST, address.to_string()).body(Body::empty())?;
    let asked = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Body::new(response.into_body());
        let told = axum::body::to_bytes(body, ANSWER_BYTES_MAX).await?;
        anyhow::Ok((status, String::from_utf8_lossy(&told).into_owned()))
    };
    tokio::pin!(asked);
    tokio::select! {
        answered = &mut asked => answered,
        // What goes wrong with it is heard by the request that waits.
        _ended = connection => asked.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_listens_everywhere_is_asked_at_home() {
        for (listen, asked) in [
            ("0.0.0.0:7300", "127.0.0.1:7300"),
            ("[::]:7300", "[::1]:7300"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(own(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
