//! What is wrong with a Job. As upstream: `pkg/apis/batch/validation/validation.go`.

use super::super::parts::{list, text};
use super::super::pod;
use super::super::workload::{
    not_negative, selects, unchanged, validate_selector, validate_selects_template,
};
use super::{CONTROLLER_UID, JOB_NAME, OLD_LABELS};
use crate::field_path::{FieldError, FieldPath};
use crate::metadata;
use crate::object::Object;
use serde_json::{Value, json};

/// More pods at once, or more failed indexes, would make the lists of indexes in a status too long.
const INDEXED_MAX: i64 = 100_000;
/// With more completions than [`INDEXED_MAX`].
const HIGH_COMPLETIONS_MAX: i64 = 10_000;
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const PATTERNS_MAX: usize = 20;
const MANAGED_BY_MAX: usize = 63;
const SUCCEEDED_INDEXES_MAX: usize = 64 * 1024;

fn int(value: &Value, field: &str) -> Option<i64> {
    value.get(field).and_then(Value::as_i64)
}

pub(super) fn is_indexed(spec: &Value) -> bool {
    text(spec, "completionMode") == "Indexed"
}

/// Of a new Job.
pub(super) fn create(object: &Object) -> Vec<FieldError> {
    let spec = object.at("/spec").unwrap_or(&Value::Null);
    let path = FieldPath::new("spec");
    let mut errors = validate_generated_selector(object);
    errors.extend(validate_spec(spec, &path));
    errors.extend(validate_template(spec, &path));
    errors.extend(validate_own_selector(object));
    let last = int(spec, "completions").unwrap_or(0) - 1;
    let hostname = format!("{}-{last}", object.name());
    if is_indexed(spec) && last >= 0 && !metadata::dns_label(&hostname).is_empty() {
        errors.push(FieldError::invalid(
            &FieldPath::new("metadata").child("name"),
            object.name(),
            &format!("will not able to create pod with invalid DNS label: {hostname}"),
        ));
    }
    errors
}

fn validate_own_selector(object: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("spec").child("selector");
    let mut errors = match object.at("/spec/selector") {
        Some(selector) => validate_selector(selector, &path),
        None => vec![FieldError::required(&path, "")],
    };
    errors.extend(validate_selects_template(object));
    errors
}

/// Whoever lets the selector be made must not have written other labels.
fn validate_generated_selector(object: &Object) -> Vec<FieldError> {
    if object.at("/spec/manualSelector") == Some(&json!(true))
        || object.at("/spec/selector").is_none()
    {
        return Vec::new();
    }
    let mut errors = Vec::new();
    if object.uid().is_empty() {
        errors.push(FieldError::required(&FieldPath::new("metadata").child("uid"), ""));
    }
    let wanted = [
        (OLD_LABELS[0], object.uid()),
        (OLD_LABELS[1], object.name()),
        (CONTROLLER_UID, object.uid()),
        (JOB_NAME, object.name()),
    ];
    let labels = object.at("/spec/template/metadata/labels");
    let path = FieldPath::new("spec").child("template").child("metadata").child("labels");
    for (key, value) in wanted {
        let words = format!("must be '{value}'");
        match labels.and_then(|labels| labels.get(key)).and_then(Value::as_str) {
            None => errors.push(FieldError::required(&path.key(key), &words)),
            Some(found) if found != value => {
                errors.push(FieldError::invalid(&path.key(key), labels, &words));
            }
            Some(_) => {}
        }
    }
    let expected: Value =
        wanted.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    if !selects(object.at("/spec/selector"), Some(&expected)) {
        errors.push(FieldError::invalid(
            &FieldPath::new("spec").child("selector"),
            object.at("/spec/selector"),
            "`selector` not auto-generated",
        ));
    }
    errors
}

