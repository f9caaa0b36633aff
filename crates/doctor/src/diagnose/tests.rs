//! Table tests of the rules: a sketch of a cluster in, rules and sentences out.

use super::{diagnose, is_awaited, wanted_logs};
use crate::finding::{Diagnosis, Finding, Severity};
use crate::observed::{Log, Observed, Workload};
use crate::subject::{Subject, Target};
use serde_json::{Value, json};

const NOW: &str = "2026-01-01T01:00:00Z";
const LATELY: &str = "2026-01-01T00:59:55Z";
const LONG_AGO: &str = "2026-01-01T00:00:00Z";

fn merge(base: &mut Value, more: Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, more) => *base = more,
    }
}

fn with(mut base: Value, more: Value) -> Value {
    merge(&mut base, more);
    base
}

/// A set of two pods, up to date.
fn set(name: &str, more: Value) -> Value {
    with(
        json!({
            "metadata": {"name": name, "namespace": "n", "uid": name, "generation": 1, "creationTimestamp": LONG_AGO},
            "spec": {"replicas": 2, "serviceName": "", "podManagementPolicy": "OrderedReady", "updateStrategy": {"type": "RollingUpdate"},
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "app:1"}]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]},
            "status": {"replicas": 2, "observedGeneration": 1, "currentRevision": "r1", "updateRevision": "r1"}
        }),
        more,
    )
}

/// A Ready pod of a set.
fn pod(set: &str, ordinal: u32, more: Value) -> Value {
    let name = format!("{set}-{ordinal}");
    with(
        json!({
            "metadata": {"name": name, "namespace": "n", "uid": name, "creationTimestamp": LONG_AGO,
                "labels": {"app": set, "controller-revision-hash": "r1"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": set, "uid": set, "controller": true}]},
            "spec": {"nodeName": "node", "containers": [{"name": "main", "image": "app:1"}]},
            "status": {"phase": "Running", "podIP": format!("10.0.0.{ordinal}"),
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": LONG_AGO}],
                "containerStatuses": [{"name": "main", "image": "app:1", "imageID": "", "containerID": "c", "ready": true, "restartCount": 0, "state": {"running": {"startedAt": LONG_AGO}}}]}
        }),
        more,
    )
}

/// What makes a pod wait, for this reason.
fn waiting(reason: &str, message: &str) -> Value {
    json!({"status": {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{"name": "main", "image": "app:1", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": reason, "message": message}}}]}})
}

/// What makes a pod crash.
fn crashing(code: i32, reason: &str) -> Value {
    json!({"status": {"conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{"name": "main", "image": "app:1", "imageID": "", "containerID": "c", "ready": false, "restartCount": 4,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": code, "reason": reason, "finishedAt": LATELY}}}]}})
}

/// What keeps a pod from a node.
fn unplaced(message: &str) -> Value {
    json!({"spec": {"nodeName": null, "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}}]},
        "status": {"phase": "Pending", "containerStatuses": null,
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}})
}

fn claim(name: &str, more: Value) -> Value {
    with(
        json!({"metadata": {"name": name, "namespace": "n", "uid": name, "creationTimestamp": LONG_AGO, "labels": {"app": "x"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}, "status": {"phase": "Bound"}}),
        more,
    )
}

fn event(kind: &str, name: &str, reason: &str, message: &str) -> Value {
    json!({"metadata": {"name": "e", "namespace": "n"}, "involvedObject": {"kind": kind, "name": name, "namespace": "n"},
        "reason": reason, "message": message, "type": "Warning", "lastTimestamp": LATELY})
}

fn service(name: &str, more: Value) -> Value {
    with(
        json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"clusterIP": "None", "selector": {"app": "web"}}}),
        more,
    )
}

fn parsed<T: serde::de::DeserializeOwned>(world: &Value, key: &str) -> Option<Vec<T>> {
    match world.get(key) {
        Some(Value::Null) => None,
        Some(items) => Some(serde_json::from_value(items.clone()).unwrap()),
        None => Some(Vec::new()),
    }
}

fn observed(world: Value) -> Observed {
    let logs = world["logs"].as_object().into_iter().flatten().map(|(pod, text)| Log {
        namespace: "n".to_owned(),
        pod: pod.clone(),
        container: "main".to_owned(),
        lines: text.as_str().unwrap().lines().map(str::to_owned).collect(),
    });
    Observed {
        now: NOW.parse().unwrap(),
        on_abide: world["abide"] == true,
        sets: parsed(&world, "sets"),
        pods: parsed(&world, "pods"),
        claims: parsed(&world, "claims"),
        volumes: parsed(&world, "volumes"),
        classes: parsed(&world, "classes"),
        services: parsed(&world, "services"),
        slices: parsed(&world, "slices"),
        events: parsed(&world, "events"),
        revisions: parsed(&world, "revisions"),
        nodes: parsed(&world, "nodes"),
        config_maps: parsed(&world, "configMaps"),
        secrets: parsed(&world, "secrets"),
        workloads: Some(Vec::new()),
        logs: logs.collect(),
        unseen: Vec::new(),
    }
}

fn everything() -> Subject {
    Subject { namespace: Some("n".to_owned()), target: None }
}

fn told(world: Value) -> Diagnosis {
    diagnose(&observed(world), &everything())
}

/// The one finding.
fn only(world: Value) -> Finding {
    let diagnosis = told(world);
    assert_eq!(diagnosis.findings.len(), 1, "{:#?}", diagnosis.findings);
    diagnosis.findings.into_iter().next().unwrap()
}

fn rules(world: Value) -> Vec<&'static str> {
    told(world).findings.iter().map(|finding| finding.rule).collect()
}

