//! Names that do not resolve (G6).

use super::complaints::Complaint;
use super::order::change;
use super::rollout::match_labels;
use super::scope::Scope;
use super::world::{World, is_ready, labels, listed, name, object, selector, space};
use super::{Patient, Trouble};
use crate::finding::{Evidence, Finding, Severity, Step, step};
use api::selector::label::LabelSelector;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

/// Whether the names of a set's pods resolve. Pods that crash for that reason are told of here, and no more by themselves.
pub(super) fn judge(
    world: World<'_>,
    set: &StatefulSet,
    patients: &mut [Patient<'_>],
) -> Option<Finding> {
    world.0.services.as_ref()?;
    let governing = set.spec.service_name.as_deref().filter(|name| !name.is_empty())?;
    let finding = match world.service(space(&set.metadata), governing) {
        None => missing(world, set, governing),
        Some(service) if !is_headless(service) => not_headless(set, service),
        Some(service) => selects_others(set, service, patients)
            .or_else(|| other_subdomain(set, governing, patients))?,
    };
    let mut finding = finding;
    let mut crashing = Vec::new();
    for patient in patients.iter_mut().filter(|patient| asks_for(patient, set, governing)) {
        let Some(trouble) = patient.trouble.take() else { continue };
        crashing.push(trouble.finding.object.name);
        finding.evidence.extend(trouble.finding.evidence);
    }
    if !crashing.is_empty() {
        finding.severity = Severity::Problem;
        finding.summary += &format!("; {} crashes for that reason", listed(&crashing));
    }
    Some(finding)
}

/// Whether a pod's log complains about a name that the set's Service should give.
fn asks_for(patient: &Patient<'_>, set: &StatefulSet, governing: &str) -> bool {
    let Some(Trouble { complaint: Some(Complaint::NameUnknown(Some(host))), .. }) =
        &patient.trouble
    else {
        return false;
    };
    let own = format!("{}-", name(&set.metadata));
    host.starts_with(&own) || host.split('.').any(|label| label == governing)
}

fn is_headless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

fn finding(rule: &'static str, set: &StatefulSet, why: &str) -> Finding {
    let set_name = name(&set.metadata);
    Finding::new(
        rule,
        Severity::Advice,
        object("StatefulSet", &set.metadata),
        format!("the names of {set_name}'s pods do not resolve: {why}"),
    )
}

fn missing(world: World<'_>, set: &StatefulSet, governing: &str) -> Finding {
    let (set_name, here) = (name(&set.metadata), space(&set.metadata));
    let empty = BTreeMap::new();
    let template =
        set.spec.template.metadata.as_ref().and_then(|m| m.labels.as_ref()).unwrap_or(&empty);
    let mut others: Vec<&Service> = world
        .services()
        .iter()
        .filter(|service| space(&service.metadata) == here)
        .filter(|service| {
            selector(service)
                .is_some_and(|selector| LabelSelector::of_map(selector).matches(template))
        })
        .collect();
    others.sort_by_key(|service| !is_headless(service));
    let create = create(set, governing, &format!("Create the headless Service {governing}"));
    let seen = format!("spec.serviceName: {governing}");
    let Some(other) = others.first() else {
        return finding("service-missing", set, &format!("there is no Service {governing}"))
            .because("The set names that Service in spec.serviceName; <pod>.<service> resolves only where a headless Service of that name selects the pods. Nobody creates it but you.")
            .seen(format!("set {set_name}"), &seen)
            .seen(format!("services in {here}"), &known(world, here))
            .steps(vec![create]);
    };
    let other_name = name(&other.metadata);
    let kind = if is_headless(other) { "headless Service" } else { "Service" };
    let finding = finding("service-name-differs", set, &format!("the set names the Service {governing}, and its {kind} is called {other_name}"))
        .because(format!("Pods get the names <pod>.<spec.serviceName>, so <pod>.{other_name} is nobody's name, and there is no Service {governing}."))
        .seen(format!("set {set_name}"), &seen)
        .seen(format!("service {other_name}"), &format!("selector {} matches the set's pods, clusterIP {}", selector(other).map_or(String::new(), labels), other.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or("none")))
        .steps(vec![create]);
    if !is_headless(other) {
        return finding;
    }
    let mut renamed = change(
        world,
        set,
        "serviceName",
        governing,
        other_name,
        &format!("Or let the set name {other_name}; its pods are started anew with the new name"),
    );
    if let Some(command) = &mut renamed.command {
        *command += &format!("\nkubectl rollout restart -n {here} statefulset/{set_name}");
    }
    finding.steps(vec![renamed])
}

fn known(world: World<'_>, here: &str) -> String {
    let names: Vec<String> = world
        .services()
        .iter()
        .filter(|service| space(&service.metadata) == here)
        .map(|service| name(&service.metadata).to_owned())
        .collect();
    if names.is_empty() { "none".to_owned() } else { listed(&names) }
}

fn create(set: &StatefulSet, service: &str, sentence: &str) -> Step {
    let containers =
        &set.spec.template.spec.as_ref().map(|spec| spec.containers.clone()).unwrap_or_default();
    let ports: Vec<String> = containers
        .iter()
        .flat_map(|container| container.ports.iter().flatten())
        .map(|port| match &port.name {
            Some(name) => format!("  - {{name: {name}, port: {}}}\n", port.container_port),
            None => format!("  - {{name: port-{0}, port: {0}}}\n", port.container_port),
        })
        .collect();
    let ports =
        if ports.is_empty() { String::new() } else { format!("  ports:\n{}", ports.concat()) };
    step(sentence, headless(space(&set.metadata), service, &match_labels(set), &ports))
}

fn headless(space: &str, service: &str, selector: &str, ports: &str) -> String {
    let selector: Vec<String> = selector
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| format!("    {key}: \"{value}\"\n"))
        .collect();
    format!(
        "kubectl apply -f - <<'END'\napiVersion: v1\nkind: Service\nmetadata:\n  name: {service}\n  namespace: {space}\nspec:\n  clusterIP: None\n  selector:\n{}{ports}END",
        selector.concat()
    )
}

