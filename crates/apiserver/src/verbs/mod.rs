//! One file a verb.

mod apply;
pub(crate) mod create;
mod delete;
mod evict;
mod get;
mod list;
mod patch;
mod scale;
mod update;
mod watch;

use crate::ApiServer;
use crate::field_manager::FieldManager;
use crate::negotiation::Form;
use crate::registry::parse;
use crate::request_info::{Query, ResourceRequest};
use api::kind::Subresource;
use api::patch::apply::Writer;
use api::{ApiError, Kind, Object, table};
use axum::body::Body;
use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};
use store::Entry;

/// A request for resources, understood and permitted.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) server: &'a ApiServer,
    pub(crate) kind: &'static Kind,
    pub(crate) info: ResourceRequest,
    pub(crate) query: Query,
    pub(crate) form: Form,
    pub(crate) media_type: String,
    pub(crate) body: Bytes,
    pub(crate) manager: FieldManager,
}

/// Which part of an object a write is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the status.
    Main,
    /// The status.
    Status,
    /// The finalizers of the spec.
    Finalize,
}

/// Does what is asked for.
pub(crate) async fn carry_out(
    call: Call<'_>,
    subresource: Option<&Subresource>,
) -> Result<Response<Body>, ApiError> {
    let unsupported = || {
        ApiError::method_not_allowed(call.kind.names.group, call.kind.names.plural, call.info.verb)
    };
    match (subresource, call.info.verb) {
        (None, "get") | (Some(Subresource::Status), "get") => get::get(&call).await,
        (None, "list") => list::list(&call).await,
        (None, "watch") => watch::watch(&call).await,
        (None, "create") => create::create(&call).await,
        (None, "update") => update::update(&call, Part::Main).await,
        (None, "patch") => patch::patch(&call, Part::Main).await,
        (None, "delete") => delete::delete(&call).await,
        (None, "deletecollection") => delete::delete_collection(&call).await,
        (Some(Subresource::Status), "update") => update::update(&call, Part::Status).await,
        (Some(Subresource::Status), "patch") => patch::patch(&call, Part::Status).await,
        (Some(Subresource::Finalize), "update") => update::update(&call, Part::Finalize).await,
        (Some(Subresource::Scale { spec_replicas, status_replicas, selector }), verb) => {
            scale::scale(&call, scale::Pointers { spec_replicas, status_replicas, selector }, verb)
                .await
        }
        (Some(Subresource::Binding), "create") => create::bind(&call).await,
        (Some(Subresource::Eviction), "create") => evict::evict(&call).await,
        _ => Err(unsupported()),
    }
}

impl Call<'_> {
    /// The body as JSON, and which of its fields stand twice.
    fn json(&self) -> Result<(Value, Vec<String>), ApiError> {
        if self.body.is_empty() {
            return Err(ApiError::bad_request(
                "the object provided is unrecognized (must be of type Object): couldn't get version/kind; json parse error: unexpected end of JSON input ({})",
            ));
        }
        let media = self.media_type.split(';').next().unwrap_or_default().trim();
        let known = ["", "application/json", "application/vnd.kubernetes.protobuf"];
        if !known.contains(&media) && !api::patch::MEDIA_TYPES.contains(&media) {
            return Err(ApiError::unsupported_media_type(&["application/json"]));
        }
        if media == "application/vnd.kubernetes.protobuf" {
            return Ok((crate::protobuf::read(&self.body)?, Vec::new()));
        }
        api::decode::parse_json(&self.body)
    }

    /// As whom the call writes.
    fn writer(&self) -> Writer<'_> {
        Writer {
            manager: &self.manager.name,
            subresource: &self.info.subresource,
            now: now(),
            tracks_creations: !self.manager.is_inside,
        }
    }

    /// Whether fields that others manage are taken over.
    fn forces(&self) -> bool {
        self.query.flag("force").unwrap_or(false)
    }

    fn dry_run(&self) -> Result<bool, ApiError> {
        match self.query.get("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(ApiError::bad_request(format!("Invalid value: {other:?}: must be 'All'"))),
        }
    }

    /// Warnings about fields that are kept but not acted upon. Parts of this process know that, and are spared the reading.
    fn unhonoured(&self, entry: &Entry) -> Result<Vec<String>, ApiError> {
        if self.manager.is_inside {
            return Ok(Vec::new());
        }
        Ok(unhonoured(self.kind, &parse(entry)?))
    }

    /// An object in the form that was asked for.
    fn show(&self, code: u16, entry: &Entry) -> Result<Response<Body>, ApiError> {
        match self.form {
            Form::Object => crate::serve::json(code, entry.bytes.clone()),
            Form::Metadata => self.show_value(code, &table::partial_metadata(&parse(entry)?)),
            Form::Table(include) => {
                let object = parse(entry)?;
                let metadata = json!({"resourceVersion": object.resource_version()});
                self.show_value(
                    code,
                    &table::render(self.kind, &[object], metadata, include, now()),
                )
            }
        }
    }

    fn show_value(&self, code: u16, value: &Value) -> Result<Response<Body>, ApiError> {
        crate::serve::json(code, serde_json::to_vec(value).map_err(ApiError::internal)?.into())
    }
}

