//! Sketches of worlds in, plans out.

use super::*;
use serde_json::{Value, json};

/// A world: a set and its pods, each as `ordinal: state[@revision]`.
struct World {
    set: StatefulSet,
    pods: Vec<Pod>,
    claims: Vec<PersistentVolumeClaim>,
    revisions: Vec<ControllerRevision>,
}

fn set(replicas: i64, change: Value) -> StatefulSet {
    let mut value = json!({"metadata": {"name": "web", "namespace": "default", "uid": "set-uid", "generation": 1}, "spec": {
        "replicas": replicas, "serviceName": "nginx", "selector": {"matchLabels": {"app": "web"}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}});
    merge(&mut value, change);
    serde_json::from_value(value).unwrap()
}

fn merge(into: &mut Value, change: Value) {
    match change {
        Value::Object(fields) => {
            for (key, value) in fields {
                merge(&mut into[&key], value);
            }
        }
        other => *into = other,
    }
}

fn pod(set: &StatefulSet, sketch: &str) -> Pod {
    let (ordinal, rest) = sketch.split_once(':').unwrap();
    let (state, image) = rest.split_once('@').unwrap_or((rest, "v1"));
    let mut older = set.clone();
    older.spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
    let revision = format!("web-{}", revision::hash(&revision::data(&older), 0));
    let (phase, ready) = match state {
        "ready" | "dying" => ("Running", "True"),
        "unready" => ("Running", "False"),
        "failed" => ("Failed", "False"),
        "succeeded" => ("Succeeded", "False"),
        _ => ("Pending", "False"),
    };
    let mut value = json!({"metadata": {"name": format!("web-{ordinal}"), "namespace": "default", "uid": format!("uid-{ordinal}"),
        "labels": {"app": "web", identity::POD_NAME_LABEL: format!("web-{ordinal}"), identity::POD_INDEX_LABEL: ordinal, identity::REVISION_LABEL: revision},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "set-uid", "controller": true}]},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "1970-01-01T00:00:00Z"}]}});
    if state == "dying" {
        value["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:10Z");
    }
    serde_json::from_value(value).unwrap()
}

