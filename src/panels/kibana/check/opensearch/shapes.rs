//! The saved objects that are shipped, as OpenSearch Dashboards 2 declares them, as far as they are used.

use crate::panels::kibana::check::shape::Member::{self, May, Must};
use crate::panels::kibana::check::shape::Shape::{
    self, By, Coded, Each, Elsewhere, Flag, List, Null, Number, Object, Text, Word,
};
use crate::panels::kibana::check::shapes::{EMPTY, FILTER, GRID, NOTHING, QUERY, REFERENCES};

/// An object whose attributes have this shape.
macro_rules! saved {
    ($attributes:expr) => {
        Object(&[
            Must("type", Text),
            Must("id", Text),
            Must("migrationVersion", Each(&Text)),
            Must("references", REFERENCES),
            Must("attributes", Object($attributes)),
        ])
    };
}

/// Every object of the file.
pub(super) const SAVED: Shape = By(
    "type",
    &[
        ("index-pattern", saved!(DATA_VIEW)),
        ("dashboard", saved!(DASHBOARD)),
        ("search", saved!(SEARCH)),
        ("visualization", saved!(VISUALIZATION)),
    ],
);

const DATA_VIEW: &[Member] = &[
    Must("title", Text),
    Must("description", Text),
    Must("timeFieldName", Word(&["timestamp"])),
    Must("fields", Coded(&EMPTY)),
    Must(
        "fieldFormatMap",
        Coded(&Each(&Object(&[
            Must("id", Word(&["duration", "bytes", "percent", "url"])),
            May(
                "params",
                Object(&[
                    May("inputFormat", Word(&["seconds", "milliseconds"])),
                    May("outputFormat", Word(&["humanizePrecise", "asMilliseconds"])),
                    May("outputPrecision", Number),
                    May("showSuffix", Flag),
                    May("useShortSuffix", Flag),
                    May("type", Word(&["a"])),
                    May("urlTemplate", Text),
                    May("labelTemplate", Text),
                    May("openLinkInCurrentTab", Flag),
                ]),
            ),
        ]))),
    ),
];

const DASHBOARD: &[Member] = &[
    Must("title", Text),
    Must("description", Text),
    Must("version", Number),
    Must("timeRestore", Flag),
    Must("timeFrom", Text),
    Must("timeTo", Text),
    Must("refreshInterval", Object(&[Must("pause", Flag), Must("value", Number)])),
    Must("optionsJSON", Coded(&Object(&[Must("useMargins", Flag), Must("hidePanelTitles", Flag)]))),
    Must(
        "panelsJSON",
        Coded(&List(&Object(&[
            Must("version", Text),
            Must("panelIndex", Text),
            Must("panelRefName", Text),
            Must("gridData", GRID),
            Must("embeddableConfig", Object(&[May("hidePanelTitles", Flag)])),
        ]))),
    ),
    Must(
        "kibanaSavedObjectMeta",
        Object(&[Must(
            "searchSourceJSON",
            Coded(&Object(&[Must("query", QUERY), Must("filter", List(&FILTER))])),
        )]),
    ),
];

const SEARCH: &[Member] = &[
    Must("title", Text),
    Must("description", Text),
    Must("version", Number),
    Must("columns", List(&Text)),
    Must("sort", List(&List(&Text))),
    Must(
        "kibanaSavedObjectMeta",
        Object(&[Must(
            "searchSourceJSON",
            Coded(&Object(&[
                Must("query", QUERY),
                Must("filter", EMPTY),
                Must("highlightAll", Flag),
                Must("version", Flag),
                Must("indexRefName", Text),
            ])),
        )]),
    ),
];

const VISUALIZATION: &[Member] = &[
    Must("title", Text),
    Must("description", Text),
    Must("version", Number),
    Must("uiStateJSON", Coded(&NOTHING)),
    Must("visState", Coded(&STATE)),
    Must(
        "kibanaSavedObjectMeta",
        Object(&[Must(
            "searchSourceJSON",
            Coded(&Object(&[
                Must("query", QUERY),
                Must("filter", EMPTY),
                May("indexRefName", Text),
            ])),
        )]),
    ),
];

/// A chart whose settings have this shape.
macro_rules! state {
    ($params:expr) => {
        Object(&[
            Must("title", Text),
            Must("type", Text),
            Must("aggs", List(&AGG)),
            Must("params", Object($params)),
        ])
    };
}

