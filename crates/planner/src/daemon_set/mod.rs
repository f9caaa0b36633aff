//! What the DaemonSet controller does next. As upstream: `pkg/controller/daemon/daemon_controller.go`, `update.go`.

mod back_off;
mod nodes;
mod pods;
mod revisions;
mod rollout;

pub use back_off::BackOffs;
pub use nodes::target_node;
pub use pods::controller_reference;

use crate::job::Telling;
use crate::workload::{is_available, is_ready, phase};
use crate::workload::{name, uid};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use nodes::Fit;
use std::collections::BTreeMap;
use std::time::Duration;

/// The label of a pod and of its revision with the revision's hash.
pub const HASH_LABEL: &str = "controller-revision-hash";
/// Pods that are made, or deleted, in one step. As upstream: `BurstReplicas`.
const AT_ONCE: usize = 250;

/// The world as the controller's caches show it.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The set.
    pub set: &'a DaemonSet,
    /// Revisions of its namespace that name it as controller, or that nobody controls.
    pub revisions: &'a [&'a ControllerRevision],
    /// Pods of its namespace that name it as controller, or that nobody controls.
    pub pods: &'a [&'a Pod],
    /// All nodes.
    pub nodes: &'a [&'a Node],
    /// How long nodes wait whose pods fail; what the last plan said.
    pub back_offs: &'a BackOffs,
    /// Now.
    pub now: Timestamp,
}

/// What to do, in order. Each action is idempotent, but for [`Action::CreatePod`]: who creates waits until it is seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Takes an orphan that matches, after a live look.
    AdoptPod {
        /// Name.
        name: String,
        /// The very pod.
        uid: String,
    },
    /// Lets go of a pod that no longer matches.
    ReleasePod {
        /// Name.
        name: String,
        /// The very pod.
        uid: String,
    },
    /// Makes a revision.
    CreateRevision(Box<ControllerRevision>),
    /// Takes an orphan that holds a template of a set like this.
    AdoptRevision {
        /// Name.
        name: String,
    },
    /// Makes an old revision the newest again.
    RenumberRevision {
        /// Name.
        name: String,
        /// Its new number.
        revision: i64,
    },
    /// Forgets a revision.
    DeleteRevision {
        /// Name.
        name: String,
    },
    /// Makes a pod for a node.
    CreatePod(Box<Pod>),
    /// Deletes a pod.
    DeletePod {
        /// Name.
        name: String,
        /// The very pod.
        uid: String,
    },
    /// Deletes a pod whose node does not exist, after a live look: nobody else would ever end it.
    ForcePod {
        /// Name.
        name: String,
        /// The very pod.
        uid: String,
        /// The node that must not exist.
        node: String,
    },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// First these.
    pub actions: Vec<Action>,
    /// The status to write, if it differs.
    pub status: DaemonSetStatus,
    /// For events.
    pub tellings: Vec<Telling>,
    /// When to look again although nothing may have changed.
    pub look_again_after: Option<Duration>,
    /// What to remember.
    pub back_offs: BackOffs,
}

/// Decides the next step. Total.
pub fn plan(observed: &Observed<'_>) -> Plan {
    let set = observed.set;
    let revisions = revisions::choose(observed);
    let (members, ownership) = pods::members(observed);
    let mut planner = Planner {
        observed,
        hashes: revisions.hashes.clone(),
        by_node: pods::by_node(&members),
        nodes: observed.nodes.iter().map(|node| (nodes::name(node), *node)).collect(),
        fits: observed
            .nodes
            .iter()
            .map(|node| (nodes::name(node), nodes::fit(set, node)))
            .collect(),
        plan: Plan {
            actions: Vec::new(),
            status: DaemonSetStatus::default(),
            tellings: Vec::new(),
            look_again_after: None,
            back_offs: observed.back_offs.clone(),
        },
    };
    if set.metadata.deletion_timestamp.is_none() {
        planner.plan.actions.extend(ownership);
        planner.plan.actions.extend(revisions.actions.clone());
        if !planner.manage() {
            planner.roll();
        }
        planner.plan.actions.extend(revisions.superfluous(observed, &members));
    }
    planner.plan.status = planner.status(revisions.collision_count);
    planner.plan
}

