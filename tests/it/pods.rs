//! E: pods.

use crate::harness::{shows, story, web};

story! {
    /// E1: containers share the network; exec, exec -it, logs, logs -c, -f, --tail, --previous.
    fn exec_and_logs_reach_each_container_of_a_pod(k, ["nginx:1.12", "appropriate/curl"]) {
        k.apply(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: two}\nspec:\n  containers:\n  - {name: nginx, image: 'nginx:1.12'}\n  \
             - name: curl\n    image: appropriate/curl\n    command: [/bin/sh, -c, 'i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); sleep 0.1; done']\n",
        );
        k.sh("kubectl wait --for=condition=ready pod/two --timeout=60s");
        let page = k.sh("kubectl exec two -c curl -- curl -s localhost");
        assert!(page.contains("Welcome to nginx!"), "{page}");
        let named = k.try_sh("kubectl logs two");
        assert!(String::from_utf8_lossy(&named.stderr).starts_with("Defaulted container \"nginx\" out of: nginx, curl"), "{named:?}");
        let missing = k.sh_fails("kubectl get --raw /api/v1/namespaces/default/pods/two/log");
        assert!(missing.contains("a container name must be specified for pod two, choose one of: [nginx curl]"), "{missing}");
        k.until("kubectl logs two -c curl", |text| text.starts_with("line 0\nline 1\n"));
        k.until("kubectl logs two -c curl --tail=2", |text| text.lines().count() == 2);
        let follow = k.beside("kubectl logs two -c curl -f");
        follow.until(|text| text.contains("line 20\n"));
        assert_eq!(k.at_terminal("kubectl exec -it two -c curl -- sh -c 'tty; exit 0'"), "/dev/pts/0\n");
        let output = k.try_sh("kubectl exec two -c curl -- sh -c 'echo out; echo err >&2; exit 7'");
        assert_eq!(output.status.code(), Some(7));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "out\n");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("err\n"));
        assert_eq!(k.sh("echo through | kubectl exec -i two -c curl -- cat"), "through\n");
        let missing = k.sh_fails("kubectl exec two -c none -- true");
        assert!(missing.contains("container none is not valid for pod two") || missing.contains("container not found"), "{missing}");
    }
}

story! {
    /// E2: init containers run before the others, and are tried again.
    fn init_containers_run_first_and_failing_ones_are_retried(k, ["busybox"]) {
        k.apply(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: one}\nspec:\n  volumes: [{name: v, emptyDir: {}}]\n  initContainers:\n  - name: first\n    image: busybox\n    \
             command: [sh, -c, 'test -f /v/tried || { touch /v/tried; exit 3; }; echo made by init > /v/file']\n    volumeMounts: [{name: v, mountPath: /v}]\n  \
             containers:\n  - name: main\n    image: busybox\n    command: [sh, -c, 'cat /v/file; sleep 3600']\n    volumeMounts: [{name: v, mountPath: /v}]\n",
        );
        k.sh("kubectl wait --for=condition=ready pod/one --timeout=60s");
        assert_eq!(k.sh("kubectl logs one"), "made by init\n");
        assert_eq!(k.field("pod/one", ".status.initContainerStatuses[0].restartCount"), "1");
        assert_eq!(k.field("pod/one", ".status.initContainerStatuses[0].state.terminated.reason"), "Completed");
        k.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec:\n  initContainers: [{name: first, image: busybox, command: ['false']}]\n  containers: [{name: main, image: busybox}]\n");
        k.until("kubectl get pod bad --no-headers", |text| text.contains("Init:CrashLoopBackOff") || text.contains("Init:Error"));
        k.until("kubectl get pod bad --no-headers", |text| text.contains("Init:CrashLoopBackOff"));
    }
}

story! {
    /// E3: configuration as files and as environment.
    fn config_maps_and_secrets_are_files_and_environment(k, ["busybox"]) {
        k.apply(
            r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {mode: primary, app.conf: "a = 1\n"}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {password: geheim}
---
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: password, secret: {secretName: password}}
  containers:
  - name: main
    image: busybox
    command: [sh, -c, 'echo $HOSTNAME $MODE $PASSWORD $(cat /settings/app.conf) $(cat /secret/password); sleep 3600']
    env:
    - {name: MODE, valueFrom: {configMapKeyRef: {name: settings, key: mode}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: password, key: password}}}
    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: password, mountPath: /secret, readOnly: true}