/// Of a Job's spec, also of that in a CronJob; its template apart.
pub(in super::super) fn validate_spec(spec: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ]
    .iter()
    .filter_map(|field| not_negative(spec, field, path))
    .collect();
    if spec.get("maxFailedIndexes").is_some() && spec.get("backoffLimitPerIndex").is_none() {
        errors.push(FieldError::required(
            &path.child("backoffLimitPerIndex"),
            "when maxFailedIndexes is specified",
        ));
    }
    if let Some(manager) = spec.get("managedBy").and_then(Value::as_str) {
        errors.extend(validate_managed_by(manager, &path.child("managedBy")));
    }
    errors.extend(validate_mode(spec, path));
    if let Some(policy) = spec.get("podFailurePolicy") {
        errors.extend(validate_failure_policy(spec, policy, &path.child("podFailurePolicy")));
    }
    if let Some(policy) = spec.get("successPolicy") {
        let path = path.child("successPolicy");
        if is_indexed(spec) {
            errors.extend(validate_success_policy(spec, policy, &path));
        } else {
            errors.push(FieldError::invalid(&path, policy, "requires indexed completion mode"));
        }
    }
    if let Some(policy) = spec.get("podReplacementPolicy").and_then(Value::as_str) {
        let choices: &[&str] = if spec.get("podFailurePolicy").is_some() {
            &["Failed"]
        } else {
            &["Failed", "TerminatingOrFailed"]
        };
        if !choices.contains(&policy) {
            let path = path.child("podReplacementPolicy");
            errors.push(FieldError::not_supported(&path, policy, choices));
        }
    }
    errors.extend(validate_restart_policy(spec, path));
    errors
}

/// Of the template in a Job's spec: what its pods will be.
pub(in super::super) fn validate_template(spec: &Value, path: &FieldPath) -> Vec<FieldError> {
    let template = spec.get("template").unwrap_or(&Value::Null);
    let path = path.child("template");
    let mut errors =
        metadata::validate_labels(template.pointer("/metadata/labels"), &path.child("labels"));
    errors.extend(pod::validate_template(template, &path, &[]));
    errors
}

fn validate_restart_policy(spec: &Value, path: &FieldPath) -> Option<FieldError> {
    let path = path.child("template").child("spec").child("restartPolicy");
    let policy = spec.pointer("/template/spec/restartPolicy").and_then(Value::as_str);
    match policy.unwrap_or_default() {
        // Who says nothing has got Always as a default.
        "Always" | "" => {
            Some(FieldError::required(&path, "valid values: \"OnFailure\", \"Never\""))
        }
        "OnFailure" if spec.get("podFailurePolicy").is_some() => Some(FieldError::invalid(
            &path,
            "OnFailure",
            "only \"Never\" is supported when podFailurePolicy is specified",
        )),
        "OnFailure" | "Never" => None,
        other => Some(FieldError::not_supported(&path, other, &["OnFailure", "Never"])),
    }
}

/// As upstream: `IsDomainPrefixedPath`.
fn validate_managed_by(manager: &str, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match manager.split_once('/') {
        _ if manager.is_empty() => errors.push(FieldError::required(path, "")),
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            errors.extend(
                metadata::dns_subdomain(domain)
                    .iter()
                    .map(|error| FieldError::invalid(path, domain, error)),
            );
            let is_legal =
                |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
            if !rest.bytes().all(is_legal) {
                errors.push(FieldError::invalid(path, rest, "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')"));
            }
        }
        _ => errors.push(FieldError::invalid(
            path,
            manager,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        )),
    }
    if manager.len() > MANAGED_BY_MAX {
        errors.push(FieldError::too_long(path, MANAGED_BY_MAX));
    }
    errors
}

