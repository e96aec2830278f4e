//! A dashboard: the way to the others, controls, and panels in their places.

use std::fmt::Write;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value as Json, json};

use super::{FROM, OWN, encoded, lens, map, object, view};
use crate::panels::model::{Dashboard, Form, Logs, Metric, Panel, Split};
use crate::panels::source::{Source, exact};

/// Height of the links to all dashboards, and of those to logs below them.
pub(super) const LINKS: u32 = 3;
const LOGS: u32 = 2;
/// Lines of a log that are read at once.
const LINES: u32 = 1_000;
/// The event that opens a session.
const OPENS: &str = "open-session";

/// One dashboard among all.
pub(super) fn dashboard(all: &[Dashboard], one: &Dashboard) -> Json {
    let mut board = Board::default();
    let height = if one.logs.is_empty() { LINKS } else { LINKS + LOGS };
    board.place(
        "navigation",
        "visualization",
        Area { x: 0, y: 0, width: crate::panels::model::WIDTH, height },
        &navigation(all, one),
    );
    let mut y = height;
    for row in &one.rows {
        let mut x = 0;
        for panel in &row.panels {
            board.panel(one, panel, Area { x, y, width: panel.width, height: row.height });
            x += panel.width;
        }
        y += row.height;
    }
    let controls = board.controls(one);
    // A filter of a dashboard holds for all its panels, also for those over documents of others.
    let is_own = one.panels().all(|panel| panel.over == Source::Events);
    let (source, filter) = has_elastic_type();
    let source = if is_own {
        source
    } else {
        json!({ "query": { "query": "", "language": "kuery" }, "filter": [] })
    };
    if is_own {
        board.references.push(view(filter));
    }
    board.references.push(json!({ "type": "tag", "id": OWN, "name": format!("tag-ref-{OWN}") }));
    let options = json!({
        "useMargins": true, "syncColors": true, "syncCursor": true, "syncTooltips": false, "hidePanelTitles": false,
    });
    let attributes = json!({
        "title": one.title, "description": super::about(one),
        "timeRestore": true, "timeFrom": FROM, "timeTo": "now", "refreshInterval": { "pause": true, "value": 60_000 },
        "optionsJSON": encoded(&options), "panelsJSON": encoded(&json!(board.panels)),
        "controlGroupInput": controls,
        "kibanaSavedObjectMeta": { "searchSourceJSON": encoded(&source) },
        "version": 1,
    });
    object("dashboard", &super::id(&one.id.value), Some("10.2.0"), &attributes, &board.references)
}

/// The query of a dashboard: only documents of callscope's kind, whatever else is in the index. And what the reference of the
/// filter is called.
pub(super) fn has_elastic_type() -> (Json, &'static str) {
    let filter = "kibanaSavedObjectMeta.searchSourceJSON.filter[0].meta.index";
    let source = json!({
        "query": { "query": "", "language": "kuery" },
        "filter": [{
            "meta": {
                "alias": null, "disabled": false, "negate": false, "type": "exists", "key": "elastic_type",
                "value": "exists", "indexRefName": filter,
            },
            "query": { "exists": { "field": "elastic_type" } },
            "$state": { "store": "appState" },
        }],
    });
    (source, filter)
}

/// A line that leads to every dashboard.
pub(super) fn links(all: &[Dashboard], one: &Dashboard) -> String {
    let mut line = String::new();
    for dashboard in all {
        let between = if line.is_empty() { "" } else { " · " };
        let _written = if dashboard.id.value == one.id.value {
            write!(line, "{between}**{}**", dashboard.title)
        } else {
            write!(
                line,
                "{between}[{}](#/view/{})",
                dashboard.title,
                super::id(&dashboard.id.value)
            )
        };
    }
    line
}

/// A line that leads to the logs of the time that is looked at, which Kibana carries along; nothing where there are none.
fn logs(one: &Dashboard) -> String {
    let link = |logs: &Logs| {
        let word = logs.word.as_ref();
        let word = word.map(|word| format!(" | WHERE message LIKE \"*{}*\"", word.value));
        let query = format!(
            "FROM {}{} | SORT @timestamp DESC | LIMIT {LINES}",
            logs.index.value,
            word.unwrap_or_default()
        );
        let state = format!("(dataSource:(type:esql),query:(esql:'{query}'))");
        let state = utf8_percent_encode(&state, NON_ALPHANUMERIC);
        format!("[{}](discover#/?_a={state})", logs.label)
    };
    let links: Vec<String> = one.logs.iter().map(link).collect();
    if links.is_empty() { String::new() } else { format!("\n\nLogs: {}", links.join(" · ")) }
}

