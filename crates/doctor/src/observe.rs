//! Asks the API. Nothing is changed, and of ConfigMaps and Secrets only the names are asked for.

use crate::connect::chain;
use crate::diagnose::wanted_logs;
use crate::observed::{Log, Observed, Seen, Workload};
use crate::subject::{Subject, Target};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, PodTemplateSpec, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// How many objects one answer has.
const PAGE: u32 = 500;
/// How many of a container's last lines are read, and how many bytes at most.
const LINES: i64 = 20;
const BYTES: i64 = 16 * 1024;
/// How many logs are asked for at a time.
const AT_ONCE: usize = 4;

/// The question cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// Nobody answers.
    #[error(
        "no answer from {address}: {why}. Is the server running, and is it the right kubeconfig?"
    )]
    Unreachable {
        /// Whom it asked.
        address: String,
        /// Why.
        why: String,
    },
    /// It does not know who asks.
    #[error(
        "{address} does not accept the kubeconfig's user ({why}): is it the kubeconfig of this cluster, and has it expired?"
    )]
    Unauthorized {
        /// Whom it asked.
        address: String,
        /// What it said.
        why: String,
    },
    /// There is no such namespace.
    #[error("there is no namespace {0:?}: `kubectl get namespaces` lists them")]
    NoNamespace(String),
    /// There is no such object.
    #[error(
        "there is no {kind} {name:?} in namespace {namespace}: `kubectl get {plural} -n {namespace}` lists them"
    )]
    NotFound {
        /// Its kind.
        kind: &'static str,
        /// Its kind for kubectl.
        plural: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Not even pods and sets may be looked at.
    #[error("neither StatefulSets nor pods can be looked at: {0}")]
    Blind(String),
}

/// Looks at everything that the question needs.
pub async fn observe(
    client: &Client,
    address: &str,
    subject: &Subject,
) -> Result<Observed, ObserveError> {
    reach(client, address, subject).await?;
    let place = Place { client, namespace: subject.namespace.as_deref() };
    let (sets, pods, claims, services, events, revisions) = futures::join!(
        place.list(),
        place.list::<Pod>(),
        place.list(),
        place.list(),
        place.list(),
        place.list(),
    );
    let (volumes, classes, nodes) = futures::join!(all(client), all(client), all(client));
    let (config_maps, secrets, workloads) =
        futures::join!(place.names::<ConfigMap>(), place.names::<Secret>(), place.workloads());
    let mut unseen = Vec::new();
    let mut observed = Observed {
        now: Timestamp::now(),
        sets: seen(sets, "StatefulSets", &mut unseen),
        pods: seen(pods, "pods", &mut unseen),
        claims: seen(claims, "claims", &mut unseen),
        services: seen(services, "Services", &mut unseen),
        events: seen(events, "events", &mut unseen),
        revisions: seen(revisions, "ControllerRevisions", &mut unseen),
        volumes: seen(volumes, "volumes", &mut unseen),
        classes: seen(classes, "storage classes", &mut unseen),
        nodes: seen(nodes, "nodes", &mut unseen),
        config_maps: seen(config_maps, "ConfigMaps", &mut unseen),
        secrets: seen(secrets, "Secrets", &mut unseen),
        workloads: seen(workloads, "Deployments, Jobs and the like", &mut unseen),
        ..Observed::default()
    };
    if observed.sets.is_none() && observed.pods.is_none() {
        return Err(ObserveError::Blind(unseen.into_iter().next().unwrap_or_default()));
    }
    observed.on_abide = is_abide(&observed);
    exists(&observed, subject)?;
    let (logs, refused) = logs(client, observed.pods.as_deref().unwrap_or_default()).await;
    observed.logs = logs;
    unseen.extend(refused);
    observed.unseen = unseen;
    Ok(observed)
}

fn is_abide(observed: &Observed) -> bool {
    let nodes = observed.nodes.iter().flatten().any(|node| {
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        info.is_some_and(|info| info.container_runtime_version.starts_with("abide://"))
    });
    nodes
        || observed
            .classes
            .iter()
            .flatten()
            .any(|class| class.provisioner.starts_with("abide.dev/"))
}

