//! The saved objects that are shipped, as Kibana 8.17 declares them, as far as they are used.

use super::shape::Member::{May, Must};
use super::shape::Shape::{
    self, By, Coded, Each, Either, Flag, List, Maybe, Null, Number, Object, Text, Word,
};

pub(super) const REFERENCES: Shape =
    List(&Object(&[Must("type", Text), Must("id", Text), Must("name", Text)]));
pub(super) const NOTHING: Shape = Object(&[]);
pub(super) const EMPTY: Shape = List(&Null);

/// An object whose attributes have this shape, with a version of its type or without.
macro_rules! saved {
    ($attributes:expr) => {
        Object(&[
            Must("type", Text),
            Must("id", Text),
            Must("managed", Flag),
            Must("coreMigrationVersion", Text),
            May("typeMigrationVersion", Text),
            Must("references", REFERENCES),
            Must("attributes", $attributes),
        ])
    };
}

/// Every object of the file.
pub(super) const SAVED: Shape = By(
    "type",
    &[
        ("index-pattern", saved!(DATA_VIEW)),
        ("tag", saved!(TAG)),
        ("dashboard", saved!(DASHBOARD)),
        ("search", saved!(SEARCH)),
    ],
);

const TAG: Shape = Object(&[Must("name", Text), Must("description", Text), Must("color", Text)]);

const DATA_VIEW: Shape = Object(&[
    Must("title", Text),
    Must("name", Text),
    Must("timeFieldName", Word(&["timestamp", "@timestamp"])),
    Must("fields", Coded(&EMPTY)),
    Must("sourceFilters", Coded(&EMPTY)),
    Must("fieldAttrs", Coded(&NOTHING)),
    Must("runtimeFieldMap", Coded(&NOTHING)),
    Must(
        "fieldFormatMap",
        Coded(&Each(&Object(&[
            Must("id", Word(&["duration", "bytes", "percent"])),
            May(
                "params",
                Object(&[
                    Must("inputFormat", Word(&["seconds", "milliseconds"])),
                    Must("outputFormat", Word(&["humanizePrecise", "asMilliseconds"])),
                    Must("outputPrecision", Number),
                    Must("showSuffix", Flag),
                    Must("useShortSuffix", Flag),
                ]),
            ),
        ]))),
    ),
]);

pub(super) const QUERY: Shape = Object(&[Must("query", Text), Must("language", Word(&["kuery"]))]);

const SEARCH: Shape = Object(&[
    Must("title", Text),
    Must("description", Text),
    Must("columns", List(&Text)),
    Must("sort", List(&List(&Text))),
    Must("hideChart", Flag),
    Must("isTextBasedQuery", Flag),
    Must("grid", NOTHING),
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
]);

const DASHBOARD: Shape = Object(&[
    Must("title", Text),
    Must("description", Text),
    Must("timeRestore", Flag),
    Must("timeFrom", Text),
    Must("timeTo", Text),
    Must("refreshInterval", Object(&[Must("pause", Flag), Must("value", Number)])),
    Must(
        "optionsJSON",
        Coded(&Object(&[
            Must("useMargins", Flag),
            Must("syncColors", Flag),
            Must("syncCursor", Flag),
            Must("syncTooltips", Flag),
            Must("hidePanelTitles", Flag),
        ])),
    ),
    Must("panelsJSON", Coded(&List(&PANEL))),
    Must("controlGroupInput", CONTROLS),
    Must(
        "kibanaSavedObjectMeta",
        Object(&[Must(
            "searchSourceJSON",
            Coded(&Object(&[Must("query", QUERY), Must("filter", List(&FILTER))])),
        )]),
    ),
    Must("version", Number),
]);

pub(super) const FILTER: Shape = Object(&[
    Must(
        "meta",
        Object(&[
            Must("alias", Null),
            Must("disabled", Flag),
            Must("negate", Flag),
            Must("type", Word(&["exists"])),
            Must("key", Text),
            Must("value", Word(&["exists"])),
            Must("indexRefName", Text),
        ]),
    ),
    Must("query", Object(&[Must("exists", Object(&[Must("field", Text)]))])),
    Must("$state", Object(&[Must("store", Word(&["appState"]))])),
]);

