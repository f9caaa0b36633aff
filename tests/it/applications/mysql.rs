//! MySQL and MariaDB: members that know nothing of each other, each with its own data.

use super::{example, ready};
use crate::harness::{Cluster, story};

/// The first tutorial's, word for word.
const TUTORIAL_1: &str = r#"
# mysql-statefulset.yaml
apiVersion: v1
kind: Service
metadata:
  name: mysql-headless
spec:
  clusterIP: None
  selector:
    app: mysql
  ports:
    - port: 3306
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: mysql-statefulset
spec:
  serviceName: mysql-headless
  replicas: 3
  selector:
    matchLabels:
      app: mysql
  template:
    metadata:
      labels:
        app: mysql
    spec:
      containers:
      - name: mysql
        image: mysql:8.0
        ports:
        - containerPort: 3306
        env:
        - name: MYSQL_ROOT_PASSWORD
          value: "password"
        volumeMounts:
        - name: mysql-data
          mountPath: /var/lib/mysql
  volumeClaimTemplates:
  - metadata:
      name: mysql-data
    spec:
      accessModes: ["ReadWriteOnce"]
      resources:
        requests:
          storage: 1Gi
"#;

story! {
    /// F2, B5, C1: tutorial 1, with its own manifest.
    fn the_first_tutorials_mysql_members_reach_each_other_by_name(k, ["mysql:8.0"]) {
        k.file("mysql-statefulset.yaml", TUTORIAL_1);
        k.sh("kubectl apply -f mysql-statefulset.yaml");
        ready(k, "mysql-statefulset", 3);
        // Without a probe a pod is Ready before its server is.
        for ordinal in 0..3 {
            k.until(&tutorial(ordinal, "localhost", "SELECT 1"), |text| text == "1\n");
            k.sh(&tutorial(ordinal, "localhost", &format!("CREATE DATABASE d; CREATE TABLE d.t (id INT); INSERT INTO d.t VALUES ({ordinal})")));
        }
        for ordinal in 0..3 {
            let host = format!("mysql-statefulset-{ordinal}.mysql-headless.default.svc.cluster.local");
            let found = k.sh(&tutorial(0, &host, "SELECT @@hostname, id FROM d.t"));
            assert_eq!(found, format!("mysql-statefulset-{ordinal}\t{ordinal}\n"));
        }
        k.sh("kubectl delete pod mysql-statefulset-1");
        ready(k, "mysql-statefulset", 3);
        k.until(&tutorial(0, "mysql-statefulset-1.mysql-headless.default.svc.cluster.local", "SELECT id FROM d.t"), |text| text == "1\n");
        let claims = k.sh("kubectl get pvc --no-headers");
        for ordinal in 0..3 {
            assert!(claims.lines().any(|line| line.starts_with(&format!("mysql-data-mysql-statefulset-{ordinal} ")) && line.contains(" 1Gi ") && line.contains(" RWO ")), "{claims}");
        }
    }
}

/// A query as the tutorial has it, from one member to another.
fn tutorial(from: u32, host: &str, query: &str) -> String {
    format!(
        "kubectl exec mysql-statefulset-{from} -- mysql -h {host} -u root -ppassword -N -e \"{query}\""
    )
}

story! {
    /// F2: the example in `examples/mysql`.
    fn mysql_is_ready_when_its_server_is(k, ["mysql:8.0"]) {
        k.sh(&format!("kubectl apply -f {}", example("mysql")));
        ready(k, "mysql", 3);
        let all = "for i in 0 1 2; do MYSQL_PWD=$MYSQL_ROOT_PASSWORD mysql -h mysql-$i.mysql-headless -u root -N -e \"SELECT @@hostname\"; done";
        assert_eq!(k.sh(&format!("kubectl exec mysql-0 -- sh -ec '{all}'")), "mysql-0\nmysql-1\nmysql-2\n");
    }
}

story! {
    /// F2, C2, E4: three independent members; a member's data is found again after scaling down and up.
    fn mariadb_members_have_their_own_data(k, ["mariadb:10.11"]) {
        k.sh(&format!("kubectl apply -f {}", example("mariadb")));
        ready(k, "mariadb", 3);
        for ordinal in 0..3 {
            k.sh(&mariadb(ordinal, &format!("CREATE TABLE who (name TEXT); INSERT INTO who VALUES ({ordinal})")));
        }
        each_has_its_own(k);
        k.sh("kubectl delete pod mariadb-1");
        ready(k, "mariadb", 3);
        each_has_its_own(k);
        k.sh("kubectl scale sts/mariadb --replicas 1");
        ready(k, "mariadb", 1);
        assert_eq!(k.sh("kubectl get pvc --no-headers").lines().count(), 3);
        k.sh("kubectl scale sts/mariadb --replicas 3");
        ready(k, "mariadb", 3);
        each_has_its_own(k);
    }
}

/// A query to a member by its name, as the application's user.
fn mariadb(ordinal: u32, query: &str) -> String {
    format!(
        "kubectl exec mariadb-0 -- sh -c 'MYSQL_PWD=$MARIADB_PASSWORD mariadb -h mariadb-{ordinal}.mariadb -u shop -N shop -e \"{query}\"'"
    )
}

fn each_has_its_own(k: &Cluster) {
    for ordinal in 0..3 {
        let found = k.sh(&mariadb(ordinal, "SELECT @@hostname, name FROM who"));
        assert_eq!(found, format!("mariadb-{ordinal}\t{ordinal}\n"));
    }
}
