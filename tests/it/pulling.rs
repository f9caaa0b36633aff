//! Images from registries.

use crate::harness::{Cluster, abide, run_in};
use crate::registry::{Registry, free_port};
use std::net::TcpListener;
use std::process::Command;

/// This machine's architecture in Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A run with an image store of its own: what is pulled must not be seen by other stories.
fn outside() -> Command {
    let mut command = Command::new(abide());
    command.arg("run");
    command
}

/// A pod of one container.
fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n{more}  containers:\n  - {{name: main, image: '{image}'}}\n"
    )
}

fn until_ready(k: &Cluster, pod: &str) {
    k.sh(&format!("kubectl wait --for=condition=ready pod/{pod} --timeout=90s"));
}

/// Waits until a pod's events have one of this reason with these words.
fn until_told(k: &Cluster, pod: &str, reason: &str, words: &str) {
    k.until(
        &format!("kubectl get events --field-selector involvedObject.name={pod},reason={reason} -o jsonpath='{{.items[*].message}}'"),
        |text| text.contains(words),
    );
}

fn until_waiting(k: &Cluster, pod: &str, reason: &str) -> String {
    k.until(&format!("kubectl get pod {pod} -o jsonpath='{{.status.containerStatuses[0].state.waiting.reason}}'"), |text| text == reason);
    k.field(&format!("pod/{pod}"), ".status.containerStatuses[0].state.waiting.message")
}

#[test]
fn images_are_pulled_by_tag_and_by_digest_and_a_moved_tag_is_noticed() {
    let name = concat!(
        module_path!(),
        "::images_are_pulled_by_tag_and_by_digest_and_a_moved_tag_is_noticed"
    );
    run_in(name, outside, |k| {
        let registry = Registry::start(k, free_port());
        let ours = registry.push("team/app", "ours", architecture(), "one");
        let foreign = registry.push("team/app", "foreign", "z80", "never");
        let manifests = [(foreign.clone(), "z80"), (ours.clone(), architecture())];
        let index = registry.push_index("team/app", "latest", &manifests);
        let repository = format!("{}/team/app", registry.address);

        k.apply(&pod("tagged", &repository, ""));
        until_ready(k, "tagged");
        k.until("kubectl logs tagged", |text| text == "one\n");
        until_told(k, "tagged", "Pulling", &format!("Pulling image \"{repository}\""));
        until_told(
            k,
            "tagged",
            "Pulled",
            &format!("Successfully pulled image \"{repository}\" in "),
        );
        until_told(k, "tagged", "Pulled", "s including waiting). Image size: ");
        let image_id = k.field("pod/tagged", ".status.containerStatuses[0].imageID");
        assert_eq!(image_id, format!("{repository}@{index}"));

        k.apply(&pod("exact", &format!("{repository}@{ours}"), ""));
        until_ready(k, "exact");
        k.apply(&pod("kept", &format!("{repository}:ours"), ""));
        until_ready(k, "kept");

        // The tag moves on: `Always` (the default of `latest`) sees it, `IfNotPresent` does not.
        registry.push("team/app", "latest", architecture(), "two");
        registry.push("team/app", "ours", architecture(), "two");
        k.sh("kubectl delete pod tagged kept");
        k.apply(&pod("tagged", &repository, ""));
        until_ready(k, "tagged");
        k.until("kubectl logs tagged", |text| text == "two\n");
        k.apply(&pod("kept", &format!("{repository}:ours"), ""));
        until_ready(k, "kept");
        k.until("kubectl logs kept", |text| text == "one\n");
        until_told(k, "kept", "Pulled", "already present on machine");

        // What is not there, or not for this machine.
        k.apply(&pod("missing", &format!("{repository}:missing"), ""));
        let words = format!(
            "failed to pull and unpack image \"{repository}:missing\": failed to resolve reference \"{repository}:missing\": {repository}:missing: not found"
        );
        until_told(
            k,
            "missing",
            "Failed",
            &format!("Failed to pull image \"{repository}:missing\": {words}"),
        );
        let message = until_waiting(k, "missing", "ImagePullBackOff");
        assert_eq!(
            message,
            format!("Back-off pulling image \"{repository}:missing\": ErrImagePull: {words}")
        );
        until_told(
            k,
            "missing",
            "BackOff",
            &format!("Back-off pulling image \"{repository}:missing\""),
        );
        let shown = k.sh("kubectl get pod missing --no-headers");
        assert!(shown.contains("ImagePullBackOff") || shown.contains("ErrImagePull"), "{shown}");
        k.apply(&pod("foreign", &format!("{repository}:foreign"), ""));
        until_told(k, "foreign", "Failed", "the image is for linux/z80");

        // A registry that is gone: what is present runs on, `Always` cannot be kept.
        drop(registry);
        k.sh("kubectl delete pod tagged kept");
        k.apply(&pod("kept", &format!("{repository}:ours"), ""));
        until_ready(k, "kept");
        k.apply(&pod("tagged", &repository, ""));
        until_told(k, "tagged", "Failed", "onnection refused");
        until_told(k, "tagged", "Failed", "`abide image import`");
    });
}

