//! Reconcile loops and the scheduler loop: observe, ask the planner, act through `kube::Client`.
//!
//! One watch per kind feeds all controllers ([`harness::Cache`]); a reconcile never lists, and after a write of its own
//! it waits until the cache has seen it.
#![warn(clippy::wildcard_enum_match_arm)]

mod cron_job;
mod daemon_set;
mod dependents;
mod deployment;
mod disruption;
mod endpoints;
mod events;
mod garbage_collector;
pub mod harness;
mod job;
mod namespace;
mod persistent_volume;
mod pod_control;
mod replica_set;
mod scheduler;
mod service_account;
mod statefulset;

use harness::Caches;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Hands out a client for a user.
pub type Clients = Arc<dyn Fn(&str) -> kube::Client + Send + Sync>;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>;

/// What controllers are made from.
#[derive(Clone)]
pub struct Config {
    /// A client for each controller's user.
    pub client_for: Clients,
    /// PEM, for `kube-root-ca.crt`.
    pub ca_certificate: String,
    /// The wall clock; tests have another.
    pub clock: Clock,
    /// Where the local provisioner's volumes live on their node.
    pub volume_root: String,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("volume_root", &self.volume_root).finish_non_exhaustive()
    }
}

/// Runs every controller until `closing` fires.
pub async fn run(config: Config, closing: CancellationToken) {
    let caches = Caches::start((config.client_for)("system:kube-controller-manager"));
    let user =
        |name: &str| (config.client_for)(&format!("system:serviceaccount:kube-system:{name}"));
    let tasks = async {
        tokio::join!(
            statefulset::run(user("statefulset-controller"), caches.clone(), config.clock.clone()),
            deployment::run(user("deployment-controller"), caches.clone(), config.clock.clone()),
            replica_set::run(user("replicaset-controller"), caches.clone(), config.clock.clone()),
            disruption::run(user("disruption-controller"), caches.clone(), config.clock.clone()),
            daemon_set::run(user("daemon-set-controller"), caches.clone(), config.clock.clone()),
            job::run(user("job-controller"), caches.clone(), config.clock.clone()),
            cron_job::run(user("cronjob-controller"), caches.clone(), config.clock.clone()),
            scheduler::run((config.client_for)("system:kube-scheduler"), caches.clone()),
            endpoints::run(user("endpointslice-controller"), caches.clone()),
            persistent_volume::run(
                user("persistent-volume-binder"),
                caches.clone(),
                config.clock.clone(),
                config.volume_root.clone()
            ),
            garbage_collector::run(user("generic-garbage-collector")),
            namespace::run(user("namespace-controller"), caches.clone()),
            service_account::run(
                user("service-account-controller"),
                caches.clone(),
                config.ca_certificate.clone()
            ),
            events::forget_old(user("event-ttl-controller")),
        )
    };
    closing.run_until_cancelled(tasks).await;
}
