//! Pods that no node takes (G1).

use super::claims::edit;
use super::workload;
use super::world::{PATIENCE, World, condition, labels, listed, name, object, space, told};
use crate::finding::{Evidence, Finding, Severity, Step, evidence, hint, step};
use k8s_openapi::api::core::v1::{Node, Pod};

/// Why the scheduler finds no node.
pub(super) fn look(world: World<'_>, pod: &Pod) -> Option<Finding> {
    let pod_name = name(&pod.metadata);
    if let Some(gates) = gates(pod) {
        return Some(
            Finding::new("scheduling-gated", Severity::Problem, object("Pod", &pod.metadata), format!("{pod_name} is Pending: it has scheduling gates"))
                .because("The scheduler does not look at it before whoever put the gates there takes them off.")
                .seen(format!("spec.schedulingGates of pod {pod_name}"), &listed(&gates))
                .hint("Look whether the program that manages these gates runs"),
        );
    }
    let Some(said) = said(world, pod) else { return silent(world, pod) };
    let reasons: Vec<Reason> = REASONS
        .iter()
        .filter(|(words, _)| said.text.contains(words))
        .map(|(_, reason)| *reason)
        .collect();
    let told: Vec<Told> =
        reasons.iter().map(|reason| reason.tell(world, pod, &said.text)).collect();
    let waiting = claim_words(world, pod);
    let summary = match told.first() {
        Some(first) => format!("{pod_name} is Pending: {}", first.symptom),
        None => format!("{pod_name} is Pending: no node takes it"),
    };
    let causes: Vec<String> = told.iter().map(|told| told.cause.clone()).chain(waiting).collect();
    let mut finding =
        Finding::new("unschedulable", Severity::Problem, object("Pod", &pod.metadata), summary)
            .because(if causes.is_empty() {
                "The scheduler says why in its message.".to_owned()
            } else {
                causes.join(" ")
            })
            .seen_all([said]);
    for told in told {
        finding = finding.seen_all(told.evidence).steps(told.steps);
    }
    if finding.advice.is_empty() {
        finding = finding.step("Look at the nodes", "kubectl describe nodes");
    }
    Some(finding)
}

/// What the scheduler says now.
fn said(world: World<'_>, pod: &Pod) -> Option<Evidence> {
    let scheduled = condition(pod, "PodScheduled").filter(|condition| condition.status == "False");
    let message = scheduled.and_then(|condition| condition.message.as_deref());
    match message.filter(|message| !message.is_empty()) {
        Some(message) => Some(evidence(
            format!("condition PodScheduled of pod {}", name(&pod.metadata)),
            message,
        )),
        None => world.last_event("Pod", &pod.metadata, &["FailedScheduling"], "").map(told),
    }
}

fn silent(world: World<'_>, pod: &Pod) -> Option<Finding> {
    if world.age(pod.metadata.creation_timestamp.as_ref()) < PATIENCE {
        return None;
    }
    let pod_name = name(&pod.metadata);
    let scheduler = pod.spec.as_ref()?.scheduler_name.as_deref().unwrap_or("default-scheduler");
    Some(
        Finding::new("no-scheduler", Severity::Problem, object("Pod", &pod.metadata), format!("{pod_name} is Pending, and no scheduler has looked at it"))
            .because(format!("It asks for the scheduler {scheduler}, which has said nothing about it."))
            .seen(format!("pod {pod_name}"), &format!("spec.schedulerName: {scheduler}; no condition PodScheduled, no event"))
            .hint("Look whether that scheduler runs; without spec.schedulerName the pod gets the cluster's own"),
    )
}

fn gates(pod: &Pod) -> Option<Vec<String>> {
    let gates = pod.spec.as_ref()?.scheduling_gates.as_ref()?;
    (!gates.is_empty()).then(|| gates.iter().map(|gate| gate.name.clone()).collect())
}

/// What is said of claims that are made only once the pod has a node.
fn claim_words(world: World<'_>, pod: &Pod) -> Option<String> {
    let volumes = pod.spec.as_ref()?.volumes.iter().flatten();
    let pending: Vec<String> = volumes
        .filter_map(|volume| {
            world.claim(space(&pod.metadata), &volume.persistent_volume_claim.as_ref()?.claim_name)
        })
        .filter(|claim| {
            claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending")
        })
        .map(|claim| name(&claim.metadata).to_owned())
        .collect();
    (!pending.is_empty()).then(|| {
        format!("Its claim {} is Pending only because of that: the class makes the volume once the pod has a node (WaitForFirstConsumer).", listed(&pending))
    })
}

