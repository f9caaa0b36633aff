//! Who does what in which exploration, and what the world answers.

use crate::explore::{Model, explore};
use crate::plans::{Act, Planned, Planner};
use crate::promises;
use crate::world::{
    CLAIMS, Claim, Claims, ORDINALS, Owner, Phase, Pod, Pods, Revisions, Set, Status, TEMPLATES,
    View, World,
};

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    Scale(u8),
    Template(u8),
    Partition(u8),
    OnDelete(bool),
    Parallel(bool),
    MaxUnavailable(u8),
    Start(u8),
    /// whenDeleted, whenScaled.
    Retention(bool, bool),
    DeletePod(usize),
    DeleteClaim(usize, usize),
    MakeClaim(usize, usize),
    TakeClaim(usize, usize),
    DeleteSet(Cascade),
    CreateSet,
    Unlabel(usize),
    Estrange(usize),
    MakeForeignPod(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cascade {
    Background,
    Foreground,
    Orphan,
}

/// What happens.
#[derive(Debug, Clone)]
#[expect(dead_code, reason = "read by whoever reads a story")]
enum Event {
    User(Move),
    Kubelet(usize, Phase),
    Gone(usize),
    Collector(&'static str),
    /// So many actions of the plan were carried out; then the controller died, or one failed.
    Controller {
        carried_out: usize,
        of: Vec<Act>,
    },
    Cache(&'static str),
}

/// An exploration.
struct Scene {
    name: &'static str,
    set: Set,
    moves: Vec<Move>,
    /// How many of them.
    user: u8,
    /// How many pods may become unready, fail or end.
    faults: u8,
    /// Caches may lag behind the truth.
    lag: bool,
    /// Pods of this template never become Ready.
    broken: u8,
    planner: Planner,
}

/// Three ordered replicas, with one claim each.
fn web(replicas: u8) -> Set {
    Set {
        uid: 0,
        replicas,
        start: 0,
        template: 1,
        partition: 0,
        on_delete: false,
        parallel: false,
        max_unavailable: 0,
        when_deleted: false,
        when_scaled: false,
        claims: 1,
        deleting: false,
        status: Status::default(),
    }
}

/// A scene in which a user does so many things and so many things go wrong; one more of each where all is asked for.
fn scene(name: &'static str, set: Set, moves: &[Move], user: u8, faults: u8) -> Scene {
    let more = u8::from(std::env::var_os("ABIDE_MODEL").is_some_and(|size| size == "large"));
    let (user, faults) = (user + more, if faults > 0 { faults + more } else { 0 });
    Scene {
        name,
        set,
        moves: moves.to_vec(),
        user,
        faults,
        lag: false,
        broken: 0,
        planner: Planner::new(),
    }
}

impl Scene {
    fn run(mut self) -> crate::explore::Seen {
        let name = self.name;
        explore(name, &mut self)
    }

    /// The world after a set of so many has come up.
    fn settled(&mut self, set: Set) -> Result<World, String> {
        let mut world = World {
            now: View { set: Some(set), pods: Pods::default(), claims: Claims::default() },
            revisions: Revisions::default(),
            cache: None,
            moves: 0,
            faults: 0,
        };
        while let Some(next) = self.friendly(&world)? {
            world = next;
        }
        world.moves = self.user;
        world.faults = self.faults;
        Ok(world)
    }

    fn plan(&mut self, world: &World) -> Result<Option<std::rc::Rc<Planned>>, String> {
        if world.view().set.is_none() {
            return Ok(None);
        }
        let planned = self.planner.plan(world.view(), &world.revisions)?;
        promises::check(world.view(), &world.revisions, &planned)?;
        Ok(Some(planned))
    }

    /// What the controller makes of a world when it carries out the first `count` actions, and then the status if all.
    fn controlled(&self, world: &World, plan: &Planned, count: usize) -> Result<World, String> {
        let mut next = world.clone();
        for act in &plan.acts[..count] {
            if !carry_out(&mut next, act) {
                // It failed; what follows is not tried, the status is told.
                tell(&mut next, plan);
                return Ok(next.canonical());
            }
        }
        if count == plan.acts.len() {
            tell(&mut next, plan);
        }
        Ok(next.canonical())
    }

    /// The world after everybody was friendly for as long as it takes.
    fn rest(&mut self, mut world: World) -> Result<World, String> {
        for _ in 0..200 {
            match self.friendly(&world)? {
                Some(next) => world = next,
                None => return Ok(world),
            }
        }
        Err(format!("it does not come to rest: {world:?}"))
    }

    fn kubelet(&self, world: &World, next: &mut Vec<(Event, World)>) {
        for ordinal in 0..ORDINALS {
            let Some(pod) = world.now.pods[ordinal] else { continue };
            let mut becomes = |phase: Phase, fault: bool| {
                if !fault || world.faults > 0 {
                    let mut after = lagging(self.lag, world);
                    after.faults -= u8::from(fault);
                    if let Some(pod) = &mut after.now.pods[ordinal] {
                        pod.phase = phase;
                    }
                    next.push((Event::Kubelet(ordinal, phase), after.canonical()));
                }
            };
            match pod.phase {
                Phase::Pending | Phase::Unready
                    if pod.template != self.broken && claims_exist(&world.now, ordinal) =>
                {
                    becomes(Phase::Ready, false);
                }
                Phase::Ready => {
                    becomes(Phase::Unready, true);
                    becomes(Phase::Failed, true);
                    becomes(Phase::Succeeded, true);
                }
                Phase::Pending | Phase::Unready | Phase::Failed | Phase::Succeeded => {}
            }
            if pod.terminating {
                let mut after = lagging(self.lag, world);
                after.now.pods[ordinal] = None;
                next.push((Event::Gone(ordinal), after.canonical()));
            }
        }
    }

    fn users(&self, world: &World, next: &mut Vec<(Event, World)>) {
        if world.moves == 0 {
            return;
        }
        for chosen in &self.moves {
            let mut after = lagging(self.lag, world);
            if moved(&mut after, *chosen) {
                after.moves -= 1;
                next.push((Event::User(*chosen), after.canonical()));
            }
        }
    }
}

/// The world as it is before something happens that the caches do not see at once.
fn lagging(lag: bool, world: &World) -> World {
    let mut world = world.clone();
    if lag && world.cache.is_none() {
        world.cache = Some(Box::new(world.now.clone()));
    }
    world
}

fn claims_exist(view: &View, ordinal: usize) -> bool {
    let wanted = view.set.map_or(0, |set| usize::from(set.claims));
    view.claims.iter().take(wanted).all(|claims| claims[ordinal].is_some())
}

/// Changes the world as the user wants. False if there is nothing to change.
fn moved(world: &mut World, chosen: Move) -> bool {
    let before = world.now.clone();
    if let Move::CreateSet = chosen {
        if world.now.set.is_some() {
            return false;
        }
        world.now.set = Some(Set { uid: 1, ..web(2) });
        return true;
    }
    let Some(set) = &mut world.now.set else { return false };
    match chosen {
        Move::Scale(replicas) => set.replicas = replicas,
        Move::Template(template) => set.template = template,
        Move::Partition(partition) => set.partition = partition,
        Move::OnDelete(on_delete) => set.on_delete = on_delete,
        Move::Parallel(parallel) => set.parallel = parallel,
        Move::MaxUnavailable(count) => set.max_unavailable = count,
        Move::Start(start) => set.start = start,
        Move::Retention(when_deleted, when_scaled) => {
            (set.when_deleted, set.when_scaled) = (when_deleted, when_scaled);
        }
        Move::DeletePod(ordinal) => {
            if let Some(pod) = &mut world.now.pods[ordinal] {
                pod.terminating = true;
            }
        }
        Move::DeleteClaim(template, ordinal) => {
            if let Some(claim) = &mut world.now.claims[template][ordinal] {
                claim.terminating = true;
            }
        }
        Move::MakeClaim(template, ordinal) => {
            if world.now.claims[template][ordinal].is_none() {
                let uid = world.new_claim_uid(template, ordinal);
                world.now.claims[template][ordinal] =
                    Some(Claim { uid, terminating: false, set: None, pod: None, foreign: false });
            }
        }
        Move::TakeClaim(template, ordinal) => {
            if let Some(claim) = &mut world.now.claims[template][ordinal]
                && claim.set.is_none()
                && claim.pod.is_none()
            {
                claim.foreign = true;
            }
        }
        Move::Unlabel(ordinal) => {
            if let Some(pod) = &mut world.now.pods[ordinal] {
                pod.identified = false;
            }
        }
        Move::Estrange(ordinal) => {
            if let Some(pod) = &mut world.now.pods[ordinal] {
                pod.matches = false;
            }
        }
        Move::MakeForeignPod(ordinal) => {
            if world.now.pods[ordinal].is_none() {
                let uid = world.new_pod_uid(ordinal);
                world.now.pods[ordinal] = Some(Pod {
                    uid,
                    template: 1,
                    phase: Phase::Ready,
                    terminating: false,
                    owner: Owner::Other,
                    identified: false,
                    matches: true,
                });
            }
        }
        Move::DeleteSet(Cascade::Foreground) => set.deleting = true,
        Move::DeleteSet(Cascade::Background) => world.now.set = None,
        Move::DeleteSet(Cascade::Orphan) => {
            world.now.set = None;
            for pod in world.now.pods.iter_mut().flatten() {
                if matches!(pod.owner, Owner::Set(_)) {
                    pod.owner = Owner::Nobody;
                }
            }
            for claim in world.now.claims.iter_mut().flatten().flatten() {
                claim.set = None;
            }
            for revision in &mut world.revisions {
                revision.1 = false;
            }
        }
        Move::CreateSet => return false,
    }
    world.now != before
}

/// Carries out one action as the API server would, on the truth. False if it is refused. What the controller has written
/// it sees from then on.
fn carry_out(world: &mut World, act: &Act) -> bool {
    let set = world.now.set;
    let own = world.view().set.map_or(0, |set| set.uid);
    let done = match act {
        Act::CreateRevision(template) => {
            let newest = world.revisions.iter().map(|(number, _)| *number).max().unwrap_or(0);
            let is_new = world.revisions[*template].0 == 0;
            world.revisions[*template] = (newest + 1, true);
            return is_new;
        }
        Act::AdoptRevision(template) => {
            world.revisions[*template].1 = true;
            return true;
        }
        Act::Renumber(template) => {
            let newest = world.revisions.iter().map(|(number, _)| *number).max().unwrap_or(0);
            world.revisions[*template].0 = newest + 1;
            return true;
        }
        Act::DeleteRevision(template) => {
            world.revisions[*template] = (0, false);
            return true;
        }
        Act::CreateClaim { template, ordinal, for_set } => {
            if world.now.claims[*template][*ordinal].is_none() {
                let uid = world.new_claim_uid(*template, *ordinal);
                world.now.claims[*template][*ordinal] = Some(Claim {
                    uid,
                    terminating: false,
                    set: for_set.then_some(own),
                    pod: None,
                    foreign: false,
                });
            }
            true
        }
        Act::OwnClaim { template, ordinal, uid, set, pod, foreign } => {
            match &mut world.now.claims[*template][*ordinal] {
                Some(claim) if claim.uid == *uid => {
                    (claim.set, claim.pod, claim.foreign) = (*set, *pod, *foreign);
                    true
                }
                _ => false,
            }
        }
        Act::CreatePod { ordinal, template } => {
            let free = world.now.pods[*ordinal].is_none();
            if free {
                let uid = world.new_pod_uid(*ordinal);
                world.now.pods[*ordinal] = Some(Pod {
                    uid,
                    template: *template,
                    phase: Phase::Pending,
                    terminating: false,
                    owner: Owner::Set(own),
                    identified: true,
                    matches: true,
                });
            }
            free
        }
        Act::DeletePod { ordinal, uid } => {
            if let Some(pod) = world.now.pods[*ordinal].as_mut().filter(|pod| pod.uid == *uid) {
                pod.terminating = true;
            }
            true
        }
        Act::Mend { ordinal, uid } => with_pod(world, *ordinal, *uid, |pod| pod.identified = true),
        Act::Adopt { ordinal, uid } => {
            // Only after a live look at the set.
            if set.is_none_or(|set| set.uid != own || set.deleting) {
                return false;
            }
            with_pod(world, *ordinal, *uid, |pod| pod.owner = Owner::Set(own))
        }
        Act::Release { ordinal, uid } => {
            with_pod(world, *ordinal, *uid, |pod| pod.owner = Owner::Nobody)
        }
    };
    if done && let Some(cache) = &mut world.cache {
        match act {
            Act::CreateClaim { .. } | Act::OwnClaim { .. } => cache.claims = world.now.claims,
            _ => cache.pods = world.now.pods,
        }
    }
    done
}

fn with_pod(world: &mut World, ordinal: usize, uid: u8, change: impl FnOnce(&mut Pod)) -> bool {
    match &mut world.now.pods[ordinal] {
        Some(pod) if pod.uid == uid => {
            change(pod);
            true
        }
        _ => false,
    }
}

/// Writes the status, to the very set that was planned for.
fn tell(world: &mut World, plan: &Planned) {
    let planned_for = world.view().set.map(|set| set.uid);
    if let Some(set) = world.now.set.as_mut().filter(|set| Some(set.uid) == planned_for)
        && set.status != plan.status
    {
        set.status = plan.status;
        let set = *set;
        if let Some(cache) = &mut world.cache {
            cache.set = Some(set);
        }
    }
}

/// What the garbage collector may do now.
fn collected(world: &World, lag: bool) -> Vec<(&'static str, World)> {
    let mut found = Vec::new();
    let mut push = |what: &'static str, change: &dyn Fn(&mut World)| {
        let mut after = lagging(lag, world);
        change(&mut after);
        if after.now != world.now || after.revisions != world.revisions {
            found.push((what, after.canonical()));
        }
    };
    let set = world.now.set;
    let lives = |uid: u8| set.is_some_and(|set| set.uid == uid);
    let foreground = set.is_some_and(|set| set.deleting);
    push("pods without their set are deleted", &|world| {
        for pod in world.now.pods.iter_mut().flatten() {
            if let Owner::Set(uid) = pod.owner
                && (!lives(uid) || foreground)
            {
                pod.terminating = true;
            }
        }
    });
    push("claims without their owners are deleted", &|world| {
        let pods = world.now.pods;
        for claims in &mut world.now.claims {
            for (ordinal, claim) in claims.iter_mut().enumerate() {
                let Some(claim) = claim else { continue };
                let by_set = claim.set.map(|uid| lives(uid) && !foreground);
                let by_pod = claim.pod.map(|uid| pods[ordinal].is_some_and(|pod| pod.uid == uid));
                let owners: Vec<bool> = by_set.into_iter().chain(by_pod).collect();
                if !owners.is_empty() && !owners.contains(&true) && !claim.foreign {
                    claim.terminating = true;
                }
            }
        }
    });
    push("claims that nobody uses go", &|world| {
        let pods = world.now.pods;
        for claims in &mut world.now.claims {
            for (ordinal, claim) in claims.iter_mut().enumerate() {
                if claim.is_some_and(|claim| claim.terminating) && pods[ordinal].is_none() {
                    *claim = None;
                }
            }
        }
    });
    push("revisions without their set go", &|world| {
        if set.is_none() {
            for revision in &mut world.revisions {
                if revision.1 {
                    *revision = (0, false);
                }
            }
        }
    });
    push("the set goes after its pods", &|world| {
        let left = world.now.pods.iter().flatten().any(|pod| matches!(pod.owner, Owner::Set(_)));
        if foreground && !left {
            world.now.set = None;
        }
    });
    found
}

impl Model for Scene {
    type World = World;
    type Event = Event;

    fn beginnings(&mut self) -> Vec<World> {
        let empty = World {
            now: View { set: Some(self.set), pods: Pods::default(), claims: Claims::default() },
            revisions: Revisions::default(),
            cache: None,
            moves: self.user,
            faults: self.faults,
        };
        let settled = self.settled(self.set).unwrap_or_else(|why| panic!("{}: {why}", self.name));
        vec![empty, settled]
    }

    fn next(&mut self, world: &World) -> Result<Vec<(Event, World)>, String> {
        let mut next = Vec::new();
        if let Some(plan) = self.plan(world)? {
            for count in 0..=plan.acts.len() {
                let after = self.controlled(world, &plan, count)?;
                if after != *world {
                    next.push((
                        Event::Controller { carried_out: count, of: plan.acts.clone() },
                        after,
                    ));
                }
            }
            if world.cache.is_none()
                && !plan.acts.is_empty()
                && self.controlled(world, &plan, plan.acts.len())? == *world
            {
                return Err(format!("a plan that changes nothing: {:?}", plan.acts));
            }
        }
        self.kubelet(world, &mut next);
        self.users(world, &mut next);
        next.extend(
            collected(world, self.lag)
                .into_iter()
                .map(|(what, world)| (Event::Collector(what), world)),
        );
        if let Some(cache) = &world.cache {
            for what in ["the set", "pods", "claims"] {
                let mut after = world.clone();
                let mut seen = (**cache).clone();
                match what {
                    "the set" => seen.set = world.now.set,
                    "pods" => seen.pods = world.now.pods,
                    _ => seen.claims = world.now.claims,
                }
                after.cache = Some(Box::new(seen));
                let after = after.canonical();
                if after != *world {
                    next.push((Event::Cache(what), after));
                }
            }
        }
        for (event, after) in &next {
            if let Event::User(_) = event {
                continue;
            }
            kept(world, after, event)?;
        }
        Ok(next)
    }

    fn friendly(&mut self, world: &World) -> Result<Option<World>, String> {
        let mut next = World { moves: 0, faults: 0, cache: None, ..world.clone() };
        // A stranger that holds a name goes some day.
        for pod in &mut next.now.pods {
            let own = next.now.set.map(|set| Owner::Set(set.uid));
            if pod.is_some_and(|pod| {
                Some(pod.owner) != own && (pod.owner == Owner::Other || !pod.matches)
            }) {
                *pod = None;
            }
        }
        if let Some(plan) = self.plan(&next)? {
            next = self.controlled(&next, &plan, plan.acts.len())?;
        }
        let claims = next.now.clone();
        for (ordinal, pod) in next.now.pods.iter_mut().enumerate() {
            if let Some(living) = pod {
                if living.terminating {
                    *pod = None;
                } else if matches!(living.phase, Phase::Pending | Phase::Unready)
                    && living.template != self.broken
                    && claims_exist(&claims, ordinal)
                {
                    living.phase = Phase::Ready;
                }
            }
        }
        while let Some((_, after)) = collected(&next, false).into_iter().next() {
            next = after;
        }
        let next = next.canonical();
        Ok((next != *world).then_some(next))
    }

    fn quiet(&mut self, world: &World) -> Result<bool, String> {
        let Some(set) = &world.now.set else {
            let left =
                world.now.pods.iter().flatten().any(|pod| matches!(pod.owner, Owner::Set(_)));
            return if left { Err("pods outlive their set".to_owned()) } else { Ok(false) };
        };
        let broken_template = self.broken;
        let broken = |pod: &Pod| pod.template == broken_template && broken_template != 0;
        if world.now.pods.iter().flatten().any(broken)
            || set.template == self.broken && self.broken != 0
        {
            if set.template == self.broken {
                // Nothing can be Ready that the user wants broken.
                return Ok(true);
            }
            if set.parallel && !set.on_delete && set.partition == 0 {
                return Err(
                    "T55: a Parallel set replaces broken pods of an old revision by itself"
                        .to_owned(),
                );
            }
            // T54, T56: somebody has to delete the broken pods by hand, and then it goes on.
            let mut helped = world.clone();
            for pod in &mut helped.now.pods {
                if pod.as_ref().is_some_and(broken) {
                    *pod = None;
                }
            }
            let below = usize::from(set.start + set.partition);
            let current_is_broken = set.status.current_revision == self.broken && below > 0;
            if !set.on_delete && current_is_broken {
                return Ok(true);
            }
            let rested = self.rest(helped)?;
            if rested.now.pods.iter().flatten().any(broken) {
                return Err("broken pods come back after they were deleted by hand".to_owned());
            }
            return goal(&rested).map(|()| true);
        }
        let ended = |pod: &Pod| matches!(pod.phase, Phase::Failed | Phase::Succeeded);
        let blocked = |(ordinal, pod): (usize, &Option<Pod>)| {
            !set.wanted().contains(&ordinal) && pod.as_ref().is_some_and(ended)
        };
        if !set.parallel
            && world.now.pods.iter().enumerate().filter(|slot| blocked(*slot)).count() > 1
        {
            // T33: of two condemned pods that will never be Ready, the upper waits for the lower, and that for the upper.
            let set = *set;
            let mut helped = world.clone();
            for (ordinal, pod) in helped.now.pods.iter_mut().enumerate() {
                if !set.wanted().contains(&ordinal) && pod.as_ref().is_some_and(ended) {
                    *pod = None;
                }
            }
            return self.rest(helped).and_then(|rested| goal(&rested)).map(|()| true);
        }
        goal(world).map(|()| false)
    }
}

/// What must not happen without a user: claims that nobody's policy deletes stay.
fn kept(before: &World, after: &World, event: &Event) -> Result<(), String> {
    for template in 0..CLAIMS {
        for ordinal in 0..ORDINALS {
            if let Some(claim) = before.now.claims[template][ordinal]
                && claim.set.is_none()
                && claim.pod.is_none()
                && !claim.terminating
                && after.now.claims[template][ordinal].is_none_or(|claim| claim.terminating)
            {
                return Err(format!(
                    "T42: claim {template}-{ordinal} goes, and nobody owns it ({event:?})"
                ));
            }
        }
    }
    Ok(())
}

/// What the user wants: each ordinal Ready, of the right revision, with its claims; nobody else; a status that says so.
fn goal(world: &World) -> Result<(), String> {
    let Some(set) = &world.now.set else { return Ok(()) };
    if set.deleting {
        return Err("the set does not go".to_owned());
    }
    let below = usize::from(set.start + set.partition);
    for (ordinal, pod) in world.now.pods.iter().enumerate() {
        let wanted = set.wanted().contains(&ordinal);
        match pod {
            None if wanted => return Err(format!("pod {ordinal} is missing")),
            None => {}
            Some(_) if !wanted => return Err(format!("pod {ordinal} is too many")),
            Some(pod) => {
                if pod.phase != Phase::Ready
                    || pod.terminating
                    || !pod.identified
                    || pod.owner != Owner::Set(set.uid)
                {
                    return Err(format!("pod {ordinal} is {:?}", world.now));
                }
                if !set.on_delete && ordinal >= below && pod.template != set.template {
                    return Err(format!("pod {ordinal} is not of the wanted revision"));
                }
            }
        }
        for (template, claims) in world.now.claims.iter().enumerate().take(usize::from(set.claims))
        {
            match claims[ordinal] {
                None if wanted => return Err(format!("claim {template}-{ordinal} is missing")),
                Some(claim) if wanted && !claim.foreign => {
                    if claim.terminating {
                        // T124: somebody deleted it; it goes after the pod that uses it.
                        continue;
                    }
                    let should = (set.when_deleted.then_some(set.uid), None);
                    if (claim.set, claim.pod) != should {
                        return Err(format!(
                            "T40: claim {template}-{ordinal} has the wrong owners"
                        ));
                    }
                }
                _ => {}
            }
        }
    }
    let status = &set.status;
    if (status.replicas, status.ready) != (set.replicas, set.replicas) {
        return Err(format!("T90: the status says {} of {}", status.ready, status.replicas));
    }
    if !set.on_delete && set.partition == 0 && status.current_revision != set.template {
        return Err("T62: currentRevision has not advanced".to_owned());
    }
    let newest = world.revisions.iter().map(|(number, _)| *number).max();
    if world.revisions[usize::from(set.template)].0 != newest.unwrap_or(0) {
        return Err("T111: the wanted revision is not the newest".to_owned());
    }
    if world.revisions.iter().filter(|(number, own)| *number > 0 && *own).count() > TEMPLATES - 1 {
        return Err("T113: too many revisions".to_owned());
    }
    Ok(())
}

/// Runs one of them.
pub(crate) fn run(name: &str) {
    let scene = SCENES.iter().find(|(other, _)| *other == name);
    scene.unwrap_or_else(|| panic!("there is no scene {name}")).1();
}

/// All explorations, the quicker ones first.
pub(crate) const SCENES: &[(&str, fn())] = &[
    (
        "an_update_of_two_parallel_pods_keeps_its_order",
        an_update_of_two_parallel_pods_keeps_its_order,
    ),
    ("a_broken_update_is_stuck_only_as_documented", a_broken_update_is_stuck_only_as_documented),
    (
        "claims_follow_the_retention_policy_and_nothing_else",
        claims_follow_the_retention_policy_and_nothing_else,
    ),
    (
        "strategies_and_policies_may_change_while_an_update_is_on_its_way",
        strategies_and_policies_may_change_while_an_update_is_on_its_way,
    ),
    (
        "a_controller_with_a_stale_cache_breaks_no_promise",
        a_controller_with_a_stale_cache_breaks_no_promise,
    ),
    (
        "a_set_is_deleted_in_three_ways_and_made_again",
        a_set_is_deleted_in_three_ways_and_made_again,
    ),
    (
        "other_ordinals_strangers_and_lost_labels_are_told_apart",
        other_ordinals_strangers_and_lost_labels_are_told_apart,
    ),
    (
        "ordered_sets_are_scaled_in_order_whatever_happens_to_their_pods",
        ordered_sets_are_scaled_in_order_whatever_happens_to_their_pods,
    ),
    (
        "parallel_sets_are_scaled_at_once_whatever_happens_to_their_pods",
        parallel_sets_are_scaled_at_once_whatever_happens_to_their_pods,
    ),
    (
        "an_update_goes_from_the_highest_ordinal_down_however_it_is_changed",
        an_update_goes_from_the_highest_ordinal_down_however_it_is_changed,
    ),
    (
        "an_update_of_a_parallel_set_keeps_within_what_may_be_unavailable",
        an_update_of_a_parallel_set_keeps_within_what_may_be_unavailable,
    ),
];

fn ordered_sets_are_scaled_in_order_whatever_happens_to_their_pods() {
    let moves: Vec<Move> = (0..5).map(Move::Scale).chain((0..4).map(Move::DeletePod)).collect();
    scene("scaling, OrderedReady", web(3), &moves, 2, 2).run();
}

fn parallel_sets_are_scaled_at_once_whatever_happens_to_their_pods() {
    let moves: Vec<Move> = (0..5).map(Move::Scale).chain((0..4).map(Move::DeletePod)).collect();
    scene("scaling, Parallel", Set { parallel: true, ..web(3) }, &moves, 2, 1).run();
}

fn an_update_goes_from_the_highest_ordinal_down_however_it_is_changed() {
    let moves = [
        Move::Template(1),
        Move::Template(2),
        Move::Template(3),
        Move::Partition(0),
        Move::Partition(2),
        Move::Scale(2),
        Move::DeletePod(0),
        Move::DeletePod(2),
    ];
    scene("updating, OrderedReady", web(3), &moves, 3, 1).run();
}

fn an_update_of_two_parallel_pods_keeps_its_order() {
    let moves = [
        Move::Template(1),
        Move::Template(2),
        Move::MaxUnavailable(2),
        Move::Partition(1),
        Move::DeletePod(1),
    ];
    scene("updating two, Parallel", Set { parallel: true, ..web(2) }, &moves, 2, 1).run();
    let start = Set { start: 1, partition: 1, ..web(2) };
    scene("updating two from ordinal 1 on", start, &moves, 2, 1).run();
    let batches = Set { parallel: true, max_unavailable: 2, ..web(4) };
    let moves = [Move::Template(1), Move::Template(2)];
    scene("updating four, Parallel, two at a time", batches, &moves, 2, 0).run();
}

fn an_update_of_a_parallel_set_keeps_within_what_may_be_unavailable() {
    let moves = [
        Move::Template(1),
        Move::Template(2),
        Move::Template(3),
        Move::MaxUnavailable(2),
        Move::MaxUnavailable(0),
        Move::Partition(1),
        Move::Scale(4),
    ];
    scene("updating, Parallel", Set { parallel: true, ..web(3) }, &moves, 2, 1).run();
    scene("updating, OrderedReady in batches", Set { max_unavailable: 2, ..web(4) }, &moves, 2, 1)
        .run();
}

fn strategies_and_policies_may_change_while_an_update_is_on_its_way() {
    let moves = [
        Move::Template(2),
        Move::Template(1),
        Move::OnDelete(true),
        Move::OnDelete(false),
        Move::Parallel(true),
        Move::DeletePod(1),
    ];
    scene("changing strategies", web(2), &moves, 4, 1).run();
}

fn a_broken_update_is_stuck_only_as_documented() {
    let moves = [
        Move::Template(1),
        Move::Template(2),
        Move::Template(3),
        Move::Partition(1),
        Move::DeletePod(2),
    ];
    let mut ordered = scene("a broken update, OrderedReady", web(3), &moves, 3, 0);
    ordered.broken = 2;
    let seen = ordered.run();
    assert!(seen.stuck > 0, "T56 has worlds");
    let mut parallel =
        scene("a broken update, Parallel", Set { parallel: true, ..web(3) }, &moves, 2, 0);
    parallel.broken = 2;
    parallel.run();
}

fn claims_follow_the_retention_policy_and_nothing_else() {
    let moves = [
        Move::Retention(false, true),
        Move::Retention(true, false),
        Move::Retention(true, true),
        Move::Retention(false, false),
        Move::Scale(1),
        Move::Scale(2),
        Move::DeletePod(1),
        Move::DeleteClaim(0, 1),
        Move::TakeClaim(0, 1),
    ];
    scene("retention", Set { when_scaled: true, ..web(2) }, &moves, 4, 0).run();
    scene(
        "retention of two claims",
        Set { when_scaled: true, when_deleted: true, claims: 2, ..web(2) },
        &moves,
        2,
        0,
    )
    .run();
}

fn a_set_is_deleted_in_three_ways_and_made_again() {
    let moves = [
        Move::DeleteSet(Cascade::Background),
        Move::DeleteSet(Cascade::Foreground),
        Move::DeleteSet(Cascade::Orphan),
        Move::CreateSet,
        Move::Retention(true, false),
        Move::Scale(1),
        Move::Template(2),
    ];
    scene("deletion", web(2), &moves, 3, 1).run();
}

fn other_ordinals_strangers_and_lost_labels_are_told_apart() {
    let moves = [
        Move::Start(0),
        Move::Start(2),
        Move::Scale(1),
        Move::Unlabel(1),
        Move::Estrange(0),
        Move::MakeForeignPod(2),
        Move::DeletePod(1),
        Move::MakeClaim(0, 2),
    ];
    scene("other ordinals and strangers", web(2), &moves, 3, 1).run();
}

fn a_controller_with_a_stale_cache_breaks_no_promise() {
    let moves = [
        Move::Scale(1),
        Move::Scale(3),
        Move::Template(2),
        Move::DeletePod(1),
        Move::DeleteClaim(0, 1),
    ];
    let mut scene = scene("stale caches", web(2), &moves, 2, 1);
    scene.lag = true;
    scene.run();
}
