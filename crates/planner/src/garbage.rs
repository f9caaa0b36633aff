//! What goes with its owners. As upstream: `pkg/controller/garbagecollector`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The finalizer of an owner that waits for its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner that lets its dependents go.
pub const ORPHAN: &str = "orphan";

/// What to do with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Stays,
    /// All its owners are gone.
    Goes,
    /// Its dependents are to be deleted first.
    WaitsForDependents,
    /// Its dependents are to be let go first.
    LetsGo,
    /// Nothing holds it any more: this finalizer is to be removed.
    Release(&'static str),
}

/// Decides over an object. `owner_exists` tells of a uid; `dependents` is how many objects name it as owner, of which
/// `blocking` hold it up.
pub fn fate(
    metadata: &ObjectMeta,
    owner_exists: impl Fn(&str) -> bool,
    dependents: usize,
    blocking: usize,
) -> Fate {
    let has = |name: &str| metadata.finalizers.iter().flatten().any(|finalizer| finalizer == name);
    if metadata.deletion_timestamp.is_some() {
        return match (has(ORPHAN), has(FOREGROUND)) {
            (true, _) if dependents > 0 => Fate::LetsGo,
            (true, _) => Fate::Release(ORPHAN),
            (_, true) if blocking > 0 => Fate::WaitsForDependents,
            (_, true) => Fate::Release(FOREGROUND),
            _ => Fate::Stays,
        };
    }
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    if !owners.is_empty() && owners.iter().all(|owner| !owner_exists(&owner.uid)) {
        Fate::Goes
    } else {
        Fate::Stays
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn decided(
        metadata: serde_json::Value,
        owner: bool,
        dependents: usize,
        blocking: usize,
    ) -> Fate {
        fate(&serde_json::from_value(metadata).unwrap(), |_| owner, dependents, blocking)
    }

    #[test]
    fn dependents_go_with_their_last_owner() {
        let owned = json!({"ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "x"}]});
        assert_eq!(decided(owned.clone(), true, 0, 0), Fate::Stays);
        assert_eq!(decided(owned, false, 0, 0), Fate::Goes);
        assert_eq!(decided(json!({}), false, 0, 0), Fate::Stays);
        let dying = |finalizer: &str| json!({"deletionTimestamp": "1970-01-01T00:00:00Z", "finalizers": [finalizer]});
        assert_eq!(decided(dying(FOREGROUND), true, 2, 1), Fate::WaitsForDependents);
        assert_eq!(decided(dying(FOREGROUND), true, 1, 0), Fate::Release(FOREGROUND));
        assert_eq!(decided(dying(ORPHAN), true, 1, 1), Fate::LetsGo);
        assert_eq!(decided(dying(ORPHAN), true, 0, 0), Fate::Release(ORPHAN));
    }
}
