//! C: storage.

use crate::harness::{story, web};

story! {
    /// C1: one claim per pod and template, provisioned by the default class, printed as shown.
    fn each_pod_gets_its_own_bound_claim(k, ["nginx:1.12"]) {
        k.apply(&web(2, ""));
        k.until_ready("web", 2);
        let claims = k.sh("kubectl get pvc");
        assert!(claims.starts_with("NAME        STATUS   VOLUME "), "{claims}");
        for name in ["www-web-0", "www-web-1"] {
            let words: Vec<String> =
                claims.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().map(str::to_owned).collect();
            assert_eq!(words[1], "Bound");
            assert!(words[2].starts_with("pvc-"), "{words:?}");
            assert_eq!(words[3..6], ["1Gi", "RWO", "standard"]);
        }
        let volumes = k.sh("kubectl get pv --no-headers");
        assert_eq!(volumes.lines().filter(|line| line.contains("Bound") && line.contains("Delete") && line.contains("default/www-web-")).count(), 2);
        let class = k.sh("kubectl get storageclass --no-headers");
        assert!(class.starts_with("standard (default)   abide.dev/local   Delete "), "{class}");
        assert!(class.contains("WaitForFirstConsumer"), "{class}");
        let all = k.sh("kubectl get sts,pods,pvc");
        for name in ["statefulset.apps/web ", "pod/web-0 ", "pod/web-1 ", "persistentvolumeclaim/www-web-0 ", "persistentvolumeclaim/www-web-1 "] {
            assert!(all.contains(name), "{all}");
        }
    }
}

story! {
    /// C2, T15, T38, T42: each ordinal gets its own data back.
    fn claims_outlive_pods_scale_down_and_the_set(k, ["nginx:1.12"]) {
        k.file("web.yaml", &web(3, ""));
        k.sh("kubectl apply -f web.yaml");
        k.until_ready("web", 3);
        for ordinal in 0..3 {
            k.sh(&format!("kubectl exec web-{ordinal} -- sh -c 'echo data of {ordinal} > /usr/share/nginx/html/data/file'"));
        }
        let intact = |ordinals: std::ops::Range<u32>| {
            for ordinal in ordinals {
                let text = k.sh(&format!("kubectl exec web-{ordinal} -- cat /usr/share/nginx/html/data/file"));
                assert_eq!(text, format!("data of {ordinal}\n"));
            }
        };
        k.sh("kubectl delete pod web-0 web-1 web-2");
        k.until_ready("web", 3);
        intact(0..3);
        k.sh("kubectl scale sts web --replicas=1");
        k.until_ready("web", 1);
        assert_eq!(k.sh("kubectl get pvc --no-headers").lines().count(), 3);
        k.sh("kubectl scale sts web --replicas=3");
        k.until_ready("web", 3);
        intact(0..3);
        k.sh("kubectl delete sts web");
        k.until("kubectl get pods 2>&1", |text| text.starts_with("No resources found"));
        assert_eq!(k.sh("kubectl get pvc --no-headers").lines().count(), 3);
        k.sh("kubectl apply -f web.yaml");
        k.until_ready("web", 3);
        intact(0..3);
    }
}

story! {
    /// C3, T124: a claim in use waits; freed, its volume goes.
    fn a_claim_in_use_waits_and_its_volume_goes_with_it(k, ["nginx:1.12"]) {
        k.apply(&web(1, ""));
        k.until_ready("web", 1);
        k.sh("kubectl delete pvc www-web-0 --wait=false");
        k.until("kubectl get pvc www-web-0 --no-headers", |text| text.contains("Terminating"));
        k.sh("kubectl delete sts web");
        k.until("kubectl get pvc 2>&1", |text| text.starts_with("No resources found"));
        k.until("kubectl get pv 2>&1", |text| text.starts_with("No resources found"));
        k.until("ls $ABIDE_DATA_DIR/volumes | wc -l", |text| text.trim() == "0");
    }
}

story! {
    /// C6: no class and no volume.
    fn a_claim_that_nothing_can_satisfy_is_told_by_describe(k, ["nginx:1.12"]) {
        k.apply(&web(1, "").replace("accessModes: [ReadWriteOnce]", "storageClassName: ''\n      accessModes: [ReadWriteOnce]"));
        k.until("kubectl describe pod web-0", |text| {
            text.contains("FailedScheduling") && text.contains("pod has unbound immediate PersistentVolumeClaims")
        });
        assert!(k.sh("kubectl get pod web-0 --no-headers").contains("Pending"));
    }
}

