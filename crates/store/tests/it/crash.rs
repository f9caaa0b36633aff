//! SIGKILL at random moments: everything acknowledged is there, nothing is torn.

use crate::no_index;
use rand::Rng;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use store::{Embedded, Expect, Options, Page, Store};

const ROUNDS: usize = 50;
const WRITERS: u64 = 8;
const FOLDER: &str = "STORE_CRASH_FOLDER";

/// A value that tells whether it is whole: its own length and content follow from its head.
fn value(writer: u64, number: u64) -> String {
    let head = format!("{writer}:{number}:");
    let body = head.repeat(20 + usize::try_from(number % 50).unwrap());
    format!("{body}#{}", body.len())
}

fn is_whole(text: &str) -> bool {
    text.rsplit_once('#').is_some_and(|(body, length)| length.parse() == Ok(body.len()))
}

/// Writes until it is killed; says each acknowledged write on standard output.
#[test]
fn writer_process() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            let store = std::sync::Arc::new(
                Embedded::open(folder.as_ref(), no_index(), Options::default()).unwrap(),
            );
            let mut tasks = Vec::new();
            for writer in 0..WRITERS {
                let store = store.clone();
                tasks.push(tokio::spawn(async move {
                    for number in 0u64.. {
                        let key = format!("/{writer}/{}", number % 7);
                        let expect = store
                            .get(&key)
                            .await
                            .unwrap()
                            .map_or(Expect::Absent, |entry| Expect::At(entry.revision));
                        let text = value(writer, number);
                        let entry = store
                            .write(&key, store::conformance::put(&text), expect)
                            .await
                            .unwrap();
                        let mut out = std::io::stdout().lock();
                        writeln!(out, "\nack {} {key} {writer} {number}", entry.revision).unwrap();
                        out.flush().unwrap();
                    }
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
}

#[test]
fn nothing_acknowledged_is_lost_when_the_writer_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = rand::rng();
    let mut highest = 0;
    for round in 0..ROUNDS {
        let acknowledged = write_and_kill(folder.path(), random.random_range(1..150));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Embedded::open(folder.path(), no_index(), Options::default()).unwrap();
            for (key, (revision, text)) in &acknowledged {
                let entry = store
                    .get(key)
                    .await
                    .unwrap()
                    .unwrap_or_else(|| panic!("round {round}: {key} is lost"));
                assert!(
                    entry.revision >= *revision,
                    "round {round}: {key} is older than acknowledged"
                );
                if entry.revision == *revision {
                    assert_eq!(
                        entry.bytes.as_ref(),
                        text.as_bytes(),
                        "round {round}: {key} differs"
                    );
                }
            }
            for entry in store.list("/", Page::default()).await.unwrap().entries {
                assert!(
                    is_whole(std::str::from_utf8(&entry.bytes).unwrap()),
                    "round {round}: {} is torn",
                    entry.key
                );
            }
            assert!(store.revision() >= highest, "round {round}: revisions went back");
            highest = store.revision();
        });
    }
    assert!(highest > ROUNDS as u64, "the writer hardly wrote");
}

/// Whoever closes a store may open it at once: also on a machine too busy to end a thread in time.
#[test]
fn a_closed_store_is_free_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..ROUNDS {
        drop(Embedded::open(folder.path(), no_index(), Options::default()).unwrap());
    }
}

/// Kills the writer after so many acknowledgements; returns the newest acknowledged write of each key.
fn write_and_kill(folder: &std::path::Path, after: usize) -> BTreeMap<String, (u64, String)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::writer_process", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut newest: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut count = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let ["ack", revision, key, writer, number] = words[..] else { continue };
        let (Ok(revision), Ok(writer), Ok(number)) =
            (revision.parse(), writer.parse(), number.parse())
        else {
            continue;
        };
        let place = newest.entry(key.to_owned()).or_default();
        if revision > place.0 {
            *place = (revision, value(writer, number));
        }
        count += 1;
        if count == after {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    newest
}