const CONTROLS: Shape = Object(&[
    Must("controlStyle", Word(&["oneLine", "twoLine"])),
    Must("chainingSystem", Word(&["HIERARCHICAL", "NONE"])),
    Must("showApplySelections", Flag),
    Must(
        "ignoreParentSettingsJSON",
        Coded(&Object(&[
            Must("ignoreFilters", Flag),
            Must("ignoreQuery", Flag),
            Must("ignoreTimerange", Flag),
            Must("ignoreValidations", Flag),
        ])),
    ),
    Must(
        "panelsJSON",
        Coded(&Each(&Object(&[
            Must("order", Number),
            Must("width", Word(&["small", "medium", "large"])),
            Must("grow", Flag),
            Must("type", Word(&["optionsListControl"])),
            Must(
                "explicitInput",
                Object(&[
                    Must("id", Text),
                    Must("title", Text),
                    Must("fieldName", Text),
                    Must("selectedOptions", EMPTY),
                    Must("singleSelect", Flag),
                    Must("searchTechnique", Word(&["prefix", "wildcard", "exact"])),
                    Must("enhancements", NOTHING),
                ]),
            ),
        ]))),
    ),
]);

pub(super) const GRID: Shape = Object(&[
    Must("x", Number),
    Must("y", Number),
    Must("w", Number),
    Must("h", Number),
    Must("i", Text),
]);

/// A panel of this type, whose own part has this shape.
macro_rules! panel {
    ($config:expr) => {
        Object(&[
            Must("type", Text),
            Must("panelIndex", Text),
            Must("gridData", GRID),
            Must("title", Text),
            Must("embeddableConfig", Object($config)),
        ])
    };
}

const PANEL: Shape = By(
    "type",
    &[
        (
            "lens",
            panel!(&[
                Must("title", Text),
                Must("description", Text),
                Must("hidePanelTitles", Flag),
                Must("enhancements", ENHANCEMENTS),
                Must("attributes", LENS),
            ]),
        ),
        (
            "map",
            panel!(&[
                Must("title", Text),
                Must("description", Text),
                Must("hidePanelTitles", Flag),
                Must("enhancements", NOTHING),
                Must("hiddenLayers", EMPTY),
                Must("isLayerTOCOpen", Flag),
                Must("openTOCDetails", EMPTY),
                Must(
                    "mapCenter",
                    Object(&[Must("lat", Number), Must("lon", Number), Must("zoom", Number)]),
                ),
                Must("attributes", MAP),
            ]),
        ),
        (
            "search",
            Object(&[
                Must("type", Text),
                Must("panelIndex", Text),
                Must("panelRefName", Text),
                Must("gridData", GRID),
                Must("title", Text),
                Must(
                    "embeddableConfig",
                    Object(&[
                        Must("title", Text),
                        Must("description", Text),
                        Must("hidePanelTitles", Flag),
                        Must("enhancements", NOTHING),
                    ]),
                ),
            ]),
        ),
        (
            "visualization",
            Object(&[
                Must("type", Text),
                Must("panelIndex", Text),
                Must("gridData", GRID),
                Must("embeddableConfig", MARKDOWN),
            ]),
        ),
    ],
);

const ENHANCEMENTS: Shape = Object(&[May(
    "dynamicActions",
    Object(&[Must(
        "events",
        List(&Object(&[
            Must("eventId", Text),
            Must("triggers", List(&Word(&["FILTER_TRIGGER"]))),
            Must(
                "action",
                Object(&[
                    Must("factoryId", Word(&["DASHBOARD_TO_DASHBOARD_DRILLDOWN"])),
                    Must("name", Text),
                    Must(
                        "config",
                        Object(&[
                            Must("useCurrentFilters", Flag),
                            Must("useCurrentDateRange", Flag),
                            Must("openInNewTab", Flag),
                        ]),
                    ),
                ]),
            ),
        ])),
    )]),
)]);

