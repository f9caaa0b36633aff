//! The update phase: old pods are deleted, and come back as new ones.

use super::identity::{REVISION_LABEL, name};
use super::{Planner, status};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

impl Planner<'_> {
    /// Deletes what may be updated now. Returns how many pods of the current revision that takes away.
    pub(super) fn rollout(&mut self) -> i32 {
        let strategy = self.spec().update_strategy.clone().unwrap_or_default();
        if strategy.type_.as_deref() == Some("OnDelete") {
            return 0;
        }
        let rolling = strategy.rolling_update.unwrap_or_default();
        let partition = usize::try_from(rolling.partition.unwrap_or(0)).unwrap_or(0);
        let at_most = rolling
            .max_unavailable
            .map_or(1, |maximum| resolve(&maximum, self.members.replicas.len()));
        if at_most > 1 {
            self.rollout_in_batches(partition, at_most)
        } else {
            self.rollout_one_by_one(partition)
        }
    }

    fn is_old(&self, pod: &Pod) -> bool {
        let revision = pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_LABEL));
        revision != Some(&self.revisions.update.revision)
    }

    fn rollout_one_by_one(&mut self, partition: usize) -> i32 {
        let slots: Vec<Option<&Pod>> = self.members.replicas.iter().map(|(_, pod)| *pod).collect();
        for pod in slots.iter().skip(partition).rev() {
            // A pod that is yet to be made is neither old nor healthy.
            let Some(pod) = pod else { return 0 };
            if self.is_old(pod) && !self.is_going(pod) {
                let was_current = i32::from(self.is_current(pod));
                self.delete(pod);
                return was_current;
            }
            if !status::is_healthy(pod) || !self.is_available(pod) {
                self.wait(format!("pod {} to be Ready before the update goes on", name(pod)));
                return 0;
            }
        }
        0
    }

    /// As upstream's newest rule: what is unavailable anyway costs nothing, what is available counts.
    fn rollout_in_batches(&mut self, partition: usize, at_most: usize) -> i32 {
        let slots: Vec<Option<&Pod>> = self.members.replicas.iter().map(|(_, pod)| *pod).collect();
        let up = |planner: &Self, pod: &Pod| status::is_healthy(pod) && planner.is_available(pod);
        let unavailable = slots.iter().filter(|pod| pod.is_none_or(|pod| !up(self, pod))).count();
        let outdated: Vec<&Pod> = slots
            .iter()
            .skip(partition)
            .rev()
            .flatten()
            .copied()
            .filter(|pod| self.is_old(pod) && !self.is_going(pod))
            .collect();
        let (available, broken): (Vec<&Pod>, Vec<&Pod>) =
            outdated.into_iter().partition(|pod| up(self, pod));
        let allowed = at_most.saturating_sub(unavailable);
        let mut lost = 0;
        for pod in broken.into_iter().chain(available.into_iter().take(allowed)) {
            lost += i32::from(self.is_current(pod));
            self.delete(pod);
        }
        lost
    }

    fn is_current(&self, pod: &Pod) -> bool {
        pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_LABEL))
            == Some(&self.revisions.current.revision)
    }
}

/// A number, or a share rounded down, but at least one.
fn resolve(maximum: &IntOrString, replicas: usize) -> usize {
    let number = match maximum {
        IntOrString::Int(number) => usize::try_from(*number).unwrap_or(1),
        IntOrString::String(text) => text
            .trim_end_matches('%')
            .parse::<usize>()
            .map_or(1, |percent| replicas * percent / 100),
    };
    number.max(1)
}
