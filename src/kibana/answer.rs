//! What answers mean: an import that was answered with 200 may have failed all the same.

use std::fmt::Write;

use serde_json::Value as Json;

use super::{Object, text};
use crate::json;
use crate::sink::elasticsearch::SetupError;

/// Objects that an export names as missing; `None`: it failed for another reason, or not because of them alone.
pub(super) fn missing(body: &[u8]) -> Option<Vec<Json>> {
    let told: Json = serde_json::from_slice(body).ok()?;
    let objects = told.pointer("/attributes/objects")?.as_array()?;
    let is_missing = |object: &Json| object.pointer("/error/statusCode") == Some(&Json::from(404));
    (!objects.is_empty() && objects.iter().all(is_missing)).then(|| objects.clone())
}

/// Why a request failed, as the answer says.
pub(super) fn reason(body: &[u8]) -> String {
    let told: Json = serde_json::from_slice(body).unwrap_or_default();
    let mut reason = text(&told, "/message");
    for object in told.pointer("/attributes/objects").and_then(Json::as_array).into_iter().flatten()
    {
        let (kind, id, why) =
            (text(object, "/type"), text(object, "/id"), text(object, "/error/message"));
        let _written = write!(reason, "; {kind} {id}: {why}");
    }
    if reason.is_empty() {
        let plain = String::from_utf8_lossy(body);
        return json::prefix(plain.trim(), 200).to_owned();
    }
    reason
}

/// Whether everything was taken; gives what an operator should know.
pub(super) fn judge(told: &Json, objects: &[Object]) -> Result<Vec<String>, SetupError> {
    let errors = told.get("errors").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    let taken = told.get("successCount").and_then(Json::as_u64);
    let is_all = taken == u64::try_from(objects.len()).ok();
    if told.get("success") != Some(&Json::Bool(true)) || !errors.is_empty() || !is_all {
        let mut message = format!(
            "the server answered with status 200, and did not take the dashboards: {} of {} objects",
            taken.unwrap_or(0),
            objects.len()
        );
        for error in errors {
            let (kind, id) = (text(error, "/type"), text(error, "/id"));
            let known = objects.iter().find(|object| object.kind == kind && object.id == id);
            let title = known.map_or_else(|| text(error, "/title"), |object| object.title.clone());
            let _written = write!(message, "\n  {kind} {id} ({title:?}): {}", why(error));
        }
        return Err(SetupError::Refused(anyhow::anyhow!(message)));
    }
    let warnings = told.get("warnings").and_then(Json::as_array).into_iter().flatten();
    let mut warnings: Vec<String> = warnings.map(|warning| text(warning, "/message")).collect();
    let results = told.get("successResults").and_then(Json::as_array).into_iter().flatten();
    let renamed = results.filter(|result| result.get("destinationId").is_some()).count();
    if renamed > 0 {
        warnings.push(format!(
            "{renamed} objects have other identifiers here, since another space has theirs: the line of links above each dashboard leads nowhere; delete them there and set up again"
        ));
    }
    Ok(warnings)
}

/// Why an object was not taken.
fn why(error: &Json) -> String {
    let mut why = text(error, "/error/type");
    let message = ["/error/message", "/error/reason"].map(|pointer| text(error, pointer));
    for message in message.iter().filter(|message| !message.is_empty()) {
        let _written = write!(why, ": {message}");
    }
    let references = error.pointer("/error/references").and_then(Json::as_array);
    for reference in references.into_iter().flatten() {
        let _written = write!(why, ", {} {}", text(reference, "/type"), text(reference, "/id"));
    }
    why
}
