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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn sources() -> Vec<&'static str> {
        let scripts = SCRIPTS.into_iter().map(|(_, content)| content);
        scripts.chain([INDEX, STYLE]).collect()
    }

    #[test]
    fn the_page_asks_no_other_host_and_makes_text_of_what_was_sent() {
        for source in sources() {
            let own = source.replace("http://www.w3.org/2000/svg", "");
            assert!(!own.contains("http://") && !own.contains("https://"), "{own}");
            for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
            {
                assert!(!source.contains(sink), "{sink}");
            }
        }
    }

    #[test]
    fn every_import_is_served() {
        for source in sources() {
            for import in source.split("from \"./").skip(1) {
                let name = import.split('"').next().unwrap();
                let path = format!("/{name}");
                assert!(SCRIPTS.iter().any(|(known, _)| *known == path), "{name}");
            }
        }
    }

    #[test]
    fn the_page_is_small() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        sources().iter().for_each(|source| packed.write_all(source.as_bytes()).unwrap());
        let bytes = packed.finish().unwrap().len();
        assert!(bytes < 100_000, "{bytes}");
    }
}
