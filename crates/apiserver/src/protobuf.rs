//! Reads protobuf bodies of the few kinds that `kubectl create` sends in that form. Answers are always JSON.
//!
//! The numbers are those of `k8s.io/api/core/v1/generated.proto` and `k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto`.

use api::ApiError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// What every protobuf body of Kubernetes starts with.
const MAGIC: &[u8] = b"k8s\0";

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Int,
    Bool,
    Time,
    IntOrString,
    /// From text to text.
    Texts,
    /// From text to bytes.
    Blobs,
    Message(&'static [Field]),
    /// What only a server writes: clients send it empty, and what they send is not taken.
    Server,
}

/// Number, name, whether it repeats, what it holds.
type Field = (u64, &'static str, bool, Kind);

const OWNER: &[Field] = &[
    (1, "kind", false, Kind::Text),
    (3, "name", false, Kind::Text),
    (4, "uid", false, Kind::Text),
    (5, "apiVersion", false, Kind::Text),
    (6, "controller", false, Kind::Bool),
    (7, "blockOwnerDeletion", false, Kind::Bool),
];
const METADATA: &[Field] = &[
    (1, "name", false, Kind::Text),
    (2, "generateName", false, Kind::Text),
    (3, "namespace", false, Kind::Text),
    (4, "selfLink", false, Kind::Server),
    (5, "uid", false, Kind::Text),
    (6, "resourceVersion", false, Kind::Text),
    (7, "generation", false, Kind::Server),
    (8, "creationTimestamp", false, Kind::Time),
    (9, "deletionTimestamp", false, Kind::Server),
    (10, "deletionGracePeriodSeconds", false, Kind::Server),
    (11, "labels", true, Kind::Texts),
    (12, "annotations", true, Kind::Texts),
    (13, "ownerReferences", true, Kind::Message(OWNER)),
    (14, "finalizers", true, Kind::Text),
    (17, "managedFields", true, Kind::Server),
];
const PORT: &[Field] = &[
    (1, "name", false, Kind::Text),
    (2, "protocol", false, Kind::Text),
    (3, "port", false, Kind::Int),
    (4, "targetPort", false, Kind::IntOrString),
    (5, "nodePort", false, Kind::Int),
    (6, "appProtocol", false, Kind::Text),
];
const SERVICE_SPEC: &[Field] = &[
    (1, "ports", true, Kind::Message(PORT)),
    (2, "selector", true, Kind::Texts),
    (3, "clusterIP", false, Kind::Text),
    (4, "type", false, Kind::Text),
    (5, "externalIPs", true, Kind::Text),
    (7, "sessionAffinity", false, Kind::Text),
    (8, "loadBalancerIP", false, Kind::Text),
    (9, "loadBalancerSourceRanges", true, Kind::Text),
    (10, "externalName", false, Kind::Text),
    (11, "externalTrafficPolicy", false, Kind::Text),
    (12, "healthCheckNodePort", false, Kind::Int),
    (13, "publishNotReadyAddresses", false, Kind::Bool),
    (17, "ipFamilyPolicy", false, Kind::Text),
    (18, "clusterIPs", true, Kind::Text),
    (19, "ipFamilies", true, Kind::Text),
    (20, "allocateLoadBalancerNodePorts", false, Kind::Bool),
    (21, "loadBalancerClass", false, Kind::Text),
    (22, "internalTrafficPolicy", false, Kind::Text),
    (23, "trafficDistribution", false, Kind::Text),
];
const REFERENCE: &[Field] = &[
    (1, "kind", false, Kind::Text),
    (2, "namespace", false, Kind::Text),
    (3, "name", false, Kind::Text),
];
const LOCAL_REFERENCE: &[Field] = &[(1, "name", false, Kind::Text)];
const META: Field = (1, "metadata", false, Kind::Message(METADATA));

/// The kinds that can be read.
const KINDS: &[(&str, &[Field])] = &[
    ("Namespace", &[META, (2, "spec", false, Kind::Server), (3, "status", false, Kind::Server)]),
    (
        "ConfigMap",
        &[
            META,
            (2, "data", true, Kind::Texts),
            (3, "binaryData", true, Kind::Blobs),
            (4, "immutable", false, Kind::Bool),
        ],
    ),
    (
        "Secret",
        &[
            META,
            (2, "data", true, Kind::Blobs),
            (3, "type", false, Kind::Text),
            (4, "stringData", true, Kind::Texts),
            (5, "immutable", false, Kind::Bool),
        ],
    ),
    (
        "ServiceAccount",
        &[
            META,
            (2, "secrets", true, Kind::Message(REFERENCE)),
            (3, "imagePullSecrets", true, Kind::Message(LOCAL_REFERENCE)),
            (4, "automountServiceAccountToken", false, Kind::Bool),
        ],
    ),
    (
        "Service",
        &[
            META,
            (2, "spec", false, Kind::Message(SERVICE_SPEC)),
            (3, "status", false, Kind::Server),
        ],
    ),
];

fn bad(what: &str) -> ApiError {
    ApiError::bad_request(format!("the protobuf body could not be read: {what}"))
}

/// One field as it stands in the bytes.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Result<u64, ApiError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or_else(|| bad("it ends early"))?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(bad("a number is too long"))
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], ApiError> {
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= bytes.len())
        .ok_or_else(|| bad("it ends early"))?;
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    Ok(taken)
}