/// Whether anybody is there, and knows the namespace.
async fn reach(client: &Client, address: &str, subject: &Subject) -> Result<(), ObserveError> {
    let address = address.to_owned();
    if let Err(error) = client.apiserver_version().await {
        match error {
            kube::Error::Api(status) if status.code == 401 => {
                return Err(ObserveError::Unauthorized { address, why: status.message });
            }
            kube::Error::Api(_) => {}
            other => return Err(ObserveError::Unreachable { address, why: chain(&other) }),
        }
    }
    let Some(namespace) = &subject.namespace else { return Ok(()) };
    match Api::<Namespace>::all(client.clone()).get(namespace).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            Err(ObserveError::NoNamespace(namespace.clone()))
        }
        Err(kube::Error::Api(status)) if status.code == 401 => {
            Err(ObserveError::Unauthorized { address, why: status.message })
        }
        // Who may not look at namespaces may still look at what is in one.
        _ => Ok(()),
    }
}

type Listed<T> = Result<Vec<T>, kube::Error>;

/// What was listed; what was not goes among the unseen. A kind that is not served has no objects that matter.
fn seen<T>(listed: Listed<T>, what: &str, unseen: &mut Vec<String>) -> Seen<T> {
    match listed {
        Ok(items) => Some(items),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            unseen.push(format!(
                "{what}: not allowed ({}); nothing is said about them",
                status.message
            ));
            None
        }
        Err(error) => {
            unseen.push(format!("{what}: {}; nothing is said about them", chain(&error)));
            None
        }
    }
}

async fn pages<K>(api: Api<K>) -> Listed<K>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut found = Vec::new();
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&parameters).await?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(found),
        }
    }
}

async fn all<K>(client: &Client) -> Listed<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    pages(Api::<K>::all(client.clone())).await
}

struct Place<'a> {
    client: &'a Client,
    namespace: Option<&'a str>,
}

impl Place<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        match self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    async fn list<K>(&self) -> Listed<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        pages(self.api::<K>()).await
    }

    /// Names only: the content is never sent.
    async fn names<K>(&self) -> Listed<ObjectMeta>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let api = self.api::<K>();
        let mut found = Vec::new();
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let page = api.list_metadata(&parameters).await?;
            found.extend(page.items.into_iter().map(|item| item.metadata));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok(found),
            }
        }
    }

    async fn workloads(&self) -> Listed<Workload> {
        let (deployments, replica_sets, daemon_sets, jobs, cron_jobs) = futures::join!(
            self.list::<Deployment>(),
            self.list::<ReplicaSet>(),
            self.list::<DaemonSet>(),
            self.list::<Job>(),
            self.list::<CronJob>(),
        );
        let mut found = Vec::new();
        found.extend(
            served(deployments)?
                .into_iter()
                .map(|one| workload("Deployment", one.metadata, one.spec.template)),
        );
        found.extend(served(replica_sets)?.into_iter().map(|one| {
            let template = one.spec.template.unwrap_or_default();
            workload("ReplicaSet", one.metadata, template)
        }));
        found.extend(
            served(daemon_sets)?
                .into_iter()
                .map(|one| workload("DaemonSet", one.metadata, one.spec.template)),
        );
        found.extend(served(jobs)?.into_iter().map(|one| {
            let conditions =
                one.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let is_complete =
                conditions.into_iter().any(|c| c.type_ == "Complete" && c.status == "True");
            let spec = one.spec.unwrap_or_default();
            let job = workload("Job", one.metadata, spec.template);
            Workload { is_complete, ..job }
        }));
        found.extend(served(cron_jobs)?.into_iter().map(|one| {
            workload(
                "CronJob",
                one.metadata,
                one.spec.job_template.spec.unwrap_or_default().template,
            )
        }));
        Ok(found)
    }
}

/// A kind that this cluster does not serve has no objects.
fn served<T>(listed: Listed<T>) -> Listed<T> {
    match listed {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        other => other,
    }
}

fn workload(kind: &'static str, metadata: ObjectMeta, template: PodTemplateSpec) -> Workload {
    Workload { kind, metadata, pod: template.spec, is_complete: false }
}