#[derive(Clone, Copy)]
enum Reason {
    Cordoned,
    Selector,
    Taint,
    Room,
    TooMany,
    AntiAffinity,
    VolumeElsewhere,
    HostPort,
    NoNodes,
}

/// Words of the scheduler's message. As upstream: the plugins in `pkg/scheduler/framework/plugins`.
const REASONS: &[(&str, Reason)] = &[
    ("no nodes available", Reason::NoNodes),
    ("were unschedulable", Reason::Cordoned),
    ("untolerated taint", Reason::Taint),
    ("node affinity/selector", Reason::Selector),
    ("anti-affinity", Reason::AntiAffinity),
    ("volume node affinity conflict", Reason::VolumeElsewhere),
    ("Insufficient ", Reason::Room),
    ("Too many pods", Reason::TooMany),
    ("free ports", Reason::HostPort),
];

struct Told {
    symptom: String,
    cause: String,
    evidence: Vec<Evidence>,
    steps: Vec<Step>,
}

impl Told {
    fn new(symptom: &str, cause: &str) -> Told {
        Told {
            symptom: symptom.to_owned(),
            cause: cause.to_owned(),
            evidence: Vec::new(),
            steps: Vec::new(),
        }
    }

    fn step(mut self, step: Step) -> Told {
        self.steps.push(step);
        self
    }

    fn seen(mut self, source: impl Into<String>, text: &str) -> Told {
        self.evidence.push(evidence(source, text));
        self
    }
}

impl Reason {
    fn tell(self, world: World<'_>, pod: &Pod, said: &str) -> Told {
        match self {
            Reason::Cordoned => cordoned(world),
            Reason::Selector => selector(world, pod),
            Reason::Taint => taint(world, pod, said),
            Reason::Room => room(world, pod, said),
            Reason::TooMany => Told::new(
                "the nodes have as many pods as they take",
                "A node takes only so many pods (110, if nothing else was said).",
            )
            .step(hint("Add a node, or delete pods that are not needed")),
            Reason::AntiAffinity => Told::new(
                "its pod anti-affinity finds no node",
                "Each node that would do already has a pod that this one must not stand beside.",
            )
            .step(hint("Add a node for each replica"))
            .step(edit(
                world,
                pod,
                "Or make the rule a preference (preferredDuringSchedulingIgnoredDuringExecution)",
            )),
            Reason::VolumeElsewhere => volume_elsewhere(world, pod),
            Reason::HostPort => Told::new(
                "the hostPort that it asks for is taken",
                "A port of a node can be had by one pod.",
            )
            .step(edit(world, pod, "Leave hostPort out, and use a Service")),
            Reason::NoNodes => Told::new("the cluster has no node", "There is nowhere to run it.")
                .step(step("Look at the nodes", "kubectl get nodes")),
        }
    }
}

fn nodes(world: World<'_>) -> impl Iterator<Item = &Node> {
    world.0.nodes.iter().flatten()
}

fn cordoned(world: World<'_>) -> Told {
    let closed = nodes(world)
        .filter(|node| node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true));
    let names: Vec<String> = closed.map(|node| name(&node.metadata).to_owned()).collect();
    let told = Told::new(
        "a node that could take it is cordoned",
        "A cordoned node takes no new pods (`kubectl cordon` or `kubectl drain` did that).",
    );
    if names.is_empty() {
        return told.step(step("Look which nodes are cordoned", "kubectl get nodes"));
    }
    told.seen(format!("node {}", listed(&names)), "spec.unschedulable: true").step(step(
        "Open it again, if its maintenance is over",
        format!("kubectl uncordon {}", names.join(" ")),
    ))
}

