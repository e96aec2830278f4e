//! The page: a handful of files, compiled in, working without any other host.

use std::io::Write;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;

use super::App;

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The files: where each is, of which kind, and what is in it.
const FILES: [(&str, &str, &str); 15] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/app.js", SCRIPT, include_str!("page/app.js")),
    ("/chart.js", SCRIPT, include_str!("page/chart.js")),
    ("/data.js", SCRIPT, include_str!("page/data.js")),
    ("/explore.js", SCRIPT, include_str!("page/explore.js")),
    ("/now.js", SCRIPT, include_str!("page/now.js")),
    ("/panel.js", SCRIPT, include_str!("page/panel.js")),
    ("/session.js", SCRIPT, include_str!("page/session.js")),
    ("/shapes.js", SCRIPT, include_str!("page/shapes.js")),
    ("/story.js", SCRIPT, include_str!("page/story.js")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/table.js", SCRIPT, include_str!("page/table.js")),
    ("/text.js", SCRIPT, include_str!("page/text.js")),
    ("/view.js", SCRIPT, include_str!("page/view.js")),
    ("/world.js", SCRIPT, include_str!("page/world.js")),
];

/// The routes of all files.
pub(super) fn files() -> Router<Arc<App>> {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, content)| {
        let asset = Arc::new(Asset::new(kind, Bytes::from_static(content.as_bytes())));
        router.route(path, get(move |headers: HeaderMap| async move { asset.answer(&headers) }))
    })
}

/// What stays the same as long as the program runs.
pub(super) struct Asset {
    kind: &'static str,
    content: Bytes,
    tag: String,
    packed: OnceLock<Bytes>,
}

impl Asset {
    pub(super) fn new(kind: &'static str, content: Bytes) -> Self {
        let tag = format!("\"{:016x}\"", xxhash_rust::xxh3::xxh3_64(&content));
        Self { kind, content, tag, packed: OnceLock::new() }
    }

    /// It, packed if the browser takes that, or 304 if the browser has it.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Response {
        let said = |name| headers.get(name).and_then(|said| said.to_str().ok());
        let caching = [
            (header::ETAG, self.tag.clone()),
            (header::CACHE_CONTROL, "no-cache".to_owned()),
            (header::VARY, "accept-encoding".to_owned()),
        ];
        if said(header::IF_NONE_MATCH) == Some(self.tag.as_str()) {
            return (StatusCode::NOT_MODIFIED, caching).into_response();
        }
        let kind = [(header::CONTENT_TYPE, self.kind)];
        if said(header::ACCEPT_ENCODING).is_some_and(|said| said.contains("gzip")) {
            let packed = self.packed.get_or_init(|| packed(&self.content)).clone();
            return (caching, kind, [(header::CONTENT_ENCODING, "gzip")], packed).into_response();
        }
        (caching, kind, self.content.clone()).into_response()
    }
}

fn packed(content: &[u8]) -> Bytes {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    // Memory takes everything.
    let written = packed.write_all(content).and_then(|()| packed.finish());
    written.unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> impl Iterator<Item = &'static str> {
        FILES.into_iter().map(|(_, _, content)| content)
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
                assert!(FILES.iter().any(|(known, _, _)| *known == path), "{name}");
            }
        }
    }

    #[test]
    fn the_page_is_small() {
        // The first load asks for the dashboards too.
        let dashboards = crate::panels::catalog::catalog(crate::panels::all()).to_string();
        let size = |source: &str| packed(source.as_bytes()).len();
        let bytes = sources().map(size).sum::<usize>() + size(&dashboards);
        assert!(bytes < 100_000, "{bytes}");
    }
}
