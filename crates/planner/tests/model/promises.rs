//! What a StatefulSet promises, said once more and independently of the planner.

use crate::plans::{Act, Planned};
use crate::world::{ORDINALS, Owner, Phase, Pod, Revisions, Set, View};

fn healthy(pod: &Pod) -> bool {
    pod.phase == Phase::Ready && !pod.terminating
}

fn ended(pod: &Pod) -> bool {
    matches!(pod.phase, Phase::Failed | Phase::Succeeded)
}

/// The set's pod at an ordinal: owned and matching, or about to be adopted.
fn member(set: &Set, pod: Option<Pod>) -> Option<Pod> {
    pod.filter(|pod| {
        pod.matches
            && (pod.owner == Owner::Set(set.uid)
                || (pod.owner == Owner::Nobody && !pod.terminating && !set.deleting))
    })
}

/// Checks each action of a plan against what was seen, and the status.
pub(crate) fn check(view: &View, revisions: &Revisions, plan: &Planned) -> Result<(), String> {
    let set = view.set.as_ref().ok_or("a plan without a set")?;
    let members: Vec<Option<Pod>> = view.pods.iter().map(|pod| member(set, *pod)).collect();
    status(set, revisions, &members, plan)?;
    let complete = set.wanted().all(|ordinal| members[ordinal].is_some_and(|pod| healthy(&pod)));
    if plan.acts.is_empty() && !complete && !set.parallel && !set.deleting && !plan.explained {
        return Err("nothing happens, and nobody is told why".to_owned());
    }
    if set.deleting && !plan.acts.is_empty() {
        return Err(format!("T93: the set is being deleted, and yet {:?}", plan.acts));
    }
    for (at, act) in plan.acts.iter().enumerate() {
        one(set, view, revisions, &members, &plan.acts[..at], act)
            .map_err(|why| format!("{act:?}: {why} (the plan: {:?})", plan.acts))?;
    }
    if set.parallel && !set.deleting {
        all_at_once(set, view, plan)?;
    }
    let count = |kind: fn(&Act) -> bool| plan.acts.iter().filter(|act| kind(act)).count();
    let created = count(|act| matches!(act, Act::CreatePod { .. }));
    let deleted = count(|act| matches!(act, Act::DeletePod { .. }));
    if !set.parallel && created + deleted > 1 && (set.max_unavailable < 2 || created > 0) {
        return Err(format!("T1, T30: more than one step at a time: {:?}", plan.acts));
    }
    Ok(())
}