fn validate_mode(spec: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut at_most = |field: &str, max: i64, words: &str| {
        if let Some(number) = int(spec, field).filter(|number| *number > max) {
            errors.push(FieldError::invalid(&path.child(field), number, words));
        }
    };
    match text(spec, "completionMode") {
        "Indexed" => {
            at_most(
                "parallelism",
                INDEXED_MAX,
                &format!(
                    "must be less than or equal to {INDEXED_MAX} when completion mode is Indexed"
                ),
            );
            let completions = int(spec, "completions");
            if let Some(completions) = completions {
                at_most(
                    "maxFailedIndexes",
                    completions,
                    "must be less than or equal to completions",
                );
            }
            at_most(
                "maxFailedIndexes",
                INDEXED_MAX,
                &format!("must be less than or equal to {INDEXED_MAX}"),
            );
            let is_high = completions.is_some_and(|completions| completions > INDEXED_MAX)
                && spec.get("backoffLimitPerIndex").is_some();
            if is_high {
                let words = format!(
                    "must be less than or equal to {HIGH_COMPLETIONS_MAX} when completions are above {INDEXED_MAX} and used with backoff limit per index"
                );
                at_most("parallelism", HIGH_COMPLETIONS_MAX, &words);
                at_most("maxFailedIndexes", HIGH_COMPLETIONS_MAX, &words);
                if spec.get("maxFailedIndexes").is_none() {
                    errors.push(FieldError::required(
                        &path.child("maxFailedIndexes"),
                        &format!("must be specified when completions is above {INDEXED_MAX}"),
                    ));
                }
            }
            if completions.is_none() {
                errors.push(FieldError::required(
                    &path.child("completions"),
                    "when completion mode is Indexed",
                ));
            }
        }
        "NonIndexed" | "" => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                at_most(field, -1, "requires indexed completion mode");
            }
        }
        other => errors.push(FieldError::not_supported(
            &path.child("completionMode"),
            other,
            &["NonIndexed", "Indexed"],
        )),
    }
    errors
}

/// A word that must be one of a few; upstream says of an empty one what is valid.
fn validate_word(
    value: &Value,
    field: &str,
    choices: &[&str],
    path: &FieldPath,
) -> Vec<FieldError> {
    match text(value, field) {
        "" => {
            let quoted: Vec<String> = choices.iter().map(|word| format!("{word:?}")).collect();
            let words = format!("valid values: [{}]", quoted.join(" "));
            vec![FieldError::required(&path.child(field), &words)]
        }
        word if choices.contains(&word) => Vec::new(),
        other => vec![FieldError::not_supported(&path.child(field), other, choices)],
    }
}

fn validate_failure_policy(spec: &Value, policy: &Value, path: &FieldPath) -> Vec<FieldError> {
    let rules = list(policy, "rules");
    let path = path.child("rules");
    let mut errors = Vec::new();
    if rules.len() > RULES_MAX {
        errors.push(FieldError::too_many(&path, rules.len(), RULES_MAX));
    }
    let names: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .filter_map(|field| spec.pointer(&format!("/template/spec/{field}"))?.as_array())
        .flatten()
        .map(|container| text(container, "name"))
        .collect();
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        let actions = ["Count", "FailIndex", "FailJob", "Ignore"];
        errors.extend(validate_word(rule, "action", &actions, &path));
        if text(rule, "action") == "FailIndex" && spec.get("backoffLimitPerIndex").is_none() {
            errors.push(FieldError::invalid(
                &path.child("action"),
                "FailIndex",
                "requires the backoffLimitPerIndex to be set",
            ));
        }
        let (codes, patterns) = (rule.get("onExitCodes"), list(rule, "onPodConditions"));
        if let Some(codes) = codes {
            errors.extend(validate_exit_codes(codes, &names, &path.child("onExitCodes")));
        }
        errors.extend(validate_patterns(patterns, &path.child("onPodConditions")));
        match (codes.is_some(), patterns.is_empty()) {
            (true, false) => errors.push(FieldError::invalid_as_a_whole(
                &path,
                "specifying both OnExitCodes and OnPodConditions is not supported",
            )),
            (false, true) => errors.push(FieldError::invalid_as_a_whole(
                &path,
                "specifying one of OnExitCodes and OnPodConditions is required",
            )),
            _ => {}
        }
    }
    errors
}

