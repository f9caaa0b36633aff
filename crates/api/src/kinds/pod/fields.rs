//! Which fields of pods are not honoured, and why.

use crate::kind::{FieldSupport, Support};

macro_rules! rows {
    ($prefix:literal: $($path:literal $support:ident $why:literal;)*) => {
        &[$(FieldSupport { path: concat!($prefix, $path), support: Support::$support, why: $why }),*]
    };
}

macro_rules! pod_rows {
    ($prefix:literal) => {
        rows! { $prefix:
            "affinity.podAffinity" StoredOnly "the scheduler does not weigh other pods yet";
            "affinity.podAntiAffinity" StoredOnly "the scheduler does not weigh other pods yet";
            "topologySpreadConstraints" StoredOnly "the scheduler does not weigh other pods yet";
            "priorityClassName" StoredOnly "no preemption yet";
            "runtimeClassName" StoredOnly "there is one runtime";
            "hostPID" StoredOnly "containers have process namespaces of their own";
            "hostIPC" StoredOnly "pods have IPC namespaces of their own";
            "hostUsers" StoredOnly "no user namespaces yet";
            "shareProcessNamespace" StoredOnly "containers have process namespaces of their own";
            "setHostnameAsFQDN" StoredOnly "the host name is the short name";
            "imagePullSecrets" StoredOnly "images are imported, not pulled, in this version";
            "ephemeralContainers" StoredOnly "no ephemeral containers yet";
            "resourceClaims" StoredOnly "no dynamic resource allocation";
            "readinessGates" StoredOnly "readiness follows from containers alone";
            "overhead" NoEffect "there is one runtime, without overhead";
            "preemptionPolicy" NoEffect "nothing is preempted";
            "os" NoEffect "every node runs Linux";
            "securityContext.seccompProfile" StoredOnly "no system call filter yet";
            "securityContext.appArmorProfile" StoredOnly "no AppArmor profiles yet";
            "securityContext.seLinuxOptions" StoredOnly "no SELinux labels yet";
            "securityContext.sysctls" StoredOnly "not set yet";
            "securityContext.fsGroupChangePolicy" NoEffect "ownership is set at each start";
            "containers.resizePolicy" StoredOnly "no resize in place yet";
            "containers.volumeDevices" StoredOnly "volumes are directories";
            "containers.ports.hostPort" StoredOnly "ports of the host are not forwarded yet";
            "containers.lifecycle.stopSignal" StoredOnly "the image's signal is used";
            "containers.livenessProbe.grpc" StoredOnly "gRPC is not probed yet";
            "containers.readinessProbe.grpc" StoredOnly "gRPC is not probed yet";
            "containers.startupProbe.grpc" StoredOnly "gRPC is not probed yet";
            "containers.securityContext.seccompProfile" StoredOnly "no system call filter yet";
            "containers.securityContext.appArmorProfile" StoredOnly "no AppArmor profiles yet";
            "containers.securityContext.seLinuxOptions" StoredOnly "no SELinux labels yet";
            "containers.volumeMounts.mountPropagation" StoredOnly "mounts are private";
            "containers.volumeMounts.subPathExpr" StoredOnly "not expanded yet";
            "volumes.csi" StoredOnly "no CSI drivers yet";
            "volumes.nfs" StoredOnly "network volumes are not mounted yet";
            "volumes.iscsi" StoredOnly "network volumes are not mounted yet";
            "volumes.image" StoredOnly "images are not volumes yet";
            "volumes.ephemeral" StoredOnly "generic ephemeral claims are not made yet";
            "volumes.projected.sources.serviceAccountToken" StoredOnly "tokens are not issued yet";
        }
    };
}

/// Of a pod.
pub(super) const FIELDS: &[FieldSupport] = pod_rows!("spec.");
/// Of a template at `spec.template`.
pub(in super::super) const TEMPLATE_FIELDS: &[FieldSupport] = pod_rows!("spec.template.spec.");
