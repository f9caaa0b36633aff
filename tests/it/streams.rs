//! What goes through the API server to a container and back: terminals, files, ports. Over WebSocket, which clients since
//! 1.31 use, and over SPDY, which older ones and those written in Go use.

use crate::harness::{Cluster, story};

/// What makes kubectl use the transport.
const TRANSPORTS: [&str; 2] =
    ["", "export KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false KUBECTL_PORT_FORWARD_WEBSOCKETS=false; "];

/// A pod of one container that other programs run in.
fn pod(k: &Cluster, name: &str, image: &str, more: &str) {
    k.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: {image}
{more}
"#
    ));
    k.sh(&format!("kubectl wait --for=condition=ready pod/{name} --timeout=90s"));
}

story! {
    /// E1: a terminal has the size of the user's own, also when that changes; the command's exit code is kubectl's.
    fn a_terminal_follows_its_user(k, ["nginx:1.12"]) {
        pod(k, "web", "nginx:1.12", "");
        for transport in TRANSPORTS {
            k.file("inside.sh", "until [ \"$(stty size)\" = '31 101' ]; do :; done; stty size; touch /tmp/up; until [ -f /tmp/go ] && [ \"$(stty size)\" = '41 111' ]; do :; done; stty size; rm /tmp/up /tmp/go; exit 3");
            k.file("terminal.sh", &format!(
                "{transport}stty rows 31 cols 101; T=$(tty)\n\
                 (until kubectl exec web -- test -f /tmp/up 2> /dev/null; do :; done; stty rows 41 cols 111 < $T; kubectl exec web -- touch /tmp/go) &\n\
                 kubectl exec -it web -- sh -c \"$(cat inside.sh)\"\n\
                 echo code $?\n"
            ));
            let text = k.at_terminal("bash terminal.sh");
            assert!(text.contains("31 101\n41 111\n"), "{text}");
            assert!(text.contains("exit code 3\ncode 3\n"), "{text}");
        }
    }
}

story! {
    /// E1, B2: `kubectl run -i` and `attach`: input ends the program that reads it, and nothing is left behind.
    fn a_program_that_reads_input_ends_with_it(k, ["busybox"]) {
        for transport in TRANSPORTS {
            let text = k.sh(&format!("{transport}echo hello | kubectl run -i --rm --quiet cat --image=busybox --restart=Never -- sh -c 'cat; echo end'"));
            assert!(text.starts_with("hello\nend\n"), "{text}");
            k.until("kubectl get pods 2>&1", |text| text.starts_with("No resources found"));
        }
        pod(k, "shell", "busybox", "    stdin: true\n    tty: true\n    command: [sh]");
        k.file("typed.sh", "(until [ -n \"$(kubectl get pod shell -o name)\" ]; do :; done; echo 'echo $((40 + 2))'; echo exit) | kubectl attach -i shell\n");
        let text = k.sh("bash typed.sh 2>/dev/null; true");
        assert!(text.contains("42"), "{text}");
        k.until("kubectl get pod shell -o jsonpath='{.status.containerStatuses[0].restartCount}'", |count| count == "1");
        let refused = k.sh_fails("kubectl attach none");
        assert!(refused.contains("pods \"none\" not found"), "{refused}");
    }
}

story! {
    /// E1: files go in and come out unchanged, folders too.
    fn files_are_copied_into_a_container_and_out_of_it(k, ["nginx:1.12"]) {
        pod(k, "web", "nginx:1.12", "");
        k.sh("mkdir folder; head -c 5000000 /dev/urandom > folder/large; echo small > folder/small");
        for transport in TRANSPORTS {
            k.sh(&format!("{transport}kubectl cp folder web:/tmp/folder"));
            k.sh(&format!("{transport}kubectl cp web:/tmp/folder back"));
            k.sh("diff -r folder back && rm -r back && kubectl exec web -- rm -r /tmp/folder");
            let sum = k.sh(&format!("{transport}kubectl exec -i web -- sh -c 'cat > /tmp/x; cat /tmp/x' < folder/large | md5sum"));
            assert_eq!(sum, k.sh("md5sum < folder/large"));
        }
    }
}

story! {
    /// E1, B3: `kubectl port-forward` to a pod, a Service and a set; many connections, and one to a port that nobody serves.
    fn ports_of_pods_are_reached_from_outside(k, ["nginx:1.12"]) {
        k.apply(&crate::harness::web(1, ""));
        k.until_ready("web", 1);
        for transport in TRANSPORTS {
            for target in ["pod/web-0 :80", "service/nginx :80", "statefulset/web :web"] {
                let forward = k.beside(&format!("bash -c '{transport}exec kubectl port-forward --address 127.0.0.1 {target}'"));
                let port = k.forwarded(&forward);
                let pages = k.sh(&format!("for i in $(seq 20); do exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3; done | grep -c '<title>Welcome to nginx!'"));
                assert_eq!(pages, "20\n");
            }
            let refused = k.beside(&format!("bash -c '{transport}exec kubectl port-forward --address 127.0.0.1 pod/web-0 :81'"));
            let port = k.forwarded(&refused);
            k.sh(&format!("exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&3"));
            let text = refused.until(|text| text.contains("error forwarding port 81 to pod web-0"));
            assert!(text.contains("Connection refused"), "{text}");
        }
    }
}