const STATE: Shape = By(
    "type",
    &[
        (
            "markdown",
            state!(&[
                Must("markdown", Text),
                Must("fontSize", Number),
                Must("openLinksInNewTab", Flag),
            ]),
        ),
        ("input_control_vis", state!(CONTROLS)),
        ("vega", state!(&[Must("spec", Coded(&Elsewhere))])),
        ("metric", state!(METRIC)),
        ("table", state!(TABLE)),
        ("pie", state!(PIE)),
        ("heatmap", state!(HEATMAP)),
        ("tile_map", state!(MAP)),
        ("line", state!(CHART)),
        ("area", state!(CHART)),
        ("histogram", state!(CHART)),
    ],
);

const CONTROLS: &[Member] = &[
    Must(
        "controls",
        List(&Object(&[
            Must("id", Text),
            Must("fieldName", Text),
            Must("parent", Text),
            Must("label", Text),
            Must("type", Word(&["list"])),
            Must("indexPatternRefName", Text),
            Must(
                "options",
                Object(&[
                    Must("type", Word(&["terms"])),
                    Must("multiselect", Flag),
                    Must("dynamicOptions", Flag),
                    Must("size", Number),
                    Must("order", Word(&["desc"])),
                ]),
            ),
        ])),
    ),
    Must("updateFiltersOnChange", Flag),
    Must("useTimeFilter", Flag),
    Must("pinFilters", Flag),
];

/// An aggregation with these settings.
macro_rules! agg {
    ($params:expr) => {
        Object(&[
            Must("id", Text),
            Must("enabled", Flag),
            Must("type", Text),
            Must("schema", Text),
            Must("params", Object($params)),
        ])
    };
}

const FIELD: &[Member] = &[Must("field", Text), May("customLabel", Text)];

/// Values.
macro_rules! values {
    ($($more:expr),*) => {
        By("type", &[
            ("count", agg!(&[May("customLabel", Text)])),
            ("cardinality", agg!(FIELD)),
            ("sum", agg!(FIELD)),
            ("avg", agg!(FIELD)),
            ("min", agg!(FIELD)),
            ("max", agg!(FIELD)),
            ("percentiles", agg!(&[Must("field", Text), Must("percents", List(&Number)), May("customLabel", Text)])),
            ("top_hits", agg!(&[
                Must("field", Text), Must("aggregate", Word(&["concat"])), Must("size", Number),
                Must("sortField", Word(&["timestamp"])), Must("sortOrder", Word(&["desc"])), May("customLabel", Text),
            ])),
            $($more),*
        ])
    };
}

const AGG: Shape = values!(
    (
        "date_histogram",
        agg!(&[
            Must("field", Text),
            Must("interval", Word(&["auto", "d"])),
            Must("min_doc_count", Number),
            Must("drop_partials", Flag),
            Must("extended_bounds", NOTHING),
            Must("useNormalizedOpenSearchInterval", Flag),
            Must("customLabel", Text),
        ])
    ),
    (
        "terms",
        agg!(&[
            Must("field", Text),
            Must("size", Number),
            Must("order", Word(&["desc"])),
            Must("orderBy", Text),
            May("orderAgg", values!()),
            Must("otherBucket", Flag),
            Must("otherBucketLabel", Text),
            Must("missingBucket", Flag),
            Must("missingBucketLabel", Text),
            Must("customLabel", Text),
        ])
    ),
    (
        "filters",
        agg!(&[Must("filters", List(&Object(&[Must("input", QUERY), Must("label", Text)])))])
    ),
    (
        "histogram",
        agg!(&[
            Must("field", Text),
            Must("interval", Number),
            Must("min_doc_count", Flag),
            Must("has_extended_bounds", Flag),
            Must("extended_bounds", Object(&[Must("min", Text), Must("max", Text)])),
            Must("customLabel", Text),
        ])
    ),
    (
        "geohash_grid",
        agg!(&[
            Must("field", Text),
            Must("autoPrecision", Flag),
            Must("precision", Number),
            Must("useGeocentroid", Flag),
            Must("isFilteredByCollar", Flag),
        ])
    )
);

const METRIC: &[Member] = &[
    Must("addTooltip", Flag),
    Must("addLegend", Flag),
    Must("type", Word(&["metric"])),
    Must(
        "metric",
        Object(&[
            Must("percentageMode", Flag),
            Must("useRanges", Flag),
            Must("colorSchema", Text),
            Must("metricColorMode", Word(&["None"])),
            Must("colorsRange", List(&Object(&[Must("from", Number), Must("to", Number)]))),
            Must("labels", Object(&[Must("show", Flag)])),
            Must("invertColors", Flag),
            Must(
                "style",
                Object(&[
                    Must("bgFill", Text),
                    Must("bgColor", Flag),
                    Must("labelColor", Flag),
                    Must("subText", Text),
                    Must("fontSize", Number),
                ]),
            ),
        ]),
    ),
];