const MARKDOWN: Shape = Object(&[
    Must("hidePanelTitles", Flag),
    Must("enhancements", NOTHING),
    Must(
        "savedVis",
        Object(&[
            Must("id", Text),
            Must("title", Text),
            Must("description", Text),
            Must("type", Word(&["markdown"])),
            Must("uiState", NOTHING),
            Must(
                "params",
                Object(&[
                    Must("markdown", Text),
                    Must("fontSize", Number),
                    Must("openLinksInNewTab", Flag),
                ]),
            ),
            Must(
                "data",
                Object(&[
                    Must("aggs", EMPTY),
                    Must("searchSource", Object(&[Must("query", QUERY), Must("filter", EMPTY)])),
                ]),
            ),
        ]),
    ),
]);

/// A chart of this type, whose look has this shape.
macro_rules! lens {
    ($look:expr) => {
        Object(&[
            Must("title", Text),
            Must("type", Word(&["lens"])),
            Must("visualizationType", Text),
            Must("references", REFERENCES),
            Must(
                "state",
                Object(&[
                    Must("query", QUERY),
                    Must("filters", EMPTY),
                    Must("internalReferences", EMPTY),
                    Must("adHocDataViews", NOTHING),
                    Must(
                        "datasourceStates",
                        Object(&[Must("formBased", Object(&[Must("layers", Each(&LAYER))]))]),
                    ),
                    Must("visualization", $look),
                ]),
            ),
        ])
    };
}

const LENS: Shape = By(
    "visualizationType",
    &[
        ("lnsMetric", lens!(METRIC)),
        ("lnsPie", lens!(PIE)),
        ("lnsXY", lens!(CHART)),
        ("lnsHeatmap", lens!(HEATMAP)),
        ("lnsDatatable", lens!(TABLE)),
    ],
);

const LAYER: Shape = Object(&[
    Must("columnOrder", List(&Text)),
    Must("incompleteColumns", NOTHING),
    Must("columns", Each(&COLUMN)),
]);

const FORMAT: Shape = Object(&[
    Must("id", Word(&["number", "percent", "bytes", "bits", "duration"])),
    Must(
        "params",
        Object(&[
            Must("decimals", Number),
            May("suffix", Text),
            May("fromUnit", Word(&["seconds", "milliseconds"])),
            May("toUnit", Text),
        ]),
    ),
]);

/// A column that reads a field.
macro_rules! column {
    ($params:expr) => {
        Object(&[
            Must("label", Text),
            Must("customLabel", Flag),
            Must("dataType", Word(&["string", "number", "date", "boolean"])),
            Must("operationType", Text),
            Must("isBucketed", Flag),
            Must("scale", Word(&["ordinal", "interval", "ratio"])),
            Must("sourceField", Text),
            May("filter", QUERY),
            May("timeScale", Word(&["s", "m"])),
            Must("params", Object($params)),
        ])
    };
}

/// A column that reads other columns.
macro_rules! computed {
    ($params:expr) => {
        Object(&[
            Must("label", Text),
            Must("customLabel", Flag),
            Must("dataType", Word(&["number"])),
            Must("operationType", Text),
            Must("isBucketed", Flag),
            Must("scale", Word(&["ratio"])),
            Must("references", List(&Text)),
            Must("params", Object($params)),
        ])
    };
}

const COLUMN: Shape = By(
    "operationType",
    &[
        ("count", column!(&[Must("emptyAsNull", Flag), May("format", FORMAT)])),
        ("unique_count", column!(&[Must("emptyAsNull", Flag), May("format", FORMAT)])),
        ("sum", column!(&[Must("emptyAsNull", Flag), May("format", FORMAT)])),
        ("average", column!(&[May("format", FORMAT)])),
        ("min", column!(&[May("format", FORMAT)])),
        ("max", column!(&[May("format", FORMAT)])),
        ("percentile", column!(&[Must("percentile", Number), May("format", FORMAT)])),
        (
            "last_value",
            column!(&[
                Must("sortField", Text),
                Must("showArrayValues", Flag),
                May("format", FORMAT),
            ]),
        ),
        (
            "date_histogram",
            column!(&[
                Must("interval", Text),
                Must("includeEmptyRows", Flag),
                Must("dropPartials", Flag),
            ]),
        ),
        ("terms", column!(TERMS)),
        ("range", column!(RANGE)),
        ("filters", FILTERS),
        (
            "formula",
            computed!(&[
                Must("formula", Text),
                Must("isFormulaBroken", Flag),
                May("format", FORMAT),
            ]),
        ),
        ("cumulative_sum", computed!(&[])),
        ("counter_rate", computed!(&[])),
        ("normalize_by_unit", computed!(&[Must("unit", Word(&["s", "m"]))])),
        ("math", computed!(&[Must("tinymathAst", Shape::Elsewhere)])),
    ],
);

