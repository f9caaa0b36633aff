//! [`Kind`]: everything the API server has to know about one kind of resource, in one place.

use crate::decode::Decoded;
use crate::field_path::FieldError;
use crate::object::Object;
use crate::status_error::ApiError;
use jiff::Timestamp;
use serde_json::Value;

/// Everything the API server has to know about one kind of resource.
///
/// A kind is a value: no code anywhere matches on a kind's name, so that kinds can be added at run time.
#[derive(Debug)]
pub struct Kind {
    /// Group, version, kind and the names users type.
    pub names: Names,
    /// Whether objects live in a namespace.
    pub scope: Scope,
    /// What can be addressed below an object, besides the object itself.
    pub subresources: &'static [Subresource],
    /// The verbs that discovery offers on the main resource, in discovery's (alphabetical) order.
    pub verbs: &'static [&'static str],
    /// Whether a deletion waits for somebody who ends what runs.
    pub deletion: Deletion,
    /// Reads a client's JSON as this kind's type: drops what the type does not know (and reports it), refuses
    /// values of a wrong type. Usually `decode::typed::<T>`.
    pub decode: fn(Value) -> Result<Decoded, ApiError>,
    /// Fills in what the client left out. As upstream: `SetDefaults_*`. Idempotent.
    pub default: fn(&mut Object),
    /// What a client may not set, and when the generation moves.
    pub prepare: Prepare,
    /// What is refused with 422.
    pub validate: Validate,
    /// What `kubectl get` prints. As upstream: `pkg/printers/internalversion/printers.go`.
    pub columns: &'static [Column],
    /// Fields that a field selector may name, besides `metadata.name` and `metadata.namespace`.
    pub selectable_fields: &'static [SelectableField],
    /// Which fields are acted upon. A field that no row names (itself or by an ancestor) is honoured.
    pub fields: &'static [FieldSupport],
    /// The OpenAPI definition, e.g. `io.k8s.api.apps.v1.StatefulSet`. Also the entry into the merge keys of
    /// strategic merge patch (`patch::strategic`).
    pub definition: &'static str,
    /// Adds this kind's definitions to `generator`.
    pub schema: fn(&mut schemars::SchemaGenerator),
}

/// The names of a kind.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// API group; empty for core.
    pub group: &'static str,
    /// API version, e.g. `v1`.
    pub version: &'static str,
    /// Kind, e.g. `StatefulSet`.
    pub kind: &'static str,
    /// Resource, e.g. `statefulsets`.
    pub plural: &'static str,
    /// Singular, e.g. `statefulset`.
    pub singular: &'static str,
    /// Short names, e.g. `sts`.
    pub short: &'static [&'static str],
    /// Categories, e.g. `all`.
    pub categories: &'static [&'static str],
}

impl Names {
    /// Returns `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.into()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Returns `pods` or `statefulsets.apps`, as error messages name the resource.
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.into()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}

/// Whether a kind lives in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Objects belong to a namespace.
    Namespaced,
    /// Objects belong to the cluster.
    Cluster,
}

/// How objects are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// At once, when no finalizer is left.
    Immediate,
    /// As `Immediate`; what the object owns is let go unless the client says otherwise. Only for Jobs, whose first
    /// clients expected so. As upstream: `rest.OrphanDependents` in `pkg/registry/batch/job/strategy.go`.
    Orphaning,
    /// After `spec.terminationGracePeriodSeconds`, by the node that `spec.nodeName` names; at once when there is none.
    Graceful,
}

/// What can be addressed below an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subresource {
    /// `/status`: the whole object, of which only the status is taken (get, patch, update).
    Status,
    /// `/scale`: autoscaling/v1 Scale read from and written to these JSON pointers, e.g. `/spec/replicas`.
    Scale {
        /// JSON pointer of the wanted replicas.
        spec_replicas: &'static str,
        /// JSON pointer of the observed replicas.
        status_replicas: &'static str,
        /// JSON pointer of the label selector (a LabelSelector).
        selector: &'static str,
    },
    /// `/binding` (create).
    Binding,
    /// `/eviction` (create).
    Eviction,
    /// `/log` (get), forwarded to the pod's node.
    Log,
    /// `/exec` (get, create), forwarded to the pod's node.
    Exec,
    /// `/attach` (get, create), forwarded to the pod's node.
    Attach,
    /// `/portforward` (get, create), forwarded to the pod's node.
    PortForward,
    /// `/finalize` (update), of namespaces.
    Finalize,
}

/// What a client may not set, and when the generation moves. As upstream: the `strategy.go` of each kind.
#[derive(Debug, Clone, Copy)]
pub struct Prepare {
    /// Before a create: clears the status, sets the first generation.
    pub create: fn(&mut Object),
    /// Before an update of the main resource, given the stored object: takes the old status back, raises the
    /// generation when the spec differs.
    pub update: fn(&mut Object, &Object),
    /// Before an update of `/status`, given the stored object: takes everything but the status back.
    pub update_status: fn(&mut Object, &Object),
}

/// What is refused with 422 Invalid. Metadata (names, labels, annotations, owner references, immutability) is checked
/// for every kind by `metadata::validate` and needs no mention here.
#[derive(Debug, Clone, Copy)]
pub struct Validate {
    /// Which names are legal.
    pub name: fn(&str) -> Vec<String>,
    /// On create.
    pub create: fn(&Object) -> Vec<FieldError>,
    /// On update of the main resource: new object, stored object.
    pub update: fn(&Object, &Object) -> Vec<FieldError>,
    /// On update of `/status`: new object, stored object.
    pub update_status: fn(&Object, &Object) -> Vec<FieldError>,
}

/// One column of `kubectl get`.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Heading as upstream writes it, e.g. `Ready` (kubectl puts it in capitals).
    pub name: &'static str,
    /// `string`, `integer`, `date` …
    pub kind: &'static str,
    /// `name` for the name column, else empty.
    pub format: &'static str,
    /// 0: always; 1: with `-o wide`.
    pub priority: i32,
    /// Shown by API documentation.
    pub description: &'static str,
    /// The cell's value. The second argument is now, for ages.
    pub cell: fn(&Object, Timestamp) -> Value,
}

/// A field that a field selector may name.
#[derive(Debug, Clone, Copy)]
pub struct SelectableField {
    /// e.g. `spec.nodeName`.
    pub name: &'static str,
    /// Its value; empty when absent.
    pub value: fn(&Object) -> String,
}

/// How far a field is honoured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldSupport {
    /// Dotted path without indices, e.g. `spec.template.spec.hostPID`.
    pub path: &'static str,
    /// What happens to it.
    pub support: Support,
    /// Why; shown in the compatibility table.
    pub why: &'static str,
}

/// How far a field is honoured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Kept and served, not acted upon; using it is answered with a `Warning` header.
    StoredOnly,
    /// Kept, served, and rightly without effect here: nothing on one machine could act on it. No warning.
    NoEffect,
    /// Refused with 422.
    Refused,
}
