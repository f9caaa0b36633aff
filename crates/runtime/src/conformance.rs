//! What every [`ContainerRuntime`] and every [`ImageStore`] must do, as a test that takes one.

use crate::images::registries::Keyring;
use crate::{
    ContainerConfig, ContainerRuntime, ContainerState, ImageStore, PullError, RuntimeError,
    SandboxConfig,
};
use std::path::Path;
use std::time::Duration;

/// One sandbox and one container from beginning to end, every verb repeated where it must be idempotent.
/// `command` must run until it is stopped on a real runtime, or is ignored by a fake.
///
/// # Panics
/// Where the runtime breaks the contract.
pub async fn life_cycle(
    runtime: &dyn ContainerRuntime,
    image_id: &str,
    logs: &Path,
    command: &[&str],
) {
    let config = SandboxConfig {
        id: "conformance".into(),
        hostname: "conformance".into(),
        ..SandboxConfig::default()
    };
    assert!(
        matches!(runtime.status(&config.id).await, Err(RuntimeError::NotFound(_))),
        "no sandbox yet"
    );
    let status = runtime.run_pod_sandbox(&config).await.expect("run_pod_sandbox");
    assert!(status.ready, "a new sandbox is ready");
    assert_eq!(status.config, config, "a sandbox remembers its configuration");
    assert!(status.network_namespace.is_some(), "an own network namespace is told");
    let again = runtime.run_pod_sandbox(&config).await.expect("run_pod_sandbox is idempotent");
    assert_eq!(again, status, "the same sandbox is given back");

    let container = ContainerConfig {
        name: "main".into(),
        image_id: image_id.into(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        log_path: logs.join("main/0.log"),
        ..ContainerConfig::default()
    };
    let missing = runtime.create_container("nowhere", &container).await;
    assert!(
        matches!(missing, Err(RuntimeError::NotFound(_))),
        "a sandbox that is not there has no containers"
    );
    let id = runtime.create_container(&config.id, &container).await.expect("create_container");
    assert_eq!(id.len(), 64, "container ids are 64 hexadecimal digits");
    assert!(
        runtime.create_container(&config.id, &container).await.is_err(),
        "name and attempt are unique"
    );
    assert_eq!(state(runtime, &config.id, &id).await, ContainerState::Created);
    let exec = runtime.exec(&config.id, &id, crate::ExecRequest::default()).await;
    assert!(matches!(exec, Err(RuntimeError::NotRunning(_))), "no exec before the start");

    runtime.start_container(&config.id, &id).await.expect("start_container");
    assert!(
        matches!(state(runtime, &config.id, &id).await, ContainerState::Running { .. }),
        "it runs"
    );
    assert!(runtime.start_container(&config.id, &id).await.is_err(), "a container is started once");
    assert!(
        runtime.remove_container(&config.id, &id).await.is_err(),
        "a running container is not removed"
    );

    runtime.stop_container(&config.id, &id, Duration::from_secs(20)).await.expect("stop_container");
    let ended = state(runtime, &config.id, &id).await;
    assert!(
        matches!(ended, ContainerState::Exited { started_at: 1.., finished_at: 1.., .. }),
        "it ended: {ended:?}"
    );
    runtime
        .stop_container(&config.id, &id, Duration::ZERO)
        .await
        .expect("stop_container is idempotent");
    assert_eq!(state(runtime, &config.id, &id).await, ended, "an exit is told once and for all");
    runtime.remove_container(&config.id, &id).await.expect("remove_container");
    runtime.remove_container(&config.id, &id).await.expect("remove_container is idempotent");

    runtime.stop_pod_sandbox(&config.id).await.expect("stop_pod_sandbox");
    runtime.stop_pod_sandbox(&config.id).await.expect("stop_pod_sandbox is idempotent");
    assert!(
        !runtime.status(&config.id).await.expect("status").ready,
        "a stopped sandbox is not ready"
    );
    runtime.remove_pod_sandbox(&config.id).await.expect("remove_pod_sandbox");
    runtime.remove_pod_sandbox(&config.id).await.expect("remove_pod_sandbox is idempotent");
    assert!(
        matches!(runtime.status(&config.id).await, Err(RuntimeError::NotFound(_))),
        "nothing is left"
    );
}

async fn state(runtime: &dyn ContainerRuntime, sandbox: &str, id: &str) -> ContainerState {
    let status = runtime.status(sandbox).await.expect("status");
    status
        .containers
        .into_iter()
        .find(|container| container.id == id)
        .expect("the container is listed")
        .state
}

/// What a store says of an image that is present under `name`, and of one that is not.
///
/// # Panics
/// Where the store breaks the contract.
pub async fn images(store: &dyn ImageStore, name: &str) {
    let image = store.resolve(name).await.expect("resolve").expect("the image is present");
    assert!(image.id.starts_with("sha256:"), "ids are digests");
    assert_eq!(
        store.resolve(&image.id).await.expect("resolve"),
        Some(image.clone()),
        "an id names its image"
    );
    for known in &image.names {
        assert_eq!(
            store.resolve(known).await.expect("resolve").as_ref(),
            Some(&image),
            "{known} names the image"
        );
    }
    assert!(store.list().await.expect("list").contains(&image), "a present image is listed");
    assert_eq!(store.resolve("absent.example/nothing:1").await.expect("resolve"), None);
    assert!(matches!(
        store.remove("absent.example/nothing:1").await,
        Err(RuntimeError::NotFound(_))
    ));
    // Nothing listens at port 1.
    assert!(matches!(
        store.pull("127.0.0.1:1/nothing:1", &Keyring::default()).await,
        Err(PullError::Failed(_))
    ));
    assert!(matches!(
        store.pull("Not A Name", &Keyring::default()).await,
        Err(PullError::InvalidName(_))
    ));
    store.remove(name).await.expect("remove");
    assert_eq!(store.resolve(name).await.expect("resolve"), None, "a removed name is gone");
}
