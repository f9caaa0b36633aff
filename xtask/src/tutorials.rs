//! docs/tutorials.md: which line of which StatefulSet tutorial is proved by which end-to-end test. The lines and the rows
//! stand here; the tests say themselves, in their doc comments, which rows they prove.

use crate::root;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::Path;

/// What a row is about.
const ROWS: &[(&str, &str)] = &[
    ("A1", "pods are numbered; a deleted one returns under its name"),
    ("A2", "started in order, each when its predecessor is Ready"),
    ("A3", "scaled up in order and down in reverse"),
    ("A4", "`podManagementPolicy: Parallel`"),
    ("A5", "a deleted set's claims stay"),
    ("A6", "a Deployment, for comparison"),
    ("A7", "`kill 1` restarts the container in the same pod"),
    ("B1", "headless Service: one name for all, one for each"),
    ("B2", "`kubectl run -it --rm` with `nslookup`"),
    ("B3", "a ClusterIP balances over Ready pods"),
    ("B4", "a name follows its pod to the new address"),
    ("B5", "one pod reaches another by name"),
    ("B6", "`kubectl get svc`"),
    ("C1", "one claim per pod, provisioned"),
    ("C2", "each ordinal gets its own data back"),
    ("C3", "a deleted claim frees its volume"),
    ("C4", "`persistentVolumeClaimRetentionPolicy`"),
    ("C5", "a hand-made volume with `claimRef`"),
    ("C6", "no class and no volume: Pending, and why"),
    ("C7", "a pod goes where its volume is"),
    ("D1", "rolling update, highest ordinal first"),
    ("D2", "`partition`"),
    ("D3", "`OnDelete`"),
    ("D4", "`kubectl rollout status|history|undo|restart`"),
    ("D5", "patching `podManagementPolicy` and `serviceName`"),
    ("D6", "Parallel still updates one at a time"),
    ("E1", "several containers; exec, logs, cp, port-forward"),
    ("E2", "init containers"),
    ("E3", "ConfigMap and Secret as files and variables"),
    ("E4", "probes, `kubectl wait`"),
    ("E5", "CrashLoopBackOff"),
    ("E6", "`get -o …`, `describe`, `events`"),
    ("E7", "graceful and forced deletion"),
    ("F1", "PostgreSQL, a primary and streaming replicas"),
    ("F2", "MySQL, MariaDB: members with their own data"),
    ("F3", "the nginx and curl exercise"),
    ("F4", "sample-statefulset"),
    ("F5", "etcd, three members"),
    ("F6", "Redis, RabbitMQ, numbered brokers"),
    ("G1", "Pending because of a claim"),
    ("G2", "a replica crashes because of its primary"),
    ("G3", "claims left over"),
    ("G4", "pods out of order"),
    ("G5", "a crash after an update"),
    ("G6", "a name does not resolve"),
];