"#,
        );
        k.sh("kubectl wait --for=condition=ready pod/reader --timeout=60s");
        assert_eq!(k.until("kubectl logs reader", |text| !text.is_empty()), "reader primary geheim a = 1 geheim\n");
        k.sh("kubectl patch configmap settings -p '{\"data\":{\"app.conf\":\"a = 2\"}}'");
        k.until("kubectl exec reader -- cat /settings/app.conf", |text| text == "a = 2");
    }
}

story! {
    /// E4: probes decide; `kubectl wait` sees it.
    fn probes_decide_readiness_and_restarts(k, ["busybox"]) {
        k.apply(
            r"
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  containers:
  - name: main
    image: busybox
    command: [sh, -c, 'touch /tmp/alive; sleep 3600']
    readinessProbe: {exec: {command: [test, -f, /tmp/ready]}, periodSeconds: 1}
    livenessProbe: {exec: {command: [test, -f, /tmp/alive]}, periodSeconds: 1, failureThreshold: 1, initialDelaySeconds: 1}
    terminationMessagePolicy: FallbackToLogsOnError
  terminationGracePeriodSeconds: 1
",
        );
        k.until("kubectl get pod probed --no-headers", |text| shows(text, &["probed", "0/1", "Running"]));
        k.sh("kubectl exec probed -- touch /tmp/ready");
        k.sh("kubectl wait --for=condition=ready pod/probed --timeout=60s");
        k.sh("kubectl exec probed -- rm /tmp/alive");
        k.until("kubectl get pod probed -o jsonpath='{.status.containerStatuses[0].restartCount}'", |text| text == "1");
        k.until("kubectl describe pod probed", |text| text.contains("Unhealthy") && text.contains("Liveness probe failed"));
    }
}

story! {
    /// E5, T120: the reason is seen in get, describe and logs.
    fn a_crashing_container_is_told_as_crash_loop_back_off(k, ["busybox"]) {
        k.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: crash}\nspec:\n  containers: [{name: main, image: busybox, command: [sh, -c, 'echo last words; exit 1']}]\n");
        k.until("kubectl get pod crash --no-headers", |text| text.contains("CrashLoopBackOff"));
        assert_eq!(k.sh("kubectl logs crash --previous"), "last words\n");
        let told = k.until("kubectl describe pod crash", |text| text.contains("Back-off restarting failed container main in pod crash_default"));
        assert!(told.contains("Exit Code:    1"), "{told}");
    }
}

story! {
    /// E6: every way of looking at things.
    fn objects_are_shown_in_every_form(k, ["nginx:1.12"]) {
        k.apply(&web(1, ""));
        k.until_ready("web", 1);
        let wide = k.sh("kubectl get pods -o wide");
        assert!(wide.starts_with("NAME    READY   STATUS    RESTARTS   AGE"), "{wide}");
        assert!(wide.contains(&k.field("pod/web-0", ".status.podIP")), "{wide}");
        assert!(k.sh("kubectl get sts web -o yaml").contains("apiVersion: apps/v1\n"));
        assert!(k.sh("kubectl get sts web -o json").contains("\"kind\": \"StatefulSet\""));
        assert_eq!(k.sh("kubectl get pods -o jsonpath='{range .items[*]}{.metadata.name}{\" \"}{.status.phase}{\"\\n\"}{end}'"), "web-0 Running\n");
        let set = k.sh("kubectl describe statefulset web");
        assert!(set.contains("Pods Status:        1 Running / 0 Waiting / 0 Succeeded / 0 Failed"), "{set}");
        assert!(set.contains("create Claim www-web-0 Pod web-0 in StatefulSet web success"), "{set}");
        assert!(set.contains("create Pod web-0 in StatefulSet web successful"), "{set}");
        let pod = k.sh("kubectl describe pod web-0");
        for words in ["Successfully assigned default/web-0 to", "already present on machine", "Created container", "Started container"] {
            assert!(pod.contains(words), "{words} is not in\n{pod}");
        }
        assert!(k.sh("kubectl describe pvc www-web-0").contains("Used By:       web-0"));
        assert!(k.sh("kubectl events").contains("SuccessfulCreate"));
        assert!(k.sh("kubectl explain statefulset.spec").contains("volumeClaimTemplates"));
    }
}