fn revision_of(set: &StatefulSet, image: &str, number: i64) -> ControllerRevision {
    let mut older = set.clone();
    older.spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
    let name = format!("web-{}", revision::hash(&revision::data(&older), 0));
    serde_json::from_value(json!({"metadata": {"name": name, "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "set-uid", "controller": true}]},
        "data": revision::data(&older), "revision": number})).unwrap()
}

impl World {
    fn new(set: StatefulSet, pods: &[&str]) -> World {
        let pods: Vec<Pod> = pods.iter().map(|sketch| pod(&set, sketch)).collect();
        let claims = pods.iter().map(|pod| serde_json::from_value(json!({"metadata": {"name": format!("data-{}", identity::name(pod)), "uid": format!("claim-{}", identity::name(pod))}})).unwrap()).collect();
        World { set, pods, claims, revisions: Vec::new() }
    }

    fn plan(&self) -> Plan {
        let mut revisions = self.revisions.clone();
        if revisions.is_empty() {
            revisions.push(revision_of(&self.set, "v1", 1));
        }
        plan(&Observed {
            set: &self.set,
            revisions: &revisions,
            pods: &self.pods.iter().collect::<Vec<_>>(),
            claims: &by_name(&self.claims),
            now: Timestamp::from_second(100).unwrap(),
        })
    }
}

fn words(plan: &Plan) -> String {
    let short = |action: &Action| match action {
        Action::CreatePod(pod) => format!(
            "+{}@{}",
            identity::name(pod),
            pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
        ),
        Action::DeletePod { name, .. } => format!("-{name}"),
        Action::CreateClaim { claim, .. } => {
            format!("+claim {}", claim.metadata.name.as_deref().unwrap())
        }
        Action::UpdatePodIdentity { name, .. } => format!("mend {name}"),
        Action::UpdateClaimOwners { name, owners, .. } => format!(
            "own {name} by {}",
            owners.iter().map(|owner| owner.kind.as_str()).collect::<Vec<_>>().join("+")
        ),
        Action::AdoptPod { name, .. } => format!("adopt {name}"),
        Action::ReleasePod { name, .. } => format!("release {name}"),
        Action::CreateRevision(_) => "+revision".to_owned(),
        Action::AdoptRevision { .. } => "adopt revision".to_owned(),
        Action::RenumberRevision { revision, .. } => format!("renumber {revision}"),
        Action::DeleteRevision { .. } => "-revision".to_owned(),
    };
    plan.actions.iter().map(short).collect::<Vec<_>>().join(" ")
}

fn check(replicas: i64, change: Value, pods: &[&str], expected: &str) {
    assert_eq!(words(&World::new(set(replicas, change), pods).plan()), expected, "{pods:?}");
}

fn parallel() -> Value {
    json!({"spec": {"podManagementPolicy": "Parallel"}})
}

fn image(version: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": version}]}}}})
}

/// T1.
#[test]
fn pods_are_made_one_after_the_other() {
    check(3, json!({}), &[], "+claim data-web-0 +web-0@v1");
    check(3, json!({}), &["0:pending"], "");
    check(3, json!({}), &["0:unready"], "");
    check(3, json!({}), &["0:ready"], "+claim data-web-1 +web-1@v1");
    check(3, json!({}), &["0:ready", "1:ready", "2:ready"], "");
}

/// T2, T4.
#[test]
fn a_parallel_set_makes_all_missing_pods_at_once() {
    check(3, parallel(), &["1:unready"], "+claim data-web-0 +web-0@v1 +claim data-web-2 +web-2@v1");
}

/// T3, T4.
#[test]
fn the_lowest_gap_is_filled_first() {
    check(3, json!({}), &["0:ready", "2:ready"], "+claim data-web-1 +web-1@v1");
    check(2, json!({}), &["0:unready"], "");
}

/// T5.
#[test]
fn a_dying_pod_holds_its_name() {
    check(2, json!({}), &["0:ready", "1:dying"], "");
    check(3, parallel(), &["0:ready", "1:dying"], "+claim data-web-2 +web-2@v1");
}

/// T6, T7.
#[test]
fn a_pod_that_ended_is_deleted_once_and_replaced_later() {
    check(2, json!({}), &["0:failed", "1:ready"], "-web-0");
    check(2, json!({}), &["0:succeeded"], "-web-0");
    check(2, parallel(), &["0:failed"], "-web-0 +claim data-web-1 +web-1@v1");
    let mut world = World::new(set(1, json!({})), &["0:failed"]);
    world.pods[0].metadata.deletion_timestamp =
        pod(&world.set, "0:dying").metadata.deletion_timestamp;
    assert_eq!(words(&world.plan()), "");
}

/// T8.
#[test]
fn no_replicas_are_none_but_the_revision_exists() {
    let world = World {
        set: set(0, json!({})),
        pods: Vec::new(),
        claims: Vec::new(),
        revisions: Vec::new(),
    };
    let plan = plan(&Observed {
        set: &world.set,
        revisions: &[],
        pods: &[],
        claims: &Claims::new(),
        now: Timestamp::UNIX_EPOCH,
    });
    assert_eq!(words(&plan), "+revision");
    assert_eq!((plan.status.replicas, plan.status.available_replicas), (0, Some(0)));
    assert_eq!(plan.status.current_revision, plan.status.update_revision);
}

/// T9, T10.
#[test]
fn ordinals_may_start_anywhere() {
    check(
        2,
        json!({"spec": {"ordinals": {"start": 5}}}),
        &["5:ready"],
        "+claim data-web-6 +web-6@v1",
    );
    check(
        3,
        json!({"spec": {"ordinals": {"start": 2}}}),
        &["0:ready", "1:ready", "2:ready", "3:ready", "4:ready"],
        "-web-1",
    );
}

/// T11.
#[test]
fn only_exact_names_are_replicas() {
    let web = set(1, json!({}));
    for (name, wanted) in [
        ("web-0", Some(0)),
        ("web-10", Some(10)),
        ("web-abc", None),
        ("web-01x", None),
        ("web-01", None),
        ("foo-0", None),
        ("web-1-0", None),
        ("web--1", None),
        ("web-99999999999", None),
    ] {
        assert_eq!(identity::ordinal(&web, name), wanted, "{name}");
    }
}

/// T12.
#[test]
fn a_pending_pod_gets_its_lost_claim_back() {
    let mut world = World::new(set(1, json!({})), &["0:pending"]);
    world.claims.clear();
    assert_eq!(words(&world.plan()), "+claim data-web-0");
}

/// T13, T14.
#[test]
fn no_pod_is_made_on_a_claim_that_is_going() {
    let mut world = World::new(set(1, json!({})), &["0:ready"]);
    world.pods.clear();
    world.claims[0].metadata.owner_references = Some(vec![
        serde_json::from_value(
            json!({"apiVersion": "v1", "kind": "Pod", "name": "web-0", "uid": "old"}),
        )
        .unwrap(),
    ]);
    assert_eq!(words(&world.plan()), "");
    assert!(world.plan().problems.is_empty());
    world.claims[0].metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("1970-01-01T00:00:10Z")).unwrap());
    assert_eq!(
        world.plan().problems[0].message,
        "create Pod web-0 in StatefulSet web failed error: pvc data-web-0 is being deleted"
    );
}

