//! `abide doctor`: why is it not up, and what to do.

use anyhow::{Context, Result};
use doctor::{Diagnosis, Subject, Target, connect, observe, report};
use std::path::PathBuf;
use std::process::ExitCode;

/// What the question could not be answered is told with.
const NO_ANSWER: u8 = 2;

/// Flags of `abide doctor`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 everything is up and there is nothing to say; 1 there are findings, also when \
    something is only not up yet; 2 the question could not be answered.\n\nWorks with any Kubernetes cluster, changes \
    nothing, and never reads the content of a Secret."
)]
pub(crate) struct Arguments {
    /// What is asked about, for example sts/web, pod/web-0, pvc/www-web-0, svc/nginx; everything if not given.
    #[arg(value_name = "KIND/NAME", value_parser = Target::parse)]
    object: Option<Target>,
    /// The namespace; that of the context if not given.
    #[arg(short, long)]
    namespace: Option<String>,
    /// All namespaces.
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "object"])]
    all_namespaces: bool,
    /// How the answer is written.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    /// Where the cluster is; KUBECONFIG or ~/.kube/config if not given.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Which of the kubeconfig's contexts; its current one if not given.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Arguments {
    /// Asks, decides, tells.
    pub(crate) fn run(self) -> Result<ExitCode> {
        let output = self.output;
        match self.ask() {
            Ok(diagnosis) => {
                let text = match output {
                    Output::Text => report::text(&diagnosis),
                    Output::Json => report::json(&diagnosis),
                };
                let printed = super::print(&text);
                Ok(if diagnosis.healthy { printed } else { ExitCode::FAILURE })
            }
            Err(error) => {
                eprintln!("abide: {error:#}");
                Ok(ExitCode::from(NO_ANSWER))
            }
        }
    }

    fn ask(self) -> Result<Diagnosis> {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("a TLS provider is already installed");
        }
        let flags = self.flags();
        let place = connect::Place { kubeconfig: self.kubeconfig, context: self.context };
        let diagnosis = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the runtime")?
            .block_on(async {
                let (client, default, address) = place.connect().await?;
                let namespace = (!self.all_namespaces).then(|| self.namespace.unwrap_or(default));
                let subject = Subject { namespace, target: self.object };
                let observed = observe::observe(&client, &address, &subject).await?;
                anyhow::Ok(doctor::diagnose(&observed, &subject))
            })?;
        Ok(report::with_flags(diagnosis, &flags))
    }

    /// What kubectl has to be told to mean the same cluster.
    fn flags(&self) -> String {
        let file = self
            .kubeconfig
            .as_ref()
            .map(|file| format!("--kubeconfig={}", quoted(&file.display().to_string())));
        let context = self.context.as_ref().map(|context| format!("--context={}", quoted(context)));
        file.into_iter().chain(context).collect::<Vec<_>>().join(" ")
    }
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