/// A tutorial, and what its reader types.
struct Tutorial {
    title: &'static str,
    /// Lines of the text, what is typed or applied there, rows.
    steps: &'static [(&'static str, &'static str, &'static [&'static str])],
}

const TUTORIALS: &[Tutorial] = &[
    Tutorial {
        title: "1 · StatefulSet 簡易ガイド (MySQL)",
        steps: &[
            ("147", "kubectl apply -f mysql-statefulset.yaml", &["F2", "A2", "C1"]),
            ("152", "kubectl get pods -l app=mysql -w", &["A2"]),
            (
                "162",
                "kubectl run -it --rm debug --image=busybox --restart=Never -- nslookup mysql-statefulset-0.mysql-headless…",
                &["B1", "B2"],
            ),
            ("171–174", "kubectl exec -it mysql-statefulset-0 -- mysql -u root -p", &["E1", "F2"]),
            ("179", "kubectl scale statefulset mysql-statefulset --replicas=5", &["A3"]),
            ("185", "kubectl delete statefulset mysql-statefulset", &["A5"]),
            ("201", "kubectl get pvc", &["C1", "C2"]),
            ("212–214", "kubectl delete pvc mysql-data-mysql-statefulset-0 …", &["C3"]),
            (
                "224",
                "mysql -h mysql-statefulset-1.mysql-headless.default.svc.cluster.local",
                &["B5"],
            ),
            (
                "294–307",
                "kubectl describe statefulset | pod, kubectl get pvc | pv | svc",
                &["E6", "B6", "C1"],
            ),
        ],
    },
    Tutorial {
        title: "2 · ステートフルセット (MariaDB)",
        steps: &[
            ("all", "a set of MariaDB members with claims of their own", &["F2", "A1", "C1", "C2"]),
            ("all", "a headless Service beside an ordinary one", &["B1", "B3", "B6"]),
        ],
    },
    Tutorial {
        title: "3 · StatefulSetで作るステートフルアプリ (PostgreSQL)",
        steps: &[
            (
                "33–36",
                "kubectl create deployment postgres --image=postgres:15-alpine --replicas=3",
                &["A6"],
            ),
            (
                "273–276",
                "kubectl apply -f postgres-statefulset.yaml; kubectl get pods -l app=postgres",
                &["A1", "A2"],
            ),
            (
                "283, 301",
                "kubectl run -it --rm debug --image=busybox --restart=Never -- nslookup postgres-0.postgres-headless",
                &["B2", "B4"],
            ),
            ("291", "kubectl delete pod postgres-0", &["A1", "B4"]),
            ("330–333", "kubectl get pods -l app=postgres --watch", &["A2"]),
            ("351–354", "kubectl scale statefulset postgres --replicas=1", &["A3"]),
            ("374–383", "podManagementPolicy: Parallel", &["A4"]),
            ("431", "kubectl get pvc", &["C1"]),
            (
                "448–458",
                "psql: a row survives kubectl delete pod; kubectl wait --for=condition=ready",
                &["C2", "E4"],
            ),
            ("471–485", "the set is deleted and applied again", &["A5", "C2"]),
            ("520–546", "nslookup of an ordinary and of a headless Service", &["B1", "B3"]),
            ("725–763", "ConfigMap, Secret, headless Service", &["E3"]),
            (
                "895–938",
                "primary and replicas; pg_stat_replication; a replica refuses writes",
                &["F1", "E2"],
            ),
            (
                "970–1038",
                "kubectl scale statefulset postgres --replicas=5, 2, 5",
                &["F1", "A3", "C2"],
            ),
            (
                "1071–1074",
                "kubectl set image statefulset/postgres postgres=postgres:16-alpine",
                &["D1"],
            ),
            ("1113–1126", "OnDelete: kubectl delete pod postgres-2", &["D3"]),
            ("1156–1167", "partition, released by kubectl patch", &["D2"]),
            (
                "1179–1220",
                "Pending: kubectl describe pod, kubectl get storageclass, a hand-made volume",
                &["C5", "C6", "G1"],
            ),
            ("1230–1254", "kubectl logs postgres-1; CREATE ROLE replicator", &["E5", "G2"]),
            (
                "1263–1281",
                "kubectl get pvc data-postgres-3 -o yaml; kubectl delete pvc data-postgres-3 data-postgres-4",
                &["C3", "C4", "G3"],
            ),
            (
                "1306–1324",
                "kubectl patch statefulset postgres -p '{\"spec\":{\"podManagementPolicy\":\"OrderedReady\"}}'",
                &["D5", "D6", "G4"],
            ),
            (
                "1333–1357",
                "kubectl logs postgres-2; kubectl rollout undo | status statefulset/postgres",
                &["D4", "G5"],
            ),
            (
                "1369–1393",
                "nslookup fails; kubectl patch statefulset postgres -p '{\"spec\":{\"serviceName\":…}}'",
                &["D5", "G6"],
            ),
            ("named", "etcd, Kafka, Redis and others as uses", &["F5", "F6"]),
        ],
    },
    Tutorial {
        title: "4 · StatefulSet の演習 (nginx, curl)",
        steps: &[("1–9", "the exercise, all nine steps", &["F3", "E1", "B1", "B4", "B6"])],
    },
    Tutorial {
        title: "5 · sample-statefulset",
        steps: &[
            (
                "22–26",
                "kubectl get statefulsets, pods, persistentvolumeclaims, persistentvolumes",
                &["F4", "C1"],
            ),
            ("40–41", "kubectl scale …; sed … | kubectl apply -f -", &["A3"]),
            ("60–65", "RollingUpdate with partition", &["D1", "D2"]),
            ("73–83", "a file in the claim; kubectl delete pod; kill 1", &["F4", "A7", "C2"]),
            (
                "94–98",
                "the set is deleted and applied again: the file is there",
                &["F4", "A5", "C2"],
            ),
            ("102", "kubectl delete persistentvolumeclaims www-sample-statefulset-{0..2}", &["C3"]),
            (
                "named",
                "a pod goes where its volume is; deletion, graceful and forced",
                &["C7", "E7"],
            ),
        ],
    },
];

/// Writes docs/tutorials.md, or checks that it is current. Fails when a row has no test.
pub(crate) fn run(check: bool) -> Result<()> {
    let proofs = proofs(&root().join("tests/it"))?;
    for (row, what) in ROWS {
        ensure!(proofs.contains_key(*row), "no end-to-end test says that it proves {row} ({what})");
    }
    let text = document(&proofs);
    let file = root().join("docs/tutorials.md");
    if check {
        let stored = std::fs::read_to_string(&file).unwrap_or_default();
        ensure!(stored == text, "docs/tutorials.md is not current: run `cargo xtask tutorials`");
        return Ok(());
    }
    std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))
}