fn selector(world: World<'_>, pod: &Pod) -> Told {
    let told = Told::new(
        "no node has the labels that it asks for",
        "Its nodeSelector or node affinity matches no node.",
    );
    let wanted = pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
    let told = match wanted {
        Some(wanted) => {
            told.seen(format!("spec.nodeSelector of pod {}", name(&pod.metadata)), &labels(wanted))
        }
        None => told.seen(format!("pod {}", name(&pod.metadata)), "spec.affinity.nodeAffinity"),
    };
    let told = match (wanted, nodes(world).next()) {
        (Some(wanted), Some(node)) => told.step(step(
            "Give a node these labels, if it is the one that you mean",
            format!(
                "kubectl label node {} {}",
                name(&node.metadata),
                labels(wanted).replace(',', " ")
            ),
        )),
        _ => told,
    };
    told.step(edit(world, pod, "Or change what the template asks for"))
}

fn taint(world: World<'_>, pod: &Pod, said: &str) -> Told {
    let mut told = Told::new(
        "the nodes have taints that it does not tolerate",
        "A tainted node takes only pods that say they tolerate the taint.",
    );
    for node in nodes(world) {
        for taint in node
            .spec
            .iter()
            .flat_map(|spec| spec.taints.iter().flatten())
            .filter(|taint| said.contains(&taint.key))
        {
            let (node, value) = (name(&node.metadata), taint.value.as_deref().unwrap_or_default());
            told = told.seen(
                format!("node {node}"),
                &format!("taint {}={value}:{}", taint.key, taint.effect),
            );
            told = if taint.key.starts_with("node.kubernetes.io/") {
                told.step(step(
                    "The node took the taint itself, for it is not well: look why",
                    format!("kubectl describe node {node}"),
                ))
            } else {
                told.step(step(
                    "Take the taint off",
                    format!("kubectl taint node {node} {}:{}-", taint.key, taint.effect),
                ))
            };
        }
    }
    told.step(edit(world, pod, "Or let the template tolerate it (spec.template.spec.tolerations)"))
}

fn room(world: World<'_>, pod: &Pod, said: &str) -> Told {
    let what: Vec<String> = said
        .split("Insufficient ")
        .skip(1)
        .filter_map(|rest| rest.split([',', '.', ' ']).next())
        .map(str::to_owned)
        .fold(Vec::new(), |mut all, word| {
            if !all.contains(&word) {
                all.push(word);
            }
            all
        });
    let mut told = Told::new(
        &format!("the nodes have not enough {} left", listed(&what)),
        "What its containers request is set aside for them, used or not, and no node has that much left.",
    );
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    for container in containers {
        let requests =
            container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let words: Vec<String> = requests
            .into_iter()
            .flatten()
            .map(|(key, amount)| format!("{key} {}", amount.0))
            .collect();
        if !words.is_empty() {
            told = told.seen(format!("container {} requests", container.name), &words.join(", "));
        }
    }
    for node in nodes(world).take(5) {
        let amounts = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let words: Vec<String> = amounts
            .into_iter()
            .flatten()
            .filter(|(key, _)| what.contains(key))
            .map(|(key, amount)| format!("{key} {}", amount.0))
            .collect();
        told = told.seen(format!("node {} has in all", name(&node.metadata)), &words.join(", "));
    }
    if let Some(workload) = workload(world, pod) {
        let wish = what.iter().map(|what| format!("{what}=AMOUNT")).collect::<Vec<_>>().join(",");
        told = told.step(step(
            "Request less (write the amount)",
            format!(
                "kubectl set resources -n {} {workload} --requests={wish}",
                space(&pod.metadata)
            ),
        ));
    }
    told.step(hint("Or add a node, or remove pods that are not needed"))
}

fn volume_elsewhere(world: World<'_>, pod: &Pod) -> Told {
    let mut told = Told::new(
        "its volume is on a node that cannot take it",
        "A local volume stays on its node, and so does the pod that has it.",
    );
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    for source in volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref()) {
        let claim = world.claim(space(&pod.metadata), &source.claim_name);
        if let Some(volume) = claim.and_then(|claim| claim.spec.as_ref()?.volume_name.as_deref()) {
            told = told
                .seen(format!("claim {}", source.claim_name), &format!("bound to volume {volume}"));
            told = told
                .step(step("Look where that volume is", format!("kubectl describe pv {volume}")));
        }
    }
    told.step(hint("Bring that node back, or make room on it"))
}
