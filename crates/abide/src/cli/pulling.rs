//! How images are pulled: the flags that say where from, and `abide image pull` itself.

use anyhow::{Context, Result};
use runtime::Image;
use runtime::images::Images;
use runtime::images::pull::Progress;
use runtime::images::reference::Reference;
use runtime::images::registries::{self, Credential, Keyring, Mirror};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A server's own credentials, in its data directory.
const CREDENTIALS_FILE: &str = "registry-config.json";

/// Where images are pulled from.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Registries {
    /// A place that is asked for a registry's images before the registry itself (docker.io=http://127.0.0.1:5000).
    #[arg(long = "registry-mirror", value_name = "REGISTRY=URL")]
    mirrors: Vec<Mirror>,
    /// Credentials for registries, a file as Docker's config.json; DATA_DIR/registry-config.json if not given.
    #[arg(long = "registry-config", value_name = "FILE")]
    registry_config: Option<PathBuf>,
}

impl Registries {
    /// The same, with paths that hold in any working directory. A file that is named must be there.
    pub(crate) fn absolute(mut self) -> Result<Registries> {
        if let Some(file) = &mut self.registry_config {
            *file = std::path::absolute(&*file)?;
            std::fs::metadata(&*file)
                .with_context(|| format!("read credentials from {}", file.display()))?;
        }
        Ok(self)
    }

    /// As flags.
    pub(crate) fn flags(&self) -> Vec<OsString> {
        let mut flags: Vec<OsString> = Vec::new();
        for mirror in &self.mirrors {
            flags.extend(["--registry-mirror".into(), mirror.to_string().into()]);
        }
        if let Some(file) = &self.registry_config {
            flags.extend(["--registry-config".into(), file.into()]);
        }
        flags
    }

    /// For a server: its own file.
    pub(crate) fn for_a_server(self, data_dir: &Path) -> registries::Registries {
        let file = self.registry_config.unwrap_or_else(|| data_dir.join(CREDENTIALS_FILE));
        registries::Registries::new(self.mirrors, Some(file))
    }

    /// For a command: the server's file, or else what `docker login` has written.
    pub(crate) fn for_a_user(self, data_dir: &Path) -> registries::Registries {
        let of_the_server = data_dir.join(CREDENTIALS_FILE);
        let file = match self.registry_config {
            Some(file) => Some(file),
            None if of_the_server.exists() => Some(of_the_server),
            None => docker_config(),
        };
        registries::Registries::new(self.mirrors, file)
    }
}

fn docker_config() -> Option<PathBuf> {
    let named = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder =
        named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))?;
    Some(folder.join("config.json"))
}

/// Pulls an image, and says on a terminal how far it is.
pub(super) async fn pull(images: &Images, reference: &str, creds: Option<&str>) -> Result<Image> {
    let keyring = match (creds, Reference::parse(reference)) {
        (Some(creds), Ok(name)) => Keyring::for_registry(&name.domain, credential(creds)?),
        // A name that cannot be read is complained about by the pull.
        _ => Keyring::default(),
    };
    let terminal = Terminal::default();
    let progress: &dyn Progress = if std::io::stderr().is_terminal() { &terminal } else { &() };
    Ok(images.bring(reference, &keyring, progress).await?)
}

fn credential(creds: &str) -> Result<Credential> {
    let (user, password) = match creds.split_once(':') {
        Some((user, password)) => (user, password.to_owned()),
        None => {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).context("read the password")?;
            (creds, line.trim_end_matches(['\r', '\n']).to_owned())
        }
    };
    Ok(Credential::Basic { user: user.to_owned(), password })
}

/// One line per layer, written again as bytes arrive.
#[derive(Debug, Default)]
struct Terminal(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    layers: BTreeMap<String, (u64, u64)>,
    written: usize,
}

impl Progress for Terminal {
    fn layer(&self, digest: &str, here: u64, size: u64) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.layers.insert(digest.to_owned(), (here, size));
        let text = lines.text();
        lines.written = lines.layers.len();
        // Progress that cannot be shown is no reason to stop.
        let _unseen = std::io::stderr().write_all(text.as_bytes());
    }

    fn unpacking(&self) {
        let _unseen = writeln!(std::io::stderr(), "unpacking");
    }
}

impl Lines {
    /// Goes up to the first line and writes each anew.
    fn text(&self) -> String {
        let up = if self.written > 0 { format!("\x1b[{}A", self.written) } else { String::new() };
        self.layers.iter().fold(up, |text, (digest, (here, size))| {
            let short: String = digest.trim_start_matches("sha256:").chars().take(12).collect();
            let mib = |bytes: &u64| *bytes as f64 / 1_048_576.0;
            text + &format!("\x1b[2K{short}  {:.1} / {:.1} MiB\n", mib(here), mib(size))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_has_a_line_that_is_written_again() {
        let mut lines = Lines::default();
        lines.layers.insert("sha256:0123456789abcdef".into(), (524_288, 1_048_576));
        assert_eq!(lines.text(), "\u{1b}[2K0123456789ab  0.5 / 1.0 MiB\n");
        lines.written = 1;
        assert!(lines.text().starts_with("\u{1b}[1A\u{1b}[2K"));
    }

    #[test]
    fn flags_are_handed_on_as_they_were_given() {
        let mirror = "docker.io=http://127.0.0.1:5000/".parse().unwrap();
        let registries = Registries { mirrors: vec![mirror], registry_config: Some("/f".into()) };
        assert_eq!(
            registries.flags(),
            ["--registry-mirror", "docker.io=http://127.0.0.1:5000/", "--registry-config", "/f"]
        );
    }

    #[test]
    fn a_password_may_hold_colons() {
        let expected = Credential::Basic { user: "u".into(), password: "p:q".into() };
        assert!(credential("u:p:q").unwrap() == expected);
    }
}