fn one(
    set: &Set,
    view: &View,
    revisions: &Revisions,
    members: &[Option<Pod>],
    before: &[Act],
    act: &Act,
) -> Result<(), String> {
    match act {
        Act::CreatePod { ordinal, template } => {
            creation(set, view, revisions, members, before, *ordinal, *template)
        }
        Act::DeletePod { ordinal, uid } => {
            let pod = members[*ordinal].ok_or("T102: not a pod of the set")?;
            if pod.uid != *uid {
                return Err("another pod than the one that was seen".to_owned());
            }
            if pod.terminating {
                return Err("T7: it is terminating already".to_owned());
            }
            if ended(&pod) && set.wanted().contains(ordinal) {
                return ordered_below(set, members, *ordinal);
            }
            if !set.wanted().contains(ordinal) {
                return scale_down(set, view, members, before, *ordinal, &pod);
            }
            update(set, members, before, *ordinal, &pod)
        }
        Act::CreateClaim { template, ordinal, for_set } => {
            if view.claims[*template][*ordinal].is_some() {
                return Err("T15: the claim exists".to_owned());
            }
            let pending = members[*ordinal].is_some_and(|pod| pod.phase == Phase::Pending);
            if members[*ordinal].is_some() && !pending {
                return Err("T12: its pod is beyond needing it".to_owned());
            }
            if usize::from(set.claims) <= *template || !set.wanted().contains(ordinal) {
                return Err("nobody wants that claim".to_owned());
            }
            if *for_set != set.when_deleted {
                return Err("T40: whose it is follows the policy".to_owned());
            }
            Ok(())
        }
        Act::OwnClaim { template, ordinal, uid, set: by_set, pod: by_pod, foreign } => {
            let claim = view.claims[*template][*ordinal].ok_or("there is no such claim")?;
            if claim.foreign || *foreign {
                return Err("T44: something else controls it".to_owned());
            }
            if claim.uid != *uid {
                return Err("another claim than the one that was seen".to_owned());
            }
            let pod = members[*ordinal].ok_or("a claim without a pod is left alone")?;
            let condemned = !set.wanted().contains(ordinal);
            let wanted_pod = (condemned && set.when_scaled).then_some(pod.uid);
            let wanted_set = set.when_deleted && !(condemned && set.when_scaled);
            let others_pod = claim.pod.filter(|uid| *uid != pod.uid);
            if *by_pod != wanted_pod.or(others_pod) {
                return Err(format!("T40: the pod among its owners should be {wanted_pod:?}"));
            }
            let others_set = claim.set.filter(|uid| *uid != set.uid);
            if *by_set != wanted_set.then_some(set.uid).or(others_set) {
                return Err(format!("T40: the set among its owners: {wanted_set}"));
            }
            Ok(())
        }
        Act::Mend { ordinal, uid } => {
            let pod = members[*ordinal].ok_or("not a pod of the set")?;
            if pod.uid != *uid || pod.identified {
                return Err("T19: nothing to mend".to_owned());
            }
            Ok(())
        }
        Act::Adopt { ordinal, uid } => match view.pods[*ordinal] {
            Some(pod)
                if pod.uid == *uid
                    && pod.owner == Owner::Nobody
                    && pod.matches
                    && !pod.terminating =>
            {
                Ok(())
            }
            _ => Err("T100: only a matching, living orphan is adopted".to_owned()),
        },
        Act::Release { ordinal, uid } => match view.pods[*ordinal] {
            Some(pod) if pod.uid == *uid && pod.owner == Owner::Set(set.uid) && !pod.matches => {
                Ok(())
            }
            _ => Err("T101: only what no longer matches is released".to_owned()),
        },
        Act::CreateRevision(template) => {
            if revisions[*template].0 > 0 {
                return Err("T112: an equal revision exists".to_owned());
            }
            (*template == usize::from(set.template))
                .then_some(())
                .ok_or("T110: not the set's template".to_owned())
        }
        Act::AdoptRevision(template) => {
            if revisions[*template].0 == 0 || revisions[*template].1 {
                return Err("T103: not an orphan".to_owned());
            }
            Ok(())
        }
        Act::Renumber(template) => {
            let newest = revisions.iter().map(|(number, _)| *number).max().unwrap_or(0);
            if revisions[*template].0 == newest || *template != usize::from(set.template) {
                return Err("T111: it is the newest already, or not wanted".to_owned());
            }
            Ok(())
        }
        Act::DeleteRevision(template) => {
            let named = members.iter().flatten().any(|pod| usize::from(pod.template) == *template)
                || *template == usize::from(set.template)
                || *template == usize::from(set.status.current_revision);
            if named { Err("T113: somebody lives by it".to_owned()) } else { Ok(()) }
        }
    }
}

/// T2, T31: a Parallel set makes all that is missing and deletes all that is too much in one go.
fn all_at_once(set: &Set, view: &View, plan: &Planned) -> Result<(), String> {
    for ordinal in 0..ORDINALS {
        let free = view.pods[ordinal].is_none();
        let blocked = view.claims.iter().take(usize::from(set.claims)).any(|claims| {
            claims[ordinal].is_some_and(|claim| {
                claim.terminating
                    || claim.pod.is_some()
                    || claim.set.is_some_and(|uid| uid != set.uid)
            })
        });
        let made = plan
            .acts
            .iter()
            .any(|act| matches!(act, Act::CreatePod { ordinal: at, .. } if *at == ordinal));
        if set.wanted().contains(&ordinal) && free && !blocked && !made {
            return Err(format!("T2: pod {ordinal} is missing and is not made"));
        }
        let deleted = plan
            .acts
            .iter()
            .any(|act| matches!(act, Act::DeletePod { ordinal: at, .. } if *at == ordinal));
        let living = member(set, view.pods[ordinal]).is_some_and(|pod| !pod.terminating);
        if !set.wanted().contains(&ordinal) && living && !deleted {
            return Err(format!("T31: pod {ordinal} is too many and is not deleted"));
        }
    }
    Ok(())
}

