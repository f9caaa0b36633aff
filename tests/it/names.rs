//! B: names on the network.

use crate::harness::{shows, story, web};

story! {
    /// B1, B6, T122: the headless name has every Ready pod, `<pod>.<svc>` one; SRV of the named port.
    fn a_headless_service_names_its_ready_pods(k, ["nginx:1.12", "appropriate/curl"]) {
        k.apply(&web(3, ""));
        k.sh("kubectl run client --image=appropriate/curl --command -- sleep 3600");
        k.until_ready("web", 3);
        k.sh("kubectl wait --for=condition=ready pod/client --timeout=60s");
        let all = k.sh("kubectl exec client -- nslookup nginx.default.svc.cluster.local");
        for ordinal in 0..3 {
            let address = k.field(&format!("pod/web-{ordinal}"), ".status.podIP");
            assert!(all.contains(&address), "{address} is not in\n{all}");
            let one = k.sh(&format!("kubectl exec client -- getent hosts web-{ordinal}.nginx"));
            assert!(one.starts_with(&address), "{one}");
        }
        let short = k.sh("kubectl exec client -- getent ahostsv4 nginx");
        assert_eq!(short.lines().filter(|line| line.contains("STREAM")).count(), 3, "{short}");
        let services = k.sh("kubectl exec client -- nslookup -type=srv _web._tcp.nginx.default.svc.cluster.local");
        for ordinal in 0..3 {
            assert!(services.contains(&format!("80 web-{ordinal}.nginx.default.svc.cluster.local")), "{services}");
        }
        let line = k.sh("kubectl get svc nginx --no-headers");
        assert_eq!(line.split_whitespace().take(3).collect::<Vec<_>>(), ["nginx", "ClusterIP", "None"]);
    }
}

story! {
    /// B2: a debugging pod at the terminal, gone afterwards.
    fn a_debugging_pod_prints_a_record_and_leaves_nothing_behind(k, ["nginx:1.12", "busybox"]) {
        k.apply(&web(1, ""));
        k.until_ready("web", 1);
        let address = k.field("pod/web-0", ".status.podIP");
        let text = k.at_terminal("kubectl run -it --rm debug --image=busybox --restart=Never -- nslookup web-0.nginx");
        assert!(text.contains(&address), "{address} is not in\n{text}");
        assert!(text.contains("pod \"debug\" deleted"), "{text}");
        k.until("kubectl get pod debug 2>&1 || true", |text| text.contains("not found"));
    }
}

story! {
    /// B3: one address that balances over the Ready pods.
    fn a_cluster_ip_balances_over_the_ready_pods(k, ["nginx:1.12", "appropriate/curl"]) {
        k.apply(&web(3, ""));
        k.apply("apiVersion: v1\nkind: Service\nmetadata: {name: read}\nspec:\n  selector: {app: nginx}\n  ports: [{port: 8080, targetPort: web}]\n");
        k.sh("kubectl run client --image=appropriate/curl --command -- sleep 3600");
        k.until_ready("web", 3);
        k.sh("kubectl wait --for=condition=ready pod/client --timeout=60s");
        for ordinal in 0..3 {
            k.sh(&format!("kubectl exec web-{ordinal} -- sh -c 'hostname > /usr/share/nginx/html/data/name'"));
        }
        let asked = "kubectl exec client -- sh -c 'for i in $(seq 60); do curl -s --max-time 5 read:8080/data/name; done' | sort | uniq -c";
        k.until(asked, |text| text.lines().count() == 3 && text.contains("web-0") && text.contains("web-1") && text.contains("web-2"));
        // A pod that is itself behind the address reaches the address too.
        let own = k.sh("kubectl exec web-0 -- sh -c 'for i in $(seq 30); do curl -s --max-time 5 read:8080/data/name; done' | sort -u");
        assert_eq!(own, "web-0\nweb-1\nweb-2\n");
    }
}

story! {
    /// B4, T123: the name follows the pod to its new address.
    fn a_name_follows_its_pod_to_a_new_address(k, ["nginx:1.12"]) {
        k.apply(&web(2, ""));
        k.until_ready("web", 2);
        k.sh("kubectl exec web-0 -- curl -s --max-time 5 web-1.nginx");
        let before = k.field("pod/web-1", ".status.podIP");
        k.sh("kubectl delete pod web-1");
        k.until_ready("web", 2);
        let after = k.field("pod/web-1", ".status.podIP");
        assert_ne!(before, after);
        k.until("kubectl exec web-0 -- getent hosts web-1.nginx.default.svc.cluster.local", |text| text.starts_with(&after));
        let page = k.sh("kubectl exec web-0 -- curl -s --max-time 5 web-1.nginx");
        assert!(page.contains("Welcome to nginx!"), "{page}");
    }
}

story! {
    /// T121: a pod that is not Ready has no name, unless the Service publishes it.
    fn a_pod_that_is_not_ready_has_no_name_unless_it_is_published(k, ["nginx:1.12"]) {
        k.apply(&web(1, "").replace("path: /, port: web", "path: /absent, port: web"));
        k.until("kubectl get pod web-0 --no-headers", |text| shows(text, &["web-0", "0/1", "Running"]));
        k.sh_fails("kubectl exec web-0 -- getent ahostsv4 web-0.nginx.default.svc.cluster.local.");
        k.sh("kubectl patch service nginx -p '{\"spec\":{\"publishNotReadyAddresses\":true}}'");
        let address = k.field("pod/web-0", ".status.podIP");
        k.until("kubectl exec web-0 -- getent ahostsv4 web-0.nginx.default.svc.cluster.local.", |text| text.starts_with(&address));
    }
}