story! {
    /// C4, T40, T41, T43: what becomes of claims is the set's to say, and may be changed while it lives.
    fn the_retention_policy_decides_what_becomes_of_claims(k, ["nginx:1.12"]) {
        k.apply(&web(3, "  persistentVolumeClaimRetentionPolicy: {whenScaled: Delete, whenDeleted: Retain}"));
        k.until_ready("web", 3);
        k.sh("kubectl scale sts web --replicas=2");
        k.until("kubectl get pvc -o name", |text| text == "persistentvolumeclaim/www-web-0\npersistentvolumeclaim/www-web-1\n");
        k.sh("kubectl patch sts web -p '{\"spec\":{\"persistentVolumeClaimRetentionPolicy\":{\"whenScaled\":\"Retain\",\"whenDeleted\":\"Delete\"}}}'");
        k.until("kubectl get pvc -o jsonpath='{.items[*].metadata.ownerReferences[0].kind}'", |text| text == "StatefulSet StatefulSet");
        k.sh("kubectl scale sts web --replicas=1");
        k.until_ready("web", 1);
        assert_eq!(k.sh("kubectl get pvc --no-headers").lines().count(), 2, "scaling keeps the claims now");
        k.sh("kubectl delete sts web");
        k.until("kubectl get pvc,pv 2>&1", |text| text.starts_with("No resources found"));
    }
}

story! {
    /// C5, T125: a volume made by hand goes to the claim that it names, whatever their classes, and brings its data.
    fn a_volume_that_names_its_claim_is_bound_to_it(k, ["nginx:1.12"]) {
        let folder = k.sh("mktemp -d /tmp/volume-XXXXXX");
        let folder = folder.trim();
        k.sh(&format!("echo 'made by hand' > {folder}/file"));
        k.apply(&format!(
            "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: mine}}\nspec:\n  capacity: {{storage: 5Gi}}\n  accessModes: [ReadWriteOnce]\n  \
             persistentVolumeReclaimPolicy: Retain\n  storageClassName: manual\n  claimRef: {{namespace: default, name: www-web-0}}\n  hostPath: {{path: {folder}}}\n"
        ));
        k.apply(&web(2, ""));
        k.until_ready("web", 2);
        assert_eq!(k.field("pvc/www-web-0", ".spec.volumeName"), "mine");
        assert!(k.field("pvc/www-web-1", ".spec.volumeName").starts_with("pvc-"));
        assert_eq!(k.sh("kubectl exec web-0 -- cat /usr/share/nginx/html/data/file"), "made by hand\n");
        k.sh("kubectl delete sts web && kubectl delete pvc www-web-0");
        k.until("kubectl get pv mine -o jsonpath='{.status.phase}'", |text| text == "Released");
        assert_eq!(k.sh(&format!("cat {folder}/file && rm -r {folder}")), "made by hand\n");
    }
}

story! {
    /// C7: a pod comes back on the node that has its volume, and waits for it rather than start without its data.
    fn a_pod_stays_with_its_volume(k, ["nginx:1.12"]) {
        k.apply(&web(1, ""));
        k.until_ready("web", 1);
        let node = k.field("pod/web-0", ".spec.nodeName");
        let volume = k.field("pvc/www-web-0", ".spec.volumeName");
        assert_eq!(k.sh(&format!("kubectl get pv {volume} -o jsonpath='{{.spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].values[0]}}'")), node);
        k.sh(&format!("kubectl cordon {node} && kubectl delete pod web-0"));
        k.until("kubectl describe pod web-0", |text| text.contains("FailedScheduling") && text.contains("1 node(s) were unschedulable"));
        k.sh(&format!("kubectl uncordon {node}"));
        k.until_ready("web", 1);
        assert_eq!(k.field("pod/web-0", ".spec.nodeName"), node);
        assert_eq!(k.field("pvc/www-web-0", ".spec.volumeName"), volume);
    }
}

story! {
    /// C3: a claim may grow where its class lets it, and the pod keeps running.
    fn a_claim_grows(k, ["nginx:1.12"]) {
        k.apply(&web(1, ""));
        k.until_ready("web", 1);
        let uid = k.field("pod/web-0", ".metadata.uid");
        k.sh("kubectl patch pvc www-web-0 -p '{\"spec\":{\"resources\":{\"requests\":{\"storage\":\"2Gi\"}}}}'");
        k.until("kubectl get pvc www-web-0 --no-headers", |text| text.contains(" 2Gi "));
        assert!(k.sh("kubectl describe pvc www-web-0").contains("VolumeResizeSuccessful"));
        let refused = k.sh_fails("kubectl patch pvc www-web-0 -p '{\"spec\":{\"resources\":{\"requests\":{\"storage\":\"1Gi\"}}}}'");
        assert!(refused.contains("field can not be less than status.capacity"), "{refused}");
        assert_eq!(k.field("pod/web-0", ".metadata.uid"), uid);
    }
}