const TERMS: &[super::shape::Member] = &[
    Must("size", Number),
    Must(
        "orderBy",
        By(
            "type",
            &[
                ("column", Object(&[Must("type", Text), Must("columnId", Text)])),
                ("custom", Object(&[Must("type", Text)])),
            ],
        ),
    ),
    May(
        "orderAgg",
        By(
            "operationType",
            &[
                ("count", column!(&[Must("emptyAsNull", Flag)])),
                ("unique_count", column!(&[Must("emptyAsNull", Flag)])),
                ("sum", column!(&[Must("emptyAsNull", Flag)])),
                ("average", column!(&[])),
                ("min", column!(&[])),
                ("max", column!(&[])),
                ("percentile", column!(&[Must("percentile", Number)])),
            ],
        ),
    ),
    Must("orderDirection", Word(&["asc", "desc"])),
    Must("otherBucket", Flag),
    Must("missingBucket", Flag),
    Must("parentFormat", Object(&[Must("id", Word(&["terms"]))])),
    Must("include", EMPTY),
    Must("exclude", EMPTY),
    Must("includeIsRegex", Flag),
    Must("excludeIsRegex", Flag),
];

const RANGE: &[super::shape::Member] = &[
    Must("type", Word(&["range", "histogram"])),
    Must("maxBars", Either(&[Number, Word(&["auto"])])),
    May("includeEmptyRows", Flag),
    Must(
        "ranges",
        List(&Object(&[
            Must("from", Maybe(&Number)),
            Must("to", Maybe(&Number)),
            Must("label", Text),
        ])),
    ),
    May(
        "parentFormat",
        Object(&[
            Must("id", Word(&["range"])),
            Must(
                "params",
                Object(&[Must("template", Word(&["arrow_right"])), Must("replaceInfinity", Flag)]),
            ),
        ]),
    ),
];

const FILTERS: Shape = Object(&[
    Must("label", Text),
    Must("customLabel", Flag),
    Must("dataType", Word(&["string"])),
    Must("operationType", Text),
    Must("isBucketed", Flag),
    Must("scale", Word(&["ordinal"])),
    Must(
        "params",
        Object(&[Must("filters", List(&Object(&[Must("label", Text), Must("input", QUERY)])))]),
    ),
]);

const METRIC: Shape = Object(&[
    Must("layerId", Text),
    Must("layerType", Word(&["data"])),
    Must("metricAccessor", Text),
    May("breakdownByAccessor", Text),
    May("subtitle", Text),
]);

const PIE: Shape = Object(&[
    Must("shape", Word(&["pie", "donut", "treemap", "mosaic", "waffle"])),
    Must(
        "layers",
        List(&Object(&[
            Must("layerId", Text),
            Must("layerType", Word(&["data"])),
            Must("primaryGroups", List(&Text)),
            Must("metrics", List(&Text)),
            Must("numberDisplay", Word(&["percent", "value", "hidden"])),
            Must("categoryDisplay", Word(&["default", "inside", "hide"])),
            Must("legendDisplay", Word(&["default", "show", "hide"])),
            Must("legendPosition", Word(&["right"])),
            Must("nestedLegend", Flag),
            Must("allowMultipleMetrics", Flag),
        ])),
    ),
]);