fn not_headless(set: &StatefulSet, service: &Service) -> Finding {
    let (here, service_name) = (space(&set.metadata), name(&service.metadata));
    let address =
        service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or("none");
    let mut made = create(
        set,
        service_name,
        "Make it headless; as clusterIP cannot be changed, it is deleted and created again",
    );
    if let Some(command) = &mut made.command {
        *command = format!("kubectl delete service -n {here} {service_name}\n{command}");
    }
    finding("service-not-headless", set, &format!("the Service {service_name} is not headless"))
        .because("A Service with an address of its own stands for all its pods together; only a headless one (clusterIP: None) is promised to give each pod a name.")
        .seen(format!("set {}", name(&set.metadata)), &format!("spec.serviceName: {service_name}"))
        .seen(format!("service {service_name}"), &format!("spec.clusterIP: {address}"))
        .steps(vec![made, crate::finding::hint("If somebody uses its address, create a second, ordinary Service under another name for them first")])
}

fn selects_others(
    set: &StatefulSet,
    service: &Service,
    patients: &[Patient<'_>],
) -> Option<Finding> {
    let wanted = selector(service)?;
    let parsed = LabelSelector::of_map(wanted);
    let template = set
        .spec
        .template
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.labels.clone())
        .unwrap_or_default();
    let any = patients
        .iter()
        .any(|patient| parsed.matches_optional(patient.pod.metadata.labels.as_ref()));
    if any || parsed.matches(&template) {
        return None;
    }
    let (here, service_name) = (space(&set.metadata), name(&service.metadata));
    let own = match_labels(set);
    let pairs: BTreeMap<&str, &str> =
        own.split(',').filter_map(|pair| pair.split_once('=')).collect();
    Some(
        finding(
            "service-selects-others",
            set,
            &format!("the Service {service_name} does not select them"),
        )
        .because("A Service gives names to the pods that its selector matches, and to no others.")
        .seen(format!("service {service_name}"), &format!("spec.selector {}", labels(wanted)))
        .seen(
            format!("pods of set {}", name(&set.metadata)),
            &format!("labels {}", labels(&template)),
        )
        .step("Let it select the set's pods", patch_selector(here, service_name, &pairs)),
    )
}

fn patch_selector(space: &str, service: &str, pairs: &BTreeMap<&str, &str>) -> String {
    let value = serde_json::to_string(pairs).unwrap_or_default();
    format!(
        "kubectl patch service -n {space} {service} --type=json -p '[{{\"op\":\"replace\",\"path\":\"/spec/selector\",\"value\":{value}}}]'"
    )
}

