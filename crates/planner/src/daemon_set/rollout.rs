//! How a new template reaches the nodes. As upstream: `rollingUpdate` in `pkg/controller/daemon/update.go`.

use super::nodes::Fit;
use super::{AT_ONCE, Planner};
use k8s_openapi::api::apps::v1::RollingUpdateDaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The living pods of a node.
struct Pair<'a> {
    node: &'a str,
    new: Option<&'a Pod>,
    old: Option<&'a Pod>,
}

impl<'a> Planner<'a> {
    /// How a new template is to be rolled out; `None`: not at all.
    fn rolling(&self) -> Option<RollingUpdateDaemonSet> {
        let strategy = self.observed.set.spec.update_strategy.clone().unwrap_or_default();
        let rolls = strategy.type_.as_deref().is_none_or(|kind| kind == "RollingUpdate");
        rolls.then(|| strategy.rolling_update.unwrap_or_default())
    }

    /// How many nodes may have two pods for a while.
    fn max_surge(&self) -> usize {
        let surge = self.rolling().and_then(|rolling| rolling.max_surge);
        surge.map_or(0, |surge| share(&surge, self.desired()))
    }

    pub(super) fn may_surge(&self) -> bool {
        self.max_surge() > 0
    }

    /// Nodes that are to have a pod.
    fn desired(&self) -> usize {
        self.fits.values().filter(|fit| **fit == Fit::Runs).count()
    }

    fn max_unavailable(&self) -> usize {
        let maximum = self.rolling().and_then(|rolling| rolling.max_unavailable);
        maximum.map_or(1, |maximum| share(&maximum, self.desired()))
    }

    pub(super) fn roll(&mut self) {
        if self.rolling().is_none() {
            return;
        }
        if self.may_surge() { self.roll_by_surge() } else { self.roll_by_deletion() }
    }

    /// Each node's new and old pod; `None` in place of a node that has several of one sort, which [`Planner::manage`] ends.
    fn pairs(&self) -> Vec<Option<Pair<'a>>> {
        let wanted = self.fits.iter().filter(|(_, fit)| **fit == Fit::Runs).map(|(node, _)| *node);
        let mut all: Vec<&str> = self.by_node.keys().copied().chain(wanted).collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter()
            .map(|node| {
                let mut pair = Pair { node, new: None, old: None };
                let living = self
                    .pods_on(node)
                    .iter()
                    .filter(|pod| pod.metadata.deletion_timestamp.is_none());
                for pod in living {
                    let place = if self.is_updated(pod) { &mut pair.new } else { &mut pair.old };
                    if place.replace(pod).is_some() {
                        return None;
                    }
                }
                Some(pair)
            })
            .collect()
    }

    /// Old pods are deleted, and made anew, as far as enough stay available.
    fn roll_by_deletion(&mut self) {
        let (mut unavailable, mut broken, mut candidates) = (0_usize, Vec::new(), Vec::new());
        for pair in self.pairs() {
            let Some(Pair { new, old, .. }) = pair else {
                unavailable += 1;
                continue;
            };
            match (new, old) {
                (None, None) | (Some(_), Some(_)) => unavailable += 1,
                (Some(new), None) => unavailable += usize::from(!self.is_available(new)),
                (None, Some(old)) if !self.is_available(old) => {
                    // It costs nothing to replace what is of no use.
                    broken.push(old);
                    unavailable += 1;
                }
                (None, Some(old)) => candidates.push(old),
            }
        }
        // A set that allows neither is obeyed as if it allowed one.
        let allowed = self.max_unavailable().max(1).saturating_sub(unavailable);
        let chosen = broken.into_iter().chain(candidates.into_iter().take(allowed));
        for pod in chosen.take(AT_ONCE).collect::<Vec<_>>() {
            self.delete(pod);
        }
    }

    /// New pods are made beside the old ones, which go when their successors are available.
    fn roll_by_surge(&mut self) {
        let (mut over, mut misplaced) = (Vec::new(), Vec::new());
        let (mut at_once, mut candidates) = (Vec::new(), Vec::new());
        let (mut surging, mut available) = (0_usize, 0_usize);
        for pair in self.pairs() {
            let Some(Pair { node, new, old }) = pair else {
                surging += 1;
                continue;
            };
            available += usize::from(old.or(new).is_some_and(|pod| self.is_available(pod)));
            match (new, old) {
                (_, None) => {}
                (None, Some(old)) => {
                    let runs = self.fit(node) == Fit::Runs;
                    match (self.is_available(old), runs) {
                        (false, false) => over.push(old),
                        (false, true) => at_once.push(node),
                        (true, false) => misplaced.push(old),
                        (true, true) => candidates.push(node),
                    }
                }
                (Some(new), Some(_)) if !self.is_available(new) => surging += 1,
                (Some(_), Some(old)) => over.push(old),
            }
        }
        // When the set moves to other nodes, a pod goes when another has taken its place.
        let spare = available.saturating_sub(self.desired());
        over.extend(misplaced.into_iter().take(spare));
        let allowed = self.max_surge().saturating_sub(surging);
        at_once.extend(candidates.into_iter().take(allowed));
        over.into_iter().take(AT_ONCE).for_each(|pod| self.delete(pod));
        at_once.into_iter().take(AT_ONCE).for_each(|node| self.create(node));
    }
}

/// A number, or a share of the nodes rounded up.
fn share(value: &IntOrString, nodes: usize) -> usize {
    match value {
        IntOrString::Int(number) => usize::try_from(*number).unwrap_or(0),
        IntOrString::String(text) => text
            .trim_end_matches('%')
            .parse::<usize>()
            .map_or(0, |percent| nodes.saturating_mul(percent).div_ceil(100)),
    }
}
