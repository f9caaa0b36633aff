//! F3: the nginx and curl exercise, all nine steps, word for word.

use crate::harness::{Cluster, story};

const MANIFEST: &str = include_str!("../../examples/nginx-curl/stateful.yaml");

fn in_curl(k: &Cluster, command: &str) -> String {
    k.sh(&format!("kubectl exec stateful-0 -c curl -- {command}"))
}

story! {
    /// F3, E1, B1, B4, B6.
    fn the_nginx_and_curl_exercise_works_in_all_nine_steps(k, ["nginx:1.12", "appropriate/curl"]) {
        // 1
        k.apply(MANIFEST);
        k.until_ready("stateful", 3);
        // 2
        let sets = k.sh("kubectl get statefulset");
        assert!(sets.starts_with("NAME       READY   AGE\nstateful   3/3 "), "{sets}");
        // 3
        let pods = k.sh("kubectl get pods");
        for name in ["stateful-0", "stateful-1", "stateful-2"] {
            assert!(pods.contains(&format!("{name}   2/2     Running   0 ")), "{pods}");
        }
        let started = k.sh("kubectl get pods -o jsonpath='{range .items[*]}{.metadata.creationTimestamp}{\"\\n\"}{end}'");
        let times: Vec<&str> = started.lines().collect();
        assert!(times.is_sorted(), "{times:?}");
        // 4
        let services = k.sh("kubectl get service");
        let line = services.lines().find(|line| line.starts_with("stateful-svc")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..5], ["stateful-svc", "ClusterIP", "None", "<none>", "80/TCP"]);
        // 5
        let found = looked_up(k);
        let first = addresses(k);
        for address in &first {
            assert!(found.contains(address), "{address} is not in\n{found}");
        }
        for ordinal in 0..3 {
            let page = in_curl(k, &format!("curl stateful-{ordinal}.stateful-svc.default.svc.cluster.local"));
            assert!(page.contains("Welcome to nginx!"), "{page}");
        }
        // 6
        let before = k.field("pod/stateful-1", ".status.podIP");
        let uid = k.field("pod/stateful-1", ".metadata.uid");
        assert_eq!(k.sh("kubectl delete pod stateful-1"), "pod \"stateful-1\" deleted\n");
        // 7
        k.until_ready("stateful", 3);
        assert_ne!(k.field("pod/stateful-1", ".metadata.uid"), uid);
        assert_ne!(k.field("pod/stateful-1", ".status.podIP"), before);
        // 8
        let found = looked_up(k);
        for address in addresses(k) {
            assert!(found.contains(&address), "{address} is not in\n{found}");
        }
        let page = in_curl(k, "curl stateful-1.stateful-svc.default.svc.cluster.local");
        assert!(page.contains("Welcome to nginx!"), "{page}");
        // 9
        k.sh("kubectl delete statefulset stateful");
        k.sh("kubectl delete service stateful-svc");
        k.until("kubectl get pods 2>&1", |text| text == "No resources found in default namespace.\n");
    }
}

/// What `nslookup stateful-svc` prints. (Busybox's tells each domain of the search list that does not have the name, and
/// ends with an error if there is one.)
fn looked_up(k: &Cluster) -> String {
    let output = k.try_sh("kubectl exec stateful-0 -c curl -- nslookup stateful-svc");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn addresses(k: &Cluster) -> Vec<String> {
    let text = k.sh("kubectl get pods -l app=stateful -o jsonpath='{.items[*].status.podIP}'");
    text.split_whitespace().map(str::to_owned).collect()
}