/// Reads a client's object as its kind's type; what it does not know is refused, warned about or dropped, as the
/// client wishes. Returns the object and the warnings.
pub(crate) fn decode(
    kind: &Kind,
    mut value: Value,
    duplicates: &[String],
    validation: &str,
) -> Result<(Object, Vec<String>), ApiError> {
    let Value::Object(fields) = &mut value else {
        return Err(ApiError::bad_request(
            "the object provided is unrecognized (must be of type Object): expected a JSON object",
        ));
    };
    for (field, wanted) in
        [("kind", kind.names.kind.to_owned()), ("apiVersion", kind.names.api_version())]
    {
        match fields.get(field).and_then(Value::as_str) {
            None | Some("") => drop(fields.insert(field.to_owned(), Value::String(wanted))),
            Some(given) if given == wanted => {}
            Some(given) => {
                let what = if field == "kind" { "kind" } else { "API version" };
                return Err(ApiError::bad_request(format!(
                    "the {what} in the data ({given}) does not match the expected {what} ({wanted})"
                )));
            }
        }
    }
    let decoded = (kind.decode)(value)?;
    let mut findings: Vec<String> =
        duplicates.iter().map(|path| format!("duplicate field {path:?}")).collect();
    findings.extend(decoded.unknown_fields.iter().map(|path| format!("unknown field {path:?}")));
    let object =
        Object::new(decoded.value).map_err(|_| ApiError::bad_request("expected a JSON object"))?;
    match validation {
        "Strict" if !findings.is_empty() => {
            let name = kind.names.kind;
            Err(ApiError::bad_request(format!(
                "{name} in version {:?} cannot be handled as a {name}: strict decoding error: {}",
                kind.names.version,
                findings.join(", ")
            )))
        }
        "Ignore" => Ok((object, Vec::new())),
        "" | "Strict" | "Warn" => Ok((object, findings)),
        other => Err(ApiError::bad_request(format!(
            "Invalid value: {other:?}: fieldValidation must be one of Ignore, Warn, Strict"
        ))),
    }
}

fn unhonoured(kind: &Kind, object: &Object) -> Vec<String> {
    let mut warnings = Vec::new();
    for field in kind.fields.iter().filter(|field| field.support == api::kind::Support::StoredOnly)
    {
        let path: Vec<&str> = field.path.split('.').collect();
        if has(object.value(), &path) {
            warnings.push(format!("{}: stored but not acted upon: {}", field.path, field.why));
        }
    }
    warnings
}

fn has(value: &Value, path: &[&str]) -> bool {
    match (value, path) {
        (Value::Array(list), _) => list.iter().any(|element| has(element, path)),
        (Value::Null | Value::Bool(false), []) => false,
        (_, []) => true,
        (Value::Object(fields), [first, rest @ ..]) => {
            fields.get(*first).is_some_and(|value| has(value, rest))
        }
        _ => false,
    }
}

pub(crate) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// As metav1.Time writes it: whole seconds.
pub(crate) fn timestamp() -> Value {
    json!(jiff::Timestamp::from_second(now().as_second()).unwrap_or_default().to_string())
}
