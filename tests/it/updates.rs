//! D: updates.

use crate::harness::{Cluster, line_of, story, web};

fn images(k: &Cluster) -> String {
    k.sh("kubectl get pods -o jsonpath='{.items[*].spec.containers[0].image}'")
}

story! {
    /// D1, T50, T62: highest ordinal first, one at a time.
    fn a_rolling_update_goes_from_the_highest_ordinal_down(k, ["nginx:1.12", "nginx:1.13"]) {
        k.apply(&web(3, ""));
        k.until_ready("web", 3);
        let before = k.field("sts/web", ".status.currentRevision");
        let watch = k.beside("kubectl get pods --watch-only --output-watch-events");
        assert_eq!(k.sh("kubectl set image statefulset/web nginx=nginx:1.13"), "statefulset.apps/web image updated\n");
        k.until("kubectl get pods -o jsonpath='{.items[*].spec.containers[0].image}'", |text| text == "nginx:1.13 nginx:1.13 nginx:1.13");
        k.until_ready("web", 3);
        let seen = watch.until(|text| text.lines().any(|line| line.starts_with("DELETED") && line.contains("web-0 ")));
        for (first, then) in [("web-2", "web-1"), ("web-1", "web-0")] {
            let added = line_of(&seen, &["ADDED", first]);
            let ready = added + line_of(&seen.lines().skip(added).collect::<Vec<_>>().join("\n"), &[first, "1/1"]);
            assert!(ready < line_of(&seen, &[then, "Terminating"]), "{seen}");
        }
        k.until("kubectl get sts web -o jsonpath='{.status.currentRevision} {.status.updateRevision} {.status.updatedReplicas}'", |text| {
            let words: Vec<&str> = text.split(' ').collect();
            words[0] == words[1] && words[0] != before && words[2] == "3"
        });
        assert!(k.sh("kubectl rollout status sts/web").contains("partitioned roll out complete: 3 new pods have been updated..."));
    }
}

story! {
    /// D2, T57, T58: only ordinals at or above the partition change, also when a lower pod is deleted by hand.
    fn a_partition_holds_the_lower_ordinals_back(k, ["nginx:1.12", "nginx:1.13"]) {
        k.apply(&web(3, "  updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 2}}"));
        k.until_ready("web", 3);
        k.sh("kubectl set image sts/web nginx=nginx:1.13");
        k.until("kubectl get pods -o jsonpath='{.items[*].spec.containers[0].image}'", |text| text == "nginx:1.12 nginx:1.12 nginx:1.13");
        k.until_ready("web", 3);
        k.sh("kubectl delete pod web-0");
        k.until_ready("web", 3);
        assert_eq!(images(k), "nginx:1.12 nginx:1.12 nginx:1.13");
        k.sh("kubectl patch statefulset web -p '{\"spec\":{\"updateStrategy\":{\"rollingUpdate\":{\"partition\":0}}}}'");
        k.until("kubectl get pods -o jsonpath='{.items[*].spec.containers[0].image}'", |text| text == "nginx:1.13 nginx:1.13 nginx:1.13");
        k.until_ready("web", 3);
    }
}

story! {
    /// D3, T61: nothing happens until a pod is deleted by hand.
    fn on_delete_changes_a_pod_only_when_it_is_deleted(k, ["nginx:1.12", "nginx:1.13"]) {
        k.apply(&web(2, "  updateStrategy: {type: OnDelete}"));
        k.until_ready("web", 2);
        let uids = k.sh("kubectl get pods -o jsonpath='{.items[*].metadata.uid}'");
        k.sh("kubectl set image sts/web nginx=nginx:1.13");
        k.until_ready("web", 2);
        assert_eq!(images(k), "nginx:1.12 nginx:1.12");
        k.sh("kubectl delete pod web-0");
        k.until_ready("web", 2);
        assert_eq!(images(k), "nginx:1.13 nginx:1.12");
        let now = k.sh("kubectl get pods -o jsonpath='{.items[*].metadata.uid}'");
        assert_eq!(now.split(' ').nth(1), uids.split(' ').nth(1));
        let refused = k.sh_fails("kubectl rollout status sts/web");
        assert!(refused.contains("rollout status is only available for RollingUpdate strategy type"), "{refused}");
    }
}

story! {
    /// D5, T70: upstream's message.
    fn fields_that_cannot_change_are_refused_in_upstreams_words(k, ["nginx:1.12"]) {
        k.apply(&web(0, ""));
        let refused = k.sh_fails("kubectl patch statefulset web -p '{\"spec\":{\"podManagementPolicy\":\"Parallel\"}}'");
        assert_eq!(
            refused,
            "The StatefulSet \"web\" is invalid: spec: Forbidden: updates to statefulset spec for fields other than 'replicas', \
             'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
             'minReadySeconds' are forbidden\n"
        );
        let bad = k.sh_fails("kubectl scale sts web --replicas=-1");
        assert!(bad.contains("--replicas=COUNT"), "{bad}");
        let bad = k.sh_fails("kubectl patch sts web -p '{\"spec\":{\"replicas\":-1}}'");
        assert_eq!(bad, "The StatefulSet \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0\n");
    }
}