/// T15, T16, T17, T18.
#[test]
fn a_new_pod_has_its_identity_and_its_claims() {
    let change = json!({"spec": {"template": {"spec": {"hostname": "x", "volumes": [{"name": "data", "emptyDir": {}}, {"name": "other", "emptyDir": {}}]}}}});
    let world = World {
        set: set(1, change),
        pods: vec![],
        claims: vec![
            serde_json::from_value(
                json!({"metadata": {"name": "data-web-0", "labels": {"mine": "yes"}}}),
            )
            .unwrap(),
        ],
        revisions: vec![],
    };
    let plan = world.plan();
    let Some(Action::CreatePod(pod)) = plan.actions.last() else { panic!("{plan:?}") };
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(
        (spec.hostname.as_deref(), spec.subdomain.as_deref()),
        (Some("web-0"), Some("nginx"))
    );
    let volumes: Vec<(&str, bool)> = spec
        .volumes
        .as_ref()
        .unwrap()
        .iter()
        .map(|v| (v.name.as_str(), v.persistent_volume_claim.is_some()))
        .collect();
    assert_eq!(volumes, [("data", true), ("other", false)]);
    assert!(!words(&plan).contains("claim"), "an existing claim is used as it is");
    let claim = &claims::wanted(&world.set, 0)[0];
    assert_eq!(claim.metadata.labels.as_ref().unwrap().get("app").map(String::as_str), Some("web"));
}

/// T19.
#[test]
fn identifying_labels_are_put_back() {
    let mut world = World::new(set(1, json!({})), &["0:ready"]);
    world.pods[0].metadata.labels.as_mut().unwrap().remove(identity::POD_INDEX_LABEL);
    assert_eq!(words(&world.plan()), "mend web-0");
}

/// T20, T102.
#[test]
fn a_foreign_pod_is_left_alone_and_told() {
    let mut world = World::new(set(1, json!({})), &["0:ready"]);
    world.pods[0].metadata.owner_references.as_mut().unwrap()[0].uid = "other".into();
    let plan = world.plan();
    assert_eq!(words(&plan), "");
    assert_eq!(plan.problems[0].reason, "FailedCreate");
}

