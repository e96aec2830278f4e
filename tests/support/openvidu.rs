//! An OpenVidu server, as far as its REST API goes: it shows the sessions that it is given in the shape of its version, and can be
//! told to misbehave.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use bytes::Bytes;
use futures_util::StreamExt;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;

/// The platform's secret.
pub const SECRET: &str = "a-secret-of-the-platform";
/// A secret in its answers.
pub const TOKEN: &str = "wss://openvidu.example.com?sessionId=s&token=tok_KeepThisToYourself";

/// Which documented shapes it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V2_12,
    V2_16,
    V2_29,
}

/// How it answers the question for sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Well,
    Status(u16),
    /// Breaks off after so many bytes.
    Cut(usize),
    /// Goes no further after so many bytes.
    Stuck(usize),
    /// Shows a page, also where nothing is.
    Page,
    /// Says this.
    Says(&'static str),
    /// Does not answer at all.
    Silent,
}

#[derive(Debug)]
struct Inner {
    version: Version,
    mood: Mood,
    sessions: Vec<Value>,
    recordings: Vec<Value>,
    asked: Vec<String>,
}

/// The server.
#[derive(Debug, Clone)]
pub struct OpenVidu {
    pub address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

impl OpenVidu {
    async fn bind(version: Version) -> (Self, TcpListener) {
        let inner = Inner {
            version,
            mood: Mood::Well,
            sessions: Vec::new(),
            recordings: Vec::new(),
            asked: Vec::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server =
            Self { address: listener.local_addr().unwrap(), inner: Arc::new(Mutex::new(inner)) };
        (server, listener)
    }

    fn app(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    pub async fn start(version: Version) -> Self {
        let (server, listener) = Self::bind(version).await;
        let app = server.app();
        tokio::spawn(async move { axum::serve(listener, app).await });
        server
    }

    /// One with TLS, and the certificate, in PEM form, that it shows there and has made itself.
    /// `is_odd`: as OpenVidu makes it, for an authority and without the name of the host where it is looked for.
    pub async fn start_secure(version: Version, is_odd: bool) -> (Self, String) {
        let (server, tcp) = Self::bind(version).await;
        let names = if is_odd { Vec::new() } else { vec!["127.0.0.1".to_owned()] };
        let mut parameters = CertificateParams::new(names).unwrap();
        if is_odd {
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let key = KeyPair::generate().unwrap();
        let own = parameters.self_signed(&key).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], key)
            .unwrap();
        let listener = Secured { tcp, tls: TlsAcceptor::from(Arc::new(config)) };
        let app = server.app();
        tokio::spawn(async move { axum::serve(listener, app).await });
        (server, own.pem())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn shows(&self, sessions: &[Value]) {
        self.with(|inner| inner.sessions = sessions.to_vec());
    }

    pub fn records(&self, recordings: &[Value]) {
        self.with(|inner| inner.recordings = recordings.to_vec());
    }

    pub fn is(&self, mood: Mood) {
        self.with(|inner| inner.mood = mood);
    }

    /// How often it was asked for a path that begins so.
    pub fn asked(&self, path: &str) -> usize {
        self.with(|inner| inner.asked.iter().filter(|asked| asked.starts_with(path)).count())
    }
}

/// Connections with TLS.
struct Secured {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl Listener for Secured {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, peer) = self.tcp.accept().await.unwrap();
            // Who does not believe the certificate goes away.
            if let Ok(stream) = self.tls.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

async fn answer(State(server): State<OpenVidu>, request: Request) -> Response {
    use base64::Engine;
    let path = request.uri().to_string();
    server.with(|inner| inner.asked.push(path.clone()));
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("OPENVIDUAPP:{SECRET}"));
    let shown = request.headers().get(header::AUTHORIZATION);
    if shown.is_none_or(|shown| shown != &format!("Basic {basic}")) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let (version, mood) = server.with(|inner| (inner.version, inner.mood));
    let old = version == Version::V2_12;
    let text = match version {
        Version::V2_12 => "2.12.0",
        Version::V2_16 => "2.16.0",
        Version::V2_29 => "2.29.0",
    };
    let prefix = if old { "/api/" } else { "/openvidu/api/" };
    if path
        == if old { "/config/openvidu-version" } else { "/openvidu/api/config/openvidu-version" }
    {
        return text.into_response();
    }
    const PAGE: &str = "<!DOCTYPE html><title>Log in</title>";
    let Some(rest) = path.strip_prefix(prefix) else {
        return match mood {
            Mood::Page => PAGE.into_response(),
            _ => StatusCode::NOT_FOUND.into_response(),
        };
    };
    if let Some(id) = rest.strip_prefix("recordings/") {
        let found = server
            .with(|inner| inner.recordings.iter().find(|recording| recording["id"] == id).cloned());
        return found.map_or_else(
            || StatusCode::NOT_FOUND.into_response(),
            |found| found.to_string().into_response(),
        );
    }
    if rest != "sessions?webRtcStats=true" {
        return StatusCode::NOT_FOUND.into_response();
    }
    let sessions = server.with(|inner| inner.sessions.clone());
    let whole = json!({ "numberOfElements": sessions.len(), "content": sessions }).to_string();
    match mood {
        Mood::Well => whole.into_response(),
        Mood::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Mood::Page => PAGE.into_response(),
        Mood::Says(text) => text.into_response(),
        Mood::Silent => std::future::pending().await,
        Mood::Stuck(bytes) => {
            let begun = Bytes::copy_from_slice(&whole.as_bytes()[..bytes]);
            let begun = futures_util::stream::iter([Ok::<_, std::io::Error>(begun)]);
            Body::from_stream(begun.chain(futures_util::stream::pending())).into_response()
        }
        Mood::Cut(bytes) => {
            let begun = Bytes::copy_from_slice(&whole.as_bytes()[..bytes]);
            // What has come is sent before it breaks off.
            let cut = async {
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                Err(std::io::Error::other("cut"))
            };
            let begun = futures_util::stream::iter([Ok(begun)]);
            Body::from_stream(begun.chain(futures_util::stream::once(cut))).into_response()
        }
    }
}

/// A session that is shown, with one person who sends and one who receives.
pub fn session(version: Version, id: &str, created_at: i64) -> Value {
    let connections = [("con_A", true), ("con_B", false)].map(|(connection, publishes)| {
        let endpoint = endpoint(version, id, created_at, connection, publishes);
        let (publishers, subscribers) =
            if publishes { (vec![endpoint], vec![]) } else { (vec![], vec![endpoint]) };
        let mut shown = json!({
            "connectionId": connection, "createdAt": created_at + 1_000, "location": "Oslo, Norway",
            "platform": "Firefox 131.0 on Windows 10 64-bit", "token": TOKEN, "role": "PUBLISHER",
            "serverData": "", "clientData": format!("I am {connection}"), "publishers": publishers, "subscribers": subscribers,
        });
        if version != Version::V2_12 {
            let more = json!({
                "id": connection, "object": "connection", "status": "active", "sessionId": id, "activeAt": created_at + 2_000,
                "type": "WEBRTC", "record": true, "rtspUri": null,
            });
            shown.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        }
        if version == Version::V2_29 {
            shown["ip"] = json!("192.0.2.9");
        }
        shown
    });
    let mut session = json!({
        "sessionId": id, "createdAt": created_at, "mediaMode": "ROUTED", "recordingMode": "ALWAYS", "defaultOutputMode": "COMPOSED",
        "customSessionId": id, "recording": false,
        "connections": { "numberOfElements": 2, "content": connections },
    });
    if version != Version::V2_12 {
        // One that was prepared for somebody who has not come.
        let pending = json!({
            "id": "con_Pending", "object": "connection", "connectionId": "con_Pending", "status": "pending", "sessionId": id,
            "createdAt": created_at, "activeAt": null, "type": "WEBRTC", "record": true, "rtspUri": null, "location": null, "ip": null,
            "platform": null, "token": TOKEN, "role": "PUBLISHER", "serverData": "", "clientData": null,
            "publishers": null, "subscribers": null,
        });
        session["connections"]["content"].as_array_mut().unwrap().push(pending);
        session["id"] = json!(id);
        session["object"] = json!("session");
    }
    if version == Version::V2_29 {
        session["mediaNode"] = json!({ "id": "media_i-1" });
    }
    session
}

fn endpoint(
    version: Version,
    id: &str,
    created_at: i64,
    connection: &str,
    publishes: bool,
) -> Value {
    let stream = "str_CAM_X_con_A";
    let name = if publishes { stream.to_owned() } else { format!("{connection}_{stream}") };
    let began = created_at + 3_000;
    let event = |kind: &str, after: i64, fields: Value| {
        let mut event =
            json!({ "type": kind, "timestamp": began + after, "msSinceEndpointCreation": after });
        if version == Version::V2_29 {
            event["uniqueSessionId"] = json!(format!("{id}_{created_at}"));
        }
        event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        event
    };
    let ice = if version == Version::V2_29 {
        "IceComponentStateChanged"
    } else {
        "IceComponentStateChange"
    };
    let flow = match (version == Version::V2_29, publishes) {
        (true, true) => "MediaFlowInStateChanged",
        (true, false) => "MediaFlowOutStateChanged",
        (false, true) => "MediaFlowInStateChange",
        (false, false) => "MediaFlowOutStateChange",
    };
    let sdp = |role: &str| format!("v=0\r\na=ice-pwd:KeepThisToYourself\r\na=setup:{role}\r\n");
    let candidate = |kind: &str| format!("candidate:1 1 UDP 2013266431 192.0.2.7 40000 typ {kind}");
    let pair = json!({ "candidatePair": { "localCandidate": candidate("host"), "remoteCandidate": candidate("srflx") } });
    let events = [
        event(ice, 20, json!({ "streamId": 1, "componentId": 1, "state": "CONNECTED" })),
        event("NewCandidatePairSelected", 30, pair),
        event(flow, 400, json!({ "state": "FLOWING", "padName": "default", "mediaType": "VIDEO" })),
    ];
    json!({
        "createdAt": began, "webrtcEndpointName": name, "streamId": stream,
        "localSdp": sdp("active"), "remoteSdp": sdp("actpass"),
        "localCandidate": candidate("host"), "remoteCandidate": candidate("srflx"), "events": events,
    })
}
