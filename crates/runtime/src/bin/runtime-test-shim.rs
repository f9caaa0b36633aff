//! What the program's hidden subcommand `shim` is, alone: for this crate's own tests.
//!
//! With `serve DIR STORE CGROUP LOG` (or `serve-ephemeral`) it stands for a server that starts one container and then waits to be killed.

use runtime::embedded::{Config, EmbeddedRuntime, Shim};
use runtime::images::Images;
use runtime::{ContainerConfig, ContainerRuntime, ImageStore, SandboxConfig};
use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.as_slice() {
        [verb, dir, store, cgroup, log] if verb == "serve" || verb == "serve-ephemeral" => {
            let (dir, store, log) = (Path::new(dir), Path::new(store), Path::new(log));
            let result =
                serve(dir, store, &cgroup.to_string_lossy(), log, verb == "serve-ephemeral");
            if let Err(error) = result {
                // The test reads it; where it cannot be written there is no test.
                let _ = writeln!(std::io::stderr(), "{error}");
            }
            ExitCode::FAILURE
        }
        _ => runtime::shim::main(args),
    }
}

/// Starts a container that counts, says its id, and stays until it is killed.
fn serve(
    dir: &Path,
    store: &Path,
    cgroup: &str,
    log: &Path,
    ephemeral: bool,
) -> Result<(), Box<dyn Error>> {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio.block_on(async {
        let images = Arc::new(Images::open(store)?);
        let image = images.resolve("busybox").await?.ok_or("no image")?;
        let runtime = EmbeddedRuntime::new(Config {
            state_dir: dir.to_owned(),
            images,
            cgroup_parent: cgroup.to_owned(),
            shim: Shim { executable: "/proc/self/exe".into(), arguments: Vec::new() },
            ephemeral,
        })?;
        runtime.run_pod_sandbox(&SandboxConfig { id: "pod".into(), hostname: "pod".into(), ..Default::default() }).await?;
        let config = ContainerConfig {
            name: "main".into(),
            image_id: image.id,
            command: ["sh", "-c", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; usleep 500; done; exit 42"]
                .map(str::to_owned)
                .to_vec(),
            log_path: log.to_owned(),
            ..ContainerConfig::default()
        };
        let id = runtime.create_container("pod", &config).await?;
        runtime.start_container("pod", &id).await?;
        writeln!(std::io::stdout(), "{id}")?;
        std::future::pending().await
    })
}
