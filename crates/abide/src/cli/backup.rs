//! `abide backup` and `abide restore`: a cluster in one file.
//!
//! ```text
//! FILE (tar, gzip)   abide-backup.json   what it is, and of which server
//!                    state/state.db      the store at one revision
//!                    pki/                the cluster's keys, so that kubeconfigs and pods go on trusting it
//!                    volumes/            what claims hold, on request
//! ```
//!
//! The program `tar` packs and unpacks: it knows sparse files, hard links, extended attributes and owners.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// The layout of a backup; a newer one is refused.
const LAYOUT: u32 = 1;
const ABOUT: &str = "abide-backup.json";

/// Flags of `abide backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Backup {
    /// Where the backup is written; must not exist.
    file: PathBuf,
    /// The server's data directory.
    #[arg(long, env = "ABIDE_DATA_DIR", default_value = "/var/lib/abide")]
    data_dir: PathBuf,
    /// Also what the claims' volumes hold. Files that a program is writing are copied as they are at that moment: for a
    /// copy at one moment scale the set to 0 first, or keep the database's own dump in a claim.
    #[arg(long)]
    volumes: bool,
}

/// Flags of `abide restore`.
#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// The backup.
    file: PathBuf,
    /// The data directory that is made; must be absent or empty.
    #[arg(long, env = "ABIDE_DATA_DIR", default_value = "/var/lib/abide")]
    data_dir: PathBuf,
}

/// What a backup says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    layout: u32,
    abide: String,
    created: jiff::Timestamp,
    data_dir: PathBuf,
    revision: u64,
    volumes: bool,
}

impl Backup {
    /// Writes the backup, beside a running server or without one.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let data_dir = std::path::absolute(&self.data_dir)?;
        if self.file.exists() {
            bail!("{} exists already: name another file, or remove it", self.file.display());
        }
        if !data_dir.join("state/state.db").is_file() {
            bail!("there is no cluster in {}: name its folder with --data-dir", data_dir.display());
        }
        // Beside the state, on a disk that has room for it and that root alone reads.
        let staging = Scratch::make(data_dir.join(format!("backup-{}", std::process::id())))?;
        let about = About {
            layout: LAYOUT,
            abide: env!("CARGO_PKG_VERSION").to_owned(),
            created: jiff::Timestamp::now(),
            revision: self.copy_state(&data_dir, &staging.0)?,
            volumes: self.volumes,
            data_dir: data_dir.clone(),
        };
        std::fs::write(staging.0.join(ABOUT), serde_json::to_string_pretty(&about)?)
            .with_context(|| format!("write to {}", staging.0.display()))?;
        self.pack(&data_dir, &staging.0)?;
        let size = self.file.metadata()?.len() as f64 / 1_048_576.0;
        let file = self.file.display();
        Ok(super::print(&format!(
            "{file}: revision {}, {}, {size:.1} MiB\nIt holds the cluster's keys and Secrets: keep it as you keep those. \
             Images are not in it.\n",
            about.revision,
            if self.volumes { "with volumes" } else { "without volumes (--volumes adds them)" }
        )))
    }

    fn copy_state(&self, data_dir: &Path, staging: &Path) -> Result<u64> {
        let state = staging.join("state");
        std::fs::create_dir(&state).with_context(|| format!("make {}", state.display()))?;
        store::embedded::back_up(&data_dir.join("state"), &state)
            .with_context(|| format!("copy the store in {}", data_dir.display()))
    }

    fn pack(&self, data_dir: &Path, staging: &Path) -> Result<()> {
        let partial = self.file.with_extension("partial");
        let output = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)
            .with_context(|| format!("make {}", partial.display()))?;
        let mut tar = tar();
        tar.args(["--create", "--gzip", "--sparse", "--warning=no-file-changed"]);
        tar.arg("--directory").arg(staging).args([ABOUT, "state"]);
        tar.arg("--directory").arg(data_dir).arg("pki");
        if self.volumes && data_dir.join("volumes").is_dir() {
            tar.arg("volumes");
        }
        let packed = tar.stdout(output.try_clone()?).status().context("start tar");
        let written = packed.and_then(|status| match status.code() {
            // 1: a file changed while it was read, which is said in --help.
            Some(0 | 1) => output.sync_all().context("write the backup to disk"),
            _ => bail!("tar ended with {status}"),
        });
        let done = written.and_then(|()| {
            std::fs::rename(&partial, &self.file)
                .with_context(|| format!("rename {}", partial.display()))
        });
        if done.is_err() {
            // The first error says more.
            let _removed = std::fs::remove_file(&partial);
        }
        done
    }
}

