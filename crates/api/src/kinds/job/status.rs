//! What a Job's status may not say. As upstream: `validateJobStatus`, `ValidateJobStatusUpdate`, with the options of
//! `pkg/registry/batch/job/strategy.go`.

use super::super::parts::list;
use super::super::workload::not_negative;
use super::holds;
use super::validation::{intervals, is_indexed};
use crate::field_path::{FieldError, FieldPath};
use crate::object::Object;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Of a changed status.
pub(super) fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("status");
    let status = new.at("/status").unwrap_or(&Value::Null);
    let mut errors: Vec<FieldError> = ["active", "succeeded", "failed", "ready", "terminating"]
        .iter()
        .filter_map(|field| not_negative(status, field, &path))
        .collect();
    errors.extend(validate_uncounted(status, &path.child("uncountedTerminatedPods")));
    errors.extend(validate_conditions(new, old, &path.child("conditions")));
    errors.extend(validate_times(new, old, &path));
    errors.extend(validate_counters(new, old, &path));
    errors.extend(validate_indexes(new, old, &path));
    errors
}

fn validate_uncounted(status: &Value, path: &FieldPath) -> Vec<FieldError> {
    let Some(uncounted) = status.get("uncountedTerminatedPods") else { return Vec::new() };
    let (mut errors, mut seen) = (Vec::new(), Vec::new());
    for field in ["succeeded", "failed"] {
        for (index, uid) in list(uncounted, field).iter().filter_map(Value::as_str).enumerate() {
            let path = path.child(field).index(index);
            if uid.is_empty() {
                errors.push(FieldError::invalid(&path, uid, "must not be empty"));
            } else if seen.contains(&uid) {
                errors.push(FieldError::duplicate(&path, uid));
            }
            seen.push(uid);
        }
    }
    errors
}

