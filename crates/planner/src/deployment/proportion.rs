//! Scaling in the midst of a rollout: each ReplicaSet grows or shrinks by its share.
//! As upstream: `GetReplicaSetProportion` in `pkg/controller/deployment/util/deployment_util.go`.

use super::{MAX, annotation, size};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

/// A set that takes part, and where it stands in the caller's list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share<'a> {
    pub(super) at: usize,
    pub(super) set: &'a ReplicaSet,
}

/// The new sizes.
pub(super) fn spread(
    deployment: &Deployment,
    shares: &[Share<'_>],
    replicas: i32,
    surge: i32,
) -> Vec<(usize, i32)> {
    let all: i32 = shares.iter().map(|share| size(share.set)).sum();
    let allowed = if replicas > 0 { replicas.saturating_add(surge) } else { 0 };
    let to_add = allowed - all;
    let mut shares = shares.to_vec();
    // The largest first; of equals the newer when growing, the older when shrinking.
    let age = |share: &Share<'_>| share.set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    shares.sort_by(|a, b| {
        let older = age(a).cmp(&age(b));
        size(b.set).cmp(&size(a.set)).then(if to_add > 0 { older.reverse() } else { older })
    });
    let mut added = 0;
    let mut sizes: Vec<(usize, i32)> = shares
        .iter()
        .map(|share| {
            let now = size(share.set);
            let part = if now == 0 || to_add == 0 || to_add == added {
                0
            } else {
                let part = fraction(deployment, share.set, replicas, surge);
                if to_add > 0 { part.min(to_add - added) } else { part.max(to_add - added) }
            };
            added += part;
            (share.at, now + part)
        })
        .collect();
    // What rounding left over goes to the largest.
    if let Some((_, first)) = sizes.first_mut() {
        *first += to_add - added;
    }
    sizes.into_iter().map(|(at, to)| (at, to.max(0))).collect()
}

/// By how much a set changes so that it keeps its share of the whole.
fn fraction(deployment: &Deployment, set: &ReplicaSet, replicas: i32, surge: i32) -> i32 {
    if replicas == 0 {
        return -size(set);
    }
    let told = deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
    let before = annotation(set, MAX)
        .and_then(|most| most.parse::<i32>().ok())
        .filter(|most| *most > 0)
        .unwrap_or(told);
    if before <= 0 {
        return 0;
    }
    let most = i64::from(replicas.saturating_add(surge));
    let (numerator, before) = (i64::from(size(set)) * most, i64::from(before));
    // Rounded to the nearest, halves up.
    let size_then = (2 * numerator + before) / (2 * before);
    i32::try_from(size_then).unwrap_or(i32::MAX) - size(set)
}
