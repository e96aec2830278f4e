//! The page: a handful of files, compiled in, working without any other host.

use std::io::Write;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

const INDEX: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");

/// The scripts, each under its name.
pub(super) const SCRIPTS: [(&str, &str); 13] = [
    ("/app.js", include_str!("page/app.js")),
    ("/chart.js", include_str!("page/chart.js")),
    ("/data.js", include_str!("page/data.js")),
    ("/explore.js", include_str!("page/explore.js")),
    ("/now.js", include_str!("page/now.js")),
    ("/panel.js", include_str!("page/panel.js")),
    ("/session.js", include_str!("page/session.js")),
    ("/shapes.js", include_str!("page/shapes.js")),
    ("/story.js", include_str!("page/story.js")),
    ("/table.js", include_str!("page/table.js")),
    ("/text.js", include_str!("page/text.js")),
    ("/view.js", include_str!("page/view.js")),
    ("/world.js", include_str!("page/world.js")),
];

pub(super) async fn index(headers: HeaderMap) -> Response {
    asset(&headers, "text/html; charset=utf-8", INDEX)
}

pub(super) fn script(headers: &HeaderMap, content: &'static str) -> Response {
    asset(headers, "text/javascript; charset=utf-8", content)
}

pub(super) async fn style(headers: HeaderMap) -> Response {
    asset(&headers, "text/css; charset=utf-8", STYLE)
}

/// An asset, packed if the browser takes that, or 304 if it has this one.
pub(super) fn asset(headers: &HeaderMap, kind: &'static str, content: &'static str) -> Response {
    let tag = format!("\"{:016x}\"", xxhash_rust::xxh3::xxh3_64(content.as_bytes()));
    let said = |name| headers.get(name).and_then(|said| said.to_str().ok());
    let caching = [
        (header::ETAG, tag.clone()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::VARY, "accept-encoding".to_owned()),
    ];
    if said(header::IF_NONE_MATCH) == Some(tag.as_str()) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    let takes_gzip = said(header::ACCEPT_ENCODING).is_some_and(|said| said.contains("gzip"));
    let kind = [(header::CONTENT_TYPE, kind)];
    match takes_gzip.then(|| packed(content)) {
        Some(Ok(bytes)) => {
            (caching, kind, [(header::CONTENT_ENCODING, "gzip")], bytes).into_response()
        }
        Some(Err(_)) | None => (caching, kind, content).into_response(),
    }
}

fn packed(content: &str) -> std::io::Result<Vec<u8>> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(content.as_bytes())?;
    packed.finish()
}

#[cfg(test)]
mod tests {
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
        let bytes: usize = sources().iter().map(|source| packed(source).unwrap().len()).sum();
        assert!(bytes < 100_000, "{bytes}");
    }
}
