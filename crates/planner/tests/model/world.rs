//! A world, as small as it can be told: one set, its revisions, pods and claims, and what the controller's caches hold.

use std::fmt;

/// Ordinals that a world has room for.
pub(crate) const ORDINALS: usize = 6;
/// Claim templates.
pub(crate) const CLAIMS: usize = 2;
/// Pod templates: 1 to 3; 0 is none.
pub(crate) const TEMPLATES: usize = 4;

/// How a pod does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Phase {
    Pending,
    Ready,
    Unready,
    Failed,
    Succeeded,
}

/// Who controls an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// The set of that incarnation.
    Set(u8),
    /// Something else.
    Other,
    Nobody,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Pod {
    /// Tells it from an earlier pod of that name.
    pub(crate) uid: u8,
    /// The template that its revision label names.
    pub(crate) template: u8,
    pub(crate) phase: Phase,
    pub(crate) terminating: bool,
    pub(crate) owner: Owner,
    /// Whether it has the labels that identify it.
    pub(crate) identified: bool,
    /// Whether it matches the set's selector.
    pub(crate) matches: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    pub(crate) uid: u8,
    pub(crate) terminating: bool,
    /// The set (of which incarnation) among its owners.
    pub(crate) set: Option<u8>,
    /// The pod (its uid) among its owners.
    pub(crate) pod: Option<u8>,
    /// Something else controls it.
    pub(crate) foreign: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Status {
    pub(crate) replicas: u8,
    pub(crate) ready: u8,
    pub(crate) current: u8,
    pub(crate) updated: u8,
    /// Templates; 0 is none.
    pub(crate) current_revision: u8,
    pub(crate) update_revision: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Set {
    pub(crate) uid: u8,
    pub(crate) replicas: u8,
    pub(crate) start: u8,
    pub(crate) template: u8,
    pub(crate) partition: u8,
    pub(crate) on_delete: bool,
    pub(crate) parallel: bool,
    /// 0: not given.
    pub(crate) max_unavailable: u8,
    /// Claims go with the set.
    pub(crate) when_deleted: bool,
    /// Claims go with a scale-down.
    pub(crate) when_scaled: bool,
    /// How many claim templates.
    pub(crate) claims: u8,
    /// Being deleted in the foreground.
    pub(crate) deleting: bool,
    pub(crate) status: Status,
}

impl Set {
    /// Wanted ordinals.
    pub(crate) fn wanted(&self) -> std::ops::Range<usize> {
        usize::from(self.start)..usize::from(self.start + self.replicas)
    }
}

pub(crate) type Pods = [Option<Pod>; ORDINALS];
pub(crate) type Claims = [[Option<Claim>; ORDINALS]; CLAIMS];

/// A revision: its rank among all (1 is the oldest, 0: it does not exist), and whether the living set owns it.
pub(crate) type Revisions = [(u8, bool); TEMPLATES];

/// What the controller decides on.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) set: Option<Set>,
    pub(crate) pods: Pods,
    pub(crate) claims: Claims,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) now: View,
    pub(crate) revisions: Revisions,
    /// What the caches hold, if they lag behind.
    pub(crate) cache: Option<Box<View>>,
    /// What a user may still do.
    pub(crate) moves: u8,
    /// What may still go wrong.
    pub(crate) faults: u8,
}

impl World {
    /// What the controller sees.
    pub(crate) fn view(&self) -> &View {
        self.cache.as_deref().unwrap_or(&self.now)
    }

    /// The same world with the smallest names: uids count from 0 for each name, ranks are without gaps.
    pub(crate) fn canonical(mut self) -> World {
        if self.cache.as_deref() == Some(&self.now) {
            self.cache = None;
        }
        for ordinal in 0..ORDINALS {
            let mut uids: Vec<u8> = Vec::new();
            self.each_pod_uid(ordinal, |uid| uids.push(*uid));
            uids.sort_unstable();
            uids.dedup();
            self.each_pod_uid(ordinal, |uid| *uid = rank(&uids, *uid));
            for template in 0..CLAIMS {
                let mut uids: Vec<u8> = Vec::new();
                self.each_claim_uid(template, ordinal, |uid| uids.push(*uid));
                uids.sort_unstable();
                uids.dedup();
                self.each_claim_uid(template, ordinal, |uid| *uid = rank(&uids, *uid));
            }
        }
        let mut ranks: Vec<u8> =
            self.revisions.iter().map(|(number, _)| *number).filter(|number| *number > 0).collect();
        ranks.sort_unstable();
        ranks.dedup();
        for (number, _) in self.revisions.iter_mut().filter(|(number, _)| *number > 0) {
            *number = rank(&ranks, *number) + 1;
        }
        self
    }

