//! What a Deployment's controller does next. As upstream: `pkg/controller/deployment` (`sync.go`, `rolling.go`,
//! `recreate.go`).

mod progress;
mod proportion;
mod revision;

use crate::workload::{Round, controller, is_controlled_by, phase, scaled};
use api::selector::label::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use std::collections::BTreeMap;
use std::time::Duration;

/// The number of a rollout, on the Deployment and its ReplicaSets.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// The earlier numbers of a ReplicaSet that became the newest again.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's replicas when the ReplicaSet was last scaled.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The same with the surge.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Which template a ReplicaSet and its pods are made from.
pub const HASH_LABEL: &str = "pod-template-hash";

/// The world as the controller's caches show it.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The Deployment.
    pub deployment: &'a Deployment,
    /// ReplicaSets that it controls, and those of its namespace that nobody controls.
    pub sets: &'a [&'a ReplicaSet],
    /// The pods of its ReplicaSets (only looked at with the strategy `Recreate`).
    pub pods: &'a [&'a Pod],
    /// The names of all ReplicaSets of its namespace that begin with its own.
    pub taken: &'a [String],
    /// Now.
    pub now: Timestamp,
}

/// What to do next, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Takes an orphan that matches, after a live look.
    AdoptReplicaSet {
        /// Name.
        name: String,
        /// The very set.
        uid: String,
    },
    /// Lets go of a set that no longer matches.
    ReleaseReplicaSet {
        /// Name.
        name: String,
        /// The very set.
        uid: String,
    },
    /// Makes the newest set.
    CreateReplicaSet(Box<ReplicaSet>),
    /// Changes annotations, `minReadySeconds` or the size of a set.
    UpdateReplicaSet(Update),
    /// Forgets a set.
    DeleteReplicaSet {
        /// Name.
        name: String,
        /// The very set.
        uid: String,
    },
    /// Writes the number of the rollout onto the Deployment.
    NumberDeployment {
        /// The number.
        revision: String,
    },
}

/// What changes about a ReplicaSet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Update {
    /// Name.
    pub name: String,
    /// The very set.
    pub uid: String,
    /// Annotations to put.
    pub annotations: BTreeMap<String, String>,
    /// From how many replicas to how many.
    pub scale: Option<(i32, i32)>,
    /// `minReadySeconds`, when it changes.
    pub min_ready_seconds: Option<i32>,
}

/// What to do next, and what to tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In order.
    pub actions: Vec<Action>,
    /// The status to write, if it differs.
    pub status: DeploymentStatus,
    /// When to look again although nothing may have changed.
    pub look_again_after: Option<Duration>,
}

/// A reference to the Deployment as controller.
pub fn controller_reference(deployment: &Deployment) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        name: name(deployment).to_owned(),
        uid: deployment.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn name(deployment: &Deployment) -> &str {
    deployment.metadata.name.as_deref().unwrap_or_default()
}

/// Decides the next step. Total.
pub fn plan(observed: &Observed<'_>) -> Plan {
    let mut planner = Planner { observed, actions: Vec::new(), sets: Vec::new(), collisions: 0 };
    planner.run()
}

struct Planner<'a> {
    observed: &'a Observed<'a>,
    actions: Vec<Action>,
    /// The Deployment's sets, oldest first, as they will be when the actions are done.
    sets: Vec<ReplicaSet>,
    collisions: i32,
}

/// The size that a set is to have.
fn size(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1).max(0)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