/// The tests that prove each row: `file::name`.
fn proofs(folder: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let mut proofs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    for path in files {
        let module = path.with_extension("");
        let module = module.strip_prefix(folder)?.display().to_string().replace('/', "::");
        let mut rows: Vec<String> = Vec::new();
        for line in std::fs::read_to_string(&path)?.lines() {
            let line = line.trim();
            if let Some(words) = line.strip_prefix("///") {
                rows.extend(mentioned(words));
            } else if let Some(name) =
                line.strip_prefix("fn ").and_then(|rest| rest.split('(').next())
            {
                for row in std::mem::take(&mut rows) {
                    proofs.entry(row).or_default().push(format!("{module}::{name}"));
                }
            } else if !line.starts_with("#[") {
                rows.clear();
            }
        }
    }
    Ok(proofs)
}

/// The rows that a comment names.
fn mentioned(words: &str) -> impl Iterator<Item = String> {
    words
        .split(|character: char| !character.is_ascii_alphanumeric())
        .filter(|word| ROWS.iter().any(|(row, _)| row == word))
        .map(str::to_owned)
}

fn document(proofs: &BTreeMap<String, Vec<String>>) -> String {
    let mut text = String::from(
        "# Tutorials, line by line\n\n<!-- Written by `cargo xtask tutorials` from the tests' own comments. Do not edit. -->\n\n\
         Five Japanese StatefulSet tutorials are the specification of what a reader must be able to type. Each line below is \
         typed by an end-to-end test, with the real kubectl, in a cluster of its own; `cargo xtask test NAME` runs one.\n",
    );
    for tutorial in TUTORIALS {
        text += &format!(
            "\n## {}\n\n| lines | what is typed | rows |\n|---|---|---|\n",
            tutorial.title
        );
        for (lines, step, rows) in tutorial.steps {
            text += &format!("| {lines} | `{}` | {} |\n", step.replace('|', "\\|"), rows.join(" "));
        }
    }
    text +=
        "\n## The rows and their tests\n\n| row | what | tests (`tests/it/`) |\n|---|---|---|\n";
    for (row, what) in ROWS {
        let tests = proofs.get(*row).map(|tests| tests.join("<br>")).unwrap_or_default();
        text += &format!("| {row} | {} | {tests} |\n", what.replace('|', "\\|"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_a_tutorial_is_known_and_every_row_stands_in_one() {
        let named: Vec<&str> =
            TUTORIALS.iter().flat_map(|t| t.steps).flat_map(|step| step.2).copied().collect();
        for row in &named {
            assert!(ROWS.iter().any(|(known, _)| known == row), "{row}");
        }
        for (row, _) in ROWS {
            assert!(named.contains(row), "{row}");
        }
    }

    #[test]
    fn a_comment_names_rows_among_other_words() {
        assert_eq!(mentioned(" C2, B: T30 and (A1).").collect::<Vec<_>>(), ["C2", "A1"]);
    }
}
