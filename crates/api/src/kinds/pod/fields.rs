//! Which fields of pods are not honoured, and why.

use crate::kind::{FieldSupport, Support};

macro_rules! rows {
    ($support:ident $why:literal: $($path:expr),* $(,)?) => {
        [$(FieldSupport { path: $path, support: Support::$support, why: $why }),*]
    };
}

/// Rows of one kind of container, whose list stands at `$list`.
macro_rules! container_rows {
    ($list:expr) => {
        &[
            &rows!(StoredOnly "no resize in place yet": concat!($list, ".resizePolicy")),
            &rows!(StoredOnly "containers restart by their pod's policy": concat!($list, ".restartPolicyRules")),
            &rows!(StoredOnly "volumes are directories": concat!($list, ".volumeDevices")),
            &rows!(StoredOnly "nothing is forwarded to pods with a network of their own yet": concat!($list, ".ports.hostPort"), concat!($list, ".ports.hostIP")),
            &rows!(StoredOnly "the image's signal is used": concat!($list, ".lifecycle.stopSignal")),
            &rows!(StoredOnly "gRPC is not probed yet":
                concat!($list, ".livenessProbe.grpc"), concat!($list, ".readinessProbe.grpc"), concat!($list, ".startupProbe.grpc")),
            &rows!(StoredOnly "no dynamic resource allocation": concat!($list, ".resources.claims")),
            &rows!(StoredOnly "variables are not read from files": concat!($list, ".env.valueFrom.fileKeyRef")),
            &rows!(StoredOnly "no system call filter yet": concat!($list, ".securityContext.seccompProfile")),
            &rows!(StoredOnly "no AppArmor profiles yet": concat!($list, ".securityContext.appArmorProfile")),
            &rows!(StoredOnly "no SELinux labels yet": concat!($list, ".securityContext.seLinuxOptions")),
            &rows!(StoredOnly "the usual parts of /proc are hidden": concat!($list, ".securityContext.procMount")),
            &rows!(NoEffect "every node runs Linux": concat!($list, ".securityContext.windowsOptions")),
            &rows!(StoredOnly "mounts are private": concat!($list, ".volumeMounts.mountPropagation")),
            &rows!(StoredOnly "mounted with the usual options": concat!($list, ".volumeMounts.bindMountOptions")),
            &rows!(StoredOnly "not expanded yet": concat!($list, ".volumeMounts.subPathExpr")),
            &rows!(StoredOnly "read-only holds for the mount itself": concat!($list, ".volumeMounts.recursiveReadOnly")),
        ]
    };
}

macro_rules! pod_rows {
    ($spec:literal) => {
        &[
            &rows!(StoredOnly "the scheduler does not weigh other pods yet":
                concat!($spec, ".affinity.podAffinity"), concat!($spec, ".affinity.podAntiAffinity"), concat!($spec, ".topologySpreadConstraints"),
                concat!($spec, ".schedulingGroup")),
            &rows!(StoredOnly "pods have no priorities yet": concat!($spec, ".priorityClassName")),
            // Every pod gets a number, so that it says nothing of what somebody asked for.
            &rows!(NoEffect "who names no class has 0": concat!($spec, ".priority")),
            &rows!(NoEffect "nothing is preempted": concat!($spec, ".preemptionPolicy")),
            &rows!(StoredOnly "there is one runtime": concat!($spec, ".runtimeClassName")),
            &rows!(NoEffect "there is one runtime, without overhead": concat!($spec, ".overhead")),
            &rows!(NoEffect "every node runs Linux": concat!($spec, ".os"), concat!($spec, ".securityContext.windowsOptions")),
            &rows!(StoredOnly "containers have process namespaces of their own": concat!($spec, ".hostPID"), concat!($spec, ".shareProcessNamespace")),
            &rows!(StoredOnly "pods have IPC namespaces of their own": concat!($spec, ".hostIPC")),
            &rows!(StoredOnly "no user namespaces of their own yet": concat!($spec, ".hostUsers")),
            &rows!(StoredOnly "the host name is the short name": concat!($spec, ".setHostnameAsFQDN"), concat!($spec, ".hostnameOverride")),
            &rows!(StoredOnly "no token is mounted": concat!($spec, ".automountServiceAccountToken")),
            &rows!(StoredOnly "no ephemeral containers yet": concat!($spec, ".ephemeralContainers")),
            &rows!(StoredOnly "no dynamic resource allocation": concat!($spec, ".resourceClaims")),
            &rows!(StoredOnly "only containers have limits yet": concat!($spec, ".resources")),
            &rows!(StoredOnly "readiness follows from containers alone": concat!($spec, ".readinessGates")),
            &rows!(StoredOnly "evictions ask nobody": concat!($spec, ".evictionResponders")),
            &rows!(StoredOnly "no system call filter yet": concat!($spec, ".securityContext.seccompProfile")),
            &rows!(StoredOnly "no AppArmor profiles yet": concat!($spec, ".securityContext.appArmorProfile")),
            &rows!(StoredOnly "no SELinux labels yet": concat!($spec, ".securityContext.seLinuxOptions"), concat!($spec, ".securityContext.seLinuxChangePolicy")),
            &rows!(StoredOnly "kernel parameters are not set yet": concat!($spec, ".securityContext.sysctls")),
            &rows!(StoredOnly "groups of the image are not merged": concat!($spec, ".securityContext.supplementalGroupsPolicy")),
            &rows!(StoredOnly "tokens are not issued yet": concat!($spec, ".volumes.projected.sources.serviceAccountToken")),
            &rows!(StoredOnly "certificates are not projected": concat!($spec, ".volumes.projected.sources.clusterTrustBundle"), concat!($spec, ".volumes.projected.sources.podCertificate")),
            &rows!(StoredOnly "held for memory alone, directories are not measured": concat!($spec, ".volumes.emptyDir.sizeLimit")),
            &rows!(StoredOnly "generic ephemeral claims are not made yet": concat!($spec, ".volumes.ephemeral")),
            &rows!(StoredOnly "images are not volumes yet": concat!($spec, ".volumes.image")),
            &rows!(StoredOnly "no driver for this type of volume yet":
                concat!($spec, ".volumes.awsElasticBlockStore"), concat!($spec, ".volumes.azureDisk"), concat!($spec, ".volumes.azureFile"),
                concat!($spec, ".volumes.cephfs"), concat!($spec, ".volumes.cinder"), concat!($spec, ".volumes.csi"), concat!($spec, ".volumes.fc"),
                concat!($spec, ".volumes.flexVolume"), concat!($spec, ".volumes.flocker"), concat!($spec, ".volumes.gcePersistentDisk"),
                concat!($spec, ".volumes.gitRepo"), concat!($spec, ".volumes.glusterfs"), concat!($spec, ".volumes.iscsi"), concat!($spec, ".volumes.nfs"),
                concat!($spec, ".volumes.photonPersistentDisk"), concat!($spec, ".volumes.portworxVolume"), concat!($spec, ".volumes.quobyte"),
                concat!($spec, ".volumes.rbd"), concat!($spec, ".volumes.scaleIO"), concat!($spec, ".volumes.storageos"), concat!($spec, ".volumes.vsphereVolume")),
        ]
    };
}