/// Which conditions never hold together, and which never end.
fn validate_conditions(new: &Object, old: &Object, path: &FieldPath) -> Vec<FieldError> {
    let now = |kind: &str| holds(new, kind);
    let turned = |kinds: &[&str]| kinds.iter().any(|kind| holds(new, kind) != holds(old, kind));
    let mut found: Vec<String> = Vec::new();
    for (one, other, words) in [
        ("Complete", "Failed", "cannot set Complete=True and Failed=true conditions"),
        ("Complete", "FailureTarget", "cannot set Complete=True and FailureTarget=true conditions"),
    ] {
        if now(one) && now(other) && turned(&[one, other]) {
            found.push(words.to_owned());
        }
    }
    if now("Failed") && !now("FailureTarget") && turned(&["Failed", "FailureTarget"]) {
        found.push(
            "cannot set Failed=True condition without the FailureTarget=true condition".to_owned(),
        );
    }
    if now("Complete") && !now("SuccessCriteriaMet") && turned(&["Complete", "SuccessCriteriaMet"])
    {
        found.push(
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"
                .to_owned(),
        );
    }
    for other in ["Failed", "FailureTarget"] {
        if now("SuccessCriteriaMet") && now(other) {
            found.push(format!("cannot set SuccessCriteriaMet=True and {other}=true conditions"));
        }
    }
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if holds(old, kind) && !now(kind) {
            found.push(format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    if holds(old, "SuccessCriteriaMet") && !now("SuccessCriteriaMet") {
        found.push("cannot disable the SuccessCriteriaMet=True condition".to_owned());
    }
    found.iter().map(|words| FieldError::invalid_as_a_whole(path, words)).collect()
}

fn validate_times(new: &Object, old: &Object, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (start, end) = (new.at("/status/startTime"), new.at("/status/completionTime"));
    let end_path = path.child("completionTime");
    let complete = holds(new, "Complete");
    if end.is_some() && !complete {
        errors.push(FieldError::invalid(
            &end_path,
            end,
            "cannot set completionTime when there is no Complete=True condition",
        ));
    }
    if end.is_none() && complete {
        errors
            .push(FieldError::required(&end_path, "completionTime is required for Complete jobs"));
    }
    let time = |value: Option<&Value>| value?.as_str()?.parse::<Timestamp>().ok();
    if let (Some(start), Some(before)) = (time(start), time(end))
        && before < start
    {
        errors.push(FieldError::invalid(
            &end_path,
            end,
            "completionTime cannot be set before startTime",
        ));
    }
    let former = old.at("/status/completionTime");
    if end.is_some() && former.is_some() && end != former {
        errors.push(FieldError::invalid(&end_path, end, "completionTime cannot be mutated"));
    }
    let suspended = new.at("/spec/suspend") == Some(&json!(true));
    let former = old.at("/status/startTime");
    // A Job that goes on after a pause starts again: upstream lets its own controller do so, which takes the condition
    // back in the same write.
    let resumed = holds(old, "Suspended") && !holds(new, "Suspended");
    if former.is_some() && start != former && !suspended && !resumed {
        errors.push(FieldError::required(
            &path.child("startTime"),
            "startTime cannot be removed for unsuspended job",
        ));
    }
    errors
}

fn validate_counters(new: &Object, old: &Object, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let count =
        |object: &Object, field: &str| object.int_at(&format!("/status/{field}")).unwrap_or(0);
    let spec = new.at("/spec").unwrap_or(&Value::Null);
    // An indexed Job may have shrunk.
    let may_shrink = is_indexed(spec) && spec.get("completions") == spec.get("parallelism");
    for field in ["failed", "succeeded"] {
        if count(new, field) < count(old, field) && !(field == "succeeded" && may_shrink) {
            errors.push(FieldError::invalid(
                &path.child(field),
                count(new, field),
                &format!("cannot decrease the {field} counter"),
            ));
        }
    }
    let (active, ready) = (count(new, "active"), count(new, "ready"));
    if ready > active && (ready, active) != (count(old, "ready"), count(old, "active")) {
        errors.push(FieldError::invalid(
            &path.child("ready"),
            ready,
            "cannot set more ready pods than active",
        ));
    }
    if !holds(new, "Complete") && !holds(new, "Failed") {
        return errors;
    }
    for field in ["active", "terminating"] {
        if count(new, field) > 0 {
            errors.push(FieldError::invalid(
                &path.child(field),
                count(new, field),
                &format!("{field}>0 is invalid for finished job"),
            ));
        }
    }
    if new.at("/status/startTime").is_none() {
        errors.push(FieldError::required(
            &path.child("startTime"),
            "startTime is required for finished job",
        ));
    }
    let uncounted = new.at("/status/uncountedTerminatedPods");
    let some = |field: &str| uncounted.is_some_and(|pods| !list(pods, field).is_empty());
    if some("succeeded") || some("failed") {
        errors.push(FieldError::invalid(
            &path.child("uncountedTerminatedPods"),
            uncounted,
            "uncountedTerminatedPods needs to be empty for finished job",
        ));
    }
    errors
}

fn validate_indexes(new: &Object, old: &Object, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = new.at("/spec").unwrap_or(&Value::Null);
    let completions = new.int_at("/spec/completions");
    let changed = |field: &str| {
        let pointer = format!("/status/{field}");
        new.at(&pointer).filter(|value| Some(*value) != old.at(&pointer))
    };
    for field in ["completedIndexes", "failedIndexes"] {
        let Some(value) = changed(field) else { continue };
        let path = path.child(field);
        let text = value.as_str().unwrap_or_default();
        if let Some(Err(error)) = completions.map(|completions| intervals(text, completions)) {
            let words = format!("error parsing {field}: {error}");
            errors.push(FieldError::invalid(&path, text, &words));
        }
        if field == "completedIndexes" && !text.is_empty() && !is_indexed(spec) {
            errors.push(FieldError::invalid(
                &path,
                text,
                "cannot set non-empty completedIndexes when non-indexed completion mode",
            ));
        }
        if field == "failedIndexes" && spec.get("backoffLimitPerIndex").is_none() {
            errors.push(FieldError::invalid(
                &path,
                text,
                "cannot set non-null failedIndexes when backoffLimitPerIndex is null",
            ));
        }
    }
    let read = |field: &str| {
        intervals(new.str_at(&format!("/status/{field}")), i64::MAX).unwrap_or_default()
    };
    let (completed, failed) = (read("completedIndexes"), read("failedIndexes"));
    let overlap = completed.iter().find_map(|(first, last)| {
        let other = failed.iter().find(|(low, high)| first <= high && low <= last)?;
        Some(first.max(&other.0))
    });
    if let Some(index) = overlap {
        errors.push(FieldError::invalid(
            &path.child("failedIndexes"),
            new.at("/status/failedIndexes"),
            &format!("failedIndexes and completedIndexes overlap at index: {index}"),
        ));
    }
    errors
}
