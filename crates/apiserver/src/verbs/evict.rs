//! Eviction: a deletion that PodDisruptionBudgets have a say in. As upstream:
//! `pkg/registry/core/pod/storage/eviction.go`.

use super::delete::{Options, remove_with};
use super::{Call, timestamp};
use crate::registry::{parse, prefix, store_error};
use api::selector::label::LabelSelector;
use api::{ApiError, Kind, Object};
use axum::body::Body;
use http::Response;
use serde_json::{Value, json};
use store::Page;

/// How often it is tried again when a pod or a budget changes meanwhile. As upstream: EvictionsRetry.
const TRIES: usize = 20;
/// So many evictions may wait to be seen by the controller of budgets. As upstream: MaxDisruptedPodSize.
const UNSEEN_MAX: usize = 2000;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// What a budget says to the eviction of a pod.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// It does not count against the budget; the pod goes if it is still as it was seen.
    Uncounted,
    /// It counts: the budget's object as it is then.
    Counted(Object),
}

/// Evicts a pod.
pub(super) async fn evict(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let (eviction, _) = call.json()?;
    let name = eviction.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    if name != call.info.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = Options::read(eviction.get("deleteOptions").unwrap_or(&json!({})), call)?;
    evicted(call, &options).await?;
    call.show_value(201, &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}))
}

async fn evicted(call: &Call<'_>, options: &Options) -> Result<(), ApiError> {
    let registry = &call.server.inner.registry;
    let mut conflict = ApiError::internal("the pod changes all the time");
    for _ in 0..TRIES {
        let pod = registry.object(call.kind, &call.info.namespace, &call.info.name).await?;
        if !is_no_loss(&pod) {
            return by_budget(call, options, &pod).await;
        }
        // A pod that has not begun may become ready meanwhile, and then it counts.
        let has_ended = pod.str_at("/status/phase") != "Pending" || pod.is_terminating();
        match delete(call, options, (!has_ended).then_some(&pod)).await {
            Err(error) if error.reason == "Conflict" && options.resource_version.is_none() => {
                conflict = error;
            }
            other => return other,
        }
    }
    Err(conflict)
}

/// Evicts a pod that counts, if its budget has nothing against it.
async fn by_budget(call: &Call<'_>, options: &Options, pod: &Object) -> Result<(), ApiError> {
    let registry = &call.server.inner.registry;
    let kind = call
        .server
        .kind("policy", "v1", "poddisruptionbudgets")
        .ok_or_else(ApiError::unknown_path)?;
    let Some(budget) = the_budget(call, kind, pod).await? else {
        return delete(call, options, None).await;
    };
    let now = timestamp();
    // Dry or not, the budget is asked; only a real eviction is counted.
    if judge(&budget, pod, &now)? == Verdict::Uncounted {
        return delete(call, options, Some(pod)).await.map_err(|error| {
            if error.reason == "Conflict" && options.resource_version.is_none() {
                being_processed(budget.name())
            } else {
                error
            }
        });
    }
    let count =
        registry.update(
            kind,
            pod.namespace(),
            budget.name(),
            options.dry_run,
            |budget| match judge(budget, pod, &now)? {
                Verdict::Counted(after) => Ok(after),
                Verdict::Uncounted => Ok(budget.clone()),
            },
        );
    count.await?;
    delete(call, options, None).await
}

/// Deletes the pod, if it is still the one that was `seen`, and says in it why.
async fn delete(call: &Call<'_>, options: &Options, seen: Option<&Object>) -> Result<(), ApiError> {
    let mut options = options.clone();
    if let (Some(seen), None) = (seen, &options.resource_version) {
        options.resource_version = Some(seen.resource_version().to_owned());
    }
    let now = timestamp();
    remove_with(call, (&call.info.namespace, &call.info.name), &options, |pod| {
        let before = pod.list_at("/status/conditions");
        let target = before.iter().find(|c| c["type"] == "DisruptionTarget" && c["status"] == "True");
        let since = target.map_or(&now, |condition| &condition["lastTransitionTime"]);
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
            "lastProbeTime": null, "lastTransitionTime": since});
        let others = before.iter().filter(|condition| condition["type"] != "DisruptionTarget");
        let conditions: Vec<Value> = others.cloned().chain([condition]).collect();
        pod.set("/status/conditions", json!(conditions));
    })
    .await
    .map(drop)
}

