//! A dashboard and the objects it is made of: links, controls, panels in their places.

use serde_json::{Value as Json, json};

use super::super::dashboard::{Area, LINKS, controls, has_elastic_type, links};
use super::super::{FROM, about, encoded, view};
use super::{chart, is_spread, list, object, visualization};
use crate::panels::model::{Dashboard, Form, Metric, Panel, WIDTH};

/// Height of the controls.
const CONTROLS: u32 = 5;

/// One dashboard among all, and its panels.
pub(super) fn board(all: &[Dashboard], one: &Dashboard, index: &str) -> (Json, Vec<Json>) {
    let mut board =
        Board { index, panels: Vec::new(), references: Vec::new(), objects: Vec::new() };
    let name = &one.id.value;
    let way = json!({
        "title": "Dashboards", "type": "markdown", "aggs": [],
        "params": { "markdown": links(all, one), "fontSize": 12, "openLinksInNewTab": false },
    });
    let way =
        visualization(&format!("{name}-links"), "Dashboards", "The way to the others.", &way, None);
    board.place(way, Area { x: 0, y: 0, width: WIDTH, height: LINKS }, true);
    let mut y = LINKS;
    let narrowing = controls(one);
    if !narrowing.is_empty() {
        let state = json!({ "title": "Narrow", "type": "input_control_vis", "aggs": [], "params": {
            "controls": narrowing.iter().enumerate().map(|(place, control)| json!({
                "id": control.id, "fieldName": control.field, "parent": "", "label": control.label, "type": "list",
                "options": { "type": "terms", "multiselect": !control.is_single, "dynamicOptions": true, "size": 50, "order": "desc" },
                "indexPatternRefName": format!("control_{place}_index_pattern"),
            })).collect::<Vec<_>>(),
            "updateFiltersOnChange": true, "useTimeFilter": true, "pinFilters": false,
        } });
        let state = visualization(
            &format!("{name}-controls"),
            "Narrow",
            "What narrows the whole.",
            &state,
            None,
        );
        board.place(state, Area { x: 0, y, width: WIDTH, height: CONTROLS }, true);
        y += CONTROLS;
    }
    for row in &one.rows {
        let mut x = 0;
        for panel in &row.panels {
            board.panel(panel, Area { x, y, width: panel.width, height: row.height });
            x += panel.width;
        }
        y += row.height;
    }
    let (source, filter) = has_elastic_type();
    board.references.push(view(filter));
    let attributes = json!({
        "title": one.title, "description": about(one), "version": 1,
        "timeRestore": true, "timeFrom": FROM, "timeTo": "now", "refreshInterval": { "pause": true, "value": 60_000 },
        "optionsJSON": encoded(&json!({ "useMargins": true, "hidePanelTitles": false })),
        "panelsJSON": encoded(&json!(board.panels)),
        "kibanaSavedObjectMeta": { "searchSourceJSON": encoded(&source) },
    });
    (object("dashboard", &super::id(name), &attributes, &board.references), board.objects)
}

struct Board<'i> {
    index: &'i str,
    panels: Vec<Json>,
    references: Vec<Json>,
    objects: Vec<Json>,
}

impl Board<'_> {
    fn panel(&mut self, panel: &Panel, area: Area) {
        let shown: Vec<&Metric> = panel.shown().collect();
        if panel.form == Form::List {
            return self.place(list(panel), area, false);
        }
        if !is_spread(panel) {
            let chart = chart(&panel.id.value, panel, &shown, &panel.title, self.index);
            return self.place(chart, area, false);
        }
        for (metric, area) in shown.iter().zip(area.shared(shown.len())) {
            let id = format!("{}-{}", panel.id.value, super::super::columns::id(metric));
            let title = format!("{}: {}", panel.title, metric.label);
            let chart = chart(&id, panel, &[metric], &title, self.index);
            self.place(chart, area, false);
        }
    }

    fn place(&mut self, object: Json, area: Area, is_untitled: bool) {
        let place = self.panels.len();
        let (index, name) = ((place + 1).to_string(), format!("panel_{place}"));
        let config = if is_untitled { json!({ "hidePanelTitles": true }) } else { json!({}) };
        self.panels.push(json!({
            "version": "7.10.0", "panelIndex": index, "embeddableConfig": config, "panelRefName": name,
            "gridData": { "x": area.x, "y": area.y, "w": area.width, "h": area.height, "i": index },
        }));
        self.references
            .push(json!({ "type": object.get("type"), "id": object.get("id"), "name": name }));
        self.objects.push(object);
    }
}