story! {
    /// D4, T111, T116, T117: history, undo, restart, and what is not for sets.
    fn rollouts_are_driven_by_kubectl_in_upstreams_words(k, ["nginx:1.12", "nginx:1.13"]) {
        k.apply(&web(2, ""));
        let told = k.sh("kubectl rollout status sts/web --timeout=60s");
        assert!(told.contains("partitioned roll out complete: 2 new pods have been updated...") || told.contains("Waiting for"), "{told}");
        k.until_ready("web", 2);
        let first = k.field("sts/web", ".status.updateRevision");
        k.sh("kubectl set image sts/web nginx=nginx:1.13");
        let told = k.sh("kubectl rollout status sts/web --timeout=60s");
        assert!(told.ends_with("partitioned roll out complete: 2 new pods have been updated...\n"), "{told}");
        let history = k.sh("kubectl rollout history sts/web");
        assert_eq!(history, "statefulset.apps/web \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n\n");
        assert!(k.sh("kubectl rollout history sts/web --revision=1").contains("nginx:1.12"));
        assert_eq!(k.sh("kubectl rollout undo sts/web"), "statefulset.apps/web rolled back\n");
        k.until("kubectl get pods -o jsonpath='{.items[*].spec.containers[0].image}'", |text| text == "nginx:1.12 nginx:1.12");
        k.until_ready("web", 2);
        k.until("kubectl get sts web -o jsonpath='{.status.currentRevision}'", |text| text == first);
        assert_eq!(k.sh("kubectl rollout history sts/web"), "statefulset.apps/web \nREVISION  CHANGE-CAUSE\n2         <none>\n3         <none>\n\n");
        // kubectl compares its own encoding, which differs between its versions: it skips, or changes nothing.
        let again = k.sh("kubectl rollout undo sts/web --to-revision=3");
        assert!(again.contains("skipped rollback (current template already matches revision 3)") || again.contains("rolled back"), "{again}");
        assert_eq!(k.field("sts/web", ".status.updateRevision"), first);
        let before = k.sh("kubectl get pods -o jsonpath='{.items[*].metadata.uid}'");
        assert_eq!(k.sh("kubectl rollout restart sts/web"), "statefulset.apps/web restarted\n");
        k.sh("kubectl rollout status sts/web --timeout=60s");
        let after = k.sh("kubectl get pods -o jsonpath='{.items[*].metadata.uid}'");
        assert!(before.split(' ').all(|uid| !after.contains(uid)), "{before} {after}");
        let refused = k.sh_fails("kubectl rollout pause sts/web");
        assert!(refused.contains("statefulsets.apps \"web\" pausing is not supported"), "{refused}");
        let described = k.sh("kubectl describe sts web");
        for words in ["Replicas:           2 desired | 2 total", "Update Strategy:    RollingUpdate", "SuccessfulCreate", "create Pod web-0 in StatefulSet web successful"] {
            assert!(described.contains(words), "{words} is not in\n{described}");
        }
    }
}

story! {
    /// D5: refused as upstream by default, accepted where the set says so; conditions can be waited for.
    fn fixed_fields_change_where_the_set_opens_them(k, ["nginx:1.12"]) {
        k.apply(&web(2, "  podManagementPolicy: Parallel"));
        k.sh("kubectl wait --for=condition=Available sts/web --timeout=60s");
        let refused = k.sh_fails("kubectl patch statefulset web -p '{\"spec\":{\"podManagementPolicy\":\"OrderedReady\"}}'");
        assert!(refused.contains("updates to statefulset spec for fields other than 'replicas'"), "{refused}");
        let before = k.sh("kubectl get pods -o jsonpath='{.items[*].metadata.uid}'");
        k.sh("kubectl annotate sts web abide.dev/mutable-fields=true");
        assert_eq!(k.sh("kubectl patch statefulset web -p '{\"spec\":{\"podManagementPolicy\":\"OrderedReady\"}}'"), "statefulset.apps/web patched\n");
        assert_eq!(k.sh("kubectl patch statefulset web -p '{\"spec\":{\"serviceName\":\"other\"}}'"), "statefulset.apps/web patched\n");
        k.sh("kubectl scale sts web --replicas=3");
        k.until_ready("web", 3);
        assert_eq!(k.field("pod/web-2", ".spec.subdomain"), "other");
        assert!(k.sh("kubectl get pods -o jsonpath='{.items[*].metadata.uid}'").starts_with(&before), "healthy pods are not restarted");
        k.sh("kubectl set image sts/web nginx=absent:9");
        k.sh("kubectl wait --for=condition=Blocked sts/web --timeout=60s");
        let why = k.sh("kubectl get sts web -o jsonpath='{.status.conditions[?(@.type==\"Blocked\")].message}'");
        assert!(why.starts_with("pod web-2 holds up the set: container nginx:"), "{why}");
    }
}

story! {
    /// D6: pods of a Parallel set start together, and are updated one at a time nevertheless.
    fn a_parallel_set_is_updated_one_at_a_time(k, ["nginx:1.12", "nginx:1.13"]) {
        k.apply(&web(3, "  podManagementPolicy: Parallel"));
        k.until_ready("web", 3);
        let watch = k.beside("kubectl get pods --watch-only --output-watch-events");
        k.sh("kubectl set image sts/web nginx=nginx:1.13");
        k.until("kubectl get pods -o jsonpath='{.items[*].spec.containers[0].image}'", |text| text == "nginx:1.13 nginx:1.13 nginx:1.13");
        k.until_ready("web", 3);
        let seen = watch.until(|text| text.lines().any(|line| line.starts_with("DELETED") && line.contains("web-0 ")));
        for (first, then) in [("web-2", "web-1"), ("web-1", "web-0")] {
            let added = line_of(&seen, &["ADDED", first]);
            let ready = added + line_of(&seen.lines().skip(added).collect::<Vec<_>>().join("\n"), &[first, "1/1"]);
            assert!(ready < line_of(&seen, &[then, "Terminating"]), "{seen}");
        }
    }
}