type Groups = &'static [&'static [FieldSupport]];

const POD: [Groups; 3] =
    [pod_rows!("spec"), container_rows!("spec.containers"), container_rows!("spec.initContainers")];
const TEMPLATE: [Groups; 3] = [
    pod_rows!("spec.template.spec"),
    container_rows!("spec.template.spec.containers"),
    container_rows!("spec.template.spec.initContainers"),
];
/// What a Job has besides its template.
macro_rules! job_rows {
    ($spec:literal) => {
        &[&rows!(StoredOnly "pods are scheduled one by one": concat!($spec, ".scheduling"))]
    };
}
const JOB: [Groups; 4] = [job_rows!("spec"), TEMPLATE[0], TEMPLATE[1], TEMPLATE[2]];
const CRON_JOB: [Groups; 4] = [
    job_rows!("spec.jobTemplate.spec"),
    pod_rows!("spec.jobTemplate.spec.template.spec"),
    container_rows!("spec.jobTemplate.spec.template.spec.containers"),
    container_rows!("spec.jobTemplate.spec.template.spec.initContainers"),
];

const fn count(groups: &[Groups]) -> usize {
    let (mut total, mut i) = (0, 0);
    while i < groups.len() {
        let mut j = 0;
        while j < groups[i].len() {
            total += groups[i][j].len();
            j += 1;
        }
        i += 1;
    }
    total
}

/// One list of all groups, made while compiling.
const fn flat<const N: usize>(groups: &[Groups]) -> [FieldSupport; N] {
    let mut rows = [FieldSupport { path: "", support: Support::NoEffect, why: "" }; N];
    let (mut at, mut i) = (0, 0);
    while i < groups.len() {
        let mut j = 0;
        while j < groups[i].len() {
            let mut k = 0;
            while k < groups[i][j].len() {
                rows[at] = groups[i][j][k];
                at += 1;
                k += 1;
            }
            j += 1;
        }
        i += 1;
    }
    rows
}

/// Of a pod.
pub(super) const FIELDS: &[FieldSupport] = &flat::<{ count(&POD) }>(&POD);
/// Of a template at `spec.template`.
pub(in super::super) const TEMPLATE_FIELDS: &[FieldSupport] =
    &flat::<{ count(&TEMPLATE) }>(&TEMPLATE);
/// Of a Job.
pub(in super::super) const JOB_FIELDS: &[FieldSupport] = &flat::<{ count(&JOB) }>(&JOB);
/// Of a CronJob.
pub(in super::super) const CRON_JOB_FIELDS: &[FieldSupport] =
    &flat::<{ count(&CRON_JOB) }>(&CRON_JOB);
