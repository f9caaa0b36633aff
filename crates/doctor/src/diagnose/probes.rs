//! Containers that run and are not Ready.

use super::claims::edit;
use super::world::{PATIENCE, World, duration, name, object, space, statuses, told};
use crate::finding::{Evidence, Finding, Severity, evidence};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, Probe};

/// How many of the last lines are quoted.
const QUOTED: usize = 3;

/// A container that runs and whose readiness or startup probe does not succeed.
pub(super) fn look(world: World<'_>, pod: &Pod) -> Option<Finding> {
    let (status, running) = statuses(pod).into_iter().find_map(|(status, is_init)| {
        let running = status.state.as_ref()?.running.as_ref()?;
        (!is_init && !status.ready).then_some((status, running))
    })?;
    let container = pod.spec.as_ref()?.containers.iter().find(|own| own.name == status.name)?;
    let is_startup = container.startup_probe.is_some() && status.started != Some(true);
    let (word, probe) = if is_startup {
        ("Startup", container.startup_probe.as_ref()?)
    } else {
        ("Readiness", container.readiness_probe.as_ref()?)
    };
    let since = world.age(running.started_at.as_ref());
    let delay = i64::from(probe.initial_delay_seconds.unwrap_or(0));
    let failed = world.last_event("Pod", &pod.metadata, &["Unhealthy"], &format!("{word} probe"));
    let (pod_name, probe_word) = (name(&pod.metadata), word.to_lowercase());
    let early = since < PATIENCE.max(delay + i64::from(probe.period_seconds.unwrap_or(10)));
    let evidence = failed.map(told).into_iter().chain([evidence(
        format!("{probe_word}Probe of container {}", status.name),
        &shown(probe, container),
    )]);
    if early {
        return Some(
            Finding::new("starting", Severity::Progress, object("Pod", &pod.metadata), format!("{pod_name} is starting: its container {} runs for {since}s, and its {probe_word} probe does not succeed yet", status.name))
                .because("Programs need a while until they answer.")
                .seen_all(evidence)
                .hint("Wait, and look again"),
        );
    }
    Some(
        Finding::new(
            "probe-failing",
            Severity::Problem,
            object("Pod", &pod.metadata),
            format!("{pod_name} runs for {} and is not Ready: its {probe_word} probe does not succeed", duration(since)),
        )
        .because(cause(failed.and_then(|event| event.message.as_deref()).unwrap_or_default()))
        .seen_all(evidence)
        .seen_all(quotes(world, pod, status))
        .step(
            "Look what the program says",
            format!("kubectl logs -n {} {pod_name} -c {} --tail=50", space(&pod.metadata), status.name),
        )
        .steps(vec![edit(world, pod, "Correct the probe's command, path or port, or let the program listen where the probe asks")]),
    )
}

fn cause(message: &str) -> &'static str {
    if message.contains("connection refused") {
        "Nothing listens on the port that the probe asks."
    } else if message.contains("statuscode: 4") {
        "The program answers, but not on that path."
    } else if message.contains("statuscode: 5") {
        "The program answers that it is not well."
    } else if message.contains("timed out")
        || message.contains("deadline exceeded")
        || message.contains("Timeout")
    {
        "The check takes longer than the probe's timeoutSeconds (1, if nothing else was said)."
    } else {
        "The check says that the program is not ready; until it is, no Service sends to the pod."
    }
}

fn quotes(world: World<'_>, pod: &Pod, status: &ContainerStatus) -> Vec<Evidence> {
    let lines: Vec<&String> =
        world.lines(pod, &status.name).iter().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(QUOTED)..]
        .iter()
        .map(|line| {
            evidence(format!("last lines of {} ({})", name(&pod.metadata), status.name), line)
        })
        .collect()
}

/// A probe in a line.
fn shown(probe: &Probe, container: &Container) -> String {
    let port = |port: &k8s_openapi::apimachinery::pkg::util::intstr::IntOrString| match port {
        k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(number) => {
            number.to_string()
        }
        k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String(name) => {
            let known =
                container.ports.iter().flatten().any(|port| port.name.as_ref() == Some(name));
            if known {
                name.clone()
            } else {
                format!("{name} (the container has no port of that name)")
            }
        }
    };
    if let Some(exec) = &probe.exec {
        return format!("exec {}", exec.command.clone().unwrap_or_default().join(" "));
    }
    if let Some(get) = &probe.http_get {
        return format!(
            "httpGet {} on port {}",
            get.path.as_deref().unwrap_or("/"),
            port(&get.port)
        );
    }
    if let Some(socket) = &probe.tcp_socket {
        return format!("tcpSocket on port {}", port(&socket.port));
    }
    probe.grpc.as_ref().map_or("a check".to_owned(), |grpc| format!("grpc on port {}", grpc.port))
}
