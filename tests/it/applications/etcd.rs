//! etcd: a quorum of members that know each other by name.

use super::{example, ready};
use crate::harness::story;

story! {
    /// F5, A4, B1: one member is held away; the two others go on; it comes back and catches up.
    fn etcd_keeps_its_quorum_while_one_member_is_away(k, ["quay.io/coreos/etcd:v3.5.21"]) {
        k.sh(&format!("kubectl apply -f {}", example("etcd")));
        ready(k, "etcd", 3);
        assert_eq!(k.sh("kubectl exec etcd-0 -- etcdctl member list").lines().filter(|line| line.contains(", started, etcd-")).count(), 3);
        assert_eq!(k.sh("kubectl exec etcd-0 -- etcdctl put greeting hello"), "OK\n");
        assert_eq!(k.sh("kubectl exec etcd-1 -- etcdctl get greeting"), "greeting\nhello\n");

        // A finalizer keeps the ended pod, and with it its successor away.
        k.sh(r#"kubectl patch pod etcd-1 -p '{"metadata":{"finalizers":["example.com/held"]}}'"#);
        k.sh("kubectl delete pod etcd-1 --wait=false");
        k.until("kubectl get pod etcd-1 -o jsonpath='{.status.containerStatuses[0].state.terminated.finishedAt}'", |text| !text.is_empty());
        k.until("kubectl exec etcd-0 -- etcdctl put greeting 'hello without etcd-1'", |text| text == "OK\n");
        assert_eq!(k.sh("kubectl exec etcd-2 -- etcdctl get greeting"), "greeting\nhello without etcd-1\n");
        assert_eq!(k.field("statefulset/etcd", ".status.readyReplicas"), "2");

        k.sh(r#"kubectl patch pod etcd-1 -p '{"metadata":{"finalizers":null}}'"#);
        ready(k, "etcd", 3);
        assert_eq!(k.sh("kubectl exec etcd-1 -- etcdctl get greeting"), "greeting\nhello without etcd-1\n");
        let members = k.sh("kubectl exec etcd-1 -- etcdctl endpoint health --cluster 2>&1");
        assert_eq!(members.matches("is healthy").count(), 3, "{members}");
    }
}