/// In an ordered set all wanted pods below are Ready.
fn ordered_below(set: &Set, members: &[Option<Pod>], ordinal: usize) -> Result<(), String> {
    let below = set.wanted().filter(|below| *below < ordinal);
    for below in below {
        if !set.parallel && !members[below].is_some_and(|pod| healthy(&pod)) {
            return Err(format!("T1, T4: pod {below} is not Ready"));
        }
    }
    Ok(())
}

fn creation(
    set: &Set,
    view: &View,
    revisions: &Revisions,
    members: &[Option<Pod>],
    before: &[Act],
    ordinal: usize,
    template: u8,
) -> Result<(), String> {
    if !set.wanted().contains(&ordinal) {
        return Err("nobody wants that ordinal".to_owned());
    }
    if view.pods[ordinal].is_some() {
        return Err("T5, T20: the name is taken".to_owned());
    }
    ordered_below(set, members, ordinal)?;
    for claims in view.claims.iter().enumerate().take(usize::from(set.claims)) {
        let (number, claims) = claims;
        let made = before.iter().any(
            |act| matches!(act, Act::CreateClaim { template, ordinal: of, .. } if *template == number && *of == ordinal),
        );
        match claims[ordinal] {
            None if !made => return Err(format!("its claim {number} does not exist")),
            Some(claim) if claim.terminating => {
                return Err(format!("T14: its claim {number} is dying"));
            }
            Some(claim) if claim.set.is_some_and(|uid| uid != set.uid) => {
                return Err(format!("its claim {number} goes with a former set"));
            }
            Some(claim) if claim.pod.is_some() => {
                return Err(format!("T13: its claim {number} goes with a former pod"));
            }
            _ => {}
        }
    }
    let current = usize::from(set.status.current_revision);
    let kept = current > 0 && revisions[current].0 > 0 && revisions[current].1;
    let below = !set.on_delete && ordinal < usize::from(set.start + set.partition);
    let wanted = if below && kept { set.status.current_revision } else { set.template };
    if template != wanted {
        return Err(format!("T57, T61: it should be of v{wanted}"));
    }
    Ok(())
}

fn scale_down(
    set: &Set,
    view: &View,
    members: &[Option<Pod>],
    before: &[Act],
    ordinal: usize,
    pod: &Pod,
) -> Result<(), String> {
    if set.when_scaled {
        for (template, claims) in view.claims.iter().enumerate().take(usize::from(set.claims)) {
            let Some(claim) = claims[ordinal].filter(|claim| !claim.foreign) else { continue };
            let now = before.iter().any(|act| {
                matches!(act, Act::OwnClaim { template: t, ordinal: o, pod: Some(uid), .. } if *t == template && *o == ordinal && *uid == pod.uid)
            });
            if claim.pod != Some(pod.uid) && !now {
                return Err(format!("T35: claim {template} is to go with it, and does not know"));
            }
        }
    }
    if set.parallel {
        return Ok(());
    }
    for kept in set.wanted() {
        if !members[kept].is_some_and(|pod| healthy(&pod)) {
            return Err(format!("T32: pod {kept}, which is kept, is not Ready"));
        }
    }
    let condemned =
        || (0..ORDINALS).filter(|other| !set.wanted().contains(other) && members[*other].is_some());
    if condemned().any(|other| other > ordinal) {
        return Err("T30: a pod above it is still there".to_owned());
    }
    let lowest_ill = condemned().find(|other| !members[*other].is_some_and(|pod| healthy(&pod)));
    if !healthy(pod) && lowest_ill != Some(ordinal) {
        return Err("T33: a pod below it is ill as well".to_owned());
    }
    Ok(())
}