fn navigation(all: &[Dashboard], one: &Dashboard) -> Json {
    json!({
        "hidePanelTitles": true, "enhancements": {},
        "savedVis": {
            "id": "", "title": "", "description": "", "type": "markdown", "uiState": {},
            "params": { "markdown": links(all, one) + &logs(one), "fontSize": 12, "openLinksInNewTab": false },
            "data": { "aggs": [], "searchSource": { "query": { "query": "", "language": "kuery" }, "filter": [] } },
        },
    })
}

/// Where a panel is.
#[derive(Clone, Copy)]
pub(super) struct Area {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Area {
    /// The areas of so many beside each other, which together fill this one.
    pub(super) fn shared(self, among: usize) -> impl Iterator<Item = Self> {
        let (mut x, mut left) = (self.x, self.width);
        (1..=among).rev().map(move |number| {
            let width = left.div_ceil(u32::try_from(number).unwrap_or(1)).max(1);
            let area = Self { x, width, ..self };
            x += width;
            left = left.saturating_sub(width);
            area
        })
    }
}

/// Something that narrows a dashboard.
pub(super) struct Narrowing {
    pub(super) id: String,
    /// As servers name it.
    pub(super) field: String,
    pub(super) label: String,
    pub(super) over: Source,
    /// Whether one value is chosen and not several.
    pub(super) is_single: bool,
}

/// What narrows the whole; first, if there is such, what one value has to be chosen of.
pub(super) fn controls(of: &Dashboard) -> Vec<Narrowing> {
    let label = |field: &str| {
        let known = of.controls.iter().find(|control| control.field.value == field);
        known.map_or_else(|| field.to_owned(), |control| control.label.clone())
    };
    let first =
        of.of_one.iter().map(|field| (&field.value, label(&field.value), Source::Events, true));
    let others = of
        .controls
        .iter()
        .filter(|control| of.of_one.as_ref().is_none_or(|one| one.value != control.field.value))
        .map(|control| (&control.field.value, control.label.clone(), control.over, false));
    let slug = |field: &str| {
        let plain = |character: char| {
            if character.is_ascii_alphanumeric() { character.to_ascii_lowercase() } else { '-' }
        };
        field.chars().map(plain).collect()
    };
    first
        .chain(others)
        .map(|(field, label, over, is_single)| Narrowing {
            id: slug(field),
            field: exact(field),
            label,
            over,
            is_single,
        })
        .collect()
}

#[derive(Default)]
struct Board {
    panels: Vec<Json>,
    references: Vec<Json>,
}

impl Board {
    fn panel(&mut self, of: &Dashboard, panel: &Panel, area: Area) {
        let id = &panel.id.value;
        let shown: Vec<&Metric> = panel.shown().collect();
        match panel.form {
            Form::Numbers => self.numbers(of, panel, &shown, area),
            Form::List => {
                let name = format!("panel_{id}");
                self.references.push(json!({ "type": "search", "id": super::id(id), "name": format!("{id}:{name}") }));
                self.place(id, "search", area, &described(panel, &panel.title));
                if let Some(last) = self.panels.last_mut().and_then(Json::as_object_mut) {
                    last.insert("panelRefName".to_owned(), json!(name));
                }
            }
            Form::Map => {
                let (attributes, layers) = map::attributes(panel);
                for layer in layers {
                    self.references.push(view(&format!("{id}:layer_{layer}_source_index_pattern")));
                }
                let mut config = described(panel, &panel.title);
                extend(
                    &mut config,
                    json!({
                        "attributes": attributes, "hiddenLayers": [], "isLayerTOCOpen": false, "openTOCDetails": [],
                        "mapCenter": { "lat": 30, "lon": 0, "zoom": 1.5 },
                    }),
                );
                self.place(id, "map", area, &config);
            }
            Form::Table
            | Form::Line
            | Form::Stairs
            | Form::Area
            | Form::Bar
            | Form::FullBar
            | Form::Donut
            | Form::Treemap
            | Form::Heatmap => {
                let attributes = lens::attributes(panel, &shown, &of.marks);
                self.lens(of, (id, &panel.title), panel, area, &attributes);
            }
        }
    }