const HEATMAP: Shape = Object(&[
    Must("shape", Word(&["heatmap"])),
    Must("layerId", Text),
    Must("layerType", Word(&["data"])),
    Must("xAccessor", Text),
    Must("yAccessor", Text),
    Must("valueAccessor", Text),
    Must(
        "legend",
        Object(&[
            Must("type", Word(&["heatmap_legend"])),
            Must("isVisible", Flag),
            Must("position", Word(&["right"])),
        ]),
    ),
    Must(
        "gridConfig",
        Object(&[
            Must("type", Word(&["heatmap_grid"])),
            Must("isCellLabelVisible", Flag),
            Must("isXAxisLabelVisible", Flag),
            Must("isXAxisTitleVisible", Flag),
            Must("isYAxisLabelVisible", Flag),
            Must("isYAxisTitleVisible", Flag),
        ]),
    ),
]);

const TABLE: Shape = Object(&[
    Must("layerId", Text),
    Must("layerType", Word(&["data"])),
    Must(
        "columns",
        List(&Object(&[
            Must("columnId", Text),
            Must("isTransposed", Flag),
            May("oneClickFilter", Flag),
        ])),
    ),
    May(
        "sorting",
        Object(&[Must("columnId", Text), Must("direction", Word(&["asc", "desc", "none"]))]),
    ),
    Must("paging", Object(&[Must("size", Number), Must("enabled", Flag)])),
]);

const SERIES: Shape = Word(&["line", "area_stacked", "bar_stacked", "bar_percentage_stacked"]);
const ALONG_AXES: Shape = Object(&[Must("x", Flag), Must("yLeft", Flag), Must("yRight", Flag)]);

const CHART: Shape = Object(&[
    Must("preferredSeriesType", SERIES),
    Must(
        "legend",
        Object(&[
            Must("isVisible", Flag),
            Must("showSingleSeries", Flag),
            Must("position", Word(&["right"])),
            May("legendStats", List(&Word(&["max", "min"]))),
        ]),
    ),
    Must("valueLabels", Word(&["hide", "show"])),
    Must("curveType", Word(&["LINEAR", "CURVE_STEP_AFTER"])),
    Must("fittingFunction", Word(&["None", "Zero", "Carry"])),
    Must("axisTitlesVisibilitySettings", ALONG_AXES),
    Must("tickLabelsVisibilitySettings", ALONG_AXES),
    Must("gridlinesVisibilitySettings", ALONG_AXES),
    Must(
        "labelsOrientation",
        Object(&[Must("x", Number), Must("yLeft", Number), Must("yRight", Number)]),
    ),
    Must("layers", List(&By("layerType", &[("data", DATA), ("annotations", ANNOTATIONS)]))),
]);

const DATA: Shape = Object(&[
    Must("layerId", Text),
    Must("layerType", Text),
    Must("seriesType", SERIES),
    Must("xAccessor", Text),
    Must("accessors", List(&Text)),
    May("splitAccessor", Text),
    Must("position", Word(&["top"])),
    Must("showGridlines", Flag),
    Must(
        "yConfig",
        List(&Object(&[
            Must("forAccessor", Text),
            Must("axisMode", Word(&["left", "right"])),
            May("color", Text),
        ])),
    ),
]);

const ANNOTATIONS: Shape = Object(&[
    Must("layerId", Text),
    Must("layerType", Text),
    Must("ignoreGlobalFilters", Flag),
    Must(
        "annotations",
        List(&Object(&[
            Must("id", Text),
            Must("type", Word(&["query"])),
            Must("label", Text),
            Must("timeField", Word(&["timestamp"])),
            Must("key", Object(&[Must("type", Word(&["point_in_time"]))])),
            Must("icon", Text),
            Must("color", Text),
            Must("isHidden", Flag),
            Must("extraFields", List(&Text)),
            Must(
                "filter",
                Object(&[
                    Must("type", Word(&["kibana_query"])),
                    Must("query", Text),
                    Must("language", Word(&["kuery"])),
                ]),
            ),
        ])),
    ),
]);