struct Planner<'a> {
    observed: &'a Observed<'a>,
    /// The hashes of the newest template; the first is that of new pods.
    hashes: Vec<String>,
    /// The set's pods by the node that they are meant for, oldest first.
    by_node: BTreeMap<&'a str, Vec<&'a Pod>>,
    nodes: BTreeMap<&'a str, &'a Node>,
    fits: BTreeMap<&'a str, Fit>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn min_ready(&self) -> u64 {
        let seconds = self.observed.set.spec.min_ready_seconds;
        seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_available(pod, self.min_ready(), self.observed.now)
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        let labels = pod.metadata.labels.as_ref();
        labels
            .and_then(|labels| labels.get(HASH_LABEL))
            .is_some_and(|hash| self.hashes.contains(hash))
    }

    fn pods_on(&self, node: &str) -> &[&'a Pod] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }

    fn fit(&self, node: &str) -> Fit {
        self.fits.get(node).copied().unwrap_or(Fit::Never)
    }

    fn look_again(&mut self, wait: Duration) {
        let sooner = self.plan.look_again_after.map_or(wait, |other| other.min(wait));
        self.plan.look_again_after = Some(sooner);
    }

    fn create(&mut self, node: &str) {
        let hash = self.hashes.first().cloned().unwrap_or_default();
        let pod = pods::new_pod(self.observed.set, &hash, node);
        self.plan.actions.push(Action::CreatePod(Box::new(pod)));
    }

    fn delete(&mut self, pod: &Pod) {
        let (name, uid) = (name(pod).to_owned(), uid(pod).to_owned());
        self.plan.actions.push(Action::DeletePod { name, uid });
    }

    /// One pod on each node that is to have one. Says whether there is anything to do. As upstream: `manage`,
    /// `podsShouldBeOnNode`.
    fn manage(&mut self) -> bool {
        let (mut wanting, mut surplus) = (Vec::new(), Vec::new());
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            match self.fit(node) {
                Fit::Runs if self.pods_on(node).is_empty() => wanting.push(node),
                Fit::Runs | Fit::Stays => surplus.extend(self.surplus_on(node)),
                Fit::Never => surplus.extend_from_slice(self.pods_on(node)),
            }
        }
        let mut acts = self.leave_absent_nodes();
        surplus.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        acts |= !wanting.is_empty() || !surplus.is_empty();
        wanting.into_iter().take(AT_ONCE).for_each(|node| self.create(node));
        surplus.into_iter().take(AT_ONCE).for_each(|pod| self.delete(pod));
        acts
    }

    /// Pods of a node that have ended, and those that are one too many.
    fn surplus_on(&mut self, node: &'a str) -> Vec<&'a Pod> {
        let (mut surplus, mut running) = (Vec::new(), Vec::new());
        for pod in self.pods_on(node).to_vec() {
            if pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            match phase(pod) {
                "Failed" => surplus.extend(self.failed(node, pod)),
                "Succeeded" => {
                    self.tell_of(
                        pod,
                        node,
                        "Normal",
                        "SucceededDaemonPod",
                        ("succeeded", "delete"),
                    );
                    surplus.push(pod);
                }
                _ => running.push(pod),
            }
        }
        surplus.extend(self.doubles(running));
        surplus
    }

    fn tell_of(
        &mut self,
        pod: &Pod,
        node: &str,
        kind: &'static str,
        reason: &str,
        (state, fate): (&str, &str),
    ) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let message = format!(
            "Found {state} daemon pod {namespace}/{} on node {node}, will try to {fate} it",
            name(pod)
        );
        self.plan.tellings.push(Telling { kind, reason: reason.to_owned(), message });
    }

    /// A pod that failed is deleted and made anew, ever more slowly: a node may refuse each.
    fn failed(&mut self, node: &str, pod: &'a Pod) -> Option<&'a Pod> {
        let now = self.observed.now;
        if let Some(wait) = self.plan.back_offs.wait(node, now) {
            self.look_again(wait);
            return None;
        }
        self.plan.back_offs.step(node, now);
        self.tell_of(pod, node, "Warning", "FailedDaemonPod", ("failed", "kill"));
        Some(pod)
    }

    /// All but the oldest; where pods may surge, also the newest template's, until it can stand alone.
    fn doubles(&self, running: Vec<&'a Pod>) -> Vec<&'a Pod> {
        if !self.may_surge() {
            return running.into_iter().skip(1).collect();
        }
        let (mut new, mut old, mut doubles) = (None, None, Vec::new());
        for pod in running {
            let place = if self.is_updated(pod) { &mut new } else { &mut old };
            match place {
                None => *place = Some(pod),
                Some(_) => doubles.push(pod),
            }
        }
        if let (Some(new), Some(old)) = (new, old)
            && (!is_ready(old) || self.is_available(new))
        {
            doubles.push(old);
        }
        doubles
    }

    /// Pods of nodes that do not exist (any more).
    fn leave_absent_nodes(&mut self) -> bool {
        let absent: Vec<(&str, Vec<&Pod>)> = self
            .by_node
            .iter()
            .filter(|(node, _)| !self.nodes.contains_key(*node))
            .map(|(node, pods)| (*node, pods.clone()))
            .collect();
        let mut acts = false;
        for (node, pods) in absent {
            for pod in pods {
                let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
                if bound {
                    let (name, uid) = (name(pod).to_owned(), uid(pod).to_owned());
                    let node = node.to_owned();
                    self.plan.actions.push(Action::ForcePod { name, uid, node });
                    acts = true;
                } else if pod.metadata.deletion_timestamp.is_none() {
                    self.delete(pod);
                    acts = true;
                }
            }
        }
        acts
    }

    /// As upstream: `updateDaemonSetStatus`.
    fn status(&mut self, collision_count: i32) -> DaemonSetStatus {
        let (mut desired, mut current, mut misplaced) = (0, 0, 0);
        let (mut ready, mut updated, mut available) = (0, 0, 0);
        for node in self.nodes.keys().copied() {
            let oldest = self.pods_on(node).first().copied();
            if self.fit(node) != Fit::Runs {
                misplaced += i32::from(oldest.is_some());
                continue;
            }
            desired += 1;
            let Some(pod) = oldest else { continue };
            current += 1;
            ready += i32::from(is_ready(pod));
            available += i32::from(self.is_available(pod));
            updated += i32::from(self.is_updated(pod));
        }
        if self.min_ready() > 0 && ready != available {
            self.look_again(Duration::from_secs(self.min_ready()));
        }
        let set = self.observed.set;
        let positive = |number: i32| (number > 0).then_some(number);
        DaemonSetStatus {
            observed_generation: set.metadata.generation,
            desired_number_scheduled: desired,
            current_number_scheduled: current,
            number_misscheduled: misplaced,
            number_ready: ready,
            updated_number_scheduled: positive(updated),
            number_available: positive(available),
            number_unavailable: positive(desired - available),
            collision_count: positive(collision_count),
            conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