story! {
    /// E7, T128: graceful, and by force.
    fn a_pod_is_deleted_gracefully_or_by_force(k, ["busybox"]) {
        let pod = |name: &str, grace: u32| format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: {grace}\n  containers:\n  - {{name: main, image: busybox, command: [sh, -c, 'trap \"sleep 1; exit 0\" TERM; while true; do sleep 0.1; done']}}\n"
        );
        k.apply(&pod("gentle", 30));
        k.apply(&pod("forced", 600));
        k.sh("kubectl wait --for=condition=ready pod/gentle pod/forced --timeout=60s");
        assert_eq!(k.sh("kubectl delete pod gentle"), "pod \"gentle\" deleted\n");
        k.sh_fails("kubectl get pod gentle");
        k.sh("kubectl delete pod forced --grace-period=0 --force");
        k.until("kubectl get pods 2>&1", |text| text.starts_with("No resources found"));
    }
}

story! {
    /// A missing image is told as upstream tells it.
    fn a_missing_image_is_told_as_image_pull_back_off(k, ["busybox"]) {
        k.sh("kubectl run missing --image=no-such-image:1.0 --restart=Never");
        k.until("kubectl get pod missing --no-headers", |text| text.contains("ImagePullBackOff"));
        let told = k.sh("kubectl describe pod missing");
        assert!(told.contains("Failed to pull image \"no-such-image:1.0\""), "{told}");
        assert!(told.contains("Error: ErrImagePull"), "{told}");
        k.sh("kubectl run never --image=no-such-image:1.0 --restart=Never --image-pull-policy=Never");
        k.until("kubectl get pod never --no-headers", |text| text.contains("ErrImageNeverPull"));
    }
}

story! {
    /// Limits of a container are limits of its cgroup.
    fn limits_are_kept_by_the_kernel(k, ["busybox"]) {
        k.apply(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: hungry}\nspec:\n  restartPolicy: Never\n  containers:\n  - name: main\n    image: busybox\n    \
             command: [sh, -c, 'dd if=/dev/zero of=/dev/null bs=200M count=1']\n    resources: {limits: {memory: 32Mi, cpu: 500m}}\n",
        );
        k.until("kubectl get pod hungry --no-headers", |text| text.contains("OOMKilled"));
        assert_eq!(k.field("pod/hungry", ".status.containerStatuses[0].state.terminated.exitCode"), "137");
        assert_eq!(k.field("pod/hungry", ".status.qosClass"), "Guaranteed");
    }
}

story! {
    /// E3, C1: volumes belong to the pod's group: what is rendered can be read, what is written stays as its program made it
    /// while the pod runs.
    fn volumes_belong_to_the_group_of_their_pod(k, ["busybox"]) {
        k.apply(
            r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {value: "1"}
---
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {key: secret}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: grouped}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000, fsGroupChangePolicy: OnRootMismatch}
  containers:
  - name: main
    image: busybox
    command: [sh, -c, 'cd /data; [ -d private ] || { mkdir private; echo mine > cookie; chmod 700 private; chmod 400 cookie; }; sleep 3600']
    volumeMounts:
    - {name: data, mountPath: /data}
    - {name: settings, mountPath: /settings}
    - {name: key, mountPath: /key}
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: data}}
  - {name: settings, configMap: {name: settings}}
  - {name: key, secret: {secretName: key, defaultMode: 256}}
"#,
        );
        let modes = "kubectl exec grouped -- stat -L -c '%a %u:%g' /data /data/private /data/cookie /key/key";
        let wanted = "2775 0:2000\n700 1000:2000\n400 1000:2000\n440 0:2000\n";
        k.until(modes, |text| text == wanted);
        k.sh("kubectl patch configmap settings -p '{\"data\": {\"value\": \"2\"}}'");
        k.until("kubectl exec grouped -- cat /settings/value", |text| text == "2");
        let text = k.sh(modes);
        assert!(text.ends_with("700 1000:2000\n400 1000:2000\n440 0:2000\n"), "{text}");
        // The folder is the group's already: with OnRootMismatch nothing in it is changed at the next start.
        k.sh("kubectl get pod grouped -o yaml > pod.yaml; kubectl delete pod grouped; sed -i '/nodeName:/d; /uid:/d; /resourceVersion:/d' pod.yaml; kubectl create -f pod.yaml");
        k.until(modes, |text| text.ends_with("700 1000:2000\n400 1000:2000\n440 0:2000\n"));
    }
}