    /// A panel for each value, beside each other.
    fn numbers(&mut self, of: &Dashboard, panel: &Panel, shown: &[&Metric], area: Area) {
        for (metric, area) in shown.iter().zip(area.shared(shown.len())) {
            let id = format!("{}-{}", panel.id.value, super::columns::id(metric));
            let attributes = lens::attributes(panel, &[metric], &of.marks);
            self.lens(of, (&id, &metric.label), panel, area, &attributes);
            // The number says what it is.
            if let Some(config) =
                self.panels.last_mut().and_then(|panel| panel.get_mut("embeddableConfig"))
            {
                extend(config, json!({ "hidePanelTitles": true }));
            }
        }
    }

    fn lens(
        &mut self,
        of: &Dashboard,
        (id, title): (&str, &str),
        panel: &Panel,
        area: Area,
        attributes: &Json,
    ) {
        for reference in attributes.get("references").and_then(Json::as_array).into_iter().flatten()
        {
            let name = reference.get("name").and_then(Json::as_str).unwrap_or_default();
            let view = reference.get("id").and_then(Json::as_str).unwrap_or(OWN);
            self.references.push(
                json!({ "type": "index-pattern", "id": view, "name": format!("{id}:{name}") }),
            );
        }
        let mut config = described(panel, title);
        extend(&mut config, json!({ "attributes": attributes }));
        let names = |split: &Split| matches!(split, Split::Values(by) if by.names_sessions());
        if of.of_one.is_none() && panel.by.iter().any(names) {
            let name =
                format!("{id}:drilldown:DASHBOARD_TO_DASHBOARD_DRILLDOWN:{OPENS}:dashboardId");
            self.references
                .push(json!({ "type": "dashboard", "id": super::id("session"), "name": name }));
            extend(&mut config, json!({ "enhancements": opens_a_session() }));
        }
        self.place(id, "lens", area, &config);
    }

    fn place(&mut self, id: &str, kind: &str, area: Area, config: &Json) {
        let mut panel = json!({
            "type": kind, "panelIndex": id, "embeddableConfig": config,
            "gridData": { "x": area.x, "y": area.y, "w": area.width, "h": area.height, "i": id },
        });
        if let Some(title) = panel.pointer("/embeddableConfig/title").cloned() {
            extend(&mut panel, json!({ "title": title }));
        }
        self.panels.push(panel);
    }

    fn controls(&mut self, of: &Dashboard) -> Json {
        let mut controls = Map::new();
        for (order, control) in self::controls(of).into_iter().enumerate() {
            let Narrowing { id, field, label, over, is_single } = control;
            self.references
                .push(super::view_of(over, &format!("controlGroup_{id}:optionsListDataView")));
            let control = json!({
                "order": order, "width": "medium", "grow": true, "type": "optionsListControl",
                "explicitInput": {
                    "id": id, "title": label, "fieldName": field, "selectedOptions": [],
                    "singleSelect": is_single, "searchTechnique": "prefix", "enhancements": {},
                },
            });
            controls.insert(id, control);
        }
        let ignored = json!({
            "ignoreFilters": false, "ignoreQuery": false, "ignoreTimerange": false, "ignoreValidations": false,
        });
        json!({
            "controlStyle": "oneLine", "chainingSystem": "HIERARCHICAL", "showApplySelections": false,
            "ignoreParentSettingsJSON": encoded(&ignored), "panelsJSON": encoded(&Json::Object(controls)),
        })
    }
}

/// A click on a part leads to the dashboard of the session that it stands for; of all sessions of a name, one is chosen there.
fn opens_a_session() -> Json {
    let action = json!({
        "factoryId": "DASHBOARD_TO_DASHBOARD_DRILLDOWN", "name": "Open session",
        "config": { "useCurrentFilters": true, "useCurrentDateRange": true, "openInNewTab": false },
    });
    let event = json!({ "eventId": OPENS, "triggers": ["FILTER_TRIGGER"], "action": action });
    json!({ "dynamicActions": { "events": [event] } })
}

/// What every panel says of itself: the question it answers, and why there may be nothing to see.
fn described(panel: &Panel, title: &str) -> Json {
    let description = format!("{} — If there is nothing to see: {}", panel.question, panel.empty);
    json!({ "title": title, "description": description, "hidePanelTitles": false, "enhancements": {} })
}

fn extend(value: &mut Json, by: Json) {
    if let (Some(value), Json::Object(by)) = (value.as_object_mut(), by) {
        value.extend(by);
    }
}