/// Pods that were made when the set named another Service.
fn other_subdomain(
    set: &StatefulSet,
    governing: &str,
    patients: &[Patient<'_>],
) -> Option<Finding> {
    let differs = |pod: &Pod| {
        pod.spec.as_ref().is_some_and(|spec| spec.subdomain.as_deref() != Some(governing))
    };
    let old: Vec<String> = patients
        .iter()
        .filter(|p| differs(p.pod))
        .map(|p| name(&p.pod.metadata).to_owned())
        .collect();
    let first = patients.iter().find(|patient| differs(patient.pod))?;
    let was =
        first.pod.spec.as_ref().and_then(|spec| spec.subdomain.as_deref()).unwrap_or_default();
    let (here, set_name) = (space(&set.metadata), name(&set.metadata));
    Some(
        finding("service-changed", set, &format!("{} still bear the name of the Service {was}", listed(&old)))
            .because("The set names another Service than when these pods were made, and a pod keeps its name for life.")
            .seen(format!("pod {}", old[0]), &format!("spec.subdomain: {was}"))
            .seen(format!("set {set_name}"), &format!("spec.serviceName: {governing}"))
            .step("Start the pods anew, one after the other", format!("kubectl rollout restart -n {here} statefulset/{set_name}")),
    )
}

/// Services that reach nobody.
pub(super) fn of_services(world: World<'_>, scope: &Scope<'_>) -> Vec<Finding> {
    if world.0.pods.is_none() {
        return Vec::new();
    }
    let services = world.services().iter().filter(|service| scope.has_service(service));
    services
        .filter_map(|service| {
            let pods = world.selected(service);
            let asked = scope.is_service();
            ports(service, &pods)
                .or_else(|| (asked && pods.is_empty()).then(|| nobody(world, service)).flatten())
        })
        .collect()
}

/// A port by a name that no pod has.
fn ports(service: &Service, pods: &[&Pod]) -> Option<Finding> {
    if pods.is_empty() {
        return None;
    }
    let known: Vec<(String, i32)> = pods
        .iter()
        .flat_map(|pod| {
            pod.spec.iter().flat_map(|spec| {
                spec.containers.iter().chain(spec.init_containers.iter().flatten())
            })
        })
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| Some((port.name.clone()?, port.container_port)))
        .collect();
    let listed_ports: &[ServicePort] =
        service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    listed_ports.iter().enumerate().find_map(|(at, port)| {
        let Some(IntOrString::String(wanted)) = &port.target_port else { return None };
        if known.iter().any(|(name, _)| name == wanted) {
            return None;
        }
        let (here, service_name) = (space(&service.metadata), name(&service.metadata));
        let mut names: Vec<String> = known.iter().map(|(name, number)| format!("{name} ({number})")).collect();
        names.sort();
        names.dedup();
        let target = known.first().map_or(port.port.to_string(), |(name, _)| format!("\"{name}\""));
        Some(
            Finding::new("port-name-missing", Severity::Problem, object("Service", &service.metadata), format!("port {} of service {service_name} leads nowhere: no pod has a port named {wanted}", port.port))
                .because("A targetPort that is a word is looked up among the names of the pods' container ports.")
                .seen(format!("service {service_name}"), &format!("spec.ports[{at}].targetPort: {wanted}"))
                .seen("the pods' ports", &if names.is_empty() { "none has a name".to_owned() } else { listed(&names) })
                .step("Name a port that there is", format!("kubectl patch service -n {here} {service_name} --type=json -p '[{{\"op\":\"replace\",\"path\":\"/spec/ports/{at}/targetPort\",\"value\":{target}}}]'")),
        )
    })
}

/// A Service that is asked about and selects no pod.
fn nobody(world: World<'_>, service: &Service) -> Option<Finding> {
    let wanted = selector(service)?;
    let (here, service_name) = (space(&service.metadata), name(&service.metadata));
    let near = world.pods().iter().filter(|pod| space(&pod.metadata) == here && is_ready(pod));
    let near: Vec<Evidence> = near
        .take(3)
        .map(|pod| {
            crate::finding::evidence(
                format!("pod {}", name(&pod.metadata)),
                &format!("labels {}", pod.metadata.labels.as_ref().map_or(String::new(), labels)),
            )
        })
        .collect();
    Some(
        Finding::new(
            "service-selects-nothing",
            Severity::Problem,
            object("Service", &service.metadata),
            format!("service {service_name} selects no pod"),
        )
        .because("No pod of the namespace has all the labels of its selector.")
        .seen(format!("service {service_name}"), &format!("spec.selector {}", labels(wanted)))
        .seen_all(near)
        .step(
            "Compare with the labels that pods have, and correct the selector",
            format!("kubectl get pods -n {here} --show-labels"),
        ),
    )
}
