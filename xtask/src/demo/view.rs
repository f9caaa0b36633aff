//! The pods of a set while something happens to them: at a terminal a block that is drawn anew with each change, elsewhere a
//! line a change.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What is on the screen. One view at a time draws, and everything else that is printed goes above it.
static SCREEN: Mutex<Screen> = Mutex::new(Screen { pods: BTreeMap::new(), drawn: 0 });

struct Screen {
    /// By name: ready, state, and when that state came (seconds after the view's start).
    pods: BTreeMap<String, (String, String, f64)>,
    /// Lines of the block at the bottom.
    drawn: usize,
}

fn screen() -> MutexGuard<'static, Screen> {
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Screen {
    /// Takes the block away.
    fn erase(&mut self) {
        for _ in 0..std::mem::take(&mut self.drawn) {
            eprint!("\x1b[1A\x1b[2K");
        }
    }

    fn draw(&mut self) {
        for (name, (ready, state, since)) in &self.pods {
            eprintln!(
                "   {} {name:12} {ready:>5}  {state:20} \x1b[2m{since:6.2} s\x1b[0m",
                mark(ready, state)
            );
        }
        self.drawn = self.pods.len();
    }
}

/// Prints a line above the block.
pub(super) fn print(line: &str) {
    let mut screen = screen();
    let block = screen.drawn > 0;
    screen.erase();
    eprintln!("{line}");
    if block {
        screen.draw();
    }
    // Standard error is not buffered, but a terminal may be gone.
    let _flushed = std::io::stderr().flush();
}

fn mark(ready: &str, state: &str) -> &'static str {
    let whole = ready.split_once('/').is_some_and(|(some, all)| some == all);
    match state {
        "Running" if whole => "\x1b[32m●\x1b[0m",
        "Terminating" | "Completed" => "\x1b[31m○\x1b[0m",
        "gone" => "\x1b[2m·\x1b[0m",
        _ => "\x1b[33m◐\x1b[0m",
    }
}

/// Follows pods until it is ended.
pub(super) struct View {
    child: Child,
    reader: std::thread::JoinHandle<()>,
}

impl View {
    /// Follows the pods with these labels, by `kubectl get pods --watch`.
    pub(super) fn start(selector: &str) -> Result<View> {
        let mut child = Command::new("kubectl")
            .args([
                "get",
                "pods",
                "--watch",
                "--output-watch-events",
                "--no-headers",
                "-l",
                selector,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start kubectl")?;
        let output = child.stdout.take().context("the watch's output")?;
        let began = Instant::now();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                follow(&line, began);
            }
        });
        Ok(View { child, reader })
    }

    /// Stops; the block stays as it is.
    pub(super) fn end(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        ensure!(self.reader.join().is_ok(), "the view's reader failed");
        let mut screen = screen();
        screen.drawn = 0;
        screen.pods.clear();
        Ok(())
    }
}

/// Takes up one line: EVENT NAME READY STATUS …
fn follow(line: &str, began: Instant) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [event, name, ready, state, ..] = words[..] else { return };
    let state = if event == "DELETED" { "gone" } else { state };
    let since = began.elapsed().as_secs_f64();
    let mut screen = screen();
    let known = screen.pods.get(name);
    if known.is_some_and(|(was_ready, was, _)| was == state && was_ready == ready) {
        return;
    }
    let first = known.is_none();
    screen.pods.insert(name.to_owned(), (ready.to_owned(), state.to_owned(), since));
    if std::io::stderr().is_terminal() {
        screen.erase();
        screen.draw();
    } else if !first || state == "Pending" {
        eprintln!("   {since:6.2} s  {name:12} {ready:>5}  {state}");
    }
}
