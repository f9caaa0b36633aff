//! Reads protobuf bodies: some subcommands of `kubectl create`, and clients written in Go, send them. Answers are
//! always JSON, which all of them accept.

mod messages;

use api::ApiError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use messages::{Field, MESSAGES, Shape, Type};
use serde_json::{Map, Value, json};

/// What every protobuf body of Kubernetes starts with.
const MAGIC: &[u8] = b"k8s\0";

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

fn message(bytes: &[u8], known: &'static [Field]) -> Result<Map<String, Value>, ApiError> {
    let mut object = Map::new();
    for (number_of, wire) in fields(bytes)? {
        let Some(field) = known.iter().find(|field| field.number == number_of) else {
            // Stored without it, the object would not be what its author wrote.
            return Err(bad(&format!("field {number_of} is not known here; send JSON")));
        };
        match field.shape {
            Shape::Inline => {
                let Wire::Bytes(bytes) = wire else {
                    return Err(bad("a field has the wrong type"));
                };
                object.extend(nested(bytes, field.of)?);
            }
            Shape::Map => {
                let Wire::Bytes(entry) = wire else {
                    return Err(bad("a field has the wrong type"));
                };
                let key = text(part(entry, 1)?)?;
                let value = single(&Wire::Bytes(part(entry, 2)?), field)?;
                let map = object.entry(field.name).or_insert_with(|| json!({}));
                map[key] = value.unwrap_or(Value::Null);
            }
            Shape::List => {
                let value = single(&wire, field)?.unwrap_or(Value::Null);
                if let Some(list) =
                    object.entry(field.name).or_insert_with(|| json!([])).as_array_mut()
                {
                    list.push(value);
                }
            }
            Shape::Pointer | Shape::Plain | Shape::PlainOrAbsent => {
                if let Some(value) = single(&wire, field)? {
                    object.insert(field.name.to_owned(), value);
                }
            }
        }
    }
    Ok(object)
}

fn nested(bytes: &[u8], of: Type) -> Result<Map<String, Value>, ApiError> {
    match of {
        Type::Message(name) => {
            let known = MESSAGES.get(name).ok_or_else(|| bad("a message is not known here"))?;
            message(bytes, known)
        }
        _ => Err(bad("a field has the wrong type")),
    }
}

/// One value; `None` where JSON would not show it. In protobuf an absent value is its type's zero, and a type that is
/// no pointer is written even so.
fn single(wire: &Wire<'_>, field: &Field) -> Result<Option<Value>, ApiError> {
    let absent = |is_zero: bool| is_zero && matches!(field.shape, Shape::PlainOrAbsent);
    let value = match (field.of, wire) {
        (Type::Text, Wire::Bytes(bytes)) if absent(bytes.is_empty()) => return Ok(None),
        (Type::Int, Wire::Number(0)) if absent(true) => return Ok(None),
        (Type::Bool, Wire::Number(0)) if absent(true) => return Ok(None),
        (Type::Text, Wire::Bytes(bytes)) => json!(text(bytes)?),
        (Type::Blob, Wire::Bytes(bytes)) => json!(STANDARD.encode(bytes)),
        (Type::Int, Wire::Number(value)) => json!(value.cast_signed()),
        (Type::Bool, Wire::Number(value)) => json!(*value != 0),
        (Type::Quantity, Wire::Bytes(bytes)) => json!(text(part(bytes, 1)?)?),
        (Type::Raw, Wire::Bytes(bytes)) => serde_json::from_slice(part(bytes, 1)?)
            .map_err(|error| bad(&format!("{} holds no JSON: {error}", field.name)))?,
        (Type::Time, Wire::Bytes(bytes)) => match time(bytes)? {
            Some(time) => json!(time),
            None => return Ok(None),
        },
        (Type::IntOrString, Wire::Bytes(bytes)) => match (number(bytes, 1)?, number(bytes, 2)?) {
            (0, 0) if !matches!(field.shape, Shape::Pointer) => return Ok(None),
            (0, value) => json!(value.cast_signed()),
            _ => json!(text(part(bytes, 3)?)?),
        },
        (Type::Message(_), Wire::Bytes(bytes)) => Value::Object(nested(bytes, field.of)?),
        _ => return Err(bad("a field has the wrong type")),
    };
    Ok(Some(value))
}

/// Seconds and nanoseconds since 1970; nothing for the zero time.
fn time(bytes: &[u8]) -> Result<Option<String>, ApiError> {
    // The zero time of Go is the year 1.
    const ZERO: i64 = -62_135_596_800;
    let (seconds, nanoseconds) = (number(bytes, 1)?.cast_signed(), number(bytes, 2)?.cast_signed());
    if bytes.is_empty() || seconds == ZERO {
        return Ok(None);
    }
    let nanoseconds =
        i32::try_from(nanoseconds).map_err(|_| bad("a time has too many nanoseconds"))?;
    let time =
        jiff::Timestamp::new(seconds, nanoseconds).map_err(|_| bad("a time is out of range"))?;
    Ok(Some(time.to_string()))
}

/// Reads a body.
pub(crate) fn read(body: &[u8]) -> Result<Value, ApiError> {
    let envelope =
        body.strip_prefix(MAGIC).ok_or_else(|| bad("it does not start as Kubernetes' do"))?;
    let type_meta = part(envelope, 1)?;
    let (api_version, kind) = (text(part(type_meta, 1)?)?, text(part(type_meta, 2)?)?);
    let known = messages::of(&api_version, &kind)
        .ok_or_else(|| ApiError::unsupported_media_type(&["application/json"]))?;
    let mut object = message(part(envelope, 2)?, known)?;
    object.insert("apiVersion".to_owned(), json!(api_version));
    object.insert("kind".to_owned(), json!(kind));
    Ok(Value::Object(object))
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

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let types = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &types), field(2, raw)].concat()
    }

    #[test]
    fn what_stands_inline_in_json_is_lifted_and_zeros_mean_what_their_types_say() {
        let secret = field(6, &field(1, b"passwords"));
        let volume = [field(1, b"v"), field(2, &secret)].concat();
        let container = [field(1, b"main"), field(2, b"")].concat();
        let grace = [4 << 3, 0];
        let spec = [field(1, &volume), field(2, &container), grace.to_vec()].concat();
        assert_eq!(
            read(&body("v1", "Pod", &field(2, &spec))).unwrap()["spec"],
            json!({"volumes": [{"name": "v", "secret": {"secretName": "passwords"}}],
                "containers": [{"name": "main"}],
                "terminationGracePeriodSeconds": 0})
        );
    }

    #[test]
    fn other_kinds_are_refused() {
        assert_eq!(read(&body("example.com/v1", "Thing", b"")).unwrap_err().code, 415);
        assert_eq!(read(&body("v2", "Pod", b"")).unwrap_err().code, 415);
        assert_eq!(read(b"{}").unwrap_err().code, 400);
    }
}
