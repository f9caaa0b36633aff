//! Budgets, and draining the node.

use crate::harness::{line_of, story, web};

const BUDGET: &str = "
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec:
  minAvailable: 1
  selector: {matchLabels: {app: nginx}}
";

fn node(k: &crate::harness::Cluster) -> String {
    k.sh("kubectl get nodes -o jsonpath='{.items[0].metadata.name}'")
}

story! {
    /// T127: draining the only node takes what the budget can spare, waits for more, and goes on when it is allowed.
    fn a_drain_waits_for_the_budget(k, ["nginx:1.12"]) {
        k.apply(&web(2, ""));
        k.until_ready("web", 2);
        k.apply(BUDGET);
        k.until("kubectl get pdb web -o jsonpath='{.status.disruptionsAllowed}'", |text| text == "1");
        let table = k.sh("kubectl get pdb");
        let row = table.lines().nth(1).unwrap().split_whitespace().take(4).collect::<Vec<_>>();
        assert_eq!(row, ["web", "1", "N/A", "1"], "{table}");
        let described = k.sh("kubectl describe pdb web");
        line_of(&described, &["Current:", "2"]);
        // Both of its outputs in one, in their order.
        let drain = k.beside(&format!("bash -c 'kubectl drain {} --ignore-daemonsets --delete-emptydir-data --force 2>&1'", node(k)));
        // One goes; nothing can take its place while the node is cordoned.
        k.until("kubectl get pods", |text| text.lines().filter(|line| line.contains("Running")).count() == 1);
        k.until("kubectl get pdb web -o jsonpath='{.status.currentHealthy}/{.status.disruptionsAllowed}'", |text| text == "1/0");
        k.sh("kubectl get nodes | grep SchedulingDisabled");
        k.sh("kubectl patch pdb web --type=merge -p '{\"spec\":{\"minAvailable\":0}}'");
        let told = drain.until(|text| text.contains("drained"));
        assert!(told.contains("cordoned"), "{told}");
        assert!(told.contains("(will retry after 5s): Cannot evict pod as it would violate the pod's disruption budget."), "{told}");
        k.until("kubectl get pods", |text| !text.contains("Running"));
        k.sh(&format!("kubectl uncordon {}", node(k)));
        k.until_ready("web", 2);
    }
}

story! {
    /// T127: a deletion is never blocked; the eviction's refusal says what the budget needs.
    fn a_budget_refuses_evictions_and_not_deletions(k, ["nginx:1.12"]) {
        k.apply(&web(1, ""));
        k.until_ready("web", 1);
        k.apply(BUDGET);
        k.until("kubectl get pdb web -o jsonpath='{.status.conditions[0].reason}'", |text| text == "InsufficientPods");
        k.file("eviction.json", r#"{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web-0", "namespace": "default"}}"#);
        let refused = k.sh_fails("kubectl create --raw /api/v1/namespaces/default/pods/web-0/eviction -f eviction.json");
        assert!(refused.contains("Cannot evict pod as it would violate the pod's disruption budget."), "{refused}");
        let uid = k.field("pod/web-0", ".metadata.uid");
        k.sh("kubectl delete pod web-0");
        k.until("kubectl get pod web-0 -o jsonpath='{.metadata.uid}'", |text| !text.is_empty() && text != uid);
        k.until_ready("web", 1);
        assert_eq!(k.sh("kubectl create pdb other --selector=app=other --max-unavailable=1"), "poddisruptionbudget.policy/other created\n");
        k.sh("kubectl apply --server-side -f - <<< '{\"apiVersion\": \"policy/v1\", \"kind\": \"PodDisruptionBudget\", \"metadata\": {\"name\": \"third\"}, \"spec\": {\"minAvailable\": \"50%\", \"selector\": {\"matchLabels\": {\"app\": \"x\"}}}}'");
    }
}