/// T30, T32, T33.
#[test]
fn scale_down_goes_from_the_highest_and_waits() {
    check(2, json!({}), &["0:ready", "1:ready", "2:ready", "3:ready", "4:ready"], "-web-4");
    check(2, json!({}), &["0:ready", "1:ready", "2:ready", "3:ready", "4:dying"], "");
    check(2, json!({}), &["0:ready", "1:unready", "2:ready"], "");
    check(2, json!({}), &["0:ready", "1:ready", "2:ready", "3:unready", "4:ready"], "-web-4");
    check(2, json!({}), &["0:ready", "1:ready", "2:ready", "3:unready"], "-web-3");
    check(2, json!({}), &["0:ready", "1:ready", "2:ready", "3:unready", "4:unready"], "");
}

/// T31.
#[test]
fn a_parallel_set_scales_down_at_once() {
    check(
        2,
        parallel(),
        &["0:ready", "1:unready", "2:ready", "3:unready", "4:ready"],
        "-web-4 -web-3 -web-2",
    );
}

/// T35, T36, T40, T42.
#[test]
fn claims_are_owned_as_the_policy_says() {
    let policy = |deleted: &str, scaled: &str| json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled}}});
    let pods = ["0:ready", "1:ready"];
    check(1, policy("Retain", "Retain"), &pods, "-web-1");
    check(
        1,
        policy("Delete", "Retain"),
        &pods,
        "own data-web-0 by StatefulSet own data-web-1 by StatefulSet -web-1",
    );
    check(1, policy("Retain", "Delete"), &pods, "own data-web-1 by Pod -web-1");
    check(
        1,
        policy("Delete", "Delete"),
        &pods,
        "own data-web-0 by StatefulSet own data-web-1 by Pod -web-1",
    );
}

/// T44.
#[test]
fn a_claim_with_another_controller_is_never_touched() {
    let mut world = World::new(
        set(
            1,
            json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"}}}),
        ),
        &["0:ready"],
    );
    world.claims[0].metadata.owner_references = Some(vec![
        serde_json::from_value(
            json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": "x", "controller": true}),
        )
        .unwrap(),
    ]);
    assert_eq!(words(&world.plan()), "");
    assert_eq!(world.plan().problems[0].reason, "ConflictingController");
}

/// T50, T55.
#[test]
fn an_update_goes_from_the_highest_one_at_a_time() {
    check(3, image("v2"), &["0:ready", "1:ready", "2:ready"], "+revision -web-2");
    let mut world = World::new(set(3, image("v2")), &["0:ready@v1", "1:ready@v1", "2:unready@v2"]);
    world.revisions = vec![revision_of(&world.set, "v1", 1), revision_of(&world.set, "v2", 2)];
    assert_eq!(words(&world.plan()), "");
    world.pods[2] = pod(&world.set, "2:ready@v2");
    assert_eq!(words(&world.plan()), "-web-1");
    let mut change = image("v2");
    merge(&mut change, parallel());
    let mut world = World::new(set(3, change), &["0:ready@v1", "1:ready@v1", "2:unready@v1"]);
    world.revisions = vec![revision_of(&world.set, "v1", 1), revision_of(&world.set, "v2", 2)];
    assert_eq!(words(&world.plan()), "-web-2");
}

/// T51, T52, T53.
#[test]
fn more_may_be_unavailable_if_the_set_says_so() {
    let batch = |maximum: Value, policy: &str| {
        let mut change = image("v2");
        merge(
            &mut change,
            json!({"spec": {"podManagementPolicy": policy, "updateStrategy": {"rollingUpdate": {"maxUnavailable": maximum}}}}),
        );
        change
    };
    let five = ["0:ready", "1:ready", "2:ready", "3:ready", "4:ready"];
    check(5, batch(json!(2), "OrderedReady"), &five, "+revision -web-4 -web-3");
    check(5, batch(json!("50%"), "OrderedReady"), &five, "+revision -web-4 -web-3");
    check(
        5,
        batch(json!(2), "Parallel"),
        &["0:ready", "1:unready", "2:ready", "3:ready", "4:ready"],
        "+revision -web-1 -web-4",
    );
}

