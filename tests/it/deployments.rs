//! A6: Deployments, which the tutorials compare StatefulSets with.

use crate::harness::story;

story! {
    /// A6: random names, parallel start; rollout, history, undo, pause and scale as kubectl does them.
    fn a_deployment_has_random_names_and_rolls_back(k, ["nginx:1.12", "nginx:1.13"]) {
        assert_eq!(k.sh("kubectl create deployment postgres --image=nginx:1.12 --replicas=3"), "deployment.apps/postgres created\n");
        assert_eq!(k.sh("kubectl rollout status deployment/postgres").lines().last().unwrap(), "deployment \"postgres\" successfully rolled out");
        let names = k.sh("kubectl get pods -l app=postgres -o jsonpath='{.items[*].metadata.name}'");
        let set = k.sh("kubectl get rs -l app=postgres -o jsonpath='{.items[0].metadata.name}'");
        let hash = k.sh("kubectl get rs -l app=postgres -o jsonpath='{.items[0].metadata.labels.pod-template-hash}'");
        assert_eq!(set, format!("postgres-{hash}"));
        assert_eq!(names.split(' ').count(), 3);
        for name in names.split(' ') {
            let word = name.strip_prefix(&format!("{set}-")).unwrap_or_else(|| panic!("{name} is not of {set}"));
            assert!(word.len() == 5 && word.bytes().all(|b| b.is_ascii_alphanumeric()), "{name}");
        }
        let table = k.sh("kubectl get deployment,rs");
        let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]);
        assert_eq!(words[1][..4], ["deployment.apps/postgres", "3/3", "3", "3"]);
        assert_eq!(words[3], ["NAME", "DESIRED", "CURRENT", "READY", "AGE"]);
        assert_eq!(words[4][1..4], ["3", "3", "3"]);

        k.sh("kubectl set image deployment/postgres nginx=nginx:1.13 && kubectl rollout status deployment/postgres --timeout=90s");
        assert_eq!(k.sh("kubectl get pods -l app=postgres --field-selector=status.phase=Running -o jsonpath='{.items[*].spec.containers[0].image}' | tr ' ' '\\n' | sort -u | tail -1").trim(), "nginx:1.13");
        let history = k.sh("kubectl rollout history deployment/postgres");
        assert_eq!(history, "deployment.apps/postgres \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n\n");
        assert_eq!(k.sh("kubectl rollout undo deployment/postgres"), "deployment.apps/postgres rolled back\n");
        k.sh("kubectl rollout status deployment/postgres --timeout=90s");
        assert_eq!(k.sh("kubectl get rs -o jsonpath='{.items[?(@.spec.replicas==3)].metadata.name}'"), set);
        assert_eq!(k.sh("kubectl get deployment postgres -o jsonpath='{.metadata.annotations.deployment\\.kubernetes\\.io/revision}'"), "3");

        assert_eq!(k.sh("kubectl rollout pause deployment/postgres"), "deployment.apps/postgres paused\n");
        k.sh("kubectl scale deployment postgres --replicas=1");
        k.until("kubectl get deployment postgres -o jsonpath='{.status.replicas}'", |text| text == "1");
        assert_eq!(k.sh("kubectl rollout resume deployment/postgres"), "deployment.apps/postgres resumed\n");
        assert_eq!(k.sh("kubectl wait --for=condition=Available deployment/postgres --timeout=60s"), "deployment.apps/postgres condition met\n");
        let described = k.sh("kubectl describe deployment postgres");
        for line in ["StrategyType:           RollingUpdate", "RollingUpdateStrategy:  25% max unavailable, 25% max surge", "Scaled up replica set", "MinimumReplicasAvailable"] {
            assert!(described.contains(line), "{line}: {described}");
        }
        k.sh("kubectl rollout restart deployment/postgres && kubectl rollout status deployment/postgres --timeout=90s");
        k.sh("kubectl delete deployment postgres");
        k.until("kubectl get rs,pods -o name", str::is_empty);
    }
}

story! {
    /// A6: all pods of a Deployment share one claim, where each pod of a StatefulSet has its own.
    fn the_pods_of_a_deployment_share_a_claim(k, ["nginx:1.12"]) {
        k.apply(
            "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: shared}\nspec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 1Gi}}}\n---\n\
             apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 2\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    \
             spec: {containers: [{name: nginx, image: 'nginx:1.12', volumeMounts: [{name: data, mountPath: /data}]}], volumes: [{name: data, persistentVolumeClaim: {claimName: shared}}]}\n",
        );
        k.sh("kubectl rollout status deployment/web --timeout=90s");
        let names = k.sh("kubectl get pods -o jsonpath='{.items[*].metadata.name}'");
        let names: Vec<&str> = names.split(' ').collect();
        k.sh(&format!("kubectl exec {} -- sh -c 'echo hello > /data/greeting'", names[0]));
        assert_eq!(k.sh(&format!("kubectl exec {} -- cat /data/greeting", names[1])), "hello\n");
        assert_eq!(k.sh("kubectl get pvc --no-headers | wc -l").trim(), "1");
    }
}