/// Whether what is asked about is there, or will be.
fn exists(observed: &Observed, subject: &Subject) -> Result<(), ObserveError> {
    let Some(target) = &subject.target else { return Ok(()) };
    let is = |metadata: &ObjectMeta| {
        metadata.name.as_deref() == Some(target.name())
            && (subject.namespace.is_none() || metadata.namespace == subject.namespace)
    };
    let found = match target {
        Target::Set(_) => observed.sets.as_ref().map(|all| all.iter().any(|one| is(&one.metadata))),
        Target::Pod(pod) => observed.pods.as_ref().map(|all| {
            all.iter().any(|one| is(&one.metadata)) || crate::diagnose::is_awaited(observed, pod)
        }),
        Target::Claim(_) => {
            observed.claims.as_ref().map(|all| all.iter().any(|one| is(&one.metadata)))
        }
        Target::Service(_) => {
            observed.services.as_ref().map(|all| all.iter().any(|one| is(&one.metadata)))
        }
        Target::Workload { kind, .. } => observed
            .workloads
            .as_ref()
            .map(|all| all.iter().any(|one| one.kind == *kind && is(&one.metadata))),
    };
    // What may not be looked at may be there.
    if found.unwrap_or(true) {
        return Ok(());
    }
    Err(ObserveError::NotFound {
        kind: target.kind(),
        plural: format!("{}s", target.kind().to_lowercase()),
        namespace: subject.namespace.clone().unwrap_or_default(),
        name: target.name().to_owned(),
    })
}

/// The last lines of containers in trouble, and why some could not be had.
async fn logs(client: &Client, pods: &[Pod]) -> (Vec<Log>, Option<String>) {
    let wanted: Vec<(String, String, String, bool)> = wanted_logs(pods)
        .into_iter()
        .map(|(pod, container, previous)| {
            let metadata = &pod.metadata;
            (
                metadata.namespace.clone().unwrap_or_default(),
                metadata.name.clone().unwrap_or_default(),
                container.to_owned(),
                previous,
            )
        })
        .collect();
    let answers: Vec<Result<Log, kube::Error>> = futures::stream::iter(wanted)
        .map(|(namespace, pod, container, previous)| {
            read(client, namespace, pod, container, previous)
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let refused = answers.iter().find_map(|answer| match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            Some(format!("logs: not allowed ({}); what programs said is not known", status.message))
        }
        _ => None,
    });
    (answers.into_iter().flatten().collect(), refused)
}

async fn read(
    client: &Client,
    namespace: String,
    pod: String,
    container: String,
    previous: bool,
) -> Result<Log, kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let parameters = LogParams {
        container: Some(container.clone()),
        previous,
        tail_lines: Some(LINES),
        limit_bytes: Some(BYTES),
        ..LogParams::default()
    };
    let other = LogParams { previous: !previous, ..parameters.clone() };
    let text = match api.logs(&pod, &parameters).await {
        // The try before may have been cleared away, or the last one may not have begun: the other says as much.
        Err(kube::Error::Api(status)) if status.code != 403 => api.logs(&pod, &other).await?,
        // One that has just begun has said nothing yet.
        Ok(text) if text.is_empty() => api.logs(&pod, &other).await.unwrap_or_default(),
        answer => answer?,
    };
    let lines = text.lines().map(str::to_owned).collect();
    Ok(Log { namespace, pod, container, lines })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn what_is_forbidden_is_told_and_nothing_follows_from_it() {
        let mut unseen = Vec::new();
        let forbidden = Status::failure("nodes is forbidden", "Forbidden").with_code(403);
        let listed: Listed<u8> = Err(kube::Error::Api(forbidden.boxed()));
        assert_eq!(seen(listed, "nodes", &mut unseen), None);
        assert_eq!(unseen, ["nodes: not allowed (nodes is forbidden); nothing is said about them"]);
    }

    #[test]
    fn a_kind_that_is_not_served_has_no_objects() {
        let absent =
            Status::failure("the server could not find the requested resource", "NotFound")
                .with_code(404);
        let listed: Listed<u8> = Err(kube::Error::Api(absent.boxed()));
        assert_eq!(served(listed).unwrap(), Vec::<u8>::new());
    }
}