/// T57, T58.
#[test]
fn a_partition_keeps_lower_ordinals_at_the_current_revision() {
    let mut change = image("v2");
    merge(&mut change, json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}}}));
    let mut world = World::new(set(3, change), &["0:ready@v1", "2:ready@v2"]);
    world.revisions = vec![revision_of(&world.set, "v1", 1), revision_of(&world.set, "v2", 2)];
    world.set.status = Some(StatefulSetStatus {
        current_revision: world.revisions[0].metadata.name.clone(),
        ..Default::default()
    });
    assert_eq!(words(&world.plan()), "+claim data-web-1 +web-1@v1");
    world.pods = vec![pod(&world.set, "0:ready@v1"), pod(&world.set, "1:ready@v1")];
    assert_eq!(words(&world.plan()), "+web-2@v2");
    let status = world.plan().status;
    assert_ne!(status.current_revision, status.update_revision);
}

/// T61.
#[test]
fn on_delete_changes_only_what_is_deleted_by_hand() {
    let mut change = image("v2");
    merge(
        &mut change,
        json!({"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}}),
    );
    let mut world = World::new(set(2, change), &["0:ready@v1", "1:ready@v1"]);
    world.revisions = vec![revision_of(&world.set, "v1", 1), revision_of(&world.set, "v2", 2)];
    assert_eq!(words(&world.plan()), "");
    world.pods.remove(1);
    assert_eq!(words(&world.plan()), "+web-1@v2");
}

/// T62, T90.
#[test]
fn the_status_counts_truly_and_completes_an_update() {
    let mut world = World::new(set(3, image("v2")), &["0:ready@v2", "1:ready@v2", "2:dying@v2"]);
    world.revisions = vec![revision_of(&world.set, "v1", 1), revision_of(&world.set, "v2", 2)];
    world.set.status = Some(StatefulSetStatus {
        current_revision: world.revisions[0].metadata.name.clone(),
        ..Default::default()
    });
    let status = world.plan().status;
    assert_eq!(
        (status.replicas, status.ready_replicas, status.updated_replicas, status.current_replicas),
        (3, Some(3), Some(2), None)
    );
    assert_ne!(status.current_revision, status.update_revision);
    world.pods[2] = pod(&world.set, "2:ready@v2");
    let status = world.plan().status;
    assert_eq!((status.updated_replicas, status.current_replicas), (Some(3), Some(3)));
    assert_eq!(status.current_revision, status.update_revision);
}

/// T91.
#[test]
fn a_pod_counts_as_available_only_after_its_time() {
    let mut world = World::new(set(2, json!({"spec": {"minReadySeconds": 200}})), &["0:ready"]);
    let plan = world.plan();
    assert_eq!(
        (words(&plan).as_str(), plan.status.available_replicas, plan.look_again_after),
        ("", Some(0), Some(Duration::from_secs(201)))
    );
    world.set.spec.min_ready_seconds = Some(50);
    assert_eq!(words(&world.plan()), "+claim data-web-1 +web-1@v1");
}

/// T93.
#[test]
fn a_dying_set_does_nothing() {
    let world = World::new(
        set(3, json!({"metadata": {"deletionTimestamp": "1970-01-01T00:00:10Z"}})),
        &["0:ready"],
    );
    assert_eq!(words(&world.plan()), "");
}

/// T100, T101.
#[test]
fn orphans_that_match_are_adopted_and_strangers_released() {
    let mut world = World::new(set(1, json!({})), &["0:ready"]);
    world.pods[0].metadata.owner_references = None;
    assert_eq!(words(&world.plan()), "adopt web-0");
    let mut world = World::new(set(1, json!({})), &["0:ready"]);
    world.pods[0].metadata.labels.as_mut().unwrap().remove("app");
    assert_eq!(words(&world.plan()), "release web-0");
}

/// T110.
#[test]
fn a_revision_is_named_by_upstreams_hash() {
    assert_ne!(revision::hash(&json!({}), 0), revision::hash(&json!({}), 1));
    assert!(
        revision::hash(&json!({"a": 1}), 0)
            .bytes()
            .all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b))
    );
}

