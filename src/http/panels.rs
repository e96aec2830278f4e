//! The panels of the page: what there is, and what each shows of a time, narrowed by values of fields.
//!
//! Nobody's query reaches the index: panels are named, fields are those of documents, and what is asked has bounds in time and
//! number. How many parts an answer has, the panel bounds.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::api::{
    Parameters, Reading, TEXT_BYTES_MAX, Wrong, each_once, failure, has_such, now, search_failure,
    time_of,
};
use super::page::Asset;
use super::{App, troubles};
use crate::document::fields::{self, Holds};
use crate::panels::answer::{Answer, Choice, View};
use crate::panels::catalog::catalog;
use crate::panels::zone::Zone;
use crate::panels::{self, Dashboard, Panel, made};
use crate::search::SearchError;

const DAY: i64 = 86_400_000;
/// Longest time that is looked at: the step of a table by days is fixed.
const SPAN_MAX: i64 = 3_660 * DAY;
/// Fields that narrow one answer, and values of each.
const FILTERS_MAX: (usize, usize) = (20, 50);
/// The smallest tiles of a map, as servers have them.
const ZOOM_MAX: u32 = 29;
/// How long a panel waits for its turn.
const WAIT: Duration = Duration::from_secs(60);

/// `GET /api/dashboards`: what there is.
pub(super) async fn dashboards(headers: HeaderMap) -> Response {
    static CATALOG: LazyLock<Asset> =
        LazyLock::new(|| Asset::new("application/json", catalog(panels::all()).to_string().into()));
    CATALOG.answer(&headers)
}

#[derive(Serialize)]
struct Shown {
    /// When it was asked, milliseconds since 1970.
    now: i64,
    /// Up to when events have come, milliseconds since 1970; 0: none has.
    reaches: i64,
    /// Why events do not get through.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    troubles: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    troubled_since: Option<i64>,
    from: i64,
    to: i64,
    #[serde(flatten)]
    answer: Answer,
}

/// `GET /api/panels/{id}?from=&to=&zone=&filter=FIELD:VALUE`: what a panel shows.
pub(super) async fn panel(
    State(app): State<Arc<App>>,
    Extension(reading): Extension<Arc<Reading>>,
    Path(id): Path<String>,
    Query(parameters): Parameters,
) -> Response {
    let of =
        |dashboard: &'static Dashboard| dashboard.panels().map(move |panel| (dashboard, panel));
    let found = panels::all().iter().flat_map(of).find(|(_, panel)| panel.id.value == id);
    let Some((dashboard, panel)) = found else {
        return failure(StatusCode::NOT_FOUND, "no such panel", "/api/dashboards lists them");
    };
    let view = match read_view(&parameters) {
        Ok(view) => view,
        Err(wrong) => return wrong.answer(),
    };
    if let Some(field) = &dashboard.of_one
        && !view.filters.iter().any(|(known, _)| *known == field.value)
    {
        let error = format!("this panel is about one {}", field.value);
        return failure(
            StatusCode::BAD_REQUEST,
            &error,
            &format!("add filter={}:VALUE", field.value),
        );
    }
    answer(&app, &reading, panel, &view).await
}

/// `GET /api/values/{field}?from=&to=&filter=FIELD:VALUE`: the values of a field, the most frequent first.
pub(super) async fn values(
    State(app): State<Arc<App>>,
    Extension(reading): Extension<Arc<Reading>>,
    Path(field): Path<String>,
    Query(parameters): Parameters,
) -> Response {
    if !is_offered(&field) {
        let error = format!("the values of {field} are not offered");
        return failure(StatusCode::NOT_FOUND, &error, "/api/dashboards lists the controls");
    }
    match read_view(&parameters) {
        Ok(view) => answer(&app, &reading, &made::values(&field), &view).await,
        Err(wrong) => wrong.answer(),
    }
}

#[derive(Serialize)]
struct Marked<'m> {
    id: &'m str,
    label: &'m str,
    /// Milliseconds since 1970.
    times: Vec<i64>,
}

/// `GET /api/marks/{dashboard}?from=&to=&filter=FIELD:VALUE`: when happened what is marked in panels over time.
pub(super) async fn marks(
    State(app): State<Arc<App>>,
    Extension(reading): Extension<Arc<Reading>>,
    Path(id): Path<String>,
    Query(parameters): Parameters,
) -> Response {
    let Some(dashboard) = panels::dashboard(&id) else {
        return failure(StatusCode::NOT_FOUND, "no such dashboard", "/api/dashboards lists them");
    };
    let view = match read_view(&parameters) {
        Ok(view) => view,
        Err(wrong) => return wrong.answer(),
    };
    // What is marked happened to the platform, whomever one looks at; in Kibana it stands so as well.
    let view = View { filters: Vec::new(), ..view };
    let mut marked = Vec::with_capacity(dashboard.marks.len());
    for mark in &dashboard.marks {
        let shown = match turn(&reading).await {
            Ok(turn) => app.index.panel(&made::times(mark), &view, turn).await,
            Err(error) => Err(error),
        };
        let shown = match shown {
            Ok(shown) => shown,
            Err(error) => return search_failure(&error),
        };
        let times = shown.parts.iter().filter_map(|part| part.values.first()?.time()).collect();
        marked.push(Marked { id: &mark.id.value, label: &mark.label, times });
    }
    match reading.take().await {
        Ok(room) => room.answer(&marked),
        Err(busy) => busy,
    }
}

