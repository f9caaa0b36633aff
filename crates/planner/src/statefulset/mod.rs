//! What a StatefulSet's controller does next. As upstream: `pkg/controller/statefulset/stateful_set_control.go`.

pub mod claims;
mod conditions;
pub mod identity;
pub mod revision;
mod rollout;
pub(crate) mod status;

use identity::{Membership, membership};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use std::collections::BTreeMap;
use std::time::Duration;

/// The world as the controller's caches show it: one set, and everything of its namespace that may be its own.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The set.
    pub set: &'a StatefulSet,
    /// Revisions that match its selector or name it as owner.
    pub revisions: &'a [ControllerRevision],
    /// Pods that match its selector, name it as owner, or bear one of its names.
    pub pods: &'a [&'a Pod],
    /// Claims that bear one of its names, by their names.
    pub claims: &'a Claims<'a>,
    /// Now.
    pub now: Timestamp,
}

/// Claims by their names.
pub type Claims<'a> = BTreeMap<&'a str, &'a PersistentVolumeClaim>;

/// Claims, to be found by their names.
pub fn by_name<'a>(claims: impl IntoIterator<Item = &'a PersistentVolumeClaim>) -> Claims<'a> {
    let named = |claim: &'a PersistentVolumeClaim| Some((claim.metadata.name.as_deref()?, claim));
    claims.into_iter().filter_map(named).collect()
}

/// What to do next, in order. Each action is idempotent and says what it relies on.
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
    /// Makes a claim for a pod.
    CreateClaim {
        /// The claim.
        claim: Box<PersistentVolumeClaim>,
        /// For whom.
        pod: String,
    },
    /// Rewrites who owns a claim.
    UpdateClaimOwners {
        /// Name.
        name: String,
        /// The very claim.
        uid: String,
        /// All its owners.
        owners: Vec<OwnerReference>,
    },
    /// Makes a pod.
    CreatePod(Box<Pod>),
    /// Deletes a pod.
    DeletePod {
        /// Name.
        name: String,
        /// The very pod.
        uid: String,
    },
    /// Puts back the labels that identify a pod.
    UpdatePodIdentity {
        /// Name.
        name: String,
        /// The very pod.
        uid: String,
        /// Labels to put back.
        labels: Vec<(String, String)>,
    },
    /// Forgets a revision.
    DeleteRevision {
        /// Name.
        name: String,
    },
}

/// Something that keeps the set from being what it should be, and that a person may have to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// One CamelCase word, for an event.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// What to do next, and what to tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In order.
    pub actions: Vec<Action>,
    /// The status to write, if it differs.
    pub status: StatefulSetStatus,
    /// Why nothing more happens now.
    pub waiting_for: Option<String>,
    /// For events.
    pub problems: Vec<Problem>,
    /// When to look again although nothing may have changed.
    pub look_again_after: Option<Duration>,
}

/// How a walk over the replicas ended.
enum Walk {
    /// Everything is as wanted: the next phase may begin.
    Done,
    /// Nothing more now.
    Stop,
}

/// Decides the next step. Total: no error, no panic; what cannot be done is in [`Plan::problems`].
pub fn plan(observed: &Observed<'_>) -> Plan {
    let members = membership(observed);
    let revisions = revision::choose(observed);
    let mut planner = Planner {
        observed,
        members,
        revisions,
        actions: Vec::new(),
        problems: Vec::new(),
        waiting_for: None,
        look_again_after: None,
    };
    planner.run()
}

struct Planner<'a> {
    observed: &'a Observed<'a>,
    members: Membership<'a>,
    revisions: revision::Choice,
    actions: Vec<Action>,
    problems: Vec<Problem>,
    waiting_for: Option<String>,
    look_again_after: Option<Duration>,
}

