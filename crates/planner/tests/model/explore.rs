//! Breadth first over every world. What is found wrong is told as the shortest story that leads to it.

use std::collections::{HashMap, HashSet};
use std::fmt::{Debug, Write};
use std::hash::Hash;

/// Something that can be explored.
pub(crate) trait Model: Sized {
    /// A world, in its canonical form.
    type World: Clone + Eq + Hash + Debug;
    /// What makes one world of another.
    type Event: Clone + Debug;

    /// Where it begins.
    fn beginnings(&mut self) -> Vec<Self::World>;
    /// All that can happen next. An error is a promise that does not hold.
    fn next(&mut self, world: &Self::World) -> Result<Steps<Self>, String>;
    /// A friendly environment's next step; none if all is quiet.
    fn friendly(&mut self, world: &Self::World) -> Result<Option<Self::World>, String>;
    /// What a quiet world has to be. True says that it is stuck as documented.
    fn quiet(&mut self, world: &Self::World) -> Result<bool, String>;
}

/// A world, which world it came from, and by what; the beginnings came from nowhere.
type Visited<M> = (<M as Model>::World, usize, Option<<M as Model>::Event>);
/// What can happen next, and what comes of it.
pub(crate) type Steps<M> = Vec<(<M as Model>::Event, <M as Model>::World)>;

/// What an exploration has seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) worlds: usize,
    pub(crate) steps: usize,
    pub(crate) stuck: usize,
}

/// Visits every world. Panics with a story if a promise does not hold.
pub(crate) fn explore<M: Model>(name: &str, model: &mut M) -> Seen {
    let mut worlds: Vec<Visited<M>> = Vec::new();
    let mut known: HashMap<M::World, usize> = HashMap::new();
    for world in model.beginnings() {
        known.insert(world.clone(), worlds.len());
        worlds.push((world, usize::MAX, None));
    }
    let mut steps = 0;
    let mut at = 0;
    while at < worlds.len() {
        let world = worlds[at].0.clone();
        let next =
            model.next(&world).unwrap_or_else(|why| panic!("{}", story(name, &worlds, at, &why)));
        for (event, next) in next {
            steps += 1;
            if let std::collections::hash_map::Entry::Vacant(entry) = known.entry(next) {
                worlds.push((entry.key().clone(), at, Some(event)));
                entry.insert(worlds.len() - 1);
            }
        }
        at += 1;
    }
    let stuck = converge(name, model, &worlds);
    let seen = Seen { worlds: worlds.len(), steps, stuck };
    println!(
        "{name}: {} worlds, {} steps, {} stuck as documented",
        seen.worlds, seen.steps, seen.stuck
    );
    seen
}

/// From every world a friendly environment leads to what is wanted.
fn converge<M: Model>(name: &str, model: &mut M, worlds: &[Visited<M>]) -> usize {
    let mut good: HashSet<M::World> = HashSet::new();
    let mut stuck = 0;
    for (at, (world, ..)) in worlds.iter().enumerate() {
        let mut path: Vec<M::World> = Vec::new();
        let mut on_path: HashSet<M::World> = HashSet::new();
        let mut now = world.clone();
        loop {
            if good.contains(&now) {
                break;
            }
            if !on_path.insert(now.clone()) {
                panic!(
                    "{}",
                    story(
                        name,
                        worlds,
                        at,
                        &format!("goes in circles, friendly as everybody is, at\n  {now:?}")
                    )
                );
            }
            path.push(now.clone());
            match model.friendly(&now) {
                Ok(Some(next)) => now = next,
                Ok(None) => {
                    match model.quiet(&now) {
                        Ok(is_stuck) => stuck += usize::from(is_stuck),
                        Err(why) => panic!(
                            "{}",
                            story(
                                name,
                                worlds,
                                at,
                                &format!(
                                    "friendly as everybody is, it comes to rest at\n  {now:?}\n  {why}"
                                )
                            )
                        ),
                    }
                    break;
                }
                Err(why) => panic!("{}", story(name, worlds, at, &why)),
            }
        }
        good.extend(path);
    }
    stuck
}

fn story<W: Debug, E: Debug>(
    name: &str,
    worlds: &[(W, usize, Option<E>)],
    at: usize,
    why: &str,
) -> String {
    let mut steps = Vec::new();
    let mut here = at;
    while here != usize::MAX {
        steps.push(here);
        here = worlds[here].1;
    }
    let mut text = format!("{name}: {why}\nThe shortest story that leads here:\n");
    for (number, here) in steps.iter().rev().enumerate() {
        let (world, _, event) = &worlds[*here];
        let written = match event {
            Some(event) => writeln!(text, "{number:3}. {event:?}\n       {world:?}"),
            None => writeln!(text, "       {world:?}"),
        };
        assert!(written.is_ok(), "a String takes everything");
    }
    text
}