fn validate_exit_codes(codes: &Value, names: &[&str], path: &FieldPath) -> Vec<FieldError> {
    let mut errors = validate_word(codes, "operator", &["In", "NotIn"], path);
    if let Some(name) = codes.get("containerName").and_then(Value::as_str)
        && !names.contains(&name)
    {
        errors.push(FieldError::invalid(
            &path.child("containerName"),
            name,
            "must be one of the container or initContainer names in the pod template",
        ));
    }
    let path = path.child("values");
    let values: Vec<i64> = list(codes, "values").iter().filter_map(Value::as_i64).collect();
    if values.is_empty() {
        errors.push(FieldError::invalid(&path, &values, "at least one value is required"));
    } else if values.len() > EXIT_CODES_MAX {
        errors.push(FieldError::too_many(&path, values.len(), EXIT_CODES_MAX));
    }
    for (index, value) in values.iter().enumerate() {
        if *value == 0 && text(codes, "operator") == "In" {
            errors.push(FieldError::invalid(
                &path.index(index),
                0,
                "must not be 0 for the In operator",
            ));
        }
        if values[..index].contains(value) {
            errors.push(FieldError::duplicate(&path.index(index), value));
        }
    }
    if !values.is_sorted() {
        errors.push(FieldError::invalid(&path, &values, "must be ordered"));
    }
    errors
}

fn validate_patterns(patterns: &[Value], path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if patterns.len() > PATTERNS_MAX {
        errors.push(FieldError::too_many(path, patterns.len(), PATTERNS_MAX));
    }
    for (index, pattern) in patterns.iter().enumerate() {
        let path = path.index(index);
        let kind = text(pattern, "type");
        errors.extend(
            metadata::qualified_name(kind)
                .iter()
                .map(|error| FieldError::invalid(&path.child("type"), kind, error)),
        );
        errors.extend(validate_word(pattern, "status", &["False", "True", "Unknown"], &path));
    }
    errors
}

fn validate_success_policy(spec: &Value, policy: &Value, path: &FieldPath) -> Vec<FieldError> {
    let rules = list(policy, "rules");
    let path = path.child("rules");
    let mut errors = Vec::new();
    if rules.is_empty() {
        errors.push(FieldError::required(
            &path,
            "at least one rules must be specified when the successPolicy is specified",
        ));
    }
    if rules.len() > RULES_MAX {
        errors.push(FieldError::too_many(&path, rules.len(), RULES_MAX));
    }
    let completions = int(spec, "completions").unwrap_or(0);
    for (index, rule) in rules.iter().enumerate() {
        errors.extend(validate_success_rule(rule, completions, &path.index(index)));
    }
    errors
}

fn validate_success_rule(rule: &Value, completions: i64, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let indexes = rule.get("succeededIndexes").and_then(Value::as_str);
    let count = int(rule, "succeededCount");
    if indexes.is_none() && count.is_none() {
        errors.push(FieldError::required(
            path,
            "at least one of succeededCount or succeededIndexes must be specified",
        ));
    }
    let mut total = 0;
    if let Some(indexes) = indexes {
        let path = path.child("succeededIndexes");
        if indexes.len() > SUCCEEDED_INDEXES_MAX {
            errors.push(FieldError::too_long(&path, SUCCEEDED_INDEXES_MAX));
        }
        match intervals(indexes, completions) {
            Ok(intervals) => total = intervals.iter().map(|(first, last)| last - first + 1).sum(),
            Err(error) => errors.push(FieldError::invalid(
                &path,
                indexes,
                &format!("error parsing succeededIndexes: {error}"),
            )),
        }
    }
    if let Some(count) = count {
        errors.extend(not_negative(rule, "succeededCount", path));
        let path = path.child("succeededCount");
        if count > completions {
            errors.push(FieldError::invalid(&path, count, &format!("must be less than or equal to {completions} (the number of specified completions)")));
        }
        if indexes.is_some() && count > total {
            errors.push(FieldError::invalid(&path, count, &format!("must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)")));
        }
    }
    errors
}

