//! F4: the notes on sample-statefulset.

use crate::harness::story;

const MANIFEST: &str = include_str!("../../examples/sample-statefulset/sample-statefulset.yaml");

const FILE: &str = "/usr/share/nginx/html/sample.html";

story! {
    /// F4, A3, A7, C2, C3: the file survives whatever happens to the pod and to the set.
    fn the_notes_on_persistence_work_line_by_line(k, ["nginx:1.12"]) {
        k.file("sample-statefulset.yaml", MANIFEST);
        k.sh("kubectl apply -f sample-statefulset.yaml");
        k.until_ready("sample-statefulset", 3);
        k.sh("kubectl get statefulsets");
        k.sh("kubectl get pods");
        assert_eq!(k.sh("kubectl get persistentvolumeclaims --no-headers").lines().count(), 3);
        assert_eq!(k.sh("kubectl get persistentvolumes --no-headers").lines().count(), 3);

        k.sh("kubectl scale statefulset sample-statefulset --replicas=5");
        k.until_ready("sample-statefulset", 5);
        k.sh("sed -e 's|replicas: 3|replicas: 4|' sample-statefulset.yaml | kubectl apply -f -");
        k.until_ready("sample-statefulset", 4);

        k.sh_fails(&format!("kubectl exec sample-statefulset-0 -- ls {FILE}"));
        k.at_terminal(&format!("kubectl exec -it sample-statefulset-0 -- touch {FILE}"));
        assert_eq!(k.at_terminal(&format!("kubectl exec -it sample-statefulset-0 -- ls {FILE}")), format!("{FILE}\n"));

        k.sh("kubectl delete pod sample-statefulset-0");
        k.until_ready("sample-statefulset", 4);
        k.sh(&format!("kubectl exec sample-statefulset-0 -- ls {FILE}"));

        k.at_terminal("kubectl exec -it sample-statefulset-0 -- /bin/bash -c 'kill 1'");
        k.until("kubectl get pod sample-statefulset-0 -o jsonpath='{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}'", |text| text == "1 true");
        k.sh(&format!("kubectl exec sample-statefulset-0 -- ls {FILE}"));
        assert!(k.sh("kubectl get pods").contains("sample-statefulset-0   1/1     Running   1 "));

        k.sh("kubectl delete statefulsets sample-statefulset");
        k.until("kubectl get pods 2>&1", |text| text.starts_with("No resources found"));
        assert_eq!(k.sh("kubectl get persistentvolumes --no-headers").lines().filter(|line| line.contains("Bound")).count(), 5);
        k.sh("kubectl apply -f sample-statefulset.yaml");
        k.until_ready("sample-statefulset", 3);
        k.sh(&format!("kubectl exec sample-statefulset-0 -- ls {FILE}"));

        k.sh("kubectl delete statefulsets sample-statefulset");
        k.until("kubectl get pods 2>&1", |text| text.starts_with("No resources found"));
        k.sh("kubectl delete persistentvolumeclaims www-sample-statefulset-{0..2}");
        k.until("kubectl get persistentvolumes --no-headers", |text| text.lines().count() == 2);
    }
}

story! {
    /// F4, D1: a new image in the manifest, applied.
    fn applying_a_manifest_with_a_new_image_rolls_it_out(k, ["nginx:1.12", "nginx:1.13"]) {
        k.file("sample-statefulset-rollingupdate.yaml", &MANIFEST.replace("  replicas: 3\n", "  replicas: 3\n  updateStrategy:\n    type: RollingUpdate\n    rollingUpdate:\n      partition: 1\n"));
        k.sh("kubectl apply -f sample-statefulset-rollingupdate.yaml");
        k.until_ready("sample-statefulset", 3);
        k.sh("sed -i -e 's|nginx:1.12|nginx:1.13|' sample-statefulset-rollingupdate.yaml");
        k.sh("kubectl apply -f sample-statefulset-rollingupdate.yaml");
        k.until("kubectl get pods -o jsonpath='{.items[*].spec.containers[0].image}'", |text| text == "nginx:1.12 nginx:1.13 nginx:1.13");
        k.until_ready("sample-statefulset", 3);
    }
}
