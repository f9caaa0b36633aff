//! `/scale`: autoscaling/v1 Scale, read from and written to where the kind says.

use super::Call;
use super::update::Ownership;
use crate::field_manager::check_options;
use crate::registry::{Updated, parse};
use api::patch::{PatchType, apply};
use api::selector::label::LabelSelector;
use api::{ApiError, FieldError, FieldPath, Object};
use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

/// Where a kind keeps what a Scale tells.
pub(super) struct Pointers {
    pub(super) spec_replicas: &'static str,
    pub(super) status_replicas: &'static str,
    pub(super) selector: &'static str,
}

impl Pointers {
    fn read(&self, object: &Object) -> Value {
        let selector = object
            .at(self.selector)
            .and_then(|selector| serde_json::from_value(selector.clone()).ok());
        json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {"name": object.name(), "namespace": object.namespace(), "uid": object.uid(), "resourceVersion": object.resource_version(),
                "creationTimestamp": object.at("/metadata/creationTimestamp")},
            "spec": {"replicas": object.int_at(self.spec_replicas).unwrap_or(0)},
            "status": {"replicas": object.int_at(self.status_replicas).unwrap_or(0), "selector": LabelSelector::of(selector.as_ref()).to_string()}})
    }
}

/// Reads or changes the scale of an object.
pub(super) async fn scale(
    call: &Call<'_>,
    pointers: Pointers,
    verb: &str,
) -> Result<Response<Body>, ApiError> {
    let stored =
        call.server.inner.registry.object(call.kind, &call.info.namespace, &call.info.name).await?;
    let updated = match verb {
        "get" => return call.show_value(200, &pointers.read(&stored)),
        "update" => {
            check_options("UpdateOptions", &call.query, false)?;
            let (scale, _) = call.json()?;
            write(call, &pointers, |_| Ok(scale.clone())).await?
        }
        "patch" if api::patch::is_apply(&call.media_type) => {
            check_options("PatchOptions", &call.query, true)?;
            apply_scale(call, &pointers).await?
        }
        "patch" => {
            check_options("PatchOptions", &call.query, false)?;
            let kind = PatchType::of(&call.media_type)?;
            let (patch, _) = call.json()?;
            let insists = patch.pointer("/metadata/resourceVersion").is_some();
            write(call, &pointers, |object| {
                let mut scale = apply(kind, "", &pointers.read(object), &patch)?;
                if !insists {
                    scale["metadata"]["resourceVersion"] = Value::Null;
                }
                Ok(scale)
            })
            .await?
        }
        _ => return Err(ApiError::method_not_allowed("autoscaling", "scales", verb)),
    };
    call.show_value(200, &pointers.read(&parse(updated.entry())?))
}

async fn write(
    call: &Call<'_>,
    pointers: &Pointers,
    scale: impl Fn(&Object) -> Result<Value, ApiError>,
) -> Result<Updated, ApiError> {
    super::update::change(call, super::Part::Main, Ownership::Compared(call.writer()), |old| {
        let scale = scale(old)?;
        let replicas = wanted(&scale, old.name())?;
        let mut object = old.clone();
        object.set(pointers.spec_replicas, json!(replicas));
        match scale.pointer("/metadata/resourceVersion").and_then(Value::as_str) {
            Some(version) => object.set("/metadata/resourceVersion", json!(version)),
            None => drop(object.remove("/metadata/resourceVersion")),
        }
        Ok(object)
    })
    .await
}

/// How many replicas a Scale asks for.
fn wanted(scale: &Value, name: &str) -> Result<i64, ApiError> {
    let replicas = match &scale["spec"]["replicas"] {
        Value::Null => 0,
        number => number.as_i64().ok_or_else(|| {
            ApiError::bad_request(
                "json: cannot unmarshal into Go struct field ScaleSpec.spec.replicas of type int32",
            )
        })?,
    };
    if (0..=i64::from(i32::MAX)).contains(&replicas) {
        return Ok(replicas);
    }
    let path = FieldPath::new("spec").child("replicas");
    let error = FieldError::invalid(&path, replicas, "must be greater than or equal to 0");
    Err(ApiError::invalid("autoscaling", "Scale", name, &[error]))
}

/// Applies a Scale: the object's replicas are managed by way of this subresource.
async fn apply_scale(call: &Call<'_>, pointers: &Pointers) -> Result<Updated, ApiError> {
    let (scale, _) = super::apply::configuration(call)?;
    let of_a_scale = scale["kind"] == "Scale" && scale["apiVersion"] == "autoscaling/v1";
    if !of_a_scale {
        let text = |field: &str| scale[field].as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let slash = if version.contains('/') { "" } else { "/" };
        return Err(ApiError::bad_request(format!(
            "invalid object type: {slash}{version}, Kind={kind}"
        )));
    }
    let names = &call.kind.names;
    let mut configuration =
        Object::new(json!({"apiVersion": names.api_version(), "kind": names.kind}))
            .map_err(|_| ApiError::internal("an object became none"))?;
    if !scale["spec"]["replicas"].is_null() {
        let replicas = wanted(&scale, &call.info.name)?;
        configuration.set(pointers.spec_replicas, json!(replicas));
    }
    super::apply::replace(call, super::Part::Main, configuration.value()).await
}
