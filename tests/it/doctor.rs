//! G: `abide doctor` finds each trouble and says what to do; what it says cures it.

use crate::harness::{Cluster, abide, story};
use serde_json::Value;

/// What the doctor says, and its exit status.
fn ask(k: &Cluster, arguments: &str) -> (Option<i32>, Value) {
    let output = k.try_sh(&format!("{} doctor {arguments} -o json", abide().display()));
    let answer = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), answer)
}

/// Asks until a rule has found something; checks the exit status.
fn until_found(k: &Cluster, arguments: &str, rule: &str) -> Value {
    let line = format!("{} doctor {arguments} -o json; test $? = 1", abide().display());
    let has =
        |text: &str| serde_json::from_str(text).ok().and_then(|answer| finding(&answer, rule));
    let text = k.until(&line, |text| has(text).is_some());
    has(&text).unwrap()
}

fn finding(answer: &Value, rule: &str) -> Option<Value> {
    answer["findings"].as_array()?.iter().find(|finding| finding["rule"] == rule).cloned()
}

/// The commands of a finding's advice.
fn commands(finding: &Value) -> Vec<String> {
    let steps = finding["advice"].as_array().unwrap();
    steps.iter().filter_map(|step| step["command"].as_str()).map(str::to_owned).collect()
}

/// Whether a finding rests on something with these words.
fn rests_on(finding: &Value, words: &str) {
    let evidence = finding["evidence"].to_string();
    assert!(
        evidence.contains(&serde_json::to_string(words).unwrap().trim_matches('"').to_owned()),
        "{words:?} is not in {finding:#}"
    );
}

/// Asks until there is nothing to say; the exit status is 0.
fn until_healthy(k: &Cluster) {
    k.until(&format!("{} doctor", abide().display()), |text| text.contains("nothing to say\n"));
}

/// Waits until the set has a newer template than its pods.
fn until_updating(k: &Cluster) {
    k.until(
        "kubectl get sts db -o jsonpath='{.status.currentRevision} {.status.updateRevision}'",
        |text| text.split_once(' ').is_some_and(|(current, update)| current != update),
    );
}

