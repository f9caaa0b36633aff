//! What makes the store durable: SQLite in WAL mode with full synchronisation.

use crate::{Event, EventKind, Revision};
use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

/// The layout of the database; a newer one is refused.
const LAYOUT: i64 = 1;
/// How long a copy waits for a commit under way.
const BUSY: std::time::Duration = std::time::Duration::from_secs(10);

/// A durable record of a key's newest value.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The key.
    pub key: String,
    /// The revision that wrote it.
    pub revision: Revision,
    /// The value.
    pub bytes: Bytes,
}

/// Appends batches, replays what is current, drops what is superseded.
pub trait Log: Send {
    /// Makes a batch durable, all of it or nothing. An error tells why, in words.
    fn append<'a>(&mut self, events: impl Iterator<Item = &'a Event>) -> Result<(), String>;
    /// Every key's newest value, and the newest revision.
    fn replay(&mut self) -> Result<(Vec<Record>, Revision), OpenError>;
    /// Forgets values that are no longer anybody's newest.
    fn drop_superseded(&mut self) -> Result<(), String>;
}

/// Why a store could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{0}")]
    InUse(String),
    /// It was written by a newer version.
    #[error(
        "the store in {folder} has layout {found}, this version knows {LAYOUT}: use the newer version that wrote it"
    )]
    Newer {
        /// Where.
        folder: String,
        /// Its layout.
        found: i64,
    },
    /// It cannot be read.
    #[error("{0}")]
    Io(String),
}

/// The log in SQLite.
#[derive(Debug)]
pub struct SqliteLog {
    connection: Connection,
    /// Held for as long as the store is open.
    _lock: File,
}

impl SqliteLog {
    /// Opens (or makes) the log in `folder`.
    pub fn open(folder: &Path) -> Result<SqliteLog, OpenError> {
        let io = |what: &str, error: &dyn std::fmt::Display| {
            OpenError::Io(format!("{what} {}: {error}", folder.display()))
        };
        std::fs::create_dir_all(folder).map_err(|error| io("make", &error))?;
        let lock = lock(folder)?;
        let connection = Connection::open(folder.join("state.db"))
            .map_err(|error| io("open the store in", &error))?;
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA temp_store = MEMORY;")
            .map_err(|error| io("open the store in", &error))?;
        let found: i64 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(|error| io("open the store in", &error))?;
        if found > LAYOUT {
            return Err(OpenError::Newer { folder: folder.display().to_string(), found });
        }
        connection
            .execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS log (revision INTEGER PRIMARY KEY, key TEXT NOT NULL, deleted INTEGER NOT NULL, bytes BLOB NOT NULL);
                 CREATE INDEX IF NOT EXISTS by_key ON log (key, revision); PRAGMA user_version = {LAYOUT};"
            ))
            .map_err(|error| io("prepare the store in", &error))?;
        Ok(SqliteLog { connection, _lock: lock })
    }

    fn try_append<'a>(&mut self, events: impl Iterator<Item = &'a Event>) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO log (revision, key, deleted, bytes) VALUES (?1, ?2, ?3, ?4)",
            )?;
            for event in events {
                let revision = i64::try_from(event.entry.revision).unwrap_or(i64::MAX);
                let deleted = event.kind == EventKind::Delete;
                let bytes: &[u8] = if deleted { &[] } else { &event.entry.bytes };
                insert.execute(params![revision, event.entry.key.as_ref(), deleted, bytes])?;
            }
        }
        transaction.commit()
    }
}

impl Log for SqliteLog {
    fn append<'a>(&mut self, events: impl Iterator<Item = &'a Event>) -> Result<(), String> {
        self.try_append(events).map_err(|error| error.to_string())
    }

    fn replay(&mut self) -> Result<(Vec<Record>, Revision), OpenError> {
        let read = || -> rusqlite::Result<(Vec<Record>, Revision)> {
            let newest: Option<i64> = self
                .connection
                .query_row("SELECT max(revision) FROM log", [], |row| row.get(0))
                .optional()?
                .flatten();
            let mut rows = self.connection.prepare(
                "SELECT key, revision, bytes FROM log JOIN (SELECT key AS k, max(revision) AS r FROM log GROUP BY key) ON key = k AND revision = r WHERE deleted = 0",
            )?;
            let records = rows
                .query_map([], |row| {
                    let revision: i64 = row.get(1)?;
                    Ok(Record {
                        key: row.get(0)?,
                        revision: revision.unsigned_abs(),
                        bytes: row.get::<_, Vec<u8>>(2)?.into(),
                    })
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            Ok((records, newest.unwrap_or(0).unsigned_abs()))
        };
        read().map_err(|error| OpenError::Io(format!("read the store: {error}")))
    }

    fn drop_superseded(&mut self) -> Result<(), String> {
        // The newest row stays whatever it is: it carries the newest revision.
        self.connection
            .execute_batch(
                "DELETE FROM log WHERE revision < (SELECT max(revision) FROM log) AND (deleted = 1 OR EXISTS \
                 (SELECT 1 FROM log AS newer WHERE newer.key = log.key AND newer.revision > log.revision)) AND NOT (deleted = 1 AND EXISTS \
                 (SELECT 1 FROM log AS older WHERE older.key = log.key AND older.revision < log.revision)); PRAGMA incremental_vacuum;",
            )
            .map_err(|error| error.to_string())
    }
}

/// Copies the log in `folder` at one revision, which is returned, into the folder `into`, also while a server has it open.
pub fn back_up(folder: &Path, into: &Path) -> Result<Revision, OpenError> {
    let io = |what: &str, error: &dyn std::fmt::Display| OpenError::Io(format!("{what}: {error}"));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(folder.join("state.db"), flags)
        .map_err(|error| io("open it", &error))?;
    connection.busy_timeout(BUSY).map_err(|error| io("open it", &error))?;
    let copy = into.join("state.db");
    connection
        .execute("VACUUM INTO ?1", params![copy.display().to_string()])
        .map_err(|error| io("copy it", &error))?;
    check(into)
}

/// Reads the log in `folder` and returns its newest revision. Nothing is made or changed.
pub fn check(folder: &Path) -> Result<Revision, OpenError> {
    let damaged = |error: rusqlite::Error| OpenError::Io(format!("it is damaged: {error}"));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(folder.join("state.db"), flags).map_err(damaged)?;
    let layout: i64 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(damaged)?;
    if layout > LAYOUT {
        return Err(OpenError::Newer { folder: folder.display().to_string(), found: layout });
    }
    let sound: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(damaged)?;
    if sound != "ok" {
        return Err(OpenError::Io(format!("it is damaged: {sound}")));
    }
    let newest: Option<i64> = connection
        .query_row("SELECT max(revision) FROM log", [], |row| row.get(0))
        .map_err(damaged)?;
    Ok(newest.unwrap_or(0).unsigned_abs())
}

/// Takes the folder for this process, or tells who has it.
fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join("lock");
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file =
        open.map_err(|error| OpenError::Io(format!("open {}: {error}", path.display())))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The number is a courtesy; without it the message is still true.
            let _unread = file.read_to_string(&mut holder);
            return Err(OpenError::InUse(format!(
                "{} is in use by another server (process {})",
                folder.display(),
                holder.trim()
            )));
        }
        Err(TryLockError::Error(error)) => {
            return Err(OpenError::Io(format!("lock {}: {error}", path.display())));
        }
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| write!(file, "{}", std::process::id()));
    written.map_err(|error| OpenError::Io(format!("write {}: {error}", path.display())))?;
    Ok(file)
}
