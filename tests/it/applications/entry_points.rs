//! The stand-in images honour what the public images honour, so that other people's manifests work too.

use crate::harness::{Cluster, story};

const SECRET: &str = "
apiVersion: v1
kind: Secret
metadata: {name: passwords}
stringData: {root: it's \"root\", user: user's}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: scripts}
data:
  10-table.sql: CREATE TABLE first (id INT);
  20-row.sh: |
    echo 'INSERT INTO first VALUES (7);' > /tmp/row.sql
    if [ -n \"$PGDATA\" ]; then psql -U \"$POSTGRES_USER\" -d \"$POSTGRES_DB\" -f /tmp/row.sql; fi
";

/// A pod of one database, which finds its passwords in files.
fn pod(name: &str, image: &str, environment: &str, args: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: main
    image: {image}
    args: {args}
    env:
{environment}
    volumeMounts:
    - {{name: passwords, mountPath: /run/secrets/database}}
    - {{name: scripts, mountPath: /docker-entrypoint-initdb.d}}
  volumes:
  - name: passwords
    secret: {{secretName: passwords}}
  - name: scripts
    configMap: {{name: scripts}}
"
    )
}

fn variables(values: &[(&str, &str)]) -> String {
    values
        .iter()
        .map(|(name, value)| format!("    - {{name: {name}, value: '{value}'}}\n"))
        .collect()
}

story! {
    /// F1, F2, E3: names, passwords from files, scripts, arguments; without a password nothing starts.
    fn databases_are_initialised_as_their_environment_says(k, ["postgres:15", "mariadb:10.11"]) {
        k.apply(SECRET);
        k.apply(&pod("pg", "postgres:15", &variables(&[
            ("POSTGRES_USER", "shop"), ("POSTGRES_DB", "orders"), ("POSTGRES_PASSWORD_FILE", "/run/secrets/database/user"),
            ("PGDATA", "/var/lib/postgresql/data/pgdata"),
        ]), "[-c, work_mem=5MB]"));
        k.apply(&pod("maria", "mariadb:10.11", &variables(&[
            ("MYSQL_DATABASE", "orders"), ("MYSQL_USER", "shop"), ("MARIADB_PASSWORD_FILE", "/run/secrets/database/user"),
            ("MYSQL_ROOT_PASSWORD_FILE", "/run/secrets/database/root"),
        ]), "[--max-connections=17]"));
        k.apply(&pod("random", "mariadb:10.11", &variables(&[("MYSQL_RANDOM_ROOT_PASSWORD", "yes"), ("MYSQL_DATABASE", "d")]), "[]"));
        k.apply(&pod("closed", "postgres:15", &variables(&[("TZ", "UTC")]), "[]"));

        let pg = |query: &str| format!("kubectl exec pg -- sh -c 'PGPASSWORD=$(cat /run/secrets/database/user) psql -h 127.0.0.1 -U shop orders -tAc \"{query}\"'");
        k.until(&pg("SELECT id FROM first"), |text| text == "7\n");
        assert_eq!(k.sh(&pg("SHOW work_mem")), "5MB\n");
        assert_eq!(k.sh("kubectl exec pg -- sh -c 'ps -o user= -p 1 2>/dev/null || stat -c %U /proc/1'"), "postgres\n");

        let maria = |user: &str, file: &str, query: &str| format!("kubectl exec maria -- sh -c 'MYSQL_PWD=$(cat /run/secrets/database/{file}) mariadb -h 127.0.0.1 -u {user} -N orders -e \"{query}\"'");
        k.until(&maria("shop", "user", "SELECT count(*) FROM first"), |text| text == "0\n");
        assert_eq!(k.sh(&maria("root", "root", "SELECT @@max_connections")), "17\n");
        k.until("kubectl logs random", |text| text.contains("GENERATED ROOT PASSWORD: "));
        k.until("kubectl logs closed", |text| text.contains("POSTGRES_PASSWORD is needed to initialise a database"));
        restarts(k);
    }
}

/// An initialised database is left as it is: its container's end costs nothing.
fn restarts(k: &Cluster) {
    k.sh("kubectl exec pg -- sh -c 'kill -INT 1'");
    k.until(
        "kubectl get pod pg -o jsonpath='{.status.containerStatuses[0].restartCount}'",
        |text| text == "1",
    );
    k.until("kubectl logs pg", |text| {
        text.contains("database system is ready to accept connections")
            || text.contains("entry point: initialised")
    });
}