    fn views(&mut self) -> impl Iterator<Item = &mut View> {
        std::iter::once(&mut self.now).chain(self.cache.as_deref_mut())
    }

    fn each_pod_uid(&mut self, ordinal: usize, mut with: impl FnMut(&mut u8)) {
        for view in self.views() {
            if let Some(pod) = &mut view.pods[ordinal] {
                with(&mut pod.uid);
            }
            for claims in &mut view.claims {
                if let Some(Claim { pod: Some(uid), .. }) = &mut claims[ordinal] {
                    with(uid);
                }
            }
        }
    }

    fn each_claim_uid(&mut self, template: usize, ordinal: usize, mut with: impl FnMut(&mut u8)) {
        for view in self.views() {
            if let Some(claim) = &mut view.claims[template][ordinal] {
                with(&mut claim.uid);
            }
        }
    }

    /// A uid that no pod of this name has had, as far as anybody remembers.
    pub(crate) fn new_pod_uid(&mut self, ordinal: usize) -> u8 {
        let mut next = 0;
        self.each_pod_uid(ordinal, |uid| next = next.max(*uid + 1));
        next
    }

    /// A uid that no claim of this name has had, as far as anybody remembers.
    pub(crate) fn new_claim_uid(&mut self, template: usize, ordinal: usize) -> u8 {
        let mut next = 0;
        self.each_claim_uid(template, ordinal, |uid| next = next.max(*uid + 1));
        next
    }
}

fn rank(sorted: &[u8], value: u8) -> u8 {
    let place = sorted.iter().position(|other| *other == value).unwrap_or_default();
    u8::try_from(place).unwrap_or(u8::MAX)
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.set {
            Some(set) => write!(
                f,
                "{}{} of v{} from {}{}{}{}{}{}{} [{}/{} current v{}:{} update v{}:{}];",
                if set.parallel { "Parallel " } else { "" },
                set.replicas,
                set.template,
                set.start,
                if set.on_delete { " OnDelete" } else { "" },
                if set.partition > 0 {
                    format!(" partition {}", set.partition)
                } else {
                    String::new()
                },
                if set.max_unavailable > 0 {
                    format!(" maxUnavailable {}", set.max_unavailable)
                } else {
                    String::new()
                },
                if set.when_deleted { " whenDeleted" } else { "" },
                if set.when_scaled { " whenScaled" } else { "" },
                if set.deleting { " deleting" } else { "" },
                set.status.ready,
                set.status.replicas,
                set.status.current_revision,
                set.status.current,
                set.status.update_revision,
                set.status.updated
            )?,
            None => write!(f, "no set;")?,
        }
        for (ordinal, pod) in self.pods.iter().enumerate() {
            if let Some(pod) = pod {
                write!(f, " {ordinal}:{:?}@v{}", pod.phase, pod.template)?;
                for (yes, word) in [
                    (pod.terminating, "dying"),
                    (!pod.identified, "unlabelled"),
                    (!pod.matches, "stranger"),
                    (pod.owner == Owner::Other, "foreign"),
                    (pod.owner == Owner::Nobody, "orphan"),
                ] {
                    if yes {
                        write!(f, "-{word}")?;
                    }
                }
                write!(f, "#{}", pod.uid)?;
            }
        }
        for (template, claims) in self.claims.iter().enumerate() {
            for (ordinal, claim) in claims.iter().enumerate() {
                if let Some(claim) = claim {
                    write!(f, " claim{template}-{ordinal}#{}", claim.uid)?;
                    if claim.terminating {
                        write!(f, "-dying")?;
                    }
                    if let Some(set) = claim.set {
                        write!(f, "-of-set{set}")?;
                    }
                    if let Some(pod) = claim.pod {
                        write!(f, "-of-pod#{pod}")?;
                    }
                    if claim.foreign {
                        write!(f, "-foreign")?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} revisions {:?}", self.now, &self.revisions[1..])?;
        if let Some(cache) = &self.cache {
            write!(f, "\n       cached: {cache:?}")?;
        }
        Ok(())
    }
}