/// A pod that does nothing for anybody: it has ended, has not begun, or is about to go.
fn is_no_loss(pod: &Object) -> bool {
    ["Succeeded", "Failed", "Pending"].contains(&pod.str_at("/status/phase"))
        || pod.is_terminating()
}

/// The budget of a pod, if there is one; two are more than an eviction can serve.
async fn the_budget(
    call: &Call<'_>,
    kind: &Kind,
    pod: &Object,
) -> Result<Option<Object>, ApiError> {
    let store = &call.server.inner.registry.store;
    let listing = store.list(&prefix(kind, pod.namespace()), Page::default()).await;
    let mut covering = Vec::new();
    for entry in listing.map_err(store_error)?.entries {
        let budget = parse(&entry)?;
        if covers(&budget, pod) {
            covering.push(budget);
        }
    }
    if covering.len() > 1 {
        let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(ApiError { message: message.to_owned(), ..ApiError::internal("") });
    }
    Ok(covering.pop())
}

fn covers(budget: &Object, pod: &Object) -> bool {
    let selector = budget.at("/spec/selector").cloned();
    let selector = selector.and_then(|selector| serde_json::from_value(selector).ok());
    LabelSelector::of(selector.as_ref()).matches_lookup(|key| pod.label(key))
}

fn being_processed(name: &str) -> ApiError {
    let why = format!("The disruption budget {name} is still being processed by the server.");
    ApiError::too_many_requests(REFUSED).with_cause("DisruptionBudget", &why, 10)
}

