//! What troubles mean for sets (G3 to G6).

use super::*;
use crate::diagnose::is_awaited;
use crate::finding::Severity;
use crate::observed::Workload;
use crate::subject::Target;

/// G3.
#[test]
fn leftover_claims_are_those_of_no_wanted_ordinal() {
    let names = [
        "data-web-0",
        "data-web-1",
        "data-web-2",
        "data-web-01",
        "data-web-x",
        "data-foo-web-3",
        "data-web-1-5",
        "data-old-0",
        "mine-9",
    ];
    let claims: Vec<Value> = names
        .iter()
        .map(|name| claim(name, json!({"status": {"capacity": {"storage": "5Gi"}}})))
        .collect();
    let mut claims = claims;
    claims.push(claim("data-bare-0", json!({"metadata": {"labels": null}})));
    claims.push(claim("data-web-5", json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "x"}]}})));
    let pods: Vec<Value> = ["web", "foo-web", "web-1"]
        .iter()
        .flat_map(|set| (0..2).map(|ordinal| pod(set, ordinal, json!({}))))
        .collect();
    let sets = json!([
        set("web", json!({})),
        set("foo-web", json!({"spec": {"replicas": 4}})),
        set("web-1", json!({}))
    ]);
    let diagnosis = told(json!({"sets": sets, "pods": pods, "claims": claims}));
    let leftovers: Vec<&Finding> =
        diagnosis.findings.iter().filter(|finding| finding.rule == "leftover-claims").collect();
    let all: Vec<&str> = leftovers.iter().flat_map(|finding| commands(finding)).collect();
    assert_eq!(
        all,
        [
            "kubectl delete pvc -n n data-web-2",
            "kubectl delete pvc -n n data-web-1-5",
            "kubectl delete pvc -n n data-old-0"
        ]
    );
    assert!(seen(leftovers[0], "claim data-web-2: 5Gi, 60m old"));
    assert!(leftovers[2].summary.contains("belongs to no set"));
}

/// G3.
#[test]
fn a_claim_of_two_readings_or_in_use_is_left_alone() {
    // `data-foo` of web and `data` of foo-web make the same name.
    let double = set(
        "web",
        json!({"spec": {"replicas": 1, "volumeClaimTemplates": [{"metadata": {"name": "data-foo"}, "spec": {}}]}}),
    );
    let world = json!({"sets": [double, set("foo-web", json!({}))], "claims": [claim("data-foo-web-1", json!({}))],
        "pods": [pod("web", 0, json!({})), pod("foo-web", 0, json!({})), pod("foo-web", 1, json!({}))]});
    assert_eq!(rules(world), Vec::<&str>::new());
    let using = json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data-web-7"}}]}});
    let world = json!({"sets": [set("web", json!({}))], "pods": [pod("web", 0, json!({})), pod("web", 1, using)], "claims": [claim("data-web-7", json!({}))]});
    assert_eq!(rules(world), Vec::<&str>::new());
    let mut seen = observed(
        json!({"sets": [set("web", json!({}))], "pods": [pod("web", 0, json!({})), pod("web", 1, json!({}))], "claims": [claim("data-app-0", json!({}))]}),
    );
    let spec = json!({"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data-app-0"}}]});
    let metadata = serde_json::from_value(json!({"name": "app", "namespace": "n"})).unwrap();
    seen.workloads = Some(vec![Workload {
        kind: "Deployment",
        metadata,
        pod: serde_json::from_value(spec).unwrap(),
        ..Workload::default()
    }]);
    assert!(diagnose(&seen, &everything()).healthy, "a Deployment without pods may want it again");
}

