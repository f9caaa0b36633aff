//! Server-side apply, as kubectl does it.

use crate::harness::{Cluster, story, web};

fn managers(k: &Cluster) -> String {
    k.sh("kubectl get sts web --show-managed-fields -o jsonpath='{range .metadata.managedFields[*]}{.manager}/{.operation}/{.subresource} {end}'")
}

story! {
    /// T76: a set is made by server-side apply, scaled by somebody else, and taken back by force.
    fn a_set_is_applied_on_the_server_and_conflicts_are_told(k, ["nginx:1.12", "nginx:1.13"]) {
        k.file("set.yaml", &web(2, ""));
        let difference = k.try_sh("kubectl diff --server-side -f set.yaml");
        assert_eq!(difference.status.code(), Some(1));
        assert_eq!(k.sh("kubectl apply --server-side -f set.yaml"), "service/nginx serverside-applied\nstatefulset.apps/web serverside-applied\n");
        k.until_ready("web", 2);
        assert_eq!(managers(k), "kubectl/Apply/ statefulset-controller/Update/status ");
        k.sh("kubectl diff --server-side -f set.yaml");
        let generation = k.field("sts/web", ".metadata.generation");
        k.sh("kubectl apply --server-side -f set.yaml");
        assert_eq!(k.field("sts/web", ".metadata.generation"), generation);

        k.sh("kubectl scale sts web --replicas=1");
        k.file("set.yaml", &web(2, "").replace("nginx:1.12", "nginx:1.13"));
        let refused = k.sh_fails("kubectl apply --server-side -f set.yaml");
        assert!(refused.contains("Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas"), "{refused}");
        assert_eq!(k.field("sts/web", ".spec.template.spec.containers[0].image"), "nginx:1.12", "nothing of it was applied");
        k.sh("kubectl apply --server-side --force-conflicts -f set.yaml");
        k.until("kubectl get pods -o jsonpath='{.items[*].spec.containers[0].image}'", |text| text == "nginx:1.13 nginx:1.13");
        k.until_ready("web", 2);
        assert_eq!(managers(k), "kubectl/Apply/ statefulset-controller/Update/status ");
    }
}

story! {
    /// Both ways of applying can follow each other: kubectl moves the managers from one to the other.
    fn client_side_and_server_side_apply_follow_each_other(k, []) {
        let map = |data: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {data}\n");
        let data = |k: &Cluster| k.field("cm/m", ".data");
        k.apply(&map("{a: '1', b: '1'}"));
        k.file("manifest.yaml", &map("{b: '2', c: '2'}"));
        assert_eq!(k.sh("kubectl apply --server-side -f manifest.yaml"), "configmap/m serverside-applied\n");
        assert_eq!(data(k), "{\"b\":\"2\",\"c\":\"2\"}");
        assert_eq!(k.apply(&map("{c: '3'}")), "configmap/m configured\n");
        assert_eq!(data(k), "{\"c\":\"3\"}");
        k.file("manifest.yaml", &map("{d: '4'}"));
        k.sh("kubectl apply --server-side -f manifest.yaml");
        assert_eq!(data(k), "{\"d\":\"4\"}");
        k.sh("kubectl patch cm m --type=merge -p '{\"data\":{\"d\":\"5\"}}'");
        let refused = k.sh_fails("kubectl apply --server-side -f manifest.yaml");
        assert!(refused.contains("conflict with \"kubectl-patch\" using v1: .data.d"), "{refused}");
    }
}
