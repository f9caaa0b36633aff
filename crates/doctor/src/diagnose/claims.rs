//! Claims that are not bound (G1).

use super::scope::{Scope, mounts};
use super::volumes::taken;
use super::workload;
use super::world::{PATIENCE, World, duration, listed, name, object, space, told};
use crate::finding::{Evidence, Finding, ObjectName, Severity, Step, hint, step};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// The first of a pod's claims that keeps it from starting.
pub(super) fn look(world: World<'_>, pod: &Pod) -> Option<Finding> {
    world.0.claims.as_ref()?;
    let volumes = pod.spec.as_ref()?.volumes.iter().flatten();
    let mut names = volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref());
    names.find_map(|source| {
        let space = space(&pod.metadata);
        match world.claim(space, &source.claim_name) {
            None => missing(world, pod, &source.claim_name),
            Some(claim) => unbound(world, claim, Some(pod)),
        }
    })
}

/// Claims that no pod waits for.
pub(super) fn alone(world: World<'_>, scope: &Scope<'_>) -> Vec<Finding> {
    world
        .claims()
        .iter()
        .filter(|claim| scope.has_claim(claim))
        .filter(|claim| {
            let own = |pod: &&Pod| {
                pod.metadata.namespace == claim.metadata.namespace
                    && mounts(pod, name(&claim.metadata))
            };
            !world.pods().iter().any(|pod| own(&pod))
        })
        .filter_map(|claim| unbound(world, claim, None))
        .filter(|finding| finding.severity == Severity::Problem)
        .collect()
}

fn missing(world: World<'_>, pod: &Pod, claim: &str) -> Option<Finding> {
    if world.age(pod.metadata.creation_timestamp.as_ref()) < 5 {
        return None;
    }
    let (space, pod_name) = (space(&pod.metadata), name(&pod.metadata));
    let finding = Finding::new(
        "claim-missing",
        Severity::Problem,
        object("Pod", &pod.metadata),
        format!("{pod_name} is Pending: its claim {claim} does not exist"),
    )
    .because("A pod does not start before every claim that it names exists and is bound.")
    .seen(
        format!("spec.volumes of pod {pod_name}"),
        &format!("persistentVolumeClaim.claimName: {claim}"),
    )
    .seen_all(world.last_event("Pod", &pod.metadata, &["FailedScheduling"], "").map(told));
    Some(match world.set_of(pod) {
        Some(_) => finding.step(
            "Delete the pod: its set makes claim and pod anew",
            format!("kubectl delete pod -n {space} {pod_name}"),
        ),
        None => finding
            .step("Make the claim (write the size that you need)", claim_manifest(space, claim)),
    })
}

fn claim_manifest(space: &str, claim: &str) -> String {
    format!(
        "kubectl apply -f - <<'END'\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: {claim}\n  namespace: {space}\nspec:\n  accessModes: [ReadWriteOnce]\n  resources:\n    requests:\n      storage: 1Gi\nEND"
    )
}

/// A claim that is not bound, with the pod that waits for it.
pub(super) struct Case<'a> {
    pub(super) world: World<'a>,
    pub(super) claim: &'a PersistentVolumeClaim,
    pod: Option<&'a Pod>,
}

fn unbound(world: World<'_>, claim: &PersistentVolumeClaim, pod: Option<&Pod>) -> Option<Finding> {
    let case = Case { world, claim, pod };
    let phase =
        claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    if claim.metadata.deletion_timestamp.is_some() {
        return pod.map(|pod| case.going(pod));
    }
    match phase {
        "Bound" => None,
        "Lost" => Some(case.lost()),
        _ => case.pending(),
    }
}