/// A pod is deleted for the update only when it is old, when it is its turn, and when that costs no more than allowed.
fn update(
    set: &Set,
    members: &[Option<Pod>],
    before: &[Act],
    ordinal: usize,
    pod: &Pod,
) -> Result<(), String> {
    if set.on_delete {
        return Err("T61: OnDelete leaves it to the user".to_owned());
    }
    if ordinal < usize::from(set.start + set.partition) {
        return Err("T57: below the partition".to_owned());
    }
    if pod.template == set.template {
        return Err("it is of the wanted revision".to_owned());
    }
    if !set.parallel {
        for other in set.wanted() {
            if !members[other].is_some_and(|pod| healthy(&pod)) {
                return Err(format!("T54: pod {other} is not Ready"));
            }
        }
        if (0..ORDINALS).any(|other| !set.wanted().contains(&other) && members[other].is_some()) {
            return Err("T63: the scale-down comes first".to_owned());
        }
    }
    if set.max_unavailable < 2 {
        for above in set.wanted().filter(|above| *above > ordinal) {
            if !members[above].is_some_and(|pod| healthy(&pod) && pod.template == set.template) {
                return Err(format!("T50: pod {above} is not updated and Ready yet"));
            }
        }
        return Ok(());
    }
    if !healthy(pod) {
        return Ok(());
    }
    let deleted = |ordinal: usize| {
        before
            .iter()
            .any(|act| matches!(act, Act::DeletePod { ordinal: other, .. } if *other == ordinal))
    };
    let unavailable = set
        .wanted()
        .filter(|other| deleted(*other) || !members[*other].is_some_and(|pod| healthy(&pod)))
        .count();
    if unavailable >= usize::from(set.max_unavailable) {
        return Err(format!("T52, T53: {unavailable} pods are unavailable already"));
    }
    Ok(())
}

/// T90 and T62, counted anew.
fn status(
    set: &Set,
    revisions: &Revisions,
    members: &[Option<Pod>],
    plan: &Planned,
) -> Result<(), String> {
    let count = |test: &dyn Fn(&Pod) -> bool| {
        u8::try_from(members.iter().flatten().filter(|pod| test(pod)).count()).unwrap_or(u8::MAX)
    };
    let (said, all) = (&plan.status, count(&|_| true));
    let ready = count(&|pod| pod.phase == Phase::Ready);
    let updated = count(&|pod| !pod.terminating && pod.template == set.template);
    let wrong = |what: &str, is: u8, should: u8| {
        if is == should { Ok(()) } else { Err(format!("T90: {what} is {is}, counted {should}")) }
    };
    wrong("replicas", said.replicas, all)?;
    wrong("readyReplicas", said.ready, ready)?;
    wrong("availableReplicas", plan.available, ready)?;
    wrong("updatedReplicas", said.updated, updated)?;
    wrong("updateRevision", said.update_revision, set.template)?;
    let complete = !set.on_delete && updated == all && ready == all && all == set.replicas;
    if complete {
        wrong("currentRevision (T62)", said.current_revision, set.template)?;
        wrong("currentReplicas (T62)", said.current, updated)?;
    } else {
        let current = said.current_revision;
        let lost = plan.acts.iter().filter(|act| matches!(act, Act::DeletePod { ordinal, .. } if set.wanted().contains(ordinal) && members[*ordinal].is_some_and(|pod| !ended(&pod) && pod.template == current))).count();
        let counted = count(&|pod| !pod.terminating && pod.template == current);
        wrong("currentReplicas", said.current, counted - u8::try_from(lost).unwrap_or(0))?;
        let before = usize::from(set.status.current_revision);
        let kept = before > 0 && revisions[before].0 > 0 && revisions[before].1;
        let wanted = if kept { set.status.current_revision } else { set.template };
        wrong("currentRevision (T62, T114)", current, wanted)?;
    }
    Ok(())
}