fn seen(finding: &Finding, words: &str) -> bool {
    finding
        .evidence
        .iter()
        .any(|evidence| format!("{}: {}", evidence.source, evidence.text).contains(words))
}

fn commands(finding: &Finding) -> Vec<&str> {
    finding.advice.iter().filter_map(|step| step.command.as_deref()).collect()
}

#[test]
fn a_healthy_set_gets_one_sentence() {
    let world = json!({"sets": [set("web", json!({}))], "pods": [pod("web", 0, json!({})), pod("web", 1, json!({}))]});
    let diagnosis = told(world);
    assert_eq!(
        (diagnosis.healthy, diagnosis.state),
        (true, vec!["web: 2 of 2 pods are Ready; nothing to say".to_owned()])
    );
    assert_eq!(told(json!({})).state, ["namespace n has no pods that should run; nothing to say"]);
}

#[test]
fn what_could_not_be_seen_is_no_ground_for_a_finding() {
    let web = set("web", json!({"spec": {"serviceName": "web"}}));
    let blind = json!({"sets": [web], "pods": [pod("web", 0, unplaced("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."))],
        "services": null, "claims": null, "classes": null, "volumes": null, "configMaps": null, "secrets": null, "nodes": null});
    assert_eq!(rules(blind), ["unschedulable"]);
    let no_pods = json!({"sets": [set("web", json!({}))], "pods": null, "claims": [claim("data-web-7", json!({}))]});
    assert_eq!(rules(no_pods), Vec::<&str>::new());
}

/// G1.
#[test]
fn an_unbound_claim_is_explained() {
    let cases = [
        (json!({}), json!([]), json!([]), "no-default-class", "there are none"),
        (
            json!({}),
            json!([{"metadata": {"name": "slow"}, "provisioner": "p"}]),
            json!([]),
            "no-default-class",
            "slow; none is annotated",
        ),
        (
            json!({"storageClassName": "fast"}),
            json!([{"metadata": {"name": "slow"}, "provisioner": "p"}]),
            json!([]),
            "class-missing",
            "storage classes: slow",
        ),
        (
            json!({"storageClassName": ""}),
            json!([]),
            json!([]),
            "no-fitting-volume",
            "asks for 5Gi, ReadWriteOnce",
        ),
        (
            json!({"storageClassName": "s"}),
            json!([{"metadata": {"name": "s"}, "provisioner": "kubernetes.io/no-provisioner"}]),
            json!([]),
            "no-fitting-volume",
            "asks for 5Gi",
        ),
        (json!({"volumeName": "v"}), json!([]), json!([]), "named-volume", "spec.volumeName: v"),
    ];
    for (spec, classes, volumes, rule, words) in cases {
        let world = json!({"sets": [set("web", json!({}))], "pods": [pod("web", 0, unplaced("unbound"))], "classes": classes, "volumes": volumes,
            "claims": [claim("data-web-0", json!({"spec": spec, "status": {"phase": "Pending"}}))]});
        let finding = only(world);
        assert_eq!(finding.rule, rule);
        assert!(seen(&finding, words), "{rule}: {:#?}", finding.evidence);
        assert!(seen(&finding, "web-1 is not made before web-0 is Ready"));
    }
}