fn fields(mut bytes: &[u8]) -> Result<Vec<(u64, Wire<'_>)>, ApiError> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let wire = match tag & 7 {
            0 => Wire::Number(varint(&mut bytes)?),
            1 => Wire::Bytes(take(&mut bytes, 8)?),
            2 => {
                let length = varint(&mut bytes)?;
                Wire::Bytes(take(&mut bytes, length)?)
            }
            5 => Wire::Bytes(take(&mut bytes, 4)?),
            _ => return Err(bad("an unknown wire type")),
        };
        found.push((tag >> 3, wire));
    }
    Ok(found)
}

fn text(bytes: &[u8]) -> Result<String, ApiError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| bad("a text is not UTF-8"))
}

fn part(bytes: &[u8], number: u64) -> Result<&[u8], ApiError> {
    let found = fields(bytes)?.into_iter().rev().find_map(|(n, wire)| match wire {
        Wire::Bytes(bytes) if n == number => Some(bytes),
        _ => None,
    });
    Ok(found.unwrap_or_default())
}

fn number(bytes: &[u8], number: u64) -> Result<u64, ApiError> {
    let found = fields(bytes)?.into_iter().rev().find_map(|(n, wire)| match wire {
        Wire::Number(value) if n == number => Some(value),
        _ => None,
    });
    Ok(found.unwrap_or(0))
}

fn message(bytes: &[u8], known: &[Field]) -> Result<Value, ApiError> {
    let mut object = Map::new();
    for (number_of, wire) in fields(bytes)? {
        let Some((_, name, repeated, kind)) =
            known.iter().find(|(number, ..)| *number == number_of)
        else {
            // Stored without it, the object would not be what its author wrote.
            return Err(bad(&format!("field {number_of} is not known here; send JSON")));
        };
        let value = match (kind, &wire) {
            (Kind::Texts | Kind::Blobs, Wire::Bytes(entry)) => {
                let (key, value) = (text(part(entry, 1)?)?, part(entry, 2)?);
                let value = if matches!(kind, Kind::Blobs) {
                    json!(STANDARD.encode(value))
                } else {
                    json!(text(value)?)
                };
                let map = object.entry(*name).or_insert_with(|| json!({}));
                map[key] = value;
                continue;
            }
            (Kind::Server, _) => continue,
            (Kind::Text, Wire::Bytes(bytes)) => {
                let value = text(bytes)?;
                // In protobuf an absent text is an empty one.
                if value.is_empty() && !repeated {
                    continue;
                }
                json!(value)
            }
            (Kind::Message(known), Wire::Bytes(bytes)) => message(bytes, known)?,
            (Kind::Time, Wire::Bytes(bytes)) => match number(bytes, 1)? {
                0 => continue,
                seconds => json!(
                    jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or(0))
                        .unwrap_or_default()
                        .to_string()
                ),
            },
            (Kind::IntOrString, Wire::Bytes(bytes)) => match (number(bytes, 1)?, number(bytes, 2)?)
            {
                (0, 0) => continue,
                (0, value) => json!(value),
                _ => json!(text(part(bytes, 3)?)?),
            },
            (Kind::Int, Wire::Number(0)) => continue,
            (Kind::Int, Wire::Number(value)) => json!(value.cast_signed()),
            (Kind::Bool, Wire::Number(value)) => {
                if *value == 0 && *name == "publishNotReadyAddresses" {
                    continue;
                }
                json!(*value != 0)
            }
            _ => return Err(bad("a field has the wrong type")),
        };
        if *repeated {
            if let Some(list) = object.entry(*name).or_insert_with(|| json!([])).as_array_mut() {
                list.push(value);
            }
        } else {
            object.insert((*name).to_owned(), value);
        }
    }
    Ok(Value::Object(object))
}

/// Reads a body.
pub(crate) fn read(body: &[u8]) -> Result<Value, ApiError> {
    let envelope =
        body.strip_prefix(MAGIC).ok_or_else(|| bad("it does not start as Kubernetes' do"))?;
    let type_meta = part(envelope, 1)?;
    let (api_version, kind) = (text(part(type_meta, 1)?)?, text(part(type_meta, 2)?)?);
    let known = KINDS
        .iter()
        .find(|(name, _)| *name == kind && api_version == "v1")
        .map(|(_, fields)| *fields);
    let known = known.ok_or_else(|| ApiError::unsupported_media_type(&["application/json"]))?;
    let mut object = message(part(envelope, 2)?, known)?;
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    #[test]
    fn a_config_map_is_read() {
        let meta = [field(1, b"settings"), field(3, b"default")].concat();
        let entry = [field(1, b"key"), field(2, b"value")].concat();
        let raw = [field(1, &meta), field(2, &entry)].concat();
        let types = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
        let body = [MAGIC.to_vec(), field(1, &types), field(2, &raw)].concat();
        assert_eq!(
            read(&body).unwrap(),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "default"}, "data": {"key": "value"}})
        );
        for end in 0..body.len() {
            // Cut short anywhere it is refused or reads as less; it never panics.
            let _refused = read(&body[..end]);
        }
    }

    #[test]
    fn a_field_that_is_not_known_is_refused_instead_of_lost() {
        let types = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
        let body = [MAGIC.to_vec(), field(1, &types), field(2, &field(15, b"x"))].concat();
        assert!(read(&body).unwrap_err().message.contains("field 15 is not known"));
    }

    #[test]
    fn other_kinds_are_refused() {
        let types = [field(1, b"v1"), field(2, b"Pod")].concat();
        assert_eq!(read(&[MAGIC.to_vec(), field(1, &types)].concat()).unwrap_err().code, 415);
        assert_eq!(read(b"{}").unwrap_err().code, 400);
    }
}
