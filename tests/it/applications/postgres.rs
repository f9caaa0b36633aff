//! PostgreSQL: a primary, streaming replicas, backups.

use super::{example, ready};
use crate::harness::{Cluster, story};

story! {
    /// F1, E2, E3, E4, C2, B3.
    fn postgres_replicates_and_survives_the_deletion_of_each_of_its_pods(k, ["postgres:15"]) {
        k.sh(&format!("kubectl apply -f {}", example("postgres")));
        ready(k, "postgres", 3);
        streaming(k, &[1, 2]);
        on(k, 0, "CREATE TABLE test (id SERIAL PRIMARY KEY, data TEXT)");
        on(k, 0, "INSERT INTO test (data) VALUES ('from the primary')");
        reads(k, 1, "1|from the primary\n");
        reads(k, 2, "1|from the primary\n");
        let refused = k.sh_fails(&psql(1, "INSERT INTO test (data) VALUES ('from a replica')"));
        assert!(refused.contains("ERROR:  cannot execute INSERT in a read-only transaction"), "{refused}");
        assert_eq!(k.field("pdb/postgres", ".status.disruptionsAllowed"), "1");

        let all = "1|from the primary\n";
        for ordinal in [2, 1, 0] {
            let uid = k.field(&format!("pod/postgres-{ordinal}"), ".metadata.uid");
            k.sh(&format!("kubectl delete pod postgres-{ordinal}"));
            ready(k, "postgres", 3);
            assert_ne!(k.field(&format!("pod/postgres-{ordinal}"), ".metadata.uid"), uid);
            reads(k, ordinal, all);
        }
        assert_eq!(k.sh("kubectl logs postgres-2 -c prepare"), "postgres-2 has its copy and follows postgres-0 from where it was\n");
        streaming(k, &[1, 2]);

        // By the Services: one that writes to the primary, one that reads from any.
        let by_service = |service: &str, line: &str| format!("kubectl exec postgres-1 -- sh -c 'PGPASSWORD=$POSTGRES_PASSWORD psql -h {service} -U postgres -tAc \"{line}\"'");
        k.sh(&by_service("postgres", "INSERT INTO test (data) VALUES (42)"));
        let all = "1|from the primary\n2|42\n";
        reads(k, 1, all);
        reads(k, 2, all);
        k.until(&by_service("postgres-read", "SELECT pg_is_in_recovery()"), |text| text == "t\n");

        k.sh("kubectl scale statefulset postgres --replicas=5");
        ready(k, "postgres", 5);
        streaming(k, &[1, 2, 3, 4]);
        reads(k, 4, all);

        k.sh("kubectl create job --from=cronjob/postgres-backup backup-now");
        k.sh("kubectl wait --for=condition=complete job/backup-now --timeout=80s");
        assert!(k.sh("kubectl logs job/backup-now").contains(" /backup/postgres-"));
        all_is_lost_and_restored(k);
        reads(k, 2, all);
    }
}

/// The set and its claims are gone; the backup's volume is not.
fn all_is_lost_and_restored(k: &Cluster) {
    k.sh("kubectl delete statefulset postgres");
    k.until("kubectl get pods -l app=postgres -o name", str::is_empty);
    k.sh("kubectl delete pvc -l app=postgres");
    k.sh(&format!("kubectl apply -f {}", example("postgres")));
    ready(k, "postgres", 3);
    k.sh(&format!("kubectl apply -f {}", example("postgres/restore")));
    k.sh("kubectl wait --for=condition=complete job/postgres-restore --timeout=80s");
}

fn psql(ordinal: u32, line: &str) -> String {
    format!("kubectl exec postgres-{ordinal} -- psql -U postgres -tAc \"{line}\"")
}

fn on(k: &Cluster, ordinal: u32, line: &str) -> String {
    k.sh(&psql(ordinal, line))
}

/// Waits until the table is so on a member.
fn reads(k: &Cluster, ordinal: u32, wanted: &str) {
    k.until(&psql(ordinal, "SELECT * FROM test ORDER BY id"), |text| text == wanted);
}

/// Waits until these replicas, and no others, stream from the primary.
fn streaming(k: &Cluster, ordinals: &[u32]) {
    let wanted: String =
        ordinals.iter().map(|ordinal| format!("postgres-{ordinal}|streaming\n")).collect();
    let query = "SELECT application_name, state FROM pg_stat_replication ORDER BY 1";
    k.until(&psql(0, query), |text| text == wanted);
}
