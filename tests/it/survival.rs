//! The server dies; the pods live on.

use crate::harness::{Cluster, story, web};

fn kill_server(k: &Cluster) {
    k.sh("kill -9 $(cat $ABIDE_DATA_DIR/server.pid)");
}

fn pods(k: &Cluster, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| k.sh(&format!("kubectl get pod {name} -o jsonpath='{{.metadata.uid}} {{.status.podIP}} {{.status.containerStatuses[0].containerID}} {{.status.containerStatuses[0].restartCount}}'"))).collect()
}

story! {
    /// T130: every pod runs on, no container is restarted.
    fn pods_run_on_while_the_server_is_dead(k, ["nginx:1.12"]) {
        k.apply(&web(2, ""));
        k.until_ready("web", 2);
        k.sh("kubectl exec web-0 -- sh -c 'echo alive > /tmp/memory'");
        let before = pods(k, &["web-0", "web-1"]);
        let server = k.sh("cat $ABIDE_DATA_DIR/server.pid");
        kill_server(k);
        k.until("cat $ABIDE_DATA_DIR/server.pid", |text| text != server);
        k.until("kubectl get --raw /readyz", |text| text == "ok");
        k.until_ready("web", 2);
        assert_eq!(pods(k, &["web-0", "web-1"]), before);
        assert_eq!(k.sh("kubectl exec web-0 -- cat /tmp/memory"), "alive\n");
        k.sh("kubectl exec web-0 -- curl -s --max-time 5 web-1.nginx");
        // And the server still rules them.
        k.sh("kubectl delete pod web-1");
        k.until_ready("web", 2);
        assert_eq!(pods(k, &["web-0"])[0], before[0]);
    }
}

story! {
    /// T130, T1, T96: SIGKILL in the middle of a scale-up.
    fn a_scale_up_survives_the_death_of_the_server(k, ["nginx:1.12"]) {
        k.apply(&web(3, ""));
        k.until_ready("web", 3);
        let before = pods(k, &["web-0", "web-1", "web-2"]);
        for round in 0..3 {
            k.sh("kubectl scale sts web --replicas=5");
            let server = k.sh("cat $ABIDE_DATA_DIR/server.pid");
            if round > 0 {
                k.until("kubectl get pods --no-headers", |text| text.contains("web-3 ") || round == 2);
            }
            kill_server(k);
            k.until("cat $ABIDE_DATA_DIR/server.pid", |text| text != server);
            k.until_ready("web", 5);
            assert_eq!(pods(k, &["web-0", "web-1", "web-2"]), before);
            let created = k.sh("kubectl get pods -o jsonpath='{range .items[*]}{.metadata.creationTimestamp} {.metadata.name}{\"\\n\"}{end}'");
            let times: Vec<&str> = created.lines().filter(|line| line.ends_with("-3") || line.ends_with("-4")).map(|line| line.split(' ').next().unwrap()).collect();
            assert!(times.len() == 2 && times[0] <= times[1], "{created}");
            let claims = k.sh("kubectl get pvc -o jsonpath='{.items[*].metadata.name}'");
            assert_eq!(claims, "www-web-0 www-web-1 www-web-2 www-web-3 www-web-4");
            let restarts = k.sh("kubectl get pods -o jsonpath='{.items[*].status.containerStatuses[0].restartCount}'");
            assert_eq!(restarts, "0 0 0 0 0");
            k.sh("kubectl scale sts web --replicas=3");
            k.until_ready("web", 3);
        }
    }
}