const TABLE: &[Member] = &[
    Must("perPage", Number),
    Must("showPartialRows", Flag),
    Must("showMetricsAtAllLevels", Flag),
    Must("showTotal", Flag),
    Must("sort", Object(&[Must("columnIndex", Null), Must("direction", Null)])),
    Must("totalFunc", Text),
    Must("percentageCol", Text),
];

const PIE: &[Member] = &[
    Must("type", Word(&["pie"])),
    Must("addTooltip", Flag),
    Must("addLegend", Flag),
    Must("legendPosition", Word(&["right"])),
    Must("isDonut", Flag),
    Must(
        "labels",
        Object(&[
            Must("show", Flag),
            Must("values", Flag),
            Must("last_level", Flag),
            Must("truncate", Number),
        ]),
    ),
];

const HEATMAP: &[Member] = &[
    Must("type", Word(&["heatmap"])),
    Must("addTooltip", Flag),
    Must("addLegend", Flag),
    Must("enableHover", Flag),
    Must("legendPosition", Word(&["right"])),
    Must("times", EMPTY),
    Must("colorsNumber", Number),
    Must("colorSchema", Text),
    Must("setColorRange", Flag),
    Must("colorsRange", EMPTY),
    Must("invertColors", Flag),
    Must("percentageMode", Flag),
    Must(
        "valueAxes",
        List(&Object(&[
            Must("show", Flag),
            Must("id", Text),
            Must("type", Word(&["value"])),
            Must(
                "scale",
                Object(&[Must("type", Word(&["linear"])), Must("defaultYExtents", Flag)]),
            ),
            Must(
                "labels",
                Object(&[
                    Must("show", Flag),
                    Must("rotate", Number),
                    Must("overwriteColor", Flag),
                    Must("color", Text),
                ]),
            ),
        ])),
    ),
];

const MAP: &[Member] = &[
    Must("mapType", Word(&["Scaled Circle Markers"])),
    Must("colorSchema", Text),
    Must("isDesaturated", Flag),
    Must("addTooltip", Flag),
    Must("heatClusterSize", Number),
    Must("legendPosition", Word(&["bottomright"])),
    Must("mapZoom", Number),
    Must("mapCenter", List(&Number)),
    Must(
        "wms",
        Object(&[
            Must("enabled", Flag),
            Must("url", Text),
            Must(
                "options",
                Object(&[
                    Must("version", Text),
                    Must("layers", Text),
                    Must("format", Text),
                    Must("transparent", Flag),
                    Must("attribution", Text),
                    Must("styles", Text),
                ]),
            ),
        ]),
    ),
];

const LABELS: Shape = Object(&[
    Must("show", Flag),
    May("rotate", Number),
    Must("filter", Flag),
    Must("truncate", Number),
]);

const CHART: &[Member] = &[
    Must("type", Word(&["line", "area", "histogram"])),
    Must("addTooltip", Flag),
    Must("addLegend", Flag),
    Must("legendPosition", Word(&["right"])),
    Must("times", EMPTY),
    Must("addTimeMarker", Flag),
    Must("labels", NOTHING),
    Must("grid", Object(&[Must("categoryLines", Flag)])),
    Must(
        "thresholdLine",
        Object(&[
            Must("show", Flag),
            Must("value", Number),
            Must("width", Number),
            Must("style", Word(&["full"])),
            Must("color", Text),
        ]),
    ),
    Must(
        "categoryAxes",
        List(&Object(&[
            Must("id", Text),
            Must("type", Word(&["category"])),
            Must("position", Word(&["bottom"])),
            Must("show", Flag),
            Must("style", NOTHING),
            Must("title", NOTHING),
            Must("scale", Object(&[Must("type", Word(&["linear"]))])),
            Must("labels", LABELS),
        ])),
    ),
    Must(
        "valueAxes",
        List(&Object(&[
            Must("id", Text),
            Must("name", Text),
            Must("type", Word(&["value"])),
            Must("position", Word(&["left", "right"])),
            Must("show", Flag),
            Must("style", NOTHING),
            Must("title", Object(&[Must("text", Text)])),
            Must(
                "scale",
                Object(&[
                    Must("type", Word(&["linear"])),
                    Must("mode", Word(&["normal", "percentage"])),
                ]),
            ),
            Must("labels", LABELS),
        ])),
    ),
    Must(
        "seriesParams",
        List(&Object(&[
            Must("show", Flag),
            Must("type", Word(&["line", "area", "histogram"])),
            Must("mode", Word(&["normal", "stacked"])),
            Must("data", Object(&[Must("label", Text), Must("id", Text)])),
            Must("valueAxis", Text),
            Must("drawLinesBetweenPoints", Flag),
            Must("lineWidth", Number),
            Must("showCircles", Flag),
            Must("interpolate", Word(&["linear", "step-after"])),
        ])),
    ),
];