fn annotation<'a>(set: &'a ReplicaSet, key: &str) -> Option<&'a str> {
    set.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn set_name(set: &ReplicaSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

fn number(count: i64) -> i32 {
    i32::try_from(count).unwrap_or(if count < 0 { i32::MIN } else { i32::MAX })
}

impl Planner<'_> {
    fn run(&mut self) -> Plan {
        let deployment = self.observed.deployment;
        self.collisions =
            deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        self.claim();
        let newest = self.newest();
        if deployment.metadata.deletion_timestamp.is_some() {
            let status = progress::status(self, newest, false);
            return self.finish(status);
        }
        let paused = deployment.spec.paused == Some(true);
        if paused || self.is_scaling() {
            // A number that was forgotten is written even so.
            let newest = newest.map(|at| self.keep_newest(at));
            self.scale_all(newest);
            if paused {
                self.clean_up(newest);
            }
            let status = progress::status(self, newest, false);
            return self.finish(status);
        }
        let newest = if self.strategy() == "Recreate" {
            self.recreate(newest)
        } else {
            Some(self.roll(newest))
        };
        let status = progress::status(self, newest, true);
        if progress::is_complete(deployment, &status) {
            self.clean_up(newest);
        }
        self.finish(status)
    }

    fn finish(&mut self, status: DeploymentStatus) -> Plan {
        Plan {
            look_again_after: progress::deadline_in(self.observed, &status),
            actions: std::mem::take(&mut self.actions),
            status,
        }
    }

    fn strategy(&self) -> &str {
        let strategy = self.observed.deployment.spec.strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate")
    }

    fn replicas(&self) -> i32 {
        self.observed.deployment.spec.replicas.unwrap_or(1).max(0)
    }

    /// How many pods there may be beyond the wanted, and how many may be missing.
    fn fence_posts(&self) -> (i32, i32) {
        let rolling = self
            .observed
            .deployment
            .spec
            .strategy
            .as_ref()
            .filter(|_| self.strategy() == "RollingUpdate");
        let rolling = rolling.and_then(|strategy| strategy.rolling_update.as_ref());
        let Some(rolling) = rolling else { return (0, 0) };
        let surge = scaled(rolling.max_surge.as_ref(), self.replicas(), Round::Up);
        let unavailable = scaled(rolling.max_unavailable.as_ref(), self.replicas(), Round::Down);
        // Both may come to nothing by rounding; then nothing would ever move.
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    fn max_surge(&self) -> i32 {
        self.fence_posts().0
    }

    fn max_unavailable(&self) -> i32 {
        if self.replicas() == 0 { 0 } else { self.fence_posts().1.min(self.replicas()) }
    }

    /// Adopts, releases, and keeps the Deployment's own sets, oldest first.
    fn claim(&mut self) {
        let deployment = self.observed.deployment;
        let selector = LabelSelector::of(Some(&deployment.spec.selector));
        let deleting = deployment.metadata.deletion_timestamp.is_some();
        for &set in self.observed.sets {
            let matches = selector.matches_optional(set.metadata.labels.as_ref());
            let identity =
                || (set_name(set).to_owned(), set.metadata.uid.clone().unwrap_or_default());
            if is_controlled_by(&set.metadata, deployment.metadata.uid.as_ref()) {
                if matches {
                    self.sets.push(set.clone());
                } else if !deleting {
                    let (name, uid) = identity();
                    self.actions.push(Action::ReleaseReplicaSet { name, uid });
                }
            } else if controller(&set.metadata).is_none()
                && matches
                && !deleting
                && set.metadata.deletion_timestamp.is_none()
            {
                let (name, uid) = identity();
                self.actions.push(Action::AdoptReplicaSet { name, uid });
                self.sets.push(set.clone());
            }
        }
        let age = |set: &ReplicaSet| {
            let made = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (made, set_name(set).to_owned())
        };
        self.sets.sort_by_key(age);
    }

    /// The set that has the Deployment's template: the oldest, if several have.
    fn newest(&self) -> Option<usize> {
        let template = &self.observed.deployment.spec.template;
        self.sets.iter().position(|set| revision::holds(set, template))
    }

    /// All sets but one.
    fn old(&self, newest: Option<usize>) -> Vec<usize> {
        (0..self.sets.len()).filter(|at| Some(*at) != newest).collect()
    }

    fn total(&self) -> i32 {
        self.sets.iter().map(size).fold(0, i32::saturating_add)
    }

    /// Changes what differs, in the plan and in the view of it.
    fn update(&mut self, at: usize, change: impl FnOnce(&mut Update)) {
        let set = &mut self.sets[at];
        let mut update = Update {
            name: set_name(set).to_owned(),
            uid: set.metadata.uid.clone().unwrap_or_default(),
            ..Update::default()
        };
        change(&mut update);
        let held = set.metadata.annotations.get_or_insert_default();
        update.annotations.retain(|key, value| held.get(key) != Some(value));
        held.extend(update.annotations.clone());
        update.scale = update.scale.filter(|(from, to)| from != to);
        if let Some((_, to)) = update.scale {
            set.spec.replicas = Some(to);
        }
        let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
        update.min_ready_seconds = update.min_ready_seconds.filter(|seconds| *seconds != min_ready);
        if let Some(seconds) = update.min_ready_seconds {
            set.spec.min_ready_seconds = Some(seconds);
        }
        if !update.annotations.is_empty()
            || update.scale.is_some()
            || update.min_ready_seconds.is_some()
        {
            self.actions.push(Action::UpdateReplicaSet(update));
        }
    }

    /// Gives a set a size, and notes what the Deployment wanted then.
    fn scale(&mut self, at: usize, to: i32) {
        let (replicas, surge) = (self.replicas(), self.max_surge());
        let from = size(&self.sets[at]);
        self.update(at, |update| {
            update.scale = Some((from, to));
            update.annotations.insert(DESIRED.to_owned(), replicas.to_string());
            let most = replicas.saturating_add(surge);
            update.annotations.insert(MAX.to_owned(), most.to_string());
        });
    }

    /// How large the newest set may be now.
    fn room_for_newest(&self, size_now: i32) -> i32 {
        if self.strategy() == "Recreate" {
            return self.replicas();
        }
        let most = i64::from(self.replicas()) + i64::from(self.max_surge());
        let room = number(most - i64::from(self.total()));
        if room <= 0 { size_now } else { size_now + room.min(self.replicas() - size_now) }
    }

    /// RollingUpdate: either more of the new or less of the old.
    fn roll(&mut self, newest: Option<usize>) -> usize {
        let Some(newest) = newest.map(|at| self.keep_newest(at)) else {
            let room = self.room_for_newest(0);
            return self.create_newest(room);
        };
        let now = size(&self.sets[newest]);
        if now != self.replicas() {
            let to =
                if now > self.replicas() { self.replicas() } else { self.room_for_newest(now) };
            if to != now {
                self.scale(newest, to);
                return newest;
            }
        }
        self.shrink_old(newest);
        newest
    }

    /// Makes the old sets smaller as far as enough pods stay available; unhealthy ones go first.
    fn shrink_old(&mut self, newest: usize) {
        let old = self.old(Some(newest));
        let least = self.replicas() - self.max_unavailable();
        let missing = (size(&self.sets[newest]) - available(&self.sets[newest])).max(0);
        let most = self.total() - least - missing;
        if most <= 0 || old.iter().all(|at| size(&self.sets[*at]) == 0) {
            return;
        }
        let mut gone = 0;
        for at in &old {
            let unhealthy = (size(&self.sets[*at]) - available(&self.sets[*at])).max(0);
            let less = unhealthy.min(most - gone);
            if less > 0 {
                self.scale(*at, size(&self.sets[*at]) - less);
                gone += less;
            }
        }
        let up: i32 = self.sets.iter().map(available).sum();
        let mut spare = up - least;
        for at in &old {
            let less = size(&self.sets[*at]).min(spare);
            if less > 0 {
                self.scale(*at, size(&self.sets[*at]) - less);
                spare -= less;
            }
        }
    }

    /// Recreate: nothing new before everything old is gone.
    fn recreate(&mut self, newest: Option<usize>) -> Option<usize> {
        let newest = newest.map(|at| self.keep_newest(at));
        let old = self.old(newest);
        let shrinking: Vec<usize> =
            old.iter().copied().filter(|at| size(&self.sets[*at]) > 0).collect();
        for at in &shrinking {
            self.scale(*at, 0);
        }
        if !shrinking.is_empty() || self.old_pods_run(&old) {
            return newest;
        }
        match newest {
            Some(at) => self.scale(at, self.replicas()),
            None => return Some(self.create_newest(self.replicas())),
        }
        newest
    }

    fn old_pods_run(&self, old: &[usize]) -> bool {
        let told = old
            .iter()
            .any(|at| self.sets[*at].status.as_ref().is_some_and(|status| status.replicas > 0));
        told || self.observed.pods.iter().any(|pod| {
            let of_old = old
                .iter()
                .any(|at| is_controlled_by(&pod.metadata, self.sets[*at].metadata.uid.as_ref()));
            of_old && !["Failed", "Succeeded"].contains(&phase(pod))
        })
    }

    /// Whether the user changed the number of replicas since a set was last scaled.
    fn is_scaling(&self) -> bool {
        self.sets.iter().filter(|set| size(set) > 0).any(|set| {
            annotation(set, DESIRED)
                .and_then(|desired| desired.parse::<i32>().ok())
                .is_some_and(|desired| desired != self.replicas())
        })
    }

    /// Another number of replicas, in the midst of a rollout too: each set changes in proportion.
    fn scale_all(&mut self, newest: Option<usize>) {
        let active: Vec<usize> =
            (0..self.sets.len()).filter(|at| size(&self.sets[*at]) > 0).collect();
        let only = match active.as_slice() {
            [] => newest.or(self.sets.len().checked_sub(1)),
            [one] => Some(*one),
            _ => None,
        };
        if let Some(only) = only {
            if size(&self.sets[only]) != self.replicas() {
                self.scale(only, self.replicas());
            }
            return;
        }
        if newest.is_some_and(|at| self.is_saturated(&self.sets[at])) {
            for at in self.old(newest) {
                if size(&self.sets[at]) > 0 {
                    self.scale(at, 0);
                }
            }
            return;
        }
        if self.strategy() == "RollingUpdate" {
            let sizes: Vec<proportion::Share<'_>> = active
                .iter()
                .map(|at| proportion::Share { at: *at, set: &self.sets[*at] })
                .collect();
            let wanted = proportion::spread(
                self.observed.deployment,
                &sizes,
                self.replicas(),
                self.max_surge(),
            );
            for (at, to) in wanted {
                self.scale(at, to);
            }
        }
    }

    fn is_saturated(&self, set: &ReplicaSet) -> bool {
        let replicas = self.replicas();
        size(set) == replicas
            && available(set) == replicas
            && annotation(set, DESIRED).and_then(|desired| desired.parse().ok()) == Some(replicas)
    }

    /// Deletes the oldest sets beyond the limit of the history.
    fn clean_up(&mut self, newest: Option<usize>) {
        let Some(limit) = self.observed.deployment.spec.revision_history_limit else { return };
        let mut old: Vec<&ReplicaSet> = self
            .old(newest)
            .into_iter()
            .map(|at| &self.sets[at])
            .filter(|set| set.metadata.deletion_timestamp.is_none())
            .collect();
        old.sort_by_key(|set| revision::number_of(set));
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        let unused = |set: &&ReplicaSet| {
            let status = set.status.as_ref();
            size(set) == 0
                && status.is_some_and(|status| status.replicas == 0)
                && status.and_then(|status| status.observed_generation) >= set.metadata.generation
        };
        let gone: Vec<Action> = old
            .into_iter()
            .take(surplus)
            .filter(unused)
            .map(|set| Action::DeleteReplicaSet {
                name: set_name(set).to_owned(),
                uid: set.metadata.uid.clone().unwrap_or_default(),
            })
            .collect();
        self.actions.extend(gone);
    }
}

#[cfg(test)]
mod tests;