const MAP: Shape = Object(&[
    Must("title", Text),
    Must("description", Text),
    Must(
        "layerListJSON",
        Coded(&List(&By("type", &[("EMS_VECTOR_TILE", BASE), ("GEOJSON_VECTOR", CLUSTERS)]))),
    ),
    Must(
        "mapStateJSON",
        Coded(&Object(&[
            Must("zoom", Number),
            Must("center", Object(&[Must("lat", Number), Must("lon", Number)])),
            Must("timeFilters", Object(&[Must("from", Text), Must("to", Text)])),
            Must("refreshConfig", Object(&[Must("isPaused", Flag), Must("interval", Number)])),
            Must("query", QUERY),
            Must("filters", EMPTY),
            Must("settings", Object(&[Must("autoFitToDataBounds", Flag)])),
        ])),
    ),
    Must(
        "uiStateJSON",
        Coded(&Object(&[Must("isLayerTOCOpen", Flag), Must("openTOCDetails", EMPTY)])),
    ),
]);

const BASE: Shape = Object(&[
    Must("id", Text),
    Must("type", Text),
    Must("label", Null),
    Must("visible", Flag),
    Must("alpha", Number),
    Must("minZoom", Number),
    Must("maxZoom", Number),
    Must("includeInFitToBounds", Flag),
    Must(
        "sourceDescriptor",
        Object(&[
            Must("type", Word(&["EMS_TMS"])),
            Must("isAutoSelect", Flag),
            Must("lightModeDefault", Text),
        ]),
    ),
    Must("style", Object(&[Must("type", Word(&["EMS_VECTOR_TILE"])), Must("color", Text)])),
]);

const CLUSTERS: Shape = Object(&[
    Must("id", Text),
    Must("type", Text),
    Must("label", Text),
    Must("visible", Flag),
    Must("alpha", Number),
    Must("minZoom", Number),
    Must("maxZoom", Number),
    Must("includeInFitToBounds", Flag),
    Must("joins", EMPTY),
    Must("query", QUERY),
    Must(
        "sourceDescriptor",
        Object(&[
            Must("id", Text),
            Must("type", Word(&["ES_GEO_GRID"])),
            Must("geoField", Text),
            Must("requestType", Word(&["point", "grid", "hex"])),
            Must("resolution", Word(&["COARSE", "FINE", "MOST_FINE"])),
            Must(
                "metrics",
                List(&Object(&[
                    Must(
                        "type",
                        Word(&["count", "cardinality", "sum", "avg", "min", "max", "percentile"]),
                    ),
                    May("field", Text),
                    May("percentile", Number),
                    Must("label", Text),
                ])),
            ),
            Must("applyGlobalQuery", Flag),
            Must("applyGlobalTime", Flag),
            Must("applyForceRefresh", Flag),
            Must("indexPatternRefName", Text),
        ]),
    ),
    Must("style", STYLE),
]);

const DRAWN_BY: Shape = Object(&[Must("name", Text), Must("origin", Word(&["source"]))]);
const META: Shape = Object(&[Must("isEnabled", Flag), Must("sigma", Number)]);

/// A property of circles with options of this shape.
macro_rules! drawn {
    ($kind:expr, $options:expr) => {
        Object(&[Must("type", Word(&[$kind])), Must("options", Object($options))])
    };
}

const STYLE: Shape = Object(&[
    Must("type", Word(&["VECTOR"])),
    Must("isTimeAware", Flag),
    Must(
        "properties",
        Object(&[
            Must("icon", drawn!("STATIC", &[Must("value", Text)])),
            Must("symbolizeAs", Object(&[Must("options", Object(&[Must("value", Text)]))])),
            Must("lineColor", drawn!("STATIC", &[Must("color", Text)])),
            Must("lineWidth", drawn!("STATIC", &[Must("size", Number)])),
            Must(
                "fillColor",
                drawn!(
                    "DYNAMIC",
                    &[
                        Must("type", Word(&["ORDINAL"])),
                        Must("color", Text),
                        Must("colorCategory", Text),
                        Must("field", DRAWN_BY),
                        Must("fieldMetaOptions", META),
                    ]
                ),
            ),
            Must(
                "iconSize",
                drawn!(
                    "DYNAMIC",
                    &[
                        Must("minSize", Number),
                        Must("maxSize", Number),
                        Must("field", DRAWN_BY),
                        Must("fieldMetaOptions", META),
                    ]
                ),
            ),
            Must("labelText", drawn!("DYNAMIC", &[Must("field", DRAWN_BY)])),
        ]),
    ),
]);
