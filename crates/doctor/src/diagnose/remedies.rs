//! What a complaint in a log means, and what cures it.

use super::complaints::Complaint;
use super::workload;
use super::world::{World, is_ready, name, space};
use crate::finding::{Step, hint, step};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};

/// Who complains.
pub(super) struct Patient<'a> {
    pub(super) world: World<'a>,
    pub(super) pod: &'a Pod,
    pub(super) container: &'a str,
}

/// A symptom in half a sentence, its cause, and its cure.
pub(super) struct Remedy {
    pub(super) symptom: String,
    pub(super) cause: String,
    pub(super) steps: Vec<Step>,
}

impl<'a> Patient<'a> {
    fn space(&self) -> &'a str {
        space(&self.pod.metadata)
    }

    fn name(&self) -> &'a str {
        name(&self.pod.metadata)
    }

    fn container_spec(&self) -> Option<&'a Container> {
        let spec = self.pod.spec.as_ref()?;
        let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
        all.find(|container| container.name == self.container)
    }

    /// Starts the pod anew, for whoever does not want to wait for the next try.
    fn again(&self) -> Step {
        step(
            format!("Start {} anew at once, instead of at its next try", self.name()),
            format!("kubectl delete pod -n {} {}", self.space(), self.name()),
        )
    }

    /// The pod that a host name or address stands for.
    pub(super) fn peer(&self, host: &str) -> Option<&'a Pod> {
        let first = host.split('.').next().unwrap_or_default();
        self.world.pod(self.space(), first).or_else(|| {
            self.world.pods().iter().find(|pod| {
                pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()) == Some(host)
            })
        })
    }

    /// The pod that the others of its set follow: the first.
    fn primary(&self) -> Option<&'a Pod> {
        let set: &StatefulSet = self.world.set_of(self.pod)?;
        let (_, first) = *self.world.pods_of(set).first()?;
        (name(&first.metadata) != self.name()).then_some(first)
    }

    /// Decides what a complaint means.
    pub(super) fn remedy(&self, complaint: &Complaint) -> Remedy {
        match complaint {
            Complaint::DataIncompatible => self.data_incompatible(),
            Complaint::PasswordUnset(variable) => self.password_unset(variable),
            Complaint::FolderNotEmpty => self.folder_not_empty(),
            Complaint::RoleMissing(role) => self.role_missing(role.as_deref()),
            Complaint::DatabaseMissing(database) => self.database_missing(database.as_deref()),
            Complaint::ReplicationRefused => self.replication_refused(),
            Complaint::PasswordWrong(user) => self.password_wrong(user.as_deref()),
            Complaint::NameUnknown(host) => self.name_unknown(host.as_deref()),
            Complaint::Unreachable(host) => self.unreachable(host.as_deref()),
            Complaint::DiskFull => self.disk_full(),
            Complaint::ReadOnly => self.plain(
                "it writes to a file system that is read-only",
                "The container may only read where it wants to write: a ConfigMap, a Secret, or `readOnlyRootFilesystem`.",
                "Give it an emptyDir or a claim where it writes, and copy configuration there in an init container",
            ),
            Complaint::AddressInUse => self.plain(
                "the port that it wants is taken",
                "Another container of the same pod listens there already; a pod's containers share one address.",
                "Give each container of the pod a port of its own",
            ),
            Complaint::FileMissing => self.plain(
                "a program or a file is not there",
                "The command or a path in it names something that neither the image nor a mounted volume has.",
                "Compare `command`, `args` and `volumeMounts` with what the image has",
            ),
            Complaint::PermissionDenied => self.plain(
                "it may not read or write what it wants to",
                "The container's user does not own the files, most often those of its volume.",
                "Set `securityContext.fsGroup` (and `runAsUser`) of the pod to the user of the image, or change the owner in an init container",
            ),
        }
    }

    fn plain(&self, symptom: &str, cause: &str, advice: &str) -> Remedy {
        let mut steps = vec![hint(advice)];
        if let Some(workload) = workload(self.world, self.pod) {
            steps.push(step(
                "Change its template",
                format!("kubectl edit -n {} {workload}", self.space()),
            ));
        }
        Remedy { symptom: symptom.to_owned(), cause: cause.to_owned(), steps }
    }

    fn data_incompatible(&self) -> Remedy {
        Remedy {
            symptom: "its data were written by another version of the program".to_owned(),
            cause: "The image's version cannot read the files on the volume. The data are unharmed: nothing has been written.".to_owned(),
            steps: vec![
                hint("Go back to the image that wrote the data; do not delete the claim"),
                hint("To move to the new version, dump and restore the data, or use the program's own way to upgrade (pg_upgrade for PostgreSQL), one version at a time"),
            ],
        }
    }

    fn password_unset(&self, variable: &str) -> Remedy {
        let (space, secret) = (self.space(), format!("{}-password", self.container));
        let mut steps = vec![step(
            "Make a Secret with a password",
            format!(
                "kubectl create secret generic -n {space} {secret} --from-literal={variable}=\"$(head -c 18 /dev/urandom | base64)\""
            ),
        )];
        if let Some(workload) = workload(self.world, self.pod) {
            steps.push(step(
                "Hand it to the container",
                format!(
                    "kubectl set env -n {space} {workload} --containers={} --from=secret/{secret}",
                    self.container
                ),
            ));
        }
        Remedy {
            symptom: format!("it was started without {variable}"),
            cause: format!(
                "A database that is started for the first time wants a password for its administrator in {variable}."
            ),
            steps,
        }
    }

    fn folder_not_empty(&self) -> Remedy {
        let mut steps = Vec::new();
        if let Some(workload) = workload(self.world, self.pod) {
            steps.push(step(
                "Let PostgreSQL keep its data in a folder inside the volume",
                format!("kubectl set env -n {} {workload} --containers={} PGDATA=/var/lib/postgresql/data/pgdata", self.space(), self.container),
            ));
        }
        steps.push(hint("Or mount the volume with a `subPath`"));
        Remedy {
            symptom: "its data folder is not empty, and is no database".to_owned(),
            cause: "The top of a fresh volume often has a folder lost+found, and a database wants its own folder for itself.".to_owned(),
            steps,
        }
    }

    fn role_missing(&self, role: Option<&str>) -> Remedy {
        let shown = role.unwrap_or("ROLE");
        let mut steps = Vec::new();
        if let Some(primary) = self.primary() {
            let sql = format!(
                "CREATE ROLE \\\"{shown}\\\" WITH REPLICATION LOGIN PASSWORD '{}'",
                self.password()
            );
            steps.push(step(
                format!("Create it on the primary {}", name(&primary.metadata)),
                self.psql(primary, &sql),
            ));
        } else {
            steps.push(hint(format!("Create the role {shown} on the server that the log names")));
        }
        steps.push(self.again());
        steps.push(hint("So that new installations have it, create the role when the primary makes its database (for the usual image: a script in /docker-entrypoint-initdb.d)"));
        let primary =
            self.primary().map_or(String::new(), |pod| format!(" on {}", name(&pod.metadata)));
        Remedy {
            symptom: format!("the role \"{shown}\" does not exist{primary}"),
            cause: format!("The replica signs in as {shown}, and nobody has created that role."),
            steps,
        }
    }

    fn database_missing(&self, database: Option<&str>) -> Remedy {
        let shown = database.unwrap_or("DATABASE");
        let steps = match self.primary() {
            Some(primary) => vec![
                step(
                    format!("Create it on {}", name(&primary.metadata)),
                    self.psql(primary, &format!("CREATE DATABASE \\\"{shown}\\\"")),
                ),
                self.again(),
            ],
            None => {
                vec![hint(format!("Create the database {shown} on the server that the log names"))]
            }
        };
        Remedy {
            symptom: format!("the database \"{shown}\" does not exist"),
            cause: "The program asks for a database that nobody has created.".to_owned(),
            steps,
        }
    }

    fn replication_refused(&self) -> Remedy {
        let mut steps = Vec::new();
        if let Some(primary) = self.primary() {
            let (space, primary_name) = (self.space(), name(&primary.metadata));
            steps.push(step(
                format!("Let replicas in on {primary_name}, and let it read its rules again"),
                format!(
                    "kubectl exec -n {space} {primary_name} -- sh -c 'echo \"host replication all all scram-sha-256\" >> \"$PGDATA/pg_hba.conf\"'\n{}",
                    self.psql(primary, "SELECT pg_reload_conf()")
                ),
            ));
        }
        steps.push(self.again());
        steps.push(hint("So that it lasts, put the line into the pg_hba.conf of your ConfigMap"));
        Remedy {
            symptom: "its primary lets no replication in".to_owned(),
            cause: "The primary's pg_hba.conf has no line for replication from this address; a line for the database `all` does not count.".to_owned(),
            steps,
        }
    }

    fn password_wrong(&self, user: Option<&str>) -> Remedy {
        let shown = user.unwrap_or("USER");
        let mut steps = vec![hint(
            "Compare the password that this container is given with the one that the server was first started with",
        )];
        if let Some(primary) = self.primary() {
            steps.push(step(
                format!("Give {shown} that password on {}", name(&primary.metadata)),
                self.psql(
                    primary,
                    &format!("ALTER ROLE \\\"{shown}\\\" WITH PASSWORD '{}'", self.password()),
                ),
            ));
            steps.push(self.again());
        }
        Remedy {
            symptom: format!("the password of \"{shown}\" is refused"),
            cause: "The server has another password. One that is changed in a Secret later does not reach a database that exists already: the data keep the first one.".to_owned(),
            steps,
        }
    }

    fn name_unknown(&self, host: Option<&str>) -> Remedy {
        let shown = host.unwrap_or("that it asks for");
        let peer = host.and_then(|host| self.peer(host));
        let cause = match peer {
            Some(peer) if !is_ready(peer) => format!(
                "{} is not Ready, and only pods that are Ready have a name (unless their Service says publishNotReadyAddresses).",
                name(&peer.metadata)
            ),
            _ => "No Service gives that name: it must be <pod>.<service>, with the headless Service that the set names in spec.serviceName.".to_owned(),
        };
        Remedy {
            symptom: format!("the name {shown} does not resolve"),
            cause,
            steps: vec![step(
                "Look which Services there are",
                format!("kubectl get services -n {}", self.space()),
            )],
        }
    }

    fn unreachable(&self, host: Option<&str>) -> Remedy {
        let peer = host.and_then(|host| self.peer(host)).or_else(|| self.primary());
        let space = self.space();
        let (cause, steps) = match peer {
            Some(peer) if !is_ready(peer) => (
                format!("{} does not answer, for it is not Ready itself.", name(&peer.metadata)),
                vec![step(
                    format!("Cure {} first; this pod follows by itself", name(&peer.metadata)),
                    format!("kubectl describe pod -n {space} {}", name(&peer.metadata)),
                )],
            ),
            Some(peer) => (
                format!(
                    "{} is Ready and does not listen where this pod asks: another port, or only on 127.0.0.1.",
                    name(&peer.metadata)
                ),
                vec![
                    step(
                        format!("Look what {} says", name(&peer.metadata)),
                        format!("kubectl logs -n {space} {} --tail=20", name(&peer.metadata)),
                    ),
                    hint(
                        "Compare the port, and let the server listen on every address (PostgreSQL: listen_addresses = '*')",
                    ),
                    self.again(),
                ],
            ),
            None => (
                "The server that it connects to does not answer there.".to_owned(),
                vec![step(
                    "Look which Services there are and whether they have endpoints",
                    format!("kubectl get services,endpointslices -n {space}"),
                )],
            ),
        };
        let shown = host.map_or("its peer".to_owned(), str::to_owned);
        let shown = peer.map_or(shown, |peer| name(&peer.metadata).to_owned());
        Remedy { symptom: format!("{shown} does not answer"), cause, steps }
    }

    fn disk_full(&self) -> Remedy {
        let space = self.space();
        let volumes = self.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let claims: Vec<&str> = volumes
            .filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
            .collect();
        let mut steps: Vec<Step> = claims
            .iter()
            .map(|claim| {
                step(
                    format!("Let {claim} grow, if its class allows it (write the size that you need)"),
                    format!("kubectl patch pvc -n {space} {claim} --type=merge -p '{{\"spec\":{{\"resources\":{{\"requests\":{{\"storage\":\"SIZE\"}}}}}}}}'"),
                )
            })
            .collect();
        steps.push(hint("Or remove what is not needed"));
        Remedy {
            symptom: "its disk is full".to_owned(),
            cause: "A volume, or the node's own disk, has no space left.".to_owned(),
            steps,
        }
    }

    /// A statement for a pod's PostgreSQL. It is written into double quotes.
    fn psql(&self, server: &Pod, sql: &str) -> String {
        let main = server.spec.as_ref().and_then(|spec| spec.containers.first());
        let user = main
            .and_then(|container| variable(container, "POSTGRES_USER"))
            .and_then(|variable| variable.value.as_deref())
            .filter(|user| user.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or("postgres");
        let many = server.spec.as_ref().is_some_and(|spec| spec.containers.len() > 1);
        let which = main.filter(|_| many).map_or(String::new(), |c| format!(" -c {}", c.name));
        format!(
            "kubectl exec -n {} {}{which} -- psql -U {user} -c \"{sql}\"",
            self.space(),
            name(&server.metadata)
        )
    }

    /// How a shell gets the password that the complaining container uses; it is not looked at here.
    fn password(&self) -> String {
        let from = self.container_spec().and_then(|container| {
            let wanted = |variable: &&EnvVar| {
                let name = variable.name.to_uppercase();
                name == "PGPASSWORD" || name.contains("REPL") && name.contains("PASS")
            };
            let variable = container.env.iter().flatten().find(wanted)?;
            variable.value_from.as_ref()?.secret_key_ref.as_ref()
        });
        match from {
            Some(key) => format!(
                "$(kubectl get secret -n {} {} -o jsonpath='{{.data.{}}}' | base64 -d)",
                self.space(),
                key.name,
                key.key.replace('.', "\\.")
            ),
            None => "THE-PASSWORD-OF-THE-REPLICA".to_owned(),
        }
    }
}

fn variable<'a>(container: &'a Container, name: &str) -> Option<&'a EnvVar> {
    container.env.iter().flatten().find(|variable| variable.name == name)
}