impl<'a> Case<'a> {
    pub(super) fn claim_name(&self) -> &'a str {
        name(&self.claim.metadata)
    }

    pub(super) fn class(&self) -> Option<&'a str> {
        self.claim.spec.as_ref()?.storage_class_name.as_deref()
    }

    fn volume_name(&self) -> Option<&'a str> {
        let volume = self.claim.spec.as_ref()?.volume_name.as_deref()?;
        (!volume.is_empty()).then_some(volume)
    }

    fn finding(&self, rule: &'static str, severity: Severity, what: &str) -> Finding {
        let claim = self.claim_name();
        let (object, summary) = match self.pod {
            Some(pod) => (
                object("Pod", &pod.metadata),
                format!("{} is Pending: its claim {claim} {what}", name(&pod.metadata)),
            ),
            None => (
                object("PersistentVolumeClaim", &self.claim.metadata),
                format!("claim {claim} {what}"),
            ),
        };
        Finding::new(rule, severity, object, summary)
    }

    fn scheduler_says(&self) -> Option<Evidence> {
        self.world.last_event("Pod", &self.pod?.metadata, &["FailedScheduling"], "").map(told)
    }

    fn going(&self, pod: &Pod) -> Finding {
        let (space, pod_name) = (space(&pod.metadata), name(&pod.metadata));
        let finding = self
            .finding("claim-terminating", Severity::Problem, "is being deleted")
            .because("A claim that is being deleted stays until no pod uses it, and no pod starts with it.")
            .seen(
                format!("claim {}", self.claim_name()),
                &format!("metadata.deletionTimestamp, finalizers {}", self.claim.metadata.finalizers.clone().unwrap_or_default().join(", ")),
            );
        match self.world.set_of(pod) {
            Some(_) => finding.step(
                "Delete the pod: the claim goes (with its data), and the set makes both anew",
                format!("kubectl delete pod -n {space} {pod_name}"),
            ),
            None => finding.step(
                "Delete the pod, wait until the claim is gone, and make both anew",
                format!("kubectl delete pod -n {space} {pod_name}"),
            ),
        }
    }

    fn lost(&self) -> Finding {
        let volume = self.volume_name().unwrap_or("that it was bound to");
        let (space, claim) = (space(&self.claim.metadata), self.claim_name());
        let finding = self
            .finding("volume-lost", Severity::Problem, "is Lost")
            .because(format!("The volume {volume} does not exist any more, and a claim is never bound a second time."))
            .seen(format!("status of claim {claim}"), &format!("phase Lost, spec.volumeName {volume}"))
            .hint(format!("If the data are still somewhere, make the volume {volume} again, with the same name and a claimRef to this claim"));
        let pod = self.pod.map_or(String::new(), |pod| {
            format!(" && kubectl delete pod -n {space} {}", name(&pod.metadata))
        });
        finding.step(
            "To start without the data, delete the claim",
            format!("kubectl delete pvc -n {space} {claim} --wait=false{pod}"),
        )
    }

    fn pending(&self) -> Option<Finding> {
        if let Some(volume) = self.volume_name() {
            return self.promised(volume);
        }
        let volumes = self.world.0.volumes.as_ref()?;
        let fitting = volumes.iter().any(|volume| self.unfit(volume).is_empty());
        let classes = self.world.0.classes.as_ref()?;
        let class = self.class();
        let found = classes.iter().find(|found| class == Some(name(&found.metadata)));
        match (class, found) {
            _ if fitting => self.bound_soon(),
            (Some(""), _) => Some(self.no_volume("asks for no class (storageClassName: \"\"), so only a volume made by hand can be bound to it")),
            (None, _) if classes.iter().any(is_default) => self.bound_soon(),
            (None, _) => Some(self.no_default(classes)),
            (Some(class), None) => Some(self.no_class(class, classes)),
            (Some(class), Some(found)) if found.provisioner == "kubernetes.io/no-provisioner" => {
                Some(self.no_volume(&format!("asks for class {class}, which makes no volumes (its provisioner is kubernetes.io/no-provisioner)")))
            }
            (Some(class), Some(found)) => self.provisioned(class, found),
        }
    }

    /// It fits; somebody only has to bind it.
    fn bound_soon(&self) -> Option<Finding> {
        let age = self.world.age(self.claim.metadata.creation_timestamp.as_ref());
        if age >= PATIENCE {
            // Bound when its pod is placed: whatever keeps the pod from that is the cause.
            return None;
        }
        let finding =
            self.finding("starting", Severity::Progress, &format!("is being bound (for {age}s)"));
        Some(finding.because("There is a volume or a class for it.").hint("Wait, and look again"))
    }

    /// A claim that names its volume.
    fn promised(&self, volume: &str) -> Option<Finding> {
        let volumes = self.world.0.volumes.as_ref()?;
        let (space, claim) = (space(&self.claim.metadata), self.claim_name());
        let names = |text: &str| {
            self.finding("named-volume", Severity::Problem, text)
                .seen(format!("claim {claim}"), &format!("spec.volumeName: {volume}"))
        };
        let Some(found) = volumes.iter().find(|found| name(&found.metadata) == volume) else {
            return Some(
                names(&format!("names the volume {volume}, which does not exist"))
                    .because("A claim with spec.volumeName is bound to that volume or to none.")
                    .step(format!("Make the volume {volume}"), self.volume_manifest(volume)),
            );
        };
        let owner = taken(found, self.claim)?;
        Some(
            names(&format!("names the volume {volume}, which belongs to {owner}"))
                .because("A volume has one claim, for ever: its data are somebody's.")
                .seen(format!("volume {volume}"), &format!("spec.claimRef: {owner}"))
                .hint(format!("Delete claim {claim} in {space} and make it anew with another volume, or without spec.volumeName")),
        )
    }

    fn no_default(&self, classes: &[StorageClass]) -> Finding {
        let names: Vec<String> =
            classes.iter().map(|class| name(&class.metadata).to_owned()).collect();
        let finding = self
            .finding(
                "no-default-class",
                Severity::Problem,
                "names no storage class, and no class is the default",
            )
            .seen(
                "storage classes",
                &if names.is_empty() {
                    "there are none".to_owned()
                } else {
                    format!("{}; none is annotated {DEFAULT_CLASS}=true", listed(&names))
                },
            )
            .seen_all(self.scheduler_says())
            .seen_all(self.explained());
        match classes.iter().find(|class| class.provisioner != "kubernetes.io/no-provisioner") {
            Some(class) => finding
                .because("Without a class nobody makes a volume for it, and no volume made by hand fits.")
                .step(
                    format!("Make {} the default; claims that wait get it too", name(&class.metadata)),
                    format!(
                        "kubectl patch storageclass {} -p '{{\"metadata\":{{\"annotations\":{{\"{DEFAULT_CLASS}\":\"true\"}}}}}}'",
                        name(&class.metadata)
                    ),
                )
                .steps(vec![self.by_hand("Or make a volume by hand")]),
            None => finding
                .because("No class makes volumes here, and no volume made by hand fits.")
                .steps(vec![self.by_hand("Make a volume by hand"), hint("Or install a provisioner, and make its class the default")]),
        }
    }

    fn no_class(&self, class: &str, classes: &[StorageClass]) -> Finding {
        let names: Vec<String> =
            classes.iter().map(|class| name(&class.metadata).to_owned()).collect();
        let finding = self
            .finding(
                "class-missing",
                Severity::Problem,
                &format!("asks for storage class {class}, which does not exist"),
            )
            .because(format!(
                "Nobody makes volumes of class {class}, and no volume made by hand fits."
            ))
            .seen(
                format!("claim {}", self.claim_name()),
                &format!("spec.storageClassName: {class}"),
            )
            .seen(
                "storage classes",
                &if names.is_empty() { "there are none".to_owned() } else { listed(&names) },
            )
            .seen_all(self.scheduler_says())
            .seen_all(self.explained());
        let model = classes.iter().find(|class| is_default(class)).or_else(|| {
            classes.iter().find(|class| class.provisioner != "kubernetes.io/no-provisioner")
        });
        let finding = match model {
            Some(model) => finding.step(
                format!("Make a class of that name, like {}", name(&model.metadata)),
                format!(
                    "kubectl apply -f - <<'END'\napiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata:\n  name: {class}\nprovisioner: {}\nvolumeBindingMode: {}\nEND",
                    model.provisioner,
                    model.volume_binding_mode.as_deref().unwrap_or("Immediate")
                ),
            ),
            None => finding,
        };
        finding.steps(vec![
            self.by_hand("Or make a volume by hand"),
            hint("Or name an existing class in volumeClaimTemplates: they cannot be changed, so delete the set (--cascade=orphan), its pending pod and claim, and create it again"),
        ])
    }

    fn no_volume(&self, why: &str) -> Finding {
        let count = self.world.0.volumes.as_ref().map_or(0, Vec::len);
        let cause = match count {
            0 => format!("It {why}, and there is no volume."),
            1 => format!("It {why}, and the one volume that there is does not fit."),
            n => format!("It {why}, and none of {n} volumes fits."),
        };
        self.finding("no-fitting-volume", Severity::Problem, "is not bound, for no volume fits")
            .because(cause)
            .seen(format!("claim {}", self.claim_name()), &self.wish())
            .seen_all(self.explained())
            .seen_all(self.scheduler_says())
            .steps(vec![
                self.by_hand("Make a volume that fits; on a cluster of several nodes use network storage instead of hostPath"),
                hint("Or let a class with a provisioner make volumes: leave storageClassName out, if there is a default class"),
            ])
    }

    /// A claim whose class makes volumes.
    fn provisioned(&self, class: &str, found: &StorageClass) -> Option<Finding> {
        let events = |reasons: &[&str]| {
            self.world
                .last_event("PersistentVolumeClaim", &self.claim.metadata, reasons, "")
                .map(told)
        };
        let failed = events(&["ProvisioningFailed"]);
        let age = self.world.age(self.claim.metadata.creation_timestamp.as_ref());
        if failed.is_some() {
            let finding = self.finding(
                "provisioning-failed",
                Severity::Problem,
                &format!("cannot be provisioned by class {class}"),
            );
            return Some(
                finding
                    .because(format!(
                        "The provisioner {} has tried, and failed.",
                        found.provisioner
                    ))
                    .seen_all(failed)
                    .step(
                        "Look at the class and its parameters",
                        format!("kubectl describe storageclass {class}"),
                    ),
            );
        }
        let waits = found.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
        let selected = self
            .claim
            .metadata
            .annotations
            .iter()
            .flatten()
            .any(|(key, _)| key == "volume.kubernetes.io/selected-node");
        if waits && !selected {
            // Provisioned once its pod has a node: why it has none is the scheduler's to say.
            return None;
        }
        if age < PATIENCE {
            return self.bound_soon();
        }
        Some(
            self.finding("provisioner-silent", Severity::Problem, &format!("waits for the provisioner of class {class} for {}", duration(age)))
                .because(format!("The provisioner {} has made no volume and said nothing: most likely it does not run.", found.provisioner))
                .seen_all(events(&["ExternalProvisioning"]))
                .step("Look for its pod", format!("kubectl get pods -A | grep -i {}", found.provisioner.rsplit(['/', '.']).next().unwrap_or_default())),
        )
    }
}

fn is_default(class: &StorageClass) -> bool {
    class
        .metadata
        .annotations
        .iter()
        .flatten()
        .any(|(key, value)| key == DEFAULT_CLASS && value == "true")
}

/// Names a claim in a finding.
pub(super) fn object_of(claim: &PersistentVolumeClaim) -> ObjectName {
    object("PersistentVolumeClaim", &claim.metadata)
}

/// Used by a pod's other rules: the workload to change.
pub(super) fn edit(world: World<'_>, pod: &Pod, sentence: &str) -> Step {
    match workload(world, pod) {
        Some(workload) => {
            step(sentence, format!("kubectl edit -n {} {workload}", space(&pod.metadata)))
        }
        None => hint(sentence),
    }
}