/// What a budget says. An error is the refusal.
fn judge(budget: &Object, pod: &Object, now: &Value) -> Result<Verdict, ApiError> {
    let count = |field: &str| budget.int_at(&format!("/status/{field}")).unwrap_or(0);
    let (healthy, wanted) = (count("currentHealthy"), count("desiredHealthy"));
    let conditions = pod.list_at("/status/conditions");
    let is_ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
    let always = budget.str_at("/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow";
    if !is_ready && (always || healthy >= wanted && wanted > 0) {
        return Ok(Verdict::Uncounted);
    }
    if count("observedGeneration") < budget.generation() {
        return Err(being_processed(budget.name()));
    }
    let forbidden =
        |why: &str| Err(ApiError::forbidden("policy", "poddisruptionbudget", budget.name(), why));
    let allowed = count("disruptionsAllowed");
    let unseen = budget.at("/status/disruptedPods").and_then(Value::as_object);
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if unseen.is_some_and(|pods| pods.len() > UNSEEN_MAX) {
        return forbidden(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        );
    }
    if allowed == 0 {
        let why = refusal(budget, healthy, wanted);
        return Err(ApiError::too_many_requests(REFUSED).with_cause("DisruptionBudget", &why, 0));
    }
    let mut after = budget.clone();
    after.set("/status/disruptionsAllowed", json!(allowed - 1));
    let mut disrupted = unseen.cloned().unwrap_or_default();
    disrupted.insert(pod.name().to_owned(), now.clone());
    after.set("/status/disruptedPods", Value::Object(disrupted));
    if allowed == 1 {
        after.set("/status/conditions", exhausted(budget, now));
    }
    after.remove("/metadata/resourceVersion");
    Ok(Verdict::Counted(after))
}

fn condition(budget: &Object) -> Option<&Value> {
    let conditions = budget.list_at("/status/conditions");
    conditions.iter().find(|condition| condition["type"] == "DisruptionAllowed")
}

/// Why nothing is allowed, in upstream's words.
fn refusal(budget: &Object, healthy: i64, wanted: i64) -> String {
    let name = budget.name();
    let text = |field: &str| {
        let closed = condition(budget).filter(|condition| condition["status"] == "False");
        closed.and_then(|condition| condition[field].as_str()).unwrap_or_default()
    };
    match (text("reason"), text("message")) {
        ("SyncFailed", message) if !message.is_empty() => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {message}"
        ),
        _ if healthy <= wanted => format!(
            "The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently"
        ),
        (reason, message) if !message.is_empty() => format!(
            "The disruption budget {name} does not allow evicting pods currently ({reason}): {message}"
        ),
        _ => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

/// The conditions when the last eviction that was allowed is made.
fn exhausted(budget: &Object, now: &Value) -> Value {
    let closed = condition(budget).filter(|condition| condition["status"] == "False");
    let since = closed.map_or(now, |condition| &condition["lastTransitionTime"]);
    json!([{"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
        "lastTransitionTime": since, "observedGeneration": budget.int_at("/status/observedGeneration").unwrap_or(0)}])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(status: Value) -> Object {
        Object::new(
            json!({"metadata": {"name": "b", "generation": 1}, "spec": {}, "status": status}),
        )
        .unwrap()
    }

    fn pod(ready: bool) -> Object {
        let ready = if ready { "True" } else { "False" };
        Object::new(json!({"metadata": {"name": "p"}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}})).unwrap()
    }

    fn open(allowed: i64) -> Object {
        budget(
            json!({"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 3, "desiredHealthy": 3 - allowed}),
        )
    }

    fn why(budget: &Object, pod: &Object) -> (u16, String) {
        let error = judge(budget, pod, &json!("now")).unwrap_err();
        let details = error.details.clone().unwrap_or_default();
        (error.code, details["causes"][0]["message"].as_str().unwrap_or(&error.message).to_owned())
    }

    #[test]
    fn an_eviction_counts_down_what_is_allowed() {
        let Verdict::Counted(after) = judge(&open(2), &pod(true), &json!("now")).unwrap() else {
            panic!("a ready pod counts");
        };
        assert_eq!(after.int_at("/status/disruptionsAllowed"), Some(1));
        assert_eq!(after.at("/status/disruptedPods"), Some(&json!({"p": "now"})));
        assert_eq!(after.at("/status/conditions"), None);
        let Verdict::Counted(after) = judge(&open(1), &pod(true), &json!("now")).unwrap() else {
            panic!("a ready pod counts");
        };
        assert_eq!(after.str_at("/status/conditions/0/reason"), "InsufficientPods");
    }

    #[test]
    fn what_is_refused_is_told_in_upstreams_words() {
        assert_eq!(
            why(&open(0), &pod(true)),
            (429, "The disruption budget b needs 3 healthy pods and has 3 currently".to_owned())
        );
        let mut unseen = open(1);
        unseen.set("/metadata/generation", json!(2));
        assert_eq!(
            why(&unseen, &pod(true)),
            (429, "The disruption budget b is still being processed by the server.".to_owned())
        );
        let mut failed = open(0);
        failed.set("/status/conditions", json!([{"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "found no controllers for pod \"p\""}]));
        assert_eq!(
            why(&failed, &pod(true)).1,
            "The disruption budget b does not allow evicting pods currently because it failed sync: found no controllers for pod \"p\""
        );
        assert_eq!(why(&open(-1), &pod(true)).0, 403);
        let many: serde_json::Map<String, Value> =
            (0..=UNSEEN_MAX).map(|n| (n.to_string(), json!("now"))).collect();
        let mut full = open(1);
        full.set("/status/disruptedPods", Value::Object(many));
        assert_eq!(why(&full, &pod(true)).0, 403);
    }

    #[test]
    fn a_pod_that_is_not_ready_goes_when_the_rest_is_well_or_always() {
        assert_eq!(judge(&open(0), &pod(false), &json!("now")).unwrap(), Verdict::Uncounted);
        let ill = budget(
            json!({"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 2}),
        );
        assert_eq!(why(&ill, &pod(false)).0, 429);
        let mut always = ill;
        always.set("/spec/unhealthyPodEvictionPolicy", json!("AlwaysAllow"));
        assert_eq!(judge(&always, &pod(false), &json!("now")).unwrap(), Verdict::Uncounted);
    }
}