impl Restore {
    /// Makes the data directory from a backup, all of it or nothing.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let data_dir = std::path::absolute(&self.data_dir)?;
        let occupied =
            std::fs::read_dir(&data_dir).is_ok_and(|mut entries| entries.next().is_some());
        if occupied {
            bail!(
                "{} is not empty: stop the server and move the folder away, or choose another with --data-dir",
                data_dir.display()
            );
        }
        let about = self.about()?;
        if about.layout > LAYOUT {
            bail!(
                "{} was written by abide {}: use that version or a newer one",
                self.file.display(),
                about.abide
            );
        }
        if about.data_dir != data_dir {
            bail!(
                "the cluster's volumes are known by their paths under {0}: restore with --data-dir {0}",
                about.data_dir.display()
            );
        }
        let parent = data_dir.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        let mut name = data_dir.file_name().unwrap_or_default().to_owned();
        name.push(".restoring");
        let scratch = Scratch::make(parent.join(name))?;
        let status = tar()
            .args(["--extract", "--gzip", "--same-owner", "--preserve-permissions", "--file"])
            .arg(&self.file)
            .arg("--directory")
            .arg(&scratch.0)
            .status()
            .context("start tar")?;
        if !status.success() {
            bail!(
                "{} cannot be unpacked (tar ended with {status}); nothing was changed",
                self.file.display()
            );
        }
        let revision = store::embedded::check(&scratch.0.join("state"))
            .with_context(|| format!("read the store in {}", self.file.display()))?;
        if revision != about.revision {
            bail!(
                "{} is damaged: it has revision {revision} and says {}",
                self.file.display(),
                about.revision
            );
        }
        if data_dir.exists() {
            std::fs::remove_dir(&data_dir)
                .with_context(|| format!("replace {}", data_dir.display()))?;
        }
        scratch.become_folder(&data_dir)?;
        Ok(super::print(&format!(
            "{}: revision {revision} of {}, {} volumes\nStart the server with this data directory, and import the images \
             that it cannot pull.\n",
            data_dir.display(),
            about.created.strftime("%F %T UTC"),
            if about.volumes { "with" } else { "without" }
        )))
    }

    fn about(&self) -> Result<About> {
        std::fs::File::open(&self.file).with_context(|| format!("open {}", self.file.display()))?;
        let output = tar()
            .args(["--extract", "--gzip", "--to-stdout", "--occurrence=1", "--file"])
            .arg(&self.file)
            .arg(ABOUT)
            .stderr(Stdio::null())
            .output()
            .context("start tar")?;
        serde_json::from_slice(&output.stdout)
            .ok()
            .with_context(|| format!("{} is no backup of abide", self.file.display()))
    }
}

fn tar() -> Command {
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "--xattrs", "--acls"]).stdin(Stdio::null());
    tar
}

/// A folder that is removed unless it becomes something.
struct Scratch(PathBuf);

impl Scratch {
    fn make(path: PathBuf) -> Result<Scratch> {
        use std::os::unix::fs::DirBuilderExt;
        if path.exists() {
            // Left by one that was killed.
            std::fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("make {}", path.display()))?;
        Ok(Scratch(path))
    }

    fn become_folder(self, path: &Path) -> Result<()> {
        let about = self.0.join(ABOUT);
        std::fs::remove_file(&about).with_context(|| format!("remove {}", about.display()))?;
        std::fs::rename(&self.0, path).with_context(|| format!("make {}", path.display()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                eprintln!("warning: {} could not be removed: {error}", self.0.display());
            }
            _ => {}
        }
    }
}
