//! The page: a handful of files, compiled in, working without any other host.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

const INDEX: &str = include_str!("page/index.html");
const SCRIPT: &str = include_str!("page/app.js");
const SESSION: &str = include_str!("page/session.js");
const TEXT: &str = include_str!("page/text.js");
const STYLE: &str = include_str!("page/style.css");

pub(super) async fn index(headers: HeaderMap) -> Response {
    asset(&headers, "text/html; charset=utf-8", INDEX)
}

/// The scripts, each under its name.
pub(super) const SCRIPTS: [(&str, &str); 3] =
    [("/app.js", SCRIPT), ("/session.js", SESSION), ("/text.js", TEXT)];

pub(super) fn script(headers: &HeaderMap, content: &'static str) -> Response {
    asset(headers, "text/javascript; charset=utf-8", content)
}

pub(super) async fn style(headers: HeaderMap) -> Response {
    asset(&headers, "text/css; charset=utf-8", STYLE)
}

/// An asset, or 304 if the browser has this one.
fn asset(headers: &HeaderMap, kind: &'static str, content: &'static str) -> Response {
    let tag = format!("\"{:016x}\"", xxhash_rust::xxh3::xxh3_64(content.as_bytes()));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let caching = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if known == Some(tag.as_str()) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(header::CONTENT_TYPE, kind)], content).into_response()
}