/// Answers a request for a panel.
async fn answer(app: &App, reading: &Reading, panel: &Panel, view: &View) -> Response {
    let turn = match turn(reading).await {
        Ok(turn) => turn,
        Err(error) => return search_failure(&error),
    };
    // Who waits for a turn takes no room from others.
    let room = match reading.take().await {
        Ok(room) => room,
        Err(busy) => return busy,
    };
    match app.index.panel(panel, view, turn).await {
        Ok(answer) => {
            let reaches = app.live.borrow().at;
            let (troubles, troubled_since) = (troubles(app), reading.troubled_since());
            let (from, to) = (view.from, view.to);
            room.answer(&Shown { now: now(), reaches, troubles, troubled_since, from, to, answer })
        }
        Err(error) => search_failure(&error),
    }
}

/// Waits until one more panel may be computed.
async fn turn(reading: &Reading) -> Result<OwnedSemaphorePermit, SearchError> {
    let turn = Arc::clone(&reading.turns).acquire_owned();
    match tokio::time::timeout(WAIT, turn).await {
        Ok(turn) => turn.map_err(|closed| SearchError::Unavailable(closed.into())),
        Err(_) => {
            let problem = anyhow::anyhow!("too many panels are asked for at once");
            Err(SearchError::Unavailable(problem))
        }
    }
}

/// Whether a dashboard offers the values of a field.
fn is_offered(field: &str) -> bool {
    let offered = panels::all().iter().flat_map(|dashboard| &dashboard.controls);
    offered.clone().any(|control| control.field.value == field)
}

fn read_view(parameters: &[(String, String)]) -> Result<View, Wrong> {
    each_once(parameters, &["from", "to", "zone"])?;
    let to = now();
    let mut view = View { from: to - DAY, to, ..View::default() };
    for (name, value) in parameters {
        match name.as_str() {
            "from" => view.from = time_of(name, value)?,
            "to" => view.to = time_of(name, value)?,
            "zone" => {
                view.zone = Zone::named(value).ok_or_else(|| {
                    let hint = "use a name such as Europe/Madrid or UTC";
                    Wrong::new(format!("zone={value} is no time zone"), hint)
                })?;
            }
            "filter" => add_filter(&mut view, value)?,
            _ => {
                return Err(Wrong::new(
                    format!("there is no parameter {name}"),
                    "use from, to, zone and filter=FIELD:VALUE",
                ));
            }
        }
    }
    if view.from >= view.to {
        return Err(Wrong::new("from is not before to", "times are milliseconds since 1970"));
    }
    if view.to.saturating_sub(view.from) > SPAN_MAX {
        let most = format!("at most {} days are looked at", SPAN_MAX / DAY);
        return Err(Wrong::new("from and to are too far apart", most));
    }
    Ok(view)
}

/// Adds what `FIELD:VALUE` says: documents have one of the values given for each field. Of a number, `FROM..TO` is all between
/// them, without the end; of a place, `ZOOM/X/Y` is all within a tile of the map.
fn add_filter(view: &mut View, text: &str) -> Result<(), Wrong> {
    let hint = "write filter=FIELD:VALUE, a field of the documents and a value it has";
    let (field, value) = text
        .split_once(':')
        .ok_or_else(|| Wrong::new(format!("filter={text} names no field and value"), hint))?;
    if value.len() > TEXT_BYTES_MAX {
        return Err(Wrong::new(
            format!("the value for {field} is too long"),
            "values above 1024 bytes are not searched",
        ));
    }
    let choice = match fields::find(field) {
        None => return Err(Wrong::new(format!("no field is called {field}"), hint)),
        Some(Holds::Span | Holds::Unsearched) => {
            return Err(Wrong::new(format!("{field} has no values to choose from"), hint));
        }
        Some(Holds::Point) => tile(value).ok_or_else(|| {
            let hint = "write ZOOM/X/Y, a tile of the map: 6/31/24 is Madrid's";
            Wrong::new(format!("{field} is a place, and {value} is no tile"), hint)
        })?,
        Some(holds) if holds.is_number() => number(value).ok_or_else(|| {
            let hint =
                "write a number, or FROM..TO, of which one may be left out and the first is less";
            Wrong::new(format!("{field} is a number, and {value} is none"), hint)
        })?,
        Some(holds) => {
            has_such(field, holds, value)?;
            Choice::Value(value.to_owned())
        }
    };
    let (fields_max, values_max) = FILTERS_MAX;
    let fields = view.filters.len();
    match view.filters.iter_mut().find(|(known, _)| known == field) {
        Some((_, choices)) if choices.len() < values_max => choices.push(choice),
        None if fields < fields_max => view.filters.push((field.to_owned(), vec![choice])),
        _ => {
            let most = format!("at most {fields_max} fields and {values_max} values of each");
            return Err(Wrong::new("too many filters", most));
        }
    }
    Ok(())
}

/// A number, or what lies between two.
fn number(text: &str) -> Option<Choice> {
    let finite = |text: &str| text.parse().ok().filter(|number: &f64| number.is_finite());
    let Some((from, to)) = text.split_once("..") else {
        return finite(text).map(|_| Choice::Value(text.to_owned()));
    };
    let bound = |text: &str| if text.is_empty() { Some(None) } else { finite(text).map(Some) };
    let (from, to) = (bound(from)?, bound(to)?);
    let is_one = from.or(to).is_some() && from.zip(to).is_none_or(|(from, to)| from < to);
    is_one.then_some(Choice::Between(from, to))
}

/// A tile of the map.
fn tile(text: &str) -> Option<Choice> {
    let mut parts = text.split('/').map(|part| part.parse().ok());
    let mut next = || parts.next().flatten();
    let (zoom, x, y): (u32, u32, u32) = (next()?, next()?, next()?);
    let is_one = zoom <= ZOOM_MAX && x >> zoom == 0 && y >> zoom == 0 && parts.next().is_none();
    is_one.then_some(Choice::Tile(zoom, x, y))
}
