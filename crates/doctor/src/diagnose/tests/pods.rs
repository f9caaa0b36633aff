//! One pod's trouble (G1, G2).

use super::*;
use crate::diagnose::wanted_logs;
use crate::finding::Severity;

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
fn logs_are_read_of_those_in_trouble_only() {
    let pods = [pod("web", 0, json!({})), pod("web", 1, crashing(1, "Error"))];
    let pods: Vec<k8s_openapi::api::core::v1::Pod> =
        pods.iter().map(|pod| serde_json::from_value(pod.clone()).unwrap()).collect();
    let wanted: Vec<&str> =
        wanted_logs(&pods).iter().map(|(pod, ..)| pod.metadata.name.as_deref().unwrap()).collect();
    assert_eq!(wanted, ["web-1"]);
}
