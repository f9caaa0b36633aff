//! A: identity and order.

use crate::harness::{line_of, shows, story, web};

story! {
    /// A1, T129: a stable name, a new pod.
    fn a_deleted_pod_returns_under_its_name_with_a_new_uid_and_address(k, ["nginx:1.12"]) {
        k.apply(&web(3, ""));
        k.until_ready("web", 3);
        let names = k.sh("kubectl get pods -l app=nginx -o jsonpath='{.items[*].metadata.name}'");
        assert_eq!(names, "web-0 web-1 web-2");
        let (uid, address) = (k.field("pod/web-1", ".metadata.uid"), k.field("pod/web-1", ".status.podIP"));
        k.sh("kubectl delete pod web-1");
        k.until_ready("web", 3);
        assert_ne!(k.field("pod/web-1", ".metadata.uid"), uid);
        assert_ne!(k.field("pod/web-1", ".status.podIP"), address);
        assert_eq!(k.sh("kubectl exec web-1 -- hostname"), "web-1\n");
        assert_eq!(k.field("pod/web-1", ".metadata.labels.apps\\.kubernetes\\.io/pod-index"), "1");
        assert_eq!(k.field("pod/web-1", ".metadata.labels.statefulset\\.kubernetes\\.io/pod-name"), "web-1");
    }
}

story! {
    /// A2, T1: as `kubectl get pods -w` shows it.
    fn pods_start_one_after_the_other_each_after_its_predecessor_is_ready(k, ["nginx:1.12", "busybox"]) {
        let watch = k.beside("kubectl get pods -l app=nginx --watch");
        let init = web(3, "").replace(
            "      containers:\n",
            "      initContainers:\n      - {name: first, image: busybox, command: [sh, -c, 'sleep 0.3']}\n      containers:\n",
        );
        k.apply(&init);
        let seen = watch.until(|text| text.lines().any(|line| line.starts_with("web-2 ") && line.contains("1/1")));
        for ordinal in 0..3 {
            let name = format!("web-{ordinal}");
            let pending = line_of(&seen, &[&name, "Pending"]);
            let init = line_of(&seen, &[&name, "Init:0/1"]);
            let ready = line_of(&seen, &[&name, "1/1", "Running"]);
            assert!(pending < init && init < ready, "{seen}");
            if ordinal > 0 {
                let before = line_of(&seen, &[&format!("web-{}", ordinal - 1), "1/1", "Running"]);
                assert!(before < pending, "{seen}");
            }
        }
    }
}

story! {
    /// A3, T1, T30: `kubectl scale` and `sed | kubectl apply`.
    fn scaling_goes_up_in_order_and_down_in_reverse(k, ["nginx:1.12"]) {
        k.file("web.yaml", &web(3, ""));
        k.sh("kubectl apply -f web.yaml");
        k.until_ready("web", 3);
        let up = k.beside("kubectl get pods --watch-only");
        assert_eq!(k.sh("kubectl scale statefulset web --replicas=5"), "statefulset.apps/web scaled\n");
        k.until_ready("web", 5);
        let seen = up.until(|text| text.lines().any(|line| line.starts_with("web-4 ") && line.contains("1/1")));
        assert!(line_of(&seen, &["web-3", "1/1"]) < line_of(&seen, &["web-4", "Pending"]), "{seen}");

        let down = k.beside("kubectl get pods --watch-only --output-watch-events");
        assert_eq!(k.sh("kubectl scale sts/web --replicas 2"), "statefulset.apps/web scaled\n");
        k.until_ready("web", 2);
        let seen = down.until(|text| text.lines().any(|line| line.starts_with("DELETED") && line.contains("web-2 ")));
        for (first, then) in [("web-4", "web-3"), ("web-3", "web-2")] {
            assert!(line_of(&seen, &["DELETED", first]) < line_of(&seen, &[then, "Terminating"]), "{seen}");
        }

        k.sh("sed -e 's|replicas: 3|replicas: 4|' web.yaml | kubectl apply -f -");
        k.until_ready("web", 4);
    }
}

story! {
    /// A4, T2, T31: all at once, up and down.
    fn a_parallel_set_starts_and_ends_all_its_pods_at_once(k, ["nginx:1.12"]) {
        // No pod can become Ready, so an ordered set would stop at the first.
        let never_ready = web(4, "  podManagementPolicy: Parallel").replace("path: /, port: web", "path: /absent, port: web");
        k.apply(&never_ready);
        k.until("kubectl get pods --no-headers", |text| (0..4).all(|ordinal| shows(text, &[&format!("web-{ordinal}"), "0/1", "Running"])));
        k.sh("kubectl scale sts web --replicas=0");
        k.until("kubectl get pods 2>&1", |text| text.starts_with("No resources found"));
    }
}

story! {
    /// A5, T42: deleting a set removes its pods and keeps its claims.
    fn deleting_a_set_removes_its_pods_and_keeps_its_claims(k, ["nginx:1.12"]) {
        k.apply(&web(2, ""));
        k.until_ready("web", 2);
        k.sh("kubectl delete statefulset web");
        k.until("kubectl get pods 2>&1", |text| text.starts_with("No resources found"));
        let claims = k.sh("kubectl get pvc --no-headers");
        assert_eq!(claims.lines().count(), 2, "{claims}");
        assert!(claims.lines().all(|line| line.contains("Bound")), "{claims}");
    }
}

story! {
    /// A7: the container is restarted in the same pod.
    fn killing_the_main_process_restarts_the_container_in_the_same_pod(k, ["nginx:1.12"]) {
        k.apply(&web(1, ""));
        k.until_ready("web", 1);
        let uid = k.field("pod/web-0", ".metadata.uid");
        k.sh("kubectl exec web-0 -- touch /usr/share/nginx/html/data/kept");
        k.sh("kubectl exec web-0 -- /bin/bash -c 'kill 1'");
        k.until("kubectl get pod web-0 --no-headers", |text| {
            let words: Vec<&str> = text.split_whitespace().collect();
            words[..4] == ["web-0", "1/1", "Running", "1"]
        });
        assert_eq!(k.field("pod/web-0", ".metadata.uid"), uid);
        k.sh("kubectl exec web-0 -- test -f /usr/share/nginx/html/data/kept");
    }
}