/// A set `db` of busybox pods, whose containers run `script`.
fn set(replicas: u32, policy: &str, script: &str, container: &str, extra: &str) -> String {
    let script: String = script.lines().map(|line| format!("          {line}\n")).collect();
    format!(
        r#"
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: db
spec:
  serviceName: db
  podManagementPolicy: {policy}
  replicas: {replicas}
  selector:
    matchLabels: {{app: db}}
  template:
    metadata:
      labels: {{app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox
        command:
        - sh
        - -c
        - |
{script}{container}
{extra}
"#
    )
}

/// A headless Service that selects the set's pods.
fn service(name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: None\n  selector: {{app: db}}\n  ports: [{{name: http, port: 80}}]\n"
    )
}

const FOREVER: &str = "trap exit TERM; while :; do sleep 1; done";
const CLAIM: &str = "        volumeMounts: [{name: data, mountPath: /data}]";

/// A claim template `data`.
fn template(more: &str) -> String {
    format!(
        "  volumeClaimTemplates:\n  - metadata: {{name: data}}\n    spec:\n      accessModes: [ReadWriteOnce]\n      resources: {{requests: {{storage: 1Gi}}}}\n{more}"
    )
}

story! {
    /// G1: no default class; making one the default cures it.
    fn a_claim_without_a_default_class_is_found_and_cured(k, ["busybox"]) {
        k.sh("kubectl annotate storageclass standard storageclass.kubernetes.io/is-default-class-");
        k.apply(&(set(2, "OrderedReady", FOREVER, CLAIM, &template("")) + &service("db")));
        let found = until_found(k, "", "no-default-class");
        assert_eq!(found["summary"], "db-0 is Pending: its claim data-db-0 names no storage class, and no class is the default");
        rests_on(&found, "standard; none is annotated");
        rests_on(&found, "db-1 is not made before db-0 is Ready");
        assert_eq!(until_found(k, "pod/db-1", "no-default-class")["object"]["name"], "db-0", "a pod that is not made yet is explained");
        k.sh(&commands(&found)[0]);
        until_healthy(k);
    }
}

story! {
    /// G1: no volume fits; the volume that the doctor describes does.
    fn a_claim_that_no_volume_fits_is_found_and_cured(k, ["busybox"]) {
        k.apply("apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: small}\nspec:\n  capacity: {storage: 100Mi}\n  accessModes: [ReadWriteOnce]\n  hostPath: {path: /tmp}\n");
        k.apply(&(set(1, "OrderedReady", FOREVER, CLAIM, &template("      storageClassName: ''\n")) + &service("db")));
        let found = until_found(k, "sts/db", "no-fitting-volume");
        rests_on(&found, "does not fit: it has 100Mi, not 1Gi");
        rests_on(&found, "asks for 1Gi, ReadWriteOnce");
        let here = k.sh("pwd");
        k.sh(&commands(&found)[0].replace("/var/lib/volumes", here.trim()));
        until_healthy(k);
    }
}

story! {
    /// G1: a ConfigMap that does not exist, and a node that takes no pods.
    fn what_a_pod_waits_for_is_found_and_cured(k, ["busybox"]) {
        let node = k.sh("kubectl get nodes -o jsonpath='{.items[0].metadata.name}'");
        k.sh(&format!("kubectl cordon {node}"));
        let variable = "        env: [{name: MODE, valueFrom: {configMapKeyRef: {name: settings, key: mode}}}]";
        k.apply(&(set(1, "OrderedReady", FOREVER, variable, "") + &service("db")));
        let found = until_found(k, "", "unschedulable");
        assert_eq!(commands(&found)[0], format!("kubectl uncordon {node}"));
        k.sh(&commands(&found)[0]);
        let found = until_found(k, "", "configmap-missing");
        assert_eq!(commands(&found)[0], "kubectl create configmap -n default settings --from-literal=mode=VALUE");
        k.sh(&commands(&found)[0]);
        until_healthy(k);
    }
}

story! {
    /// G1, G5: an image that is not there; the right name, and the deletion that a set waits for.
    fn an_image_that_is_not_there_is_found_and_cured(k, ["busybox"]) {
        k.apply(&(set(1, "OrderedReady", FOREVER, "", "").replace("image: busybox", "image: absent:9") + &service("db")));
        let found = until_found(k, "", "image");
        assert_eq!(commands(&found), ["abide image import IMAGE.tar --name absent:9", "kubectl set image -n default statefulset/db main=IMAGE"]);
        k.sh(&commands(&found)[1].replace("IMAGE", "busybox"));
        until_updating(k);
        let found = until_found(k, "", "image");
        assert_eq!(commands(&found)[0], "kubectl delete pod -n default db-0");
        rests_on(&found, "while the set's newest is");
        k.sh(&commands(&found)[0]);
        until_healthy(k);
    }
}

story! {
    /// G2: a role that the primary lacks: the last lines are quoted, the role is created by the doctor's own command.
    fn a_replica_without_its_role_is_found_and_cured(k, ["busybox"]) {
        // The primary's psql is a stand-in: whatever it is told, it makes the role.
        let script = r#"if [ $HOSTNAME = db-0 ]; then
  mkdir /www
  printf '#!/bin/sh\necho "$@" > /www/role\n' > /bin/psql
  chmod +x /bin/psql
  exec httpd -f -p 80 -h /www
fi
until wget -q -O /tmp/role http://db-0.db/role; do
  echo 'pg_basebackup: error: connection to server at "db-0.db", port 5432 failed: FATAL:  role "replicator" does not exist'
  exit 1
done
trap exit TERM; while :; do sleep 1; done"#;
        let probe = "        readinessProbe: {exec: {command: [sh, -c, 'test $HOSTNAME != db-0 || test -x /bin/psql']}, periodSeconds: 1}";
        k.apply(&(set(2, "OrderedReady", script, probe, "") + &service("db")));
        let found = until_found(k, "", "role-missing");
        assert_eq!(found["object"]["name"], "db-1");
        rests_on(&found, "FATAL:  role \"replicator\" does not exist");
        let commands = commands(&found);
        assert!(commands[0].starts_with("kubectl exec -n default db-0 -- psql -U postgres -c \"CREATE ROLE"), "{commands:?}");
        k.sh(&commands[0]);
        k.sh(&commands[1]);
        until_healthy(k);
        let role = k.sh("kubectl exec db-1 -- cat /tmp/role");
        assert_eq!(role, "-U postgres -c CREATE ROLE \"replicator\" WITH REPLICATION LOGIN PASSWORD 'THE-PASSWORD-OF-THE-REPLICA'\n");
    }
}

story! {
    /// G2: a primary that does not answer is the cause, its replica's crash the consequence.
    fn the_primary_is_cured_before_its_replica(k, ["busybox"]) {
        let script = r#"if [ $HOSTNAME = db-0 ]; then
  [ -n "$SERVE" ] && mkdir /www && touch /www/up && exec httpd -f -p 80 -h /www
  trap exit TERM; while :; do sleep 1; done
fi
wget -q -O /dev/null http://db-0.db/up 2> /dev/null || { echo 'connection to server at "db-0.db", port 5432 failed: Connection refused'; exit 1; }
trap exit TERM; while :; do sleep 1; done"#;
        k.apply(&(set(2, "OrderedReady", script, "", "") + &service("db")));
        let found = until_found(k, "pod/db-1", "peer-unreachable");
        assert!(found["cause"].as_str().unwrap().starts_with("db-0 is Ready and does not listen where this pod asks"), "{found:#}");
        rests_on(&found, "failed: Connection refused");
        k.sh(&commands(&found)[0]);
        k.sh("kubectl set env sts/db SERVE=yes");
        until_updating(k);
        // A set waits for a pod that never became Ready; the doctor says so, and deleting it goes on.
        let found = until_found(k, "", "peer-unreachable");
        assert_eq!(commands(&found)[0], "kubectl delete pod -n default db-1");
        k.sh("kubectl delete pod db-0 db-1");
        until_healthy(k);
    }
}

story! {
    /// G3: what scaling down and deleting a set leave is listed with size and age, and goes by the command that is given.
    fn leftover_claims_are_found_and_removed(k, ["busybox"]) {
        let manifest = set(3, "Parallel", FOREVER, CLAIM, &template(""));
        let both = manifest + &service("db");
        k.apply(&both);
        // A set whose name ends like the other's, and whose claims are all wanted.
        k.apply(&both.replace("ame: db", "ame: my-db").replace("app: db", "app: my-db"));
        k.until_ready("db", 3);
        k.until_ready("my-db", 3);
        until_healthy(k);
        k.sh("kubectl scale sts db --replicas=1");
        k.until("kubectl get pods -l app=db --no-headers | wc -l", |text| text.trim() == "1");
        let (code, answer) = ask(k, "");
        assert_eq!(code, Some(1));
        let found = finding(&answer, "leftover-claims").unwrap();
        assert_eq!(found["summary"], "2 claims of db are left over");
        rests_on(&found, "1Gi, ");
        assert_eq!(commands(&found), ["kubectl delete pvc -n default data-db-1 data-db-2"]);
        k.sh(&commands(&found)[0]);
        until_healthy(k);
        assert_eq!(k.sh("kubectl get pvc -o name").lines().count(), 4);
        k.sh("kubectl delete sts db && kubectl wait --for=delete pod/db-0 --timeout=60s");
        let found = until_found(k, "", "leftover-claims");
        assert_eq!(found["summary"], "1 claim belongs to no set, pod or workload");
        assert_eq!(commands(&found), ["kubectl delete pvc -n default data-db-0"]);
        k.sh(&commands(&found)[0]);
        until_healthy(k);
    }
}

story! {
    /// G4: replicas that start before their primary; in order they come up without a crash.
    fn pods_that_start_out_of_order_are_found_and_put_in_order(k, ["busybox"]) {
        let script = r#"if [ $HOSTNAME = db-0 ]; then
  mkdir /www
  touch /www/up
  until [ -f /tmp/go ]; do sleep 0.1; done
  exec httpd -f -p 80 -h /www
fi
wget -q -O /dev/null http://db-0.db/up 2> /dev/null || { echo 'connection to server at "db-0.db", port 5432 failed: Connection refused'; exit 1; }
trap exit TERM; while :; do sleep 1; done"#;
        let probe = "        readinessProbe: {exec: {command: [sh, -c, 'test $HOSTNAME != db-0 || wget -q -O /dev/null http://127.0.0.1/up']}, periodSeconds: 1}";
        k.apply(&(set(3, "Parallel", script, probe, "") + &service("db").replace("clusterIP: None", "clusterIP: None\n  publishNotReadyAddresses: true")));
        k.until("kubectl get pods --no-headers", |text| text.matches("CrashLoopBackOff").count() == 2);
        let both = |text: &str| {
            let answer = serde_json::from_str(text).unwrap();
            let found = finding(&answer, "out-of-order")?;
            (commands(&found)[1] == "kubectl delete pod -n default db-1 db-2").then_some(found)
        };
        let line = format!("{} doctor -o json; test $? = 1", abide().display());
        let found = both(&k.until(&line, |text| both(text).is_some())).unwrap();
        rests_on(&found, "spec.podManagementPolicy: Parallel");
        rests_on(&found, "failed: Connection refused");
        let commands = commands(&found);
        k.sh(&commands[0]);
        k.sh(&commands[1]);
        assert_eq!(k.field("sts/db", ".spec.podManagementPolicy"), "OrderedReady");
        let (_, answer) = ask(k, "");
        assert!(answer["findings"].to_string().contains("db-1 and db-2 are not made before db-0 is Ready"), "{answer:#}");
        k.sh("kubectl exec db-0 -- touch /tmp/go");
        until_healthy(k);
        assert_eq!(k.sh("kubectl get pods -o jsonpath='{.items[*].status.containerStatuses[0].restartCount}'"), "0 0 0");
    }
}

story! {
    /// G5: an update that the data do not survive: which revision, what it changed, and the way back.
    fn a_broken_update_is_found_and_undone(k, ["busybox"]) {
        let script = r#"[ -f /data/version ] || echo $VERSION > /data/version
if [ $(cat /data/version) != $VERSION ]; then
  echo 'FATAL:  database files are incompatible with server'
  echo "DETAIL:  The data directory was initialized by PostgreSQL version $(cat /data/version), which is not compatible with this version $VERSION."
  exit 1
fi
touch /tmp/up; trap exit TERM; while :; do sleep 1; done"#;
        // Without it a pod is Ready for the moment before it gives up, and the update goes on to the next.
        let probe = "        readinessProbe: {exec: {command: [test, -f, /tmp/up]}, periodSeconds: 1}\n";
        let container = format!("        env: [{{name: VERSION, value: '15'}}]\n{probe}{CLAIM}");
        k.apply(&(set(2, "OrderedReady", script, &container, &template("")) + &service("db")));
        until_healthy(k);
        let before = k.field("sts/db", ".status.updateRevision");
        k.sh("kubectl set env sts/db VERSION=16");
        let found = until_found(k, "", "broken-update");
        assert_eq!(found["object"]["name"], "db-1");
        rests_on(&found, "containers[main].env[VERSION].value: 15 → 16");
        rests_on(&found, "database files are incompatible with server");
        rests_on(&found, &format!("status.currentRevision {before} (revision 1)"));
        assert_eq!(commands(&found)[0], "kubectl rollout undo -n default statefulset/db --to-revision=1\nkubectl delete pod -n default db-1");
        k.sh(&commands(&found)[0]);
        until_healthy(k);
        assert_eq!(k.sh("kubectl exec db-1 -- sh -c 'echo $VERSION; cat /data/version'"), "15\n15\n");
    }
}

story! {
    /// G6: no headless Service, and pods that crash for it.
    fn a_set_without_its_service_is_found_and_cured(k, ["busybox"]) {
        let script = r#"if [ $HOSTNAME != db-0 ]; then
  nslookup db-0.db.default.svc.cluster.local | grep -q ^Name: || { echo "could not translate host name \"db-0.db\" to address: Name or service not known"; exit 1; }
fi
trap exit TERM; while :; do sleep 1; done"#;
        k.apply(&set(2, "OrderedReady", script, "        ports: [{name: pg, containerPort: 5432}]", ""));
        k.until("kubectl get pods --no-headers", |text| text.contains("CrashLoopBackOff"));
        let found = until_found(k, "", "service-missing");
        assert!(found["summary"].as_str().unwrap().ends_with("there is no Service db; db-1 crashes for that reason"), "{found:#}");
        rests_on(&found, "Name or service not known");
        rests_on(&found, "spec.serviceName: db");
        k.sh(&commands(&found)[0]);
        k.sh("kubectl delete pod db-1");
        until_healthy(k);
        assert_eq!(k.field("svc/db", ".spec.ports[0].name"), "pg");
    }
}

story! {
    /// G6: a Service of another name, one that selects other pods, and one with an address: each is found and cured.
    fn a_service_that_gives_no_names_is_found_and_cured(k, ["busybox"]) {
        k.apply(&(set(2, "Parallel", FOREVER, "", "") + &service("db-headless")));
        k.until_ready("db", 2);
        let found = until_found(k, "sts/db", "service-name-differs");
        rests_on(&found, "selector app=db matches the set's pods");
        k.sh(&commands(&found)[1]);
        until_healthy(k);
        assert_eq!(k.field("pod/db-1", ".spec.subdomain"), "db-headless");

        k.sh("kubectl patch svc db-headless -p '{\"spec\":{\"selector\":{\"app\":\"other\"}}}'");
        let found = until_found(k, "", "service-selects-others");
        k.sh(&commands(&found)[0]);
        until_healthy(k);

        k.sh("kubectl delete svc db-headless");
        k.apply(&service("db-headless").replace("  clusterIP: None\n", ""));
        let found = until_found(k, "svc/db-headless", "service-not-headless");
        k.sh(&commands(&found)[0]);
        until_healthy(k);
        k.until("kubectl exec db-0 -- nslookup db-1.db-headless.default.svc.cluster.local", |text| text.contains("Name:"));
    }
}

story! {
    /// G: a question that cannot be answered gets a sentence with the remedy, and exit status 2.
    fn a_question_that_cannot_be_answered_is_told_why(k, ["busybox"]) {
        let doctor = abide().display().to_string();
        let answer = |line: &str, words: &str| {
            let output = k.try_sh(line);
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "$ {line}\n{told}");
            assert!(told.contains(words), "$ {line}\n{told}");
            assert!(!told.contains("panicked"), "{told}");
        };
        answer(&format!("{doctor} doctor sts/web"), "there is no StatefulSet \"web\" in namespace default: `kubectl get statefulsets -n default` lists them");
        answer(&format!("{doctor} doctor web"), "write for example sts/web");
        answer(&format!("{doctor} doctor node/a"), "use one of sts, po, pvc");
        answer(&format!("{doctor} doctor -n absent"), "there is no namespace \"absent\": `kubectl get namespaces` lists them");
        answer(&format!("{doctor} doctor --context absent"), "the kubeconfig has no context \"absent\"");
        answer(&format!("{doctor} doctor --kubeconfig absent"), "read the kubeconfig absent: ");
        answer(&format!("env -u KUBECONFIG HOME=$PWD {doctor} doctor"), "there is no kubeconfig: set KUBECONFIG or give --kubeconfig FILE");
        k.file("broken", "{");
        answer(&format!("{doctor} doctor --kubeconfig broken"), "read the kubeconfig broken: ");
        k.sh("sed 's/6443/1/' $KUBECONFIG > nobody");
        answer(&format!("{doctor} doctor --kubeconfig nobody"), "no answer from https://127.0.0.1:1/");
        k.apply(&(set(1, "OrderedReady", FOREVER, "", "") + &service("db")));
        until_healthy(k);
        let told = k.sh(&format!("{doctor} doctor -A && cp $KUBECONFIG copy && {doctor} doctor sts/db --kubeconfig copy && {doctor} doctor po/db-0 && {doctor} doctor statefulset.apps/db"));
        assert!(told.starts_with("default/db: 1 of 1 pods are Ready; nothing to say\n"), "{told}");
    }
}
