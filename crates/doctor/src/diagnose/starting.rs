//! Containers that cannot be started: images, configuration, mounts (G1).

use super::claims::edit;
use super::workload;
use super::world::{World, name, object, space, told};
use crate::finding::{Finding, Severity, evidence, hint, step};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// Whether a container waits for something that does not come by waiting.
pub(super) fn look(world: World<'_>, pod: &Pod, status: &ContainerStatus) -> Option<Finding> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let message = waiting.message.as_deref().unwrap_or_default();
    match waiting.reason.as_deref()? {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable" => Some(image(world, pod, status, message)),
        "InvalidImageName" => Some(bad_name(world, pod, status, message)),
        reason @ ("CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "StartError") => Some(cannot_start(world, pod, status, reason, message)),
        _ => None,
    }
}

fn image_of<'a>(pod: &'a Pod, status: &'a ContainerStatus) -> &'a str {
    let spec = pod.spec.as_ref();
    let mut containers = spec
        .into_iter()
        .flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    containers
        .find(|container| container.name == status.name)
        .and_then(|c| c.image.as_deref())
        .unwrap_or(&status.image)
}

fn image(world: World<'_>, pod: &Pod, status: &ContainerStatus, message: &str) -> Finding {
    let (image, pod_name, space) =
        (image_of(pod, status), name(&pod.metadata), space(&pod.metadata));
    let event = world.last_event("Pod", &pod.metadata, &["Failed", "ErrImageNeverPull"], image);
    let finding = Finding::new(
        "image",
        Severity::Problem,
        object("Pod", &pod.metadata),
        format!(
            "container {} of {pod_name} does not start: its image {image} cannot be had",
            status.name
        ),
    )
    .seen(format!("container {} of pod {pod_name}", status.name), message)
    .seen_all(event.map(told));
    let words = format!(
        "{message} {}",
        event.and_then(|event| event.message.as_deref()).unwrap_or_default()
    )
    .to_lowercase();
    let finding = if world.0.on_abide {
        finding.because("The node does not have the image, and could not pull it.").step(
            "Give the node the image, from an archive (`docker save` or `podman save` writes one)",
            format!("abide image import IMAGE.tar --name {image}"),
        )
    } else if words.contains("unauthorized")
        || words.contains("denied")
        || words.contains("authentication")
    {
        finding.because("The registry lets the node have it only with a password, or there is no such image.").step(
            "Make a Secret with the registry's password, and name it in the template's imagePullSecrets",
            format!("kubectl create secret docker-registry -n {space} registry --docker-server=SERVER --docker-username=USER --docker-password=PASSWORD"),
        )
    } else if words.contains("not found") || words.contains("manifest unknown") {
        finding.because("The registry has no image of that name and tag.")
    } else {
        finding.because("The node could not get it from its registry.")
    };
    rename(world, pod, status, finding)
}

fn rename(world: World<'_>, pod: &Pod, status: &ContainerStatus, finding: Finding) -> Finding {
    match workload(world, pod) {
        Some(workload) => finding.step(
            "Or correct the name (write the right one); a pod that waits already may have to be deleted afterwards",
            format!("kubectl set image -n {} {workload} {}=IMAGE", space(&pod.metadata), status.name),
        ),
        None => finding.hint("Or correct the name in the pod's manifest, and create it again"),
    }
}

fn bad_name(world: World<'_>, pod: &Pod, status: &ContainerStatus, message: &str) -> Finding {
    let (image, pod_name) = (image_of(pod, status), name(&pod.metadata));
    let finding = Finding::new(
        "image-name",
        Severity::Problem,
        object("Pod", &pod.metadata),
        format!(
            "container {} of {pod_name} does not start: {image:?} is not the name of an image",
            status.name
        ),
    )
    .because("An image's name is [server/]path[:tag], in small letters.")
    .seen(format!("container {} of pod {pod_name}", status.name), message);
    rename(world, pod, status, finding)
}

fn cannot_start(
    world: World<'_>,
    pod: &Pod,
    status: &ContainerStatus,
    reason: &str,
    message: &str,
) -> Finding {
    let pod_name = name(&pod.metadata);
    let finding = Finding::new(
        "cannot-start",
        Severity::Problem,
        object("Pod", &pod.metadata),
        format!("container {} of {pod_name} cannot be started ({reason})", status.name),
    )
    .seen(format!("container {} of pod {pod_name}", status.name), message);
    let advice = if message.contains("couldn't find key") {
        finding
            .because("A ConfigMap or Secret lacks a key that the container takes a variable from.")
            .hint("Add the key, or correct its name in the template (`valueFrom`)")
    } else if message.contains("runAsNonRoot") {
        finding
            .because("The template says runAsNonRoot, and the image runs as root.")
            .hint("Say which user it shall be: securityContext.runAsUser")
    } else if message.contains("executable file not found") || message.contains("no such file") {
        finding.because("The image has no such program.").hint("Correct `command`")
    } else {
        finding.because("The runtime says why.")
    };
    advice.steps(vec![edit(world, pod, "Change the template")])
}

/// ConfigMaps and Secrets that a pod needs and that do not exist.
pub(super) fn missing(world: World<'_>, pod: &Pod) -> Option<Finding> {
    let runs = super::world::statuses(pod)
        .iter()
        .any(|(status, _)| status.container_id.as_ref().is_some_and(|id| !id.is_empty()));
    if runs {
        return None; // What it needs it was given.
    }
    let wants = wants(pod.spec.as_ref()?);
    let absent = |kind: &str, seen: &Option<Vec<ObjectMeta>>| {
        let seen = seen.as_ref()?;
        let here = space(&pod.metadata);
        wants
            .iter()
            .filter(|((wanted, _), _)| *wanted == kind)
            .find(|((_, wanted), _)| {
                !seen.iter().any(|found| name(found) == wanted && space(found) == here)
            })
            .map(|((_, wanted), keys)| (wanted.clone(), keys.clone()))
    };
    absent("ConfigMap", &world.0.config_maps)
        .map(|(missing, keys)| tell_missing(world, pod, "ConfigMap", &missing, &keys))
        .or_else(|| {
            absent("Secret", &world.0.secrets)
                .map(|(missing, keys)| tell_missing(world, pod, "Secret", &missing, &keys))
        })
}

fn tell_missing(
    world: World<'_>,
    pod: &Pod,
    kind: &str,
    missing: &str,
    keys: &[String],
) -> Finding {
    let (space, pod_name) = (space(&pod.metadata), name(&pod.metadata));
    let values: Vec<String> = if keys.is_empty() { vec!["KEY".to_owned()] } else { keys.to_vec() };
    let values: Vec<String> =
        values.iter().map(|key| format!("--from-literal={key}=VALUE")).collect();
    let verb = if kind == "Secret" { "secret generic" } else { "configmap" };
    let event = world.last_event("Pod", &pod.metadata, &["FailedMount", "Failed"], missing);
    let waiting = super::world::statuses(pod).into_iter().find_map(|(status, _)| {
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        let message = waiting.message.as_deref().filter(|message| message.contains(missing))?;
        Some(evidence(format!("container {} of pod {pod_name}", status.name), message))
    });
    Finding::new(
        if kind == "Secret" { "secret-missing" } else { "configmap-missing" },
        Severity::Problem,
        object("Pod", &pod.metadata),
        format!("{pod_name} does not start: the {kind} {missing} does not exist"),
    )
    .because(format!("The pod takes a volume or variables from {kind} {missing} in namespace {space}, and waits until there is one."))
    .seen_all(event.map(told))
    .seen_all(waiting)
    .steps(vec![
        step(
            format!("Create it (write the values{}); the pod goes on by itself", if keys.is_empty() { " and keys" } else { "" }),
            format!("kubectl create {verb} -n {space} {missing} {}", values.join(" ")),
        ),
        hint(format!("If it exists in another namespace or under another name, create it here too, or correct the name in the template: a pod sees only what is in namespace {space}")),
    ])
}

/// What a pod needs: kind and name, with the keys that it asks for.
fn wants(spec: &PodSpec) -> BTreeMap<(&'static str, String), Vec<String>> {
    let mut wants: BTreeMap<(&'static str, String), Vec<String>> = BTreeMap::new();
    let mut want = |kind: &'static str, name: &str, optional: Option<bool>, key: Option<&str>| {
        if !name.is_empty() && optional != Some(true) {
            let keys = wants.entry((kind, name.to_owned())).or_default();
            keys.extend(
                key.filter(|key| !keys.iter().any(|known| known == key)).map(str::to_owned),
            );
        }
    };
    for volume in spec.volumes.iter().flatten() {
        if let Some(source) = &volume.config_map {
            want("ConfigMap", &source.name, source.optional, None);
        }
        if let Some(source) = &volume.secret {
            want(
                "Secret",
                source.secret_name.as_deref().unwrap_or_default(),
                source.optional,
                None,
            );
        }
        for source in
            volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten())
        {
            if let Some(source) = &source.config_map {
                want("ConfigMap", &source.name, source.optional, None);
            }
            if let Some(source) = &source.secret {
                want("Secret", &source.name, source.optional, None);
            }
        }
    }
    let containers: Vec<&Container> =
        spec.init_containers.iter().flatten().chain(&spec.containers).collect();
    for container in containers {
        for source in container.env_from.iter().flatten() {
            if let Some(source) = &source.config_map_ref {
                want("ConfigMap", &source.name, source.optional, None);
            }
            if let Some(source) = &source.secret_ref {
                want("Secret", &source.name, source.optional, None);
            }
        }
        for source in
            container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref())
        {
            if let Some(source) = &source.config_map_key_ref {
                want("ConfigMap", &source.name, source.optional, Some(&source.key));
            }
            if let Some(source) = &source.secret_key_ref {
                want("Secret", &source.name, source.optional, Some(&source.key));
            }
        }
    }
    wants
}