/// G4.
#[test]
fn replicas_that_start_before_their_primary_are_told_of_parallel() {
    let starting = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{"name": "main", "image": "", "imageID": "", "containerID": "c", "ready": false, "restartCount": 0, "state": {"running": {"startedAt": LATELY}}}]},
        "metadata": {"creationTimestamp": LATELY}});
    let world = |policy: &str, first: Value| {
        json!({"sets": [set("web", json!({"spec": {"replicas": 3, "podManagementPolicy": policy}}))],
            "pods": [pod("web", 0, first), pod("web", 1, crashing(1, "Error")), pod("web", 2, crashing(1, "Error"))],
            "logs": {"web-1": "connection to server at \"web-0.web\" failed: Connection refused", "web-2": "Connection refused"}})
    };
    let diagnosis = told(world("Parallel", starting.clone()));
    let first = &diagnosis.findings[0];
    assert_eq!(
        (first.rule, first.also.as_slice()),
        ("out-of-order", ["web-2".to_owned()].as_slice())
    );
    assert_eq!(
        first.summary,
        "web-1 started before web-0 was Ready, and crashes: web-0 does not answer"
    );
    assert_eq!(commands(first)[1], "kubectl delete pod -n n web-1 web-2");
    assert!(commands(first)[0].contains("sed 's/^  podManagementPolicy: Parallel$/  podManagementPolicy: OrderedReady/' | kubectl replace --force --cascade=orphan -f -"));
    let late = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:59:58Z"}]}});
    assert_eq!(rules(world("Parallel", late)), ["out-of-order"]);
    assert_eq!(
        rules(world("Parallel", json!({}))),
        ["peer-unreachable"],
        "web-0 was Ready long before the crash"
    );
    assert_eq!(
        rules(world("Parallel", crashing(127, "Error"))),
        ["crash", "peer-unreachable"],
        "web-0's own trouble is the cause"
    );
    let healthy = json!({"sets": [set("web", json!({"spec": {"podManagementPolicy": "Parallel"}}))], "pods": [pod("web", 0, json!({})), pod("web", 1, json!({}))]});
    let asked =
        Subject { namespace: Some("n".to_owned()), target: Some(Target::Set("web".to_owned())) };
    let diagnosis = diagnose(&observed(healthy.clone()), &asked);
    assert!(
        diagnosis.healthy && diagnosis.notes[0].contains("podManagementPolicy: Parallel"),
        "{diagnosis:#?}"
    );
    assert!(told(healthy).notes.is_empty());
}

/// G4.
#[test]
fn a_first_pod_that_needs_a_later_one_is_a_deadlock() {
    let world = json!({"abide": true, "sets": [set("web", json!({}))], "pods": [pod("web", 0, crashing(1, "Error"))],
        "logs": {"web-0": "dial tcp: lookup web-1.web on 10.0.0.10:53: no such host"}});
    let finding = only(world);
    assert_eq!(finding.rule, "ordered-deadlock");
    assert!(commands(&finding)[0].contains("{\"spec\":{\"podManagementPolicy\":\"Parallel\"}}"));
}

/// G4.
#[test]
fn a_pod_that_is_awaited_is_explained_by_the_one_before_it() {
    let seen = observed(
        json!({"sets": [set("web", json!({}))], "pods": [pod("web", 0, crashing(1, "Error"))]}),
    );
    assert!(
        is_awaited(&seen, "web-1") && !is_awaited(&seen, "web-2") && !is_awaited(&seen, "web-01")
    );
    let subject =
        Subject { namespace: Some("n".to_owned()), target: Some(Target::Pod("web-1".to_owned())) };
    let diagnosis = diagnose(&seen, &subject);
    assert_eq!(diagnosis.findings[0].object.name, "web-0");
    assert!(seen_in(&diagnosis, "web-1 is not made before web-0 is Ready"));
}

fn seen_in(diagnosis: &Diagnosis, words: &str) -> bool {
    diagnosis.findings.iter().any(|finding| seen(finding, words))
}

/// G5.
#[test]
fn a_crash_after_an_update_names_the_change_and_the_way_back() {
    let revision = |name: &str, number: i64, image: &str, password: &str| {
        json!({"metadata": {"name": name, "namespace": "n"}, "revision": number, "data": {"spec": {"template": {"$patch": "replace",
            "spec": {"containers": [{"name": "main", "image": image, "env": [{"name": "DB_PASSWORD", "value": password}]}]}}}}})
    };
    let updating = set("web", json!({"status": {"currentRevision": "r1", "updateRevision": "r2"}}));
    let newer = json!({"metadata": {"labels": {"controller-revision-hash": "r2"}}});
    let world = json!({"sets": [updating], "pods": [pod("web", 0, json!({})), pod("web", 1, with(crashing(1, "Error"), newer))],
        "revisions": [revision("r1", 1, "postgres:15", "old"), revision("r2", 2, "postgres:16", "new")],
        "logs": {"web-1": "FATAL:  database files are incompatible with server"}});
    let finding = only(world);
    assert_eq!(finding.rule, "broken-update");
    assert!(
        seen(&finding, "changed by the update: containers[main].image: postgres:15 → postgres:16"),
        "{:#?}",
        finding.evidence
    );
    assert!(
        seen(&finding, "DB_PASSWORD].value: (not shown) → (not shown)"),
        "{:#?}",
        finding.evidence
    );
    assert!(seen(&finding, "database files are incompatible"));
    assert_eq!(
        commands(&finding)[0],
        "kubectl rollout undo -n n statefulset/web --to-revision=1\nkubectl delete pod -n n web-1"
    );
    assert!(finding.advice.iter().any(|step| step.sentence.contains("pg_upgrade")));
}