impl Planner<'_> {
    fn run(&mut self) -> Plan {
        let deleting = self.observed.set.metadata.deletion_timestamp.is_some();
        let mut lost_current = 0;
        if !deleting {
            self.actions.append(&mut self.members.ownership);
            self.actions.append(&mut self.revisions.actions);
            if matches!(self.replicas(), Walk::Done) && matches!(self.condemned(), Walk::Done) {
                lost_current = self.rollout();
            }
        }
        let mut status =
            status::status(self.observed, &self.members, &self.revisions, lost_current);
        status.conditions = Some(conditions::conditions(
            self.observed,
            &self.members,
            &status,
            self.waiting_for.as_deref(),
        ));
        if !deleting {
            self.actions.extend(revision::superfluous(
                self.observed,
                &self.members,
                &self.revisions,
            ));
        }
        if status.available_replicas != Some(status.replicas) {
            self.look_again_after = self
                .look_again_after
                .or_else(|| self.min_ready().map(|seconds| Duration::from_secs(seconds + 1)));
        }
        Plan {
            actions: std::mem::take(&mut self.actions),
            status,
            waiting_for: self.waiting_for.take(),
            problems: std::mem::take(&mut self.problems),
            look_again_after: self.look_again_after,
        }
    }

    /// One after the other, each only when its predecessor is available.
    fn is_monotonic(&self) -> bool {
        self.spec().pod_management_policy.as_deref() != Some("Parallel")
    }

    fn spec(&self) -> &k8s_openapi::api::apps::v1::StatefulSetSpec {
        &self.observed.set.spec
    }

    /// `minReadySeconds`, when it asks for anything.
    fn min_ready(&self) -> Option<u64> {
        self.spec()
            .min_ready_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .filter(|seconds| *seconds > 0)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        status::is_available(pod, self.min_ready().unwrap_or(0), self.observed.now)
    }

    fn wait(&mut self, why: String) -> Walk {
        self.waiting_for = self.waiting_for.take().or(Some(why));
        Walk::Stop
    }

    /// Whether a pod is on its way out, be it by this very plan.
    fn is_going(&self, pod: &Pod) -> bool {
        let planned = |action: &Action| matches!(action, Action::DeletePod { uid, .. } if uid == identity::uid(pod));
        pod.metadata.deletion_timestamp.is_some() || self.actions.iter().any(planned)
    }

    fn delete(&mut self, pod: &Pod) {
        self.actions.push(Action::DeletePod {
            name: identity::name(pod).to_owned(),
            uid: identity::uid(pod).to_owned(),
        });
    }

    /// The wanted ordinals, lowest first.
    fn replicas(&mut self) -> Walk {
        let monotonic = self.is_monotonic();
        let slots = self.members.replicas.clone();
        let mut walk = Walk::Done;
        for (ordinal, pod) in slots {
            if matches!(self.replica(ordinal, pod, monotonic), Walk::Stop) {
                walk = Walk::Stop;
                if monotonic {
                    return walk;
                }
            }
        }
        // A Parallel set goes on to scale down and to update whatever its replicas are.
        if monotonic { walk } else { Walk::Done }
    }

    fn replica(&mut self, ordinal: i64, pod: Option<&Pod>, monotonic: bool) -> Walk {
        let Some(pod) = pod else { return self.create(ordinal) };
        let name = identity::name(pod).to_owned();
        let terminating = pod.metadata.deletion_timestamp.is_some();
        if ["Failed", "Succeeded"].contains(&status::phase(pod)) {
            if !terminating {
                self.delete(pod);
            }
            return self.wait(format!("pod {name} has ended and is being replaced"));
        }
        if status::phase(pod) == "Pending" && !terminating {
            self.create_missing_claims(ordinal, pod);
        }
        if terminating {
            return if monotonic {
                self.wait(format!("pod {name} to be gone"))
            } else {
                Walk::Done
            };
        }
        self.mend(ordinal, pod);
        if monotonic && !status::is_ready(pod) {
            return self.wait(format!("pod {name} to be Running and Ready"));
        }
        if monotonic && !self.is_available(pod) {
            self.look_again_after =
                self.min_ready().map(|seconds| Duration::from_secs(seconds + 1));
            return self
                .wait(format!("pod {name} to be Ready for {} s", self.min_ready().unwrap_or(0)));
        }
        Walk::Done
    }

    fn create(&mut self, ordinal: i64) -> Walk {
        let name = identity::pod_name(self.observed.set, ordinal);
        if let Some(foreign) = self.members.foreign.iter().find(|pod| identity::name(pod) == name) {
            let message = format!(
                "create Pod {name} in StatefulSet {} failed error: pods {name:?} already exists",
                identity::set_name(self.observed.set)
            );
            self.problems.push(Problem { reason: "FailedCreate", message });
            let owner = identity::uid(foreign).to_owned();
            self.look_again_after = Some(Duration::from_secs(5));
            return self.wait(format!("another owner's pod {name} ({owner}) to be gone"));
        }
        for claim in claims::wanted(self.observed.set, ordinal) {
            match claims::find(self.observed, &claim) {
                None => self
                    .actions
                    .push(Action::CreateClaim { claim: Box::new(claim), pod: name.clone() }),
                Some(found)
                    if found.metadata.deletion_timestamp.is_some()
                        || claims::belongs_to_a_dead_pod(found, &name)
                        || claims::belongs_to_a_dead_set(found, self.observed.set) =>
                {
                    let claim = found.metadata.name.clone().unwrap_or_default();
                    if found.metadata.deletion_timestamp.is_some() {
                        let set = identity::set_name(self.observed.set);
                        let message = format!(
                            "create Pod {name} in StatefulSet {set} failed error: pvc {claim} is being deleted"
                        );
                        self.problems.push(Problem { reason: "FailedCreate", message });
                    }
                    self.actions.retain(
                        |action| !matches!(action, Action::CreateClaim { pod, .. } if *pod == name),
                    );
                    return self.wait(format!("claim {claim} of the former pod {name} to be gone"));
                }
                Some(_) => {}
            }
        }
        let revision = self.revisions.for_new_pod(self.observed.set, ordinal);
        self.actions.push(Action::CreatePod(Box::new(identity::new_pod(
            self.observed.set,
            revision,
            ordinal,
        ))));
        self.wait(format!("pod {name} to be made"))
    }

    /// A pod that waits to be scheduled may be given a claim that somebody deleted.
    fn create_missing_claims(&mut self, ordinal: i64, pod: &Pod) {
        for claim in claims::wanted(self.observed.set, ordinal) {
            if claims::find(self.observed, &claim).is_none() {
                self.actions.push(Action::CreateClaim {
                    claim: Box::new(claim),
                    pod: identity::name(pod).to_owned(),
                });
            }
        }
    }

    /// Labels that were removed, owners of claims that the policy wants otherwise.
    fn mend(&mut self, ordinal: i64, pod: &Pod) {
        let labels = identity::missing_labels(pod, ordinal);
        if !labels.is_empty() {
            self.actions.push(Action::UpdatePodIdentity {
                name: identity::name(pod).to_owned(),
                uid: identity::uid(pod).to_owned(),
                labels,
            });
        }
        self.own_claims(ordinal, pod, false);
    }

    fn own_claims(&mut self, ordinal: i64, pod: &Pod, condemned: bool) {
        let (actions, problems) = claims::ownership(self.observed, ordinal, pod, condemned);
        self.actions.extend(actions);
        self.problems.extend(problems);
    }

    /// Pods beyond the wanted ordinals, highest first.
    fn condemned(&mut self) -> Walk {
        let monotonic = self.is_monotonic();
        let condemned = self.members.condemned.clone();
        let first_unhealthy = self.first_unhealthy();
        for (ordinal, pod) in condemned.iter().rev() {
            let name = identity::name(pod).to_owned();
            if pod.metadata.deletion_timestamp.is_some() {
                if monotonic {
                    return self.wait(format!("pod {name} to be gone"));
                }
                continue;
            }
            let is_first_unhealthy = first_unhealthy.as_deref() == Some(identity::uid(pod));
            if monotonic
                && !(status::is_ready(pod) && self.is_available(pod))
                && !is_first_unhealthy
            {
                return self.wait(format!("pod {name} to be Ready before the scale-down goes on: a pod below it is not healthy"));
            }
            self.own_claims(*ordinal, pod, true);
            self.delete(pod);
            if monotonic {
                return self.wait(format!("pod {name} to be gone"));
            }
        }
        Walk::Done
    }

    /// The uid of the lowest pod that is not healthy.
    fn first_unhealthy(&self) -> Option<String> {
        let all = self
            .members
            .replicas
            .iter()
            .filter_map(|(_, pod)| *pod)
            .chain(self.members.condemned.iter().map(|(_, pod)| *pod));
        all.into_iter()
            .find(|pod| !status::is_healthy(pod))
            .map(|pod| identity::uid(pod).to_owned())
    }
}

#[cfg(test)]
mod tests;
