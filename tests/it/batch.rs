//! Jobs, CronJobs and DaemonSets with real containers.

use crate::harness::story;

/// A Job of one container that runs a line of shell.
fn job(name: &str, line: &str, extra: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n{extra}  template:\n    spec:\n      restartPolicy: Never\n      containers:\n      \
         - {{name: main, image: busybox, command: [sh, -c, '{line}']}}\n"
    )
}

story! {
    /// A backup as charts have it: it runs, is waited for, read, and goes with its pod.
    fn a_job_whose_container_exits_0_becomes_complete(k, ["busybox"]) {
        k.apply(&job("backup", "echo saved", "  backoffLimit: 1\n"));
        assert_eq!(k.sh("kubectl wait --for=condition=complete job/backup --timeout=60s"), "job.batch/backup condition met\n");
        assert_eq!(k.sh("kubectl logs job/backup"), "saved\n");
        let line = k.sh("kubectl get job backup --no-headers");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..3], ["backup", "Complete", "1/1"], "{line}");
        let line = k.sh("kubectl get pods -l job-name=backup --no-headers");
        assert!(line.contains("0/1") && line.contains("Completed"), "{line}");
        let told = k.sh("kubectl describe job backup");
        for words in ["Pods Statuses:    0 Active (0 Ready) / 1 Succeeded / 0 Failed", "SuccessfulCreate", "Created pod: backup-", "Completed", "Job completed"] {
            assert!(told.contains(words), "{words} is not in\n{told}");
        }
        let refused = k.sh_fails("kubectl patch job backup -p '{\"spec\":{\"completions\":2}}'");
        assert_eq!(refused, "The Job \"backup\" is invalid: spec.completions: Invalid value: 2: field is immutable\n");
        assert_eq!(k.sh("kubectl delete job backup"), "job.batch \"backup\" deleted\n");
        k.until("kubectl get pods 2>&1", |text| text.starts_with("No resources found"));
    }
}

story! {
    /// Failures are counted, told and end the Job.
    fn a_job_whose_container_fails_gives_up_after_its_limit(k, ["busybox"]) {
        k.apply(&job("broken", "exit 3", "  backoffLimit: 1\n"));
        k.sh("kubectl wait --for=condition=failed job/broken --timeout=80s");
        assert_eq!(k.field("job/broken", ".status.failed"), "2");
        assert_eq!(k.field("job/broken", ".status.conditions[?(@.type==\"Failed\")].reason"), "BackoffLimitExceeded");
        let told = k.sh("kubectl describe job broken");
        assert!(told.contains("Job has reached the specified backoff limit"), "{told}");
        assert_eq!(k.sh("kubectl get pods --no-headers | grep -c Error"), "2\n");
        let policy = "  backoffLimit: 5\n  podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]}\n";
        k.apply(&job("fatal", "exit 42", policy));
        k.sh("kubectl wait --for=condition=failed job/fatal --timeout=60s");
        let why = k.field("job/fatal", ".status.conditions[?(@.type==\"Failed\")].message");
        assert!(why.starts_with("Container main for pod default/fatal-") && why.ends_with("failed with exit code 42 matching FailJob rule at index 0"), "{why}");
    }
}

story! {
    /// Each index has its number and its name; a suspended Job ends its pods and goes on later; a time to live is kept.
    fn an_indexed_job_knows_its_indexes_and_may_be_suspended(k, ["busybox"]) {
        k.apply(&job("shards", "echo $JOB_COMPLETION_INDEX of $(hostname); sleep 0.1", "  completions: 3\n  parallelism: 2\n  completionMode: Indexed\n"));
        k.sh("kubectl wait --for=condition=complete job/shards --timeout=60s");
        assert_eq!(k.field("job/shards", ".status.completedIndexes"), "0-2");
        let logs = k.sh("kubectl logs -l job-name=shards --tail=-1 | sort");
        assert_eq!(logs, "0 of shards-0\n1 of shards-1\n2 of shards-2\n");
        k.apply(&job("paused", "sleep 3600", "  suspend: true\n  ttlSecondsAfterFinished: 1\n").replace("restartPolicy", "terminationGracePeriodSeconds: 1\n      restartPolicy"));
        k.sh("kubectl wait --for=condition=suspended job/paused --timeout=60s");
        k.sh("kubectl patch job paused -p '{\"spec\":{\"suspend\":false}}'");
        k.until("kubectl get pods -l job-name=paused --no-headers", |text| text.contains("Running"));
        k.sh("kubectl patch job paused -p '{\"spec\":{\"suspend\":true}}'");
        k.until("kubectl get pods -l job-name=paused 2>&1", |text| text.starts_with("No resources found"));
        assert_eq!(k.field("job/paused", ".status.failed"), "");
        k.sh("kubectl patch job paused -p '{\"spec\":{\"suspend\":false,\"activeDeadlineSeconds\":2}}'");
        // It fails at its deadline, ends its pod, and goes a second later.
        k.until("kubectl get job paused 2>&1 || true", |text| text.contains("not found"));
        k.until("kubectl get pods -l job-name=paused 2>&1", |text| text.starts_with("No resources found"));
    }
}