#[test]
fn a_private_registry_opens_to_the_secrets_of_pods_and_accounts() {
    let name =
        concat!(module_path!(), "::a_private_registry_opens_to_the_secrets_of_pods_and_accounts");
    run_in(name, outside, |k| {
        let registry = Registry::start_private(k, free_port());
        for tag in ["1", "2", "3"] {
            registry.push("app", tag, architecture(), tag);
        }
        let repository = format!("{}/app", registry.address);
        k.apply(&pod("early", &format!("{repository}:1"), "  imagePullSecrets: [{name: key}]\n"));
        until_told(
            k,
            "early",
            "FailedToRetrieveImagePullSecret",
            "Unable to retrieve some image pull secrets (key); attempting to pull the image may not succeed.",
        );
        until_told(
            k,
            "early",
            "Failed",
            "pull access denied, repository does not exist or may require authorization: no basic auth credentials",
        );
        until_told(k, "early", "Failed", "401 Unauthorized");
        let key = format!(
            "--docker-server={} --docker-username=alice --docker-password",
            registry.address
        );
        k.sh(&format!("kubectl create secret docker-registry key {key}=secret"));
        until_ready(k, "early");

        // A secret of the pod's account serves pods that name none.
        k.sh(&format!("kubectl create secret docker-registry wrong {key}=guessed"));
        k.sh("kubectl create serviceaccount team");
        k.sh(r#"kubectl patch serviceaccount team -p '{"imagePullSecrets": [{"name": "wrong"}, {"name": "key"}]}'"#);
        k.apply(&pod("teams", &format!("{repository}:2"), "  serviceAccountName: team\n"));
        until_ready(k, "teams");

        // On the command line.
        let pull = format!("{} image pull {repository}:3", abide().display());
        let refused = k.sh_fails(&pull);
        assert!(refused.contains("no basic auth credentials"), "{refused}");
        let refused = k.sh_fails(&format!("{pull} --creds alice:guessed"));
        assert!(refused.contains("401 Unauthorized"), "{refused}");
        let pulled = k.sh(&format!("echo secret | {pull} --creds alice"));
        assert!(pulled.starts_with(&format!("{repository}@sha256:")), "{pulled}");
        k.file(
            "credentials.json",
            &format!(
                r#"{{"auths": {{"{}": {{"username": "alice", "password": "secret"}}}}}}"#,
                registry.address
            ),
        );
        k.sh(&format!("{pull} --registry-config credentials.json"));
        k.apply(&pod("present", &format!("{repository}:3"), ""));
        until_ready(k, "present");
        until_told(k, "present", "Pulled", "already present on machine");
    });
}

#[test]
fn a_mirror_serves_the_public_registrys_images_and_brought_ones_need_none() {
    let name = concat!(
        module_path!(),
        "::a_mirror_serves_the_public_registrys_images_and_brought_ones_need_none"
    );
    let with_mirror = || {
        let port = free_port().to_string();
        let mut command = outside();
        command.args(["--registry-mirror", &format!("docker.io=http://127.0.0.1:{port}")]);
        command.env("ABIDE_E2E_PORT", port);
        command
    };
    run_in(name, with_mirror, |k| {
        let port = std::env::var("ABIDE_E2E_PORT").unwrap().parse().unwrap();
        let registry = Registry::start(k, port);
        let digest = registry.push("library/busybox", "latest", architecture(), "mirrored");
        k.apply(&pod("mirrored", "busybox", ""));
        until_ready(k, "mirrored");
        k.until("kubectl logs mirrored", |text| text == "mirrored\n");
        let image_id = k.field("pod/mirrored", ".status.containerStatuses[0].imageID");
        assert_eq!(image_id, format!("docker.io/library/busybox@{digest}"));

        // On the command line, at a terminal.
        registry.push("library/busybox", "2", architecture(), "two");
        let abide = abide();
        let shown = k.at_terminal(&format!(
            "{} image pull busybox:2 --registry-mirror docker.io=http://{}",
            abide.display(),
            registry.address
        ));
        assert!(shown.contains("docker.io/library/busybox@sha256:"), "{shown}");
        let shown = k.at_terminal(&format!("{} image remove busybox && {0} image remove busybox:2 && {0} image pull busybox:2 --registry-mirror docker.io=http://{}", abide.display(), registry.address));
        assert!(shown.contains(" MiB"), "{shown}");

        // What is brought under a name is what that name means, also with `Always` and without a registry.
        drop(registry);
        let always = "imagePullPolicy: Always, image: ";
        k.apply(&pod("brought", "busybox:2", "").replace("image: ", always));
        until_ready(k, "brought");
        until_told(k, "brought", "Pulled", "already present on machine");
        k.sh(&format!(
            "tar cf own.tar image/oci-layout && {} image import own.tar --name own",
            abide.display()
        ));
        k.apply(
            &pod("own", "own", "")
                .replace("image: 'own'", "image: own, imagePullPolicy: Always, command: [/none]"),
        );
        until_told(k, "own", "Pulled", "already present on machine");
        let refused = k.sh_fails(&format!("{} image pull 127.0.0.1:1/nothing", abide.display()));
        assert!(
            refused.contains("onnection refused") && refused.contains("`abide image import`"),
            "{refused}"
        );
    });
}

#[test]
fn a_pod_that_is_deleted_does_not_wait_for_its_image() {
    let name = concat!(module_path!(), "::a_pod_that_is_deleted_does_not_wait_for_its_image");
    run_in(name, outside, |k| {
        // Connections are made, and nobody ever answers.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let image = format!("{}/app:1", silent.local_addr().unwrap());
        k.apply(&pod("waiting", &image, ""));
        until_told(k, "waiting", "Pulling", &format!("Pulling image \"{image}\""));
        assert_eq!(until_waiting(k, "waiting", "ContainerCreating"), "");
        k.sh("kubectl delete pod waiting --timeout=30s");
    });
}