/// T111, T113.
#[test]
fn an_older_template_is_renumbered_and_old_history_cut() {
    let mut world =
        World::new(set(1, json!({"spec": {"revisionHistoryLimit": 1}})), &["0:ready@v1"]);
    world.revisions = vec![
        revision_of(&world.set, "v1", 1),
        revision_of(&world.set, "v2", 2),
        revision_of(&world.set, "v3", 3),
    ];
    assert_eq!(words(&world.plan()), "renumber 4 -revision");
}

/// T34: whatever their revision is.
#[test]
fn condemned_pods_go_whatever_their_revision_is() {
    check(
        1,
        json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 5}}}}),
        &["0:ready", "1:ready@v0"],
        "-web-1",
    );
    check(1, json!({}), &["0:ready", "1:ready@v1"], "-web-1");
}

/// T45: naming decides, not origin.
#[test]
fn a_claim_made_by_hand_goes_with_the_set_as_well() {
    let delete = json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"}}});
    let world = World::new(set(1, delete), &["0:ready"]);
    assert!(world.claims[0].metadata.owner_references.is_none());
    assert_eq!(words(&world.plan()), "own data-web-0 by StatefulSet");
}

/// T60: a partition that was left behind decides, whatever the strategy is.
#[test]
fn a_partition_decides_the_revision_of_new_pods_also_with_on_delete() {
    let left = json!({"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}});
    let mut world = World::new(set(2, left), &[]);
    world.set.spec.template.spec.as_mut().unwrap().containers[0].image = Some("v2".to_owned());
    let old = revision_of(&world.set, "v1", 1);
    world.set.status = Some(
        serde_json::from_value(json!({"replicas": 2, "currentRevision": old.metadata.name}))
            .unwrap(),
    );
    world.revisions = vec![old, revision_of(&world.set, "v2", 2)];
    assert_eq!(words(&world.plan()), "+claim data-web-0 +web-0@v1");
}

/// T59: without a partition, as many low ordinals as are current come back as they were.
#[test]
fn without_a_partition_the_current_replicas_decide_the_revision_of_new_pods() {
    let bare =
        json!({"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": null}}});
    let mut world = World::new(set(2, bare), &[]);
    world.set.spec.template.spec.as_mut().unwrap().containers[0].image = Some("v2".to_owned());
    let old = revision_of(&world.set, "v1", 1);
    for (current, expected) in
        [(1, "+claim data-web-0 +web-0@v1"), (0, "+claim data-web-0 +web-0@v2")]
    {
        let status = json!({"replicas": 2, "currentReplicas": current, "currentRevision": old.metadata.name});
        world.set.status = Some(serde_json::from_value(status).unwrap());
        world.revisions = vec![old.clone(), revision_of(&world.set, "v2", 2)];
        assert_eq!(words(&world.plan()), expected);
    }
}

/// T64, T65: a revision is the template and nothing else.
#[test]
fn only_the_template_makes_a_revision() {
    for change in [
        json!({"spec": {"minReadySeconds": 5}}),
        json!({"spec": {"revisionHistoryLimit": 3}}),
        json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}}}),
        json!({"spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"storageClassName": "other"}}]}}),
    ] {
        let world = World::new(set(1, change.clone()), &["0:ready"]);
        assert!(!words(&world.plan()).contains("revision"), "{change}");
    }
    let mut restarted = World::new(set(1, json!({})), &["0:ready"]);
    restarted.revisions = vec![revision_of(&restarted.set, "v1", 1)];
    let annotations = json!({"kubectl.kubernetes.io/restartedAt": "now"});
    restarted.set.spec.template.metadata.as_mut().unwrap().annotations =
        Some(serde_json::from_value(annotations).unwrap());
    assert_eq!(words(&restarted.plan()), "+revision -web-0");
}

