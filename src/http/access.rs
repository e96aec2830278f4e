//! Who may ask what.
//!
//! Health and readiness are open, and so is what browsers report to, which looks at its own keys. The webhook looks at its own secrets; here it only turns browsers away, whose pages could
//! otherwise post to it behind the back of whoever sits before them. Page, API and metrics need one of `http.read_secrets`,
//! shown so that a browser asks for it. Without any they are open on loopback, but only under a name of this machine: the
//! name in `Host` is what tells a page of a foreign host that has made its name point here (DNS rebinding).

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;

use super::{api, webhook};
use crate::config::{HttpConfig, Secret};

/// What the settings say about access.
#[derive(Debug, Clone)]
pub(super) struct Access {
    secrets: Vec<Secret>,
    is_open: bool,
    head_bytes_max: usize,
}

impl Access {
    pub(super) fn new(config: &HttpConfig) -> Self {
        Self {
            secrets: config.read_secrets.clone(),
            is_open: config.allow_without_secret,
            head_bytes_max: config.head_bytes_max.get(),
        }
    }

    /// The answer to a request that is not let through.
    pub(super) fn refusal(&self, request: &Request) -> Option<Response> {
        if head_bytes(request) > self.head_bytes_max {
            return Some(api::failure(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the head is too large",
                "http.head_bytes_max is the limit",
            ));
        }
        let headers = request.headers();
        match request.uri().path() {
            "/healthz" | "/readyz" => None,
            // Has keys of its own.
            path if path.starts_with("/stats/") => None,
            path if path == "/webhook" || path.starts_with("/webhook/") => {
                is_of_a_browser(headers).then(webhook::refused)
            }
            _ => self.refusal_to_read(headers),
        }
    }

    fn refusal_to_read(&self, headers: &HeaderMap) -> Option<Response> {
        if self.secrets.is_empty() {
            if self.is_open || headers.get(header::HOST).is_none_or(is_this_machine) {
                return None;
            }
            return Some(api::failure(
                StatusCode::FORBIDDEN,
                "this name is not known here",
                "ask for http://127.0.0.1 or http://localhost, or set http.read_secrets",
            ));
        }
        if webhook::matches(&self.secrets, &webhook::shown(None, headers)) {
            return None;
        }
        let mut refused = api::failure(
            StatusCode::UNAUTHORIZED,
            "wrong or missing secret",
            "show one of http.read_secrets, as the password in a browser or as \"Authorization: Bearer SECRET\"",
        );
        let asked = HeaderValue::from_static("Basic realm=\"callscope\", charset=\"UTF-8\"");
        refused.headers_mut().insert(header::WWW_AUTHENTICATE, asked);
        Some(refused)
    }
}

/// Bytes of the request's head, as it was sent but for blanks.
fn head_bytes(request: &Request) -> usize {
    let line = request.method().as_str().len() + request.uri().to_string().len() + 12;
    let headers = request.headers().iter();
    line + headers.map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>()
}

/// A server that sends events has no reason to say from which page they come; a browser always does.
fn is_of_a_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site")
}

/// Whether `Host` is an address or `localhost`, which no foreign name server can give to somebody else.
fn is_this_machine(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
}
