//! What is wrong with the volumes of a pod.

use super::super::super::config_map::key_errors;
use super::super::super::parts::{list, text};
use crate::field_path::{FieldError, FieldPath};
use crate::metadata;
use crate::quantity::Quantity;
use serde_json::Value;

/// Types of hostPath.
pub(in super::super::super) const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// Errors of the volumes; returns their names.
pub(super) fn validate<'a>(
    spec: &'a Value,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) -> Vec<&'a str> {
    let mut names = Vec::new();
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        let path = path.child("volumes").index(index);
        let name = text(volume, "name");
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else {
            errors.extend(
                metadata::dns_label(name)
                    .iter()
                    .map(|error| FieldError::invalid(&path.child("name"), name, error)),
            );
            if names.contains(&name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
        }
        names.push(name);
        let sources: Vec<(&String, &Value)> = volume
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(field, _)| *field != "name")
            .collect();
        for (source, _) in sources.iter().skip(1) {
            errors.push(FieldError::forbidden(
                &path.child(source),
                "may not specify more than 1 volume type",
            ));
        }
        match sources.first() {
            Some((source, value)) => validate_source(source, value, &path.child(source), errors),
            None => errors.push(FieldError::required(&path, "must specify a volume type")),
        }
    }
    names
}

fn validate_source(kind: &str, source: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let required = |field: &str, errors: &mut Vec<FieldError>| {
        if text(source, field).is_empty() {
            errors.push(FieldError::required(&path.child(field), ""));
        }
    };
    match kind {
        "persistentVolumeClaim" => required("claimName", errors),
        "secret" => {
            required("secretName", errors);
            validate_files(source, path, errors);
        }
        "configMap" => {
            required("name", errors);
            validate_files(source, path, errors);
        }
        "downwardAPI" => {
            mode(source, "defaultMode", path, errors);
            validate_downward(source, path, errors);
        }
        "emptyDir"
            if Quantity::parse(text(source, "sizeLimit"))
                .is_ok_and(|size| size < Quantity::ZERO) =>
        {
            errors.push(FieldError::forbidden(
                &path.child("sizeLimit"),
                "SizeLimit field must be a valid resource quantity",
            ));
        }
        "hostPath" => validate_host_path(source, path, errors),
        "projected" => validate_projected(source, path, errors),
        _ => {}
    }
}

/// A directory or file of the node, of a pod or a volume.
pub(in super::super::super) fn validate_host_path(
    source: &Value,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let place = text(source, "path");
    if place.is_empty() {
        errors.push(FieldError::required(&path.child("path"), ""));
    } else if place.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(&path.child("path"), place, "must not contain '..'"));
    }
    let kind = text(source, "type");
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(&path.child("type"), kind, &HOST_PATH_TYPES));
    }
}

fn validate_projected(source: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    mode(source, "defaultMode", path, errors);
    for (index, source) in list(source, "sources").iter().enumerate() {
        let path = path.child("sources").index(index);
        let given: Vec<(&String, &Value)> = source.as_object().into_iter().flatten().collect();
        for (kind, _) in given.iter().skip(1) {
            errors.push(FieldError::forbidden(
                &path.child(kind),
                "may not specify more than 1 volume type",
            ));
        }
        let Some((kind, value)) = given.first() else { continue };
        let path = path.child(kind);
        match kind.as_str() {
            "secret" | "configMap" => {
                if text(value, "name").is_empty() {
                    errors.push(FieldError::required(&path.child("name"), ""));
                }
                validate_files(value, &path, errors);
            }
            "downwardAPI" => validate_downward(value, &path, errors),
            _ => {}
        }
    }
}

fn mode(value: &Value, field: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(mode) =
        value.get(field).and_then(Value::as_i64).filter(|mode| !(0..=0o777).contains(mode))
    {
        errors.push(FieldError::invalid(
            &path.child(field),
            mode,
            "must be a number between 0 and 0777 (octal), both inclusive",
        ));
    }
}

fn validate_files(source: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    mode(source, "defaultMode", path, errors);
    for (index, item) in list(source, "items").iter().enumerate() {
        let path = path.child("items").index(index);
        let key = text(item, "key");
        if key.is_empty() {
            errors.push(FieldError::required(&path.child("key"), ""));
        } else {
            errors.extend(
                key_errors(key)
                    .into_iter()
                    .map(|error| FieldError::invalid(&path.child("key"), key, error)),
            );
        }
        validate_file(item, &path, errors);
    }
}

fn validate_downward(source: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, item) in list(source, "items").iter().enumerate() {
        let path = path.child("items").index(index);
        validate_file(item, &path, errors);
        match (item.get("fieldRef"), item.get("resourceFieldRef")) {
            (Some(_), Some(_)) => errors.push(FieldError::invalid(
                &path,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            )),
            (None, None) => errors.push(FieldError::required(
                &path,
                "one of fieldRef and resourceFieldRef is required",
            )),
            (Some(reference), None) if text(reference, "fieldPath").is_empty() => {
                errors.push(FieldError::required(&path.child("fieldRef").child("fieldPath"), ""));
            }
            (None, Some(reference)) if text(reference, "resource").is_empty() => {
                errors.push(FieldError::required(
                    &path.child("resourceFieldRef").child("resource"),
                    "",
                ));
            }
            _ => {}
        }
    }
}

fn validate_file(item: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let file = text(item, "path");
    if file.is_empty() {
        errors.push(FieldError::required(&path.child("path"), ""));
    } else if let Some(words) = descending_path(file) {
        errors.push(FieldError::invalid(&path.child("path"), file, words));
    } else if file.starts_with("..") {
        errors.push(FieldError::invalid(&path.child("path"), file, "must not start with '..'"));
    }
    mode(item, "mode", path, errors);
}

/// What is wrong with a path that must stay below where it starts.
pub(super) fn descending_path(path: &str) -> Option<&'static str> {
    if path.starts_with('/') {
        return Some("must be a relative path");
    }
    path.split('/').any(|part| part == "..").then_some("must not contain '..'")
}

/// Errors of where volumes are mounted in a container.
pub(super) fn validate_mounts(
    container: &Value,
    path: &FieldPath,
    volumes: &[&str],
    errors: &mut Vec<FieldError>,
) {
    let mut targets = Vec::new();
    for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = path.child("volumeMounts").index(index);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        }
        if !volumes.contains(&name) {
            errors.push(FieldError::not_found(&path.child("name"), name));
        }
        if target.is_empty() {
            errors.push(FieldError::required(&path.child("mountPath"), ""));
        }
        if targets.contains(&target) {
            errors.push(FieldError::invalid(&path.child("mountPath"), target, "must be unique"));
        }
        targets.push(target);
        for field in ["subPath", "subPathExpr"] {
            if let Some(words) = descending_path(text(mount, field)) {
                errors.push(FieldError::invalid(&path.child(field), text(mount, field), words));
            }
        }
        if !text(mount, "subPath").is_empty() && !text(mount, "subPathExpr").is_empty() {
            errors.push(FieldError::invalid(
                &path.child("subPathExpr"),
                text(mount, "subPathExpr"),
                "subPathExpr and subPath are mutually exclusive",
            ));
        }
    }
    for (index, device) in list(container, "volumeDevices").iter().enumerate() {
        let path = path.child("volumeDevices").index(index);
        let name = text(device, "name");
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        } else if !volumes.contains(&name) {
            errors.push(FieldError::not_found(&path.child("name"), name));
        }
        if text(device, "devicePath").is_empty() {
            errors.push(FieldError::required(&path.child("devicePath"), ""));
        }
    }
}