/// G1.
#[test]
fn each_volume_is_told_why_it_does_not_fit() {
    let volume = |name: &str, spec: Value| {
        with(
            json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": "9Gi"}, "accessModes": ["ReadWriteOnce"]}}),
            json!({"spec": spec}),
        )
    };
    let taken = with(
        volume("taken", json!({"claimRef": {"namespace": "n", "name": "other"}})),
        json!({"status": {"phase": "Released"}}),
    );
    let volumes = json!([
        volume("small", json!({"capacity": {"storage": "1Gi"}})),
        volume("many", json!({"accessModes": ["ReadOnlyMany"]})),
        volume("class", json!({"storageClassName": "s"})),
        volume("block", json!({"volumeMode": "Block"})),
        taken
    ]);
    let world = |volumes: Value| {
        json!({"sets": [set("web", json!({}))], "pods": [pod("web", 0, unplaced("unbound"))], "volumes": volumes,
            "claims": [claim("data-web-0", json!({"spec": {"storageClassName": ""}, "status": {"phase": "Pending"}}))]})
    };
    let finding = only(world(volumes));
    for words in [
        "volume small: does not fit: it has 1Gi, not 5Gi",
        "volume many: does not fit: it has not the access mode ReadWriteOnce",
        "volume class: does not fit: its class is \"s\", not \"\"",
        "volume block: does not fit: it is a Block, not a Filesystem",
        "volume taken: does not fit: it belongs to claim n/other, which is gone; its data are kept (Released)",
    ] {
        assert!(seen(&finding, words), "{words}: {:#?}", finding.evidence);
    }
    assert!(commands(&finding)[0].contains("claimRef:\n    namespace: n\n    name: data-web-0"));
    let fits = told(world(json!([volume("right", json!({}))])));
    assert!(fits.findings.iter().all(|finding| finding.rule != "no-fitting-volume"), "{fits:#?}");
}