story! {
    /// By schedule, and by hand.
    fn a_cron_job_runs_by_schedule_and_by_hand(k, ["busybox"]) {
        let cron_job = |schedule: &str| format!(
            "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: tick}}\nspec:\n  schedule: '{schedule}'\n  timeZone: Asia/Tokyo\n  successfulJobsHistoryLimit: 1\n  jobTemplate:\n    \
             spec:\n      template:\n        spec:\n          restartPolicy: OnFailure\n          containers:\n          - {{name: main, image: busybox, command: [echo, tick]}}\n"
        );
        k.apply(&cron_job("0 0 1 1 *"));
        let line = k.sh("kubectl get cronjob");
        assert!(line.starts_with("NAME   SCHEDULE    TIMEZONE     SUSPEND   ACTIVE   LAST SCHEDULE   AGE\ntick   0 0 1 1 *   Asia/Tokyo   False     0        <none>"), "{line}");
        k.sh("kubectl create job by-hand --from=cronjob/tick --dry-run=client -o json | kubectl apply -f -");
        k.sh("kubectl wait --for=condition=complete job/by-hand --timeout=60s");
        assert_eq!(k.sh("kubectl logs job/by-hand"), "tick\n");
        assert_eq!(k.field("job/by-hand", ".metadata.ownerReferences[0].name"), "tick");
        k.until("kubectl get cronjob tick -o jsonpath='{.status.lastSuccessfulTime}'", |text| !text.is_empty());
        k.apply(&cron_job("@every 2s"));
        k.until("kubectl describe cronjob tick", |text| {
            ["SuccessfulCreate", "SawCompletedJob", "SuccessfulDelete"].iter().all(|reason| text.contains(reason))
        });
        k.sh("kubectl patch cronjob tick -p '{\"spec\":{\"suspend\":true}}'");
        let bad = k.sh_fails("kubectl patch cronjob tick -p '{\"spec\":{\"schedule\":\"often\"}}'");
        assert_eq!(bad, "The CronJob \"tick\" is invalid: spec.schedule: Invalid value: \"often\": expected exactly 5 fields, found 1: [often]\n");
        assert_eq!(k.sh("kubectl delete cronjob tick"), "cronjob.batch \"tick\" deleted\n");
        k.until("kubectl get jobs,pods 2>&1", |text| text.starts_with("No resources found"));
    }
}

story! {
    /// One pod on the node; an update, its history and its undo.
    fn a_daemon_set_has_a_pod_on_each_node_and_rolls(k, ["nginx:1.12", "nginx:1.13"]) {
        k.apply(
            "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: agent}\nspec:\n  selector: {matchLabels: {app: agent}}\n  template:\n    metadata: {labels: {app: agent}}\n    \
             spec:\n      terminationGracePeriodSeconds: 1\n      containers: [{name: main, image: 'nginx:1.12'}]\n",
        );
        assert!(k.sh("kubectl rollout status ds/agent --timeout=60s").ends_with("daemon set \"agent\" successfully rolled out\n"));
        let line = k.sh("kubectl get ds agent --no-headers");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..7], ["agent", "1", "1", "1", "1", "1", "<none>"], "{line}");
        let node = k.field("node", ".items[0].metadata.name");
        assert_eq!(k.field("pod", ".items[0].spec.nodeName"), node);
        k.sh("kubectl set image ds/agent main=nginx:1.13");
        assert!(k.sh("kubectl rollout status ds/agent --timeout=60s").ends_with("daemon set \"agent\" successfully rolled out\n"));
        assert_eq!(k.sh("kubectl get pods -o jsonpath='{.items[*].spec.containers[0].image}'"), "nginx:1.13");
        assert_eq!(k.sh("kubectl rollout history ds/agent"), "daemonset.apps/agent \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n\n");
        assert_eq!(k.sh("kubectl rollout undo ds/agent"), "daemonset.apps/agent rolled back\n");
        assert!(k.sh("kubectl rollout status ds/agent --timeout=60s").ends_with("daemon set \"agent\" successfully rolled out\n"));
        assert_eq!(k.sh("kubectl get pods -o jsonpath='{.items[*].spec.containers[0].image}'"), "nginx:1.12");
        let told = k.sh("kubectl describe ds agent");
        for words in ["Desired Number of Nodes Scheduled: 1", "Pods Status:  1 Running / 0 Waiting / 0 Succeeded / 0 Failed", "Created pod: agent-", "Deleted pod: agent-"] {
            assert!(told.contains(words), "{words} is not in\n{told}");
        }
        k.sh("kubectl delete ds agent");
        k.until("kubectl get pods 2>&1", |text| text.starts_with("No resources found"));
    }
}
