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