/// G5.
#[test]
fn a_broken_pod_of_an_old_revision_is_to_be_deleted() {
    let updating = set("web", json!({"status": {"currentRevision": "r1", "updateRevision": "r2"}}));
    let finding = only(json!({"sets": [updating], "pods": [pod("web", 0, crashing(1, "Error"))]}));
    assert_eq!((finding.rule, commands(&finding)[0]), ("crash", "kubectl delete pod -n n web-0"));
    assert!(seen(&finding, "is of revision r1, while the set's newest is r2"));
}

/// G6.
#[test]
fn names_need_a_headless_service_of_the_sets_choice() {
    let web =
        |more: Value| json!([set("web", with(json!({"spec": {"serviceName": "web"}}), more))]);
    let own = |ordinal: u32| pod("web", ordinal, json!({"spec": {"subdomain": "web"}}));
    let world = |services: Value| json!({"sets": web(json!({})), "pods": [own(0), own(1)], "services": services});
    for (services, rule, command) in [
        (
            json!([]),
            Some("service-missing"),
            "name: web\n  namespace: n\nspec:\n  clusterIP: None\n  selector:\n    app: \"web\"",
        ),
        (json!([service("web-headless", json!({}))]), Some("service-name-differs"), "name: web\n"),
        (
            json!([service("web", json!({"spec": {"clusterIP": "10.0.0.1"}}))]),
            Some("service-not-headless"),
            "kubectl delete service -n n web\n",
        ),
        (
            json!([service("web", json!({"spec": {"selector": {"app": "other"}}}))]),
            Some("service-selects-others"),
            "\"value\":{\"app\":\"web\"}",
        ),
        (json!([service("web", json!({}))]), None, ""),
    ] {
        let diagnosis = told(world(services));
        assert_eq!(diagnosis.findings.first().map(|finding| finding.rule), rule);
        assert!(
            diagnosis.findings.iter().all(|finding| commands(finding)[0].contains(command)),
            "{:#?}",
            diagnosis.findings
        );
    }
    let renamed = json!({"sets": web(json!({})), "pods": [own(0), pod("web", 1, json!({"spec": {"subdomain": "old"}}))], "services": [service("web", json!({}))]});
    assert_eq!(rules(renamed), ["service-changed"]);
    let crash = with(crashing(1, "Error"), json!({"spec": {"subdomain": "web"}}));
    let crashed = json!({"sets": web(json!({})), "pods": [own(0), pod("web", 1, crash)], "logs": {"web-1": "wget: bad address 'web-0.web'"}});
    let finding = only(crashed);
    assert_eq!((finding.rule, finding.severity), ("service-missing", Severity::Problem));
    assert!(
        finding.summary.ends_with("web-1 crashes for that reason")
            && seen(&finding, "bad address 'web-0.web'")
    );
}

/// G6.
#[test]
fn a_port_by_a_name_that_no_pod_has_leads_nowhere() {
    let ports = json!({"spec": {"containers": [{"name": "main", "image": "app:1", "ports": [{"name": "http", "containerPort": 80}]}]}});
    let world = |target: &str| {
        json!({"sets": [set("web", json!({"spec": {"replicas": 1}}))], "pods": [pod("web", 0, ports.clone())],
            "services": [service("front", json!({"spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80, "targetPort": target}]}}))]})
    };
    let finding = only(world("web"));
    assert_eq!(finding.rule, "port-name-missing");
    assert!(
        commands(&finding)[0].contains("\"path\":\"/spec/ports/0/targetPort\",\"value\":\"http\"")
    );
    assert_eq!(rules(world("http")), Vec::<&str>::new());
}

#[test]
fn a_set_that_may_not_make_its_pod_says_who_refuses() {
    let message = "create Pod web-0 in StatefulSet web failed error: pods \"web-0\" is forbidden: exceeded quota: q";
    let finding = only(
        json!({"sets": [set("web", json!({}))], "events": [event("StatefulSet", "web", "FailedCreate", message)]}),
    );
    assert_eq!(
        (finding.rule, commands(&finding)[0]),
        ("cannot-create", "kubectl describe resourcequota -n n")
    );
    assert!(seen(&finding, "exceeded quota: q"));
    let unseen = set("web", json!({"metadata": {"generation": 2}}));
    assert_eq!(
        rules(
            json!({"sets": [unseen], "pods": [pod("web", 0, json!({})), pod("web", 1, json!({}))]})
        ),
        ["not-observed"]
    );
    assert_eq!(rules(json!({"sets": [set("web", json!({}))]})), ["not-created"]);
}