/// G1.
#[test]
fn the_schedulers_words_become_advice() {
    let node = json!({"metadata": {"name": "a"}, "spec": {"unschedulable": true, "taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]},
        "status": {"allocatable": {"cpu": "2"}}});
    let waits = json!({"metadata": {"name": "s"}, "provisioner": "p", "volumeBindingMode": "WaitForFirstConsumer"});
    for (message, spec, command) in [
        ("0/1 nodes are available: 1 node(s) were unschedulable.", json!({}), "kubectl uncordon a"),
        (
            "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: yes}.",
            json!({}),
            "kubectl taint node a gpu:NoSchedule-",
        ),
        (
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
            json!({"nodeSelector": {"disk": "ssd"}}),
            "kubectl label node a disk=ssd",
        ),
        (
            "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory.",
            json!({}),
            "kubectl set resources -n n statefulset/web --requests=cpu=AMOUNT,memory=AMOUNT",
        ),
    ] {
        let lonely = with(unplaced(message), json!({"spec": spec}));
        let world = json!({"sets": [set("web", json!({}))], "pods": [pod("web", 0, lonely)], "nodes": [node], "classes": [waits],
            "claims": [claim("data-web-0", json!({"spec": {"storageClassName": "s"}, "status": {"phase": "Pending"}}))]});
        let finding = only(world);
        assert_eq!(finding.rule, "unschedulable");
        assert_eq!(commands(&finding)[0], command);
        assert!(
            finding.cause.contains("Its claim data-web-0 is Pending only because of that"),
            "{}",
            finding.cause
        );
    }
}

/// G1.
#[test]
fn what_a_pod_lacks_to_start_is_named() {
    let needs = json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "settings"}}]}});
    let world = |more: Value| {
        let waits = with(waiting("ContainerCreating", ""), needs.clone());
        with(
            json!({"sets": [set("web", json!({"spec": {"replicas": 1}}))], "pods": [pod("web", 0, with(waits, json!({"status": {"containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}]}})))]}),
            more,
        )
    };
    let finding = only(world(json!({})));
    assert_eq!(
        (finding.rule, commands(&finding)[0]),
        ("configmap-missing", "kubectl create configmap -n n settings --from-literal=KEY=VALUE")
    );
    assert_eq!(
        rules(world(json!({"configMaps": [{"name": "settings", "namespace": "n"}]}))),
        ["not-ready"]
    );

    let secret = json!({"spec": {"containers": [{"name": "main", "image": "app:1", "env": [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}}]}]}});
    let refused = with(waiting("CreateContainerConfigError", "secret \"login\" not found"), secret);
    let finding = only(
        json!({"sets": [set("web", json!({"spec": {"replicas": 1}}))], "pods": [pod("web", 0, refused)]}),
    );
    assert_eq!(
        (finding.rule, commands(&finding)[0]),
        (
            "secret-missing",
            "kubectl create secret generic -n n login --from-literal=password=VALUE"
        )
    );
    assert!(seen(&finding, "secret \"login\" not found"));
}

/// G1.
#[test]
fn an_image_that_cannot_be_had_is_told_with_what_helps_there() {
    let world = |abide: bool, reason: &str, message: &str| json!({"abide": abide, "sets": [set("web", json!({"spec": {"replicas": 1}}))], "pods": [pod("web", 0, waiting(reason, message))]});
    assert_eq!(
        commands(&only(world(true, "ImagePullBackOff", "Back-off")))[0],
        "abide image import IMAGE.tar --name app:1"
    );
    assert!(
        commands(&only(world(false, "ErrImagePull", "401 Unauthorized")))[0]
            .starts_with("kubectl create secret docker-registry -n n")
    );
    assert!(
        only(world(false, "ErrImagePull", "manifest unknown"))
            .cause
            .contains("no image of that name")
    );
    assert_eq!(only(world(false, "InvalidImageName", "bad")).rule, "image-name");
}

/// G2.
#[test]
fn a_replica_is_told_what_its_log_says() {
    let secret = json!({"spec": {"containers": [{"name": "main", "image": "app:1", "env": [{"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": "login", "key": "repl"}}}]}]}});
    let world = json!({"sets": [set("web", json!({}))], "pods": [pod("web", 0, json!({})), pod("web", 1, with(crashing(1, "Error"), secret))],
        "logs": {"web-1": "waiting\nFATAL:  role \"repl\" does not exist"}});
    let finding = only(world);
    assert_eq!(finding.rule, "role-missing");
    assert_eq!(
        finding.summary,
        "container main of web-1 crashes again and again (4 restarts): the role \"repl\" does not exist on web-0"
    );
    assert!(seen(&finding, "last lines of web-1 (main): FATAL:  role \"repl\" does not exist"));
    assert_eq!(
        commands(&finding),
        [
            "kubectl exec -n n web-0 -- psql -U postgres -c \"CREATE ROLE \\\"repl\\\" WITH REPLICATION LOGIN PASSWORD '$(kubectl get secret -n n login -o jsonpath='{.data.repl}' | base64 -d)'\"",
            "kubectl delete pod -n n web-1"
        ]
    );
}

/// G2.
#[test]
fn exit_codes_and_probes_speak_where_logs_do_not() {
    for (code, reason, words) in [
        (137, "OOMKilled", "it uses more memory than it may"),
        (127, "Error", "its command is not there"),
        (126, "Error", "its command cannot be run"),
        (139, "Error", "segmentation fault"),
        (137, "Error", "it is killed (exit code 137)"),
        (0, "Completed", "it ends by itself"),
        (3, "Error", "it ends with exit code 3"),
    ] {
        let finding = only(
            json!({"sets": [set("web", json!({"spec": {"replicas": 1}}))], "pods": [pod("web", 0, crashing(code, reason))]}),
        );
        assert_eq!(finding.rule, "crash");
        assert!(finding.summary.contains(words), "{}", finding.summary);
    }
    let events = json!([
        event("Pod", "web-0", "Unhealthy", "Liveness probe failed: no answer"),
        event("Pod", "web-0", "Killing", "Container main failed liveness probe, will be restarted")
    ]);
    let finding = only(
        json!({"sets": [set("web", json!({"spec": {"replicas": 1}}))], "pods": [pod("web", 0, crashing(137, "Error"))], "events": events}),
    );
    assert_eq!(finding.rule, "killed-by-probe");
    assert!(seen(&finding, "Liveness probe failed: no answer"));
}

#[test]
fn a_pod_that_starts_is_in_progress_and_one_that_does_not_is_a_problem() {
    let probe = json!({"spec": {"containers": [{"name": "main", "image": "app:1", "readinessProbe": {"exec": {"command": ["pg_isready"]}}}]}});
    let running = |since: &str| {
        with(
            probe.clone(),
            json!({"status": {"conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [{"name": "main", "image": "", "imageID": "", "containerID": "c", "ready": false, "restartCount": 0, "state": {"running": {"startedAt": since}}}]}}),
        )
    };
    let world = |since: &str| {
        json!({"sets": [set("web", json!({"spec": {"replicas": 1}}))], "pods": [pod("web", 0, running(since))],
            "events": [event("Pod", "web-0", "Unhealthy", "Readiness probe failed: no response")]})
    };
    let early = only(world(LATELY));
    assert_eq!((early.rule, early.severity), ("starting", Severity::Progress));
    let late = only(world(LONG_AGO));
    assert_eq!((late.rule, late.severity), ("probe-failing", Severity::Problem));
    assert!(seen(&late, "no response") && seen(&late, "exec pg_isready"));
    let made = json!({"metadata": {"creationTimestamp": LATELY}});
    let creating = |more: Value| json!({"sets": [set("web", json!({"spec": {"replicas": 1}}))], "pods": [pod("web", 0, with(waiting("ContainerCreating", ""), more))]});
    assert_eq!(only(creating(made)).summary, "web-0 is starting: ContainerCreating for 5s");
    assert_eq!(rules(creating(json!({}))), ["not-ready"]);
}

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
fn a_pod_that_does_not_go_is_told_what_holds_it() {
    let deleted = |at: &str| json!({"metadata": {"deletionTimestamp": at, "finalizers": ["example.com/hold"]}});
    let world = |at: &str| json!({"sets": [set("web", json!({"spec": {"replicas": 1}}))], "pods": [pod("web", 0, deleted(at))]});
    assert_eq!(only(world("2026-01-01T01:00:10Z")).severity, Severity::Progress);
    let stuck = only(world(LONG_AGO));
    assert_eq!(stuck.rule, "stuck-terminating");
    assert!(seen(&stuck, "example.com/hold"));
    let on_lost_node = json!({"sets": [set("web", json!({"spec": {"replicas": 1}}))], "pods": [pod("web", 0, json!({"metadata": {"deletionTimestamp": LONG_AGO}}))]});
    assert!(seen(&only(on_lost_node), "there is no such node any more"));
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

#[test]
fn logs_are_read_of_those_in_trouble_only() {
    let pods = [pod("web", 0, json!({})), pod("web", 1, crashing(1, "Error"))];
    let pods: Vec<k8s_openapi::api::core::v1::Pod> =
        pods.iter().map(|pod| serde_json::from_value(pod.clone()).unwrap()).collect();
    let wanted: Vec<&str> =
        wanted_logs(&pods).iter().map(|(pod, ..)| pod.metadata.name.as_deref().unwrap()).collect();
    assert_eq!(wanted, ["web-1"]);
}
