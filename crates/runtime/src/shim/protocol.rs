//! What is said between the server and a supervisor: one JSON line each way per connection.

use crate::ContainerStatus;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The version of these words. A supervisor may be older than the server that talks to it.
pub const VERSION: u32 = 1;

/// A request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message {
    /// [`VERSION`] of the one who asks.
    pub version: u32,
    /// What is asked.
    pub request: Request,
}

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Makes and starts a container from its bundle.
    Start(Box<Start>),
    /// Sends a signal to a container's main process.
    Signal {
        /// Container.
        id: String,
        /// Signal number.
        signal: i32,
    },
    /// Tells each exit, a line each, until the connection ends.
    Watch,
    /// Connects to a container's streams: frames of output one way, raw input the other.
    Attach {
        /// Container.
        id: String,
    },
    /// Sets the size of a container's terminal.
    Resize {
        /// Container.
        id: String,
        /// Columns.
        columns: u16,
        /// Rows.
        rows: u16,
    },
    /// Kills all containers and ends.
    Shutdown,
}

/// What a container is started from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Start {
    /// What is known of it so far.
    pub status: ContainerStatus,
    /// Folder with `config.json`.
    pub bundle: PathBuf,
    /// cgroup, relative to each hierarchy.
    pub cgroup: String,
    /// Its main process has a terminal.
    pub tty: bool,
    /// Its standard input stays open.
    pub stdin: bool,
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// A container has ended (to watchers).
    Exited {
        /// Which.
        id: String,
    },
    /// It could not be started.
    StartFailed(String),
    /// Refused, and why.
    Refused(String),
}