/// The intervals of a list of indexes, e.g. `1,3-5`, each with its first and last. As upstream:
/// `validateIndexesFormat`.
pub(super) fn intervals(text: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    let number = |text: &str| -> Result<i64, String> {
        let number: i64 = text
            .parse()
            .map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if number < completions { Ok(number) } else { Err(format!("too large index: {text:?}")) }
    };
    let mut found: Vec<(i64, i64)> = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let limits: Vec<&str> = part.split('-').collect();
        let (first, last) = match limits[..] {
            [one] => (number(one)?, number(one)?),
            [first, last] => (number(first)?, number(last)?),
            _ => {
                return Err(format!(
                    "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
                ));
            }
        };
        let order = |previous: i64, current: i64| {
            format!("non-increasing order, previous: {previous}, current: {current}")
        };
        if limits.len() == 2 && first >= last {
            return Err(order(first, last));
        }
        if let Some((_, previous)) = found.last()
            && *previous >= first
        {
            return Err(order(*previous, first));
        }
        found.push((first, last));
    }
    Ok(found)
}

/// Of a changed Job.
pub(super) fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("spec");
    let spec = new.at("/spec").unwrap_or(&Value::Null);
    let mut errors = validate_spec(spec, &path);
    // What was accepted once stays acceptable; only a new template is looked at.
    if new.at("/spec/template") != old.at("/spec/template") {
        errors.extend(validate_template(spec, &path));
    }
    errors.extend(validate_own_selector(new));
    errors.extend(validate_completions(new, old));
    errors.extend(unchanged(new, old, "selector"));
    if fixed_template(new, old) != old.at("/spec/template").cloned() {
        errors.push(FieldError::invalid(
            &path.child("template"),
            new.at("/spec/template"),
            "field is immutable",
        ));
    }
    for field in
        ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        errors.extend(unchanged(new, old, field));
    }
    errors
}

/// An indexed Job may grow and shrink, in both numbers together.
fn validate_completions(new: &Object, old: &Object) -> Option<FieldError> {
    let spec = new.at("/spec")?;
    if !is_indexed(spec) {
        return unchanged(new, old, "completions");
    }
    let completions = new.at("/spec/completions")?;
    let moved = Some(completions) != old.at("/spec/completions");
    (moved && Some(completions) != new.at("/spec/parallelism")).then(|| {
        FieldError::invalid(
            &FieldPath::new("spec").child("completions"),
            completions,
            "can only be modified in tandem with spec.parallelism",
        )
    })
}

/// The new template with all that may change put back: where pods may run, while the Job is suspended and has never
/// started.
fn fixed_template(new: &Object, old: &Object) -> Option<Value> {
    let mut template = new.at("/spec/template").cloned()?;
    let is_open =
        old.at("/spec/suspend") == Some(&json!(true)) && old.at("/status/startTime").is_none();
    if is_open {
        for (parent, field) in [
            ("/metadata", "labels"),
            ("/metadata", "annotations"),
            ("/spec", "nodeSelector"),
            ("/spec", "tolerations"),
            ("/spec", "schedulingGates"),
            ("/spec/affinity", "nodeAffinity"),
        ] {
            let stored = old.at(&format!("/spec/template{parent}/{field}"));
            put(&mut template, parent, field, stored);
        }
        // An affinity that was only one of nodes may go and come as a whole.
        if template.pointer("/spec/affinity") == Some(&json!({}))
            && old.at("/spec/template/spec/affinity").is_none()
        {
            put(&mut template, "/spec", "affinity", None);
        }
    }
    Some(template)
}

fn put(value: &mut Value, parent: &str, field: &str, stored: Option<&Value>) {
    match (value.pointer_mut(parent).and_then(Value::as_object_mut), stored) {
        (Some(map), Some(stored)) => drop(map.insert(field.to_owned(), stored.clone())),
        (Some(map), None) => drop(map.remove(field)),
        (None, Some(stored)) => {
            let mut object = Object::new(std::mem::take(value))
                .unwrap_or_else(|_| Object::new(json!({})).expect("a JSON object is an object"));
            object.set(&format!("{parent}/{field}"), stored.clone());
            *value = object.into_value();
        }
        (None, None) => {}
    }
}