/// T104: an owner is known by its uid, never by its name.
#[test]
fn a_pod_of_a_former_set_of_the_same_name_is_a_stranger() {
    let mut world = World::new(set(1, json!({})), &["0:ready"]);
    world.pods[0].metadata.owner_references.as_mut().unwrap()[0].uid = "former".to_owned();
    let plan = world.plan();
    assert_eq!((words(&plan).as_str(), plan.status.replicas), ("", 0));
    assert_eq!(plan.problems[0].reason, "FailedCreate");
}

/// T112: another's data under our name makes us take another name.
#[test]
fn a_revision_whose_name_is_taken_gets_another() {
    let mut world = World::new(set(1, json!({})), &["0:ready"]);
    let mut taken = revision_of(&world.set, "v1", 1);
    taken.metadata.owner_references.as_mut().unwrap()[0].uid = "another".to_owned();
    world.revisions = vec![taken.clone()];
    let plan = world.plan();
    assert_eq!(plan.status.collision_count, Some(1));
    assert_ne!(plan.status.update_revision, taken.metadata.name);
}

/// T115: a template that an older server has written otherwise is the same template.
#[test]
fn a_revision_is_compared_by_meaning() {
    let mut world = World::new(set(1, json!({})), &["0:ready"]);
    let mut stored = revision_of(&world.set, "v1", 1);
    stored.data.0["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
    world.revisions = vec![stored];
    assert_eq!(words(&world.plan()), "");
}

#[test]
fn conditions_say_what_is_up_what_moves_and_who_is_in_the_way() {
    let said = |world: &World| -> Vec<String> {
        let conditions = world.plan().status.conditions.unwrap();
        conditions
            .iter()
            .map(|c| {
                format!(
                    "{}={} {}: {}",
                    c.type_.as_deref().unwrap(),
                    c.status.as_deref().unwrap(),
                    c.reason.as_deref().unwrap(),
                    c.message.as_deref().unwrap()
                )
            })
            .collect()
    };
    let mut world = World::new(set(2, json!({})), &["0:ready", "1:ready"]);
    assert_eq!(
        said(&world),
        [
            "Available=True AllReplicasAvailable: 2 of 2 replicas are available",
            "Progressing=False Complete: 2 replicas are as wanted",
            "Blocked=False NotBlocked: no pod holds up the set",
        ]
    );
    world.pods.remove(1);
    assert_eq!(
        said(&world)[1],
        "Progressing=True ReplicasChanging: waiting for pod web-1 to be made"
    );
    let mut world = World::new(set(2, json!({})), &["0:pending"]);
    let crashing = json!([{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s restarting failed container"}}}]);
    world.pods[0].status.as_mut().unwrap().container_statuses =
        Some(serde_json::from_value(crashing).unwrap());
    assert_eq!(
        said(&world),
        [
            "Available=False ReplicasUnavailable: 0 of 2 replicas are available",
            "Progressing=False Blocked: container c: back-off 20s restarting failed container",
            "Blocked=True CrashLoopBackOff: pod web-0 holds up the set: container c: back-off 20s restarting failed container",
        ]
    );
}

#[test]
fn a_condition_that_stays_keeps_its_time() {
    let mut world = World::new(set(1, json!({})), &["0:ready"]);
    let first = world.plan().status;
    let mut earlier = first.clone();
    for condition in earlier.conditions.iter_mut().flatten() {
        condition.last_transition_time =
            Some(serde_json::from_value(json!("1970-01-01T00:00:01Z")).unwrap());
    }
    world.set.status = Some(earlier.clone());
    assert_eq!(world.plan().status.conditions, earlier.conditions);
    assert_ne!(first.conditions, earlier.conditions);
}
