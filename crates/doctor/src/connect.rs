//! Which cluster.

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a server may take to be reached.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// Where the cluster is written down.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// Instead of KUBECONFIG and ~/.kube/config.
    pub kubeconfig: Option<PathBuf>,
    /// Instead of the current context.
    pub context: Option<String>,
}

/// No cluster can be asked.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no file that says where a cluster is.
    #[error(
        "there is no kubeconfig: set KUBECONFIG or give --kubeconfig FILE (`abide kubeconfig` prints a server's)"
    )]
    Nowhere,
    /// The file cannot be read or understood.
    #[error("read the kubeconfig {file}: {why}")]
    Unreadable {
        /// Which.
        file: String,
        /// Why.
        why: String,
    },
    /// The file names no such context.
    #[error("the kubeconfig has no context {0:?}: `kubectl config get-contexts` lists them")]
    NoContext(String),
    /// What the file says is no use.
    #[error("the kubeconfig says nothing that can be used: {0}")]
    Unusable(String),
}

impl Place {
    /// A client, and the namespace and address that go with it.
    pub async fn connect(&self) -> Result<(Client, String, String), ConnectError> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(ANSWER);
        let (namespace, address) =
            (config.default_namespace.clone(), config.cluster_url.to_string());
        let client =
            Client::try_from(config).map_err(|error| ConnectError::Unusable(error.to_string()))?;
        Ok((client, namespace, address))
    }

    async fn config(&self) -> Result<Config, ConnectError> {
        let options =
            KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let read = match &self.kubeconfig {
            Some(file) => Some(read(file)?),
            None => from_environment()?,
        };
        match read {
            Some(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(|error| self.explain(error)),
            // A pod of the cluster that it asks about.
            None => Config::incluster().map_err(|_| ConnectError::Nowhere),
        }
    }

    fn explain(&self, error: KubeconfigError) -> ConnectError {
        match (&error, &self.context) {
            (KubeconfigError::LoadContext(_), Some(context)) => {
                ConnectError::NoContext(context.clone())
            }
            (KubeconfigError::CurrentContextNotSet, _) => ConnectError::Unusable(
                "it names no current context; give --context NAME".to_owned(),
            ),
            _ => ConnectError::Unusable(chain(&error)),
        }
    }
}

fn read(file: &Path) -> Result<Kubeconfig, ConnectError> {
    Kubeconfig::read_from(file).map_err(|error| unreadable(file, &error))
}

fn unreadable(file: &Path, error: &KubeconfigError) -> ConnectError {
    ConnectError::Unreadable { file: file.display().to_string(), why: chain(error) }
}

/// As kubectl: the files in KUBECONFIG, those that do not exist left out; else ~/.kube/config.
fn from_environment() -> Result<Option<Kubeconfig>, ConnectError> {
    let named = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty());
    let files: Vec<PathBuf> = match named {
        Some(value) => {
            std::env::split_paths(&value).filter(|path| !path.as_os_str().is_empty()).collect()
        }
        None => std::env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect(),
    };
    let mut merged: Option<Kubeconfig> = None;
    for file in files.iter().filter(|file| file.exists()) {
        let one = read(file)?;
        merged = Some(match merged {
            None => one,
            Some(before) => before.merge(one).map_err(|error| unreadable(file, &error))?,
        });
    }
    Ok(merged)
}

/// An error with what caused it, on one line, nothing said twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text += &format!(": {more}");
        }
        source = cause.source();
    }
    text.replace('\n', " ")
}
