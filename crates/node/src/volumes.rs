//! Volumes: what a pod's volumes are on this node.

use crate::agent::Shared;
use crate::environment::{config_map, field_value, resource_value, secret};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, PersistentVolume, PersistentVolumeClaim, Pod,
    Volume,
};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use runtime::Mount;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// On volumes of the local provisioner: the node that has the directory removes it.
pub(crate) const LOCAL_VOLUME: &str = "abide.dev/local-volume";

/// A file of a volume: path, content, mode.
type Files = BTreeMap<String, (Vec<u8>, u32)>;

/// Where a pod's files are.
pub(crate) fn pod_folder(shared: &Shared, uid: &str) -> PathBuf {
    shared.config.data_dir.join("pods").join(uid)
}

/// When volumes are prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before the pod's sandbox is made: claims and empty directories are given to the pod's group.
    Start,
    /// The pod runs: what its programs made of their files is theirs.
    Later,
}

/// Prepares every volume; returns where each is. An error says what is missing, in upstream's words.
pub(crate) async fn prepare(
    shared: &Shared,
    pod: &Pod,
    ip: Option<Ipv4Addr>,
    moment: Moment,
) -> Result<BTreeMap<String, PathBuf>, String> {
    let folder = pod_folder(shared, &pod.uid().unwrap_or_default()).join("volumes");
    let mut places = BTreeMap::new();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let own = folder.join(&volume.name);
        let place = one(shared, pod, volume, &own, ip).await.map_err(|why| {
            format!("MountVolume.SetUp failed for volume {:?} : {why}", volume.name)
        })?;
        set_ownership(pod, volume, &place, moment)
            .map_err(|error| format!("set the group of volume {:?}: {error}", volume.name))?;
        places.insert(volume.name.clone(), place);
    }
    Ok(places)
}

/// Renders again what follows from configuration that may have changed.
pub(crate) async fn refresh(shared: &Shared, pod: &Pod, ip: Option<Ipv4Addr>) {
    if let Err(error) = prepare(shared, pod, ip, Moment::Later).await {
        tracing::debug!(
            name = pod.name_any(),
            error,
            "changed configuration could not be taken up"
        );
    }
}

async fn one(
    shared: &Shared,
    pod: &Pod,
    volume: &Volume,
    own: &Path,
    ip: Option<Ipv4Addr>,
) -> Result<PathBuf, String> {
    let make = |path: &Path| {
        std::fs::create_dir_all(path).map_err(|error| format!("mkdir {}: {error}", path.display()))
    };
    if let Some(claim) = &volume.persistent_volume_claim {
        return claim_place(shared, pod, &claim.claim_name).await;
    }
    if let Some(path) = &volume.host_path {
        return host_path(&path.path, path.type_.as_deref().unwrap_or_default());
    }
    if let Some(empty) = &volume.empty_dir {
        make(own)?;
        let is_memory = empty.medium.as_deref() == Some("Memory");
        if is_memory && !is_mount(own) {
            let size = empty
                .size_limit
                .as_ref()
                .and_then(|size| api::quantity::Quantity::parse(&size.0).ok())
                .map_or(String::new(), |size| format!(",size={}", size.value()));
            nix::mount::mount(
                Some("tmpfs"),
                own,
                Some("tmpfs"),
                nix::mount::MsFlags::empty(),
                Some(format!("mode=0777{size}").as_str()),
            )
            .map_err(|error| format!("mount tmpfs: {error}"))?;
        }
        std::fs::set_permissions(own, std::fs::Permissions::from_mode(0o777))
            .map_err(|error| error.to_string())?;
        return Ok(own.to_path_buf());
    }
    let files = rendered(shared, pod, volume, ip).await?;
    make(own)?;
    write_atomically(own, &files).map_err(|error| error.to_string())?;
    Ok(own.to_path_buf())
}

fn is_mount(path: &Path) -> bool {
    std::fs::read_to_string("/proc/self/mounts")
        .is_ok_and(|text| text.lines().any(|line| line.split(' ').nth(1) == path.to_str()))
}

async fn claim_place(shared: &Shared, pod: &Pod, name: &str) -> Result<PathBuf, String> {
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(shared.config.client.clone(), &pod.namespace().unwrap_or_default());
    let claim = claims
        .get_opt(name)
        .await
        .map_err(|error| error.to_string())?
        .ok_or_else(|| format!("persistentvolumeclaim {name:?} not found"))?;
    let volume = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.clone())
        .filter(|name| !name.is_empty())
        .ok_or_else(|| format!("PVC {name} is not bound"))?;
    let volumes: Api<PersistentVolume> = Api::all(shared.config.client.clone());
    let volume = volumes
        .get_opt(&volume)
        .await
        .map_err(|error| error.to_string())?
        .ok_or_else(|| format!("persistentvolume {volume:?} not found"))?;
    let spec = volume.spec.unwrap_or_default();
    if spec.claim_ref.as_ref().and_then(|claim| claim.uid.as_ref()) != claim.metadata.uid.as_ref() {
        return Err(format!("PVC {name} is bound to a volume that is not bound to it"));
    }
    match (spec.host_path, spec.local) {
        (Some(path), _) => host_path(&path.path, path.type_.as_deref().unwrap_or_default()),
        (None, Some(local)) => host_path(&local.path, "Directory"),
        (None, None) => Err("only hostPath and local volumes can be mounted".to_owned()),
    }
}

fn host_path(path: &str, kind: &str) -> Result<PathBuf, String> {
    let place = PathBuf::from(path);
    let metadata = std::fs::metadata(&place).ok();
    match (kind, &metadata) {
        ("DirectoryOrCreate", None) => {
            std::fs::create_dir_all(&place).map_err(|error| format!("mkdir {path}: {error}"))?
        }
        // An untyped path that is not there becomes a directory, as upstream's runtimes make it.
        ("", None) => {
            std::fs::create_dir_all(&place).map_err(|error| format!("mkdir {path}: {error}"))?
        }
        ("FileOrCreate", None) => {
            drop(std::fs::File::create(&place).map_err(|error| format!("create {path}: {error}"))?)
        }
        ("Directory" | "DirectoryOrCreate", Some(metadata)) if !metadata.is_dir() => {
            return Err(format!("hostPath type check failed: {path} is not a directory"));
        }
        ("File" | "FileOrCreate", Some(metadata)) if !metadata.is_file() => {
            return Err(format!("hostPath type check failed: {path} is not a file"));
        }
        ("Directory", None) => {
            return Err(format!("hostPath type check failed: {path} is not a directory"));
        }
        ("File", None) => return Err(format!("hostPath type check failed: {path} is not a file")),
        _ => {}
    }
    Ok(place)
}

/// Whether a volume is written by us, from objects, and only read by the pod.
fn is_rendered(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
}

/// Gives a volume to the pod's group, if it has one. As upstream: `pkg/volume/volume_linux.go`, SetVolumeOwnership.
fn set_ownership(pod: &Pod, volume: &Volume, place: &Path, moment: Moment) -> std::io::Result<()> {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let Some(group) = context.and_then(|context| context.fs_group) else { return Ok(()) };
    let group = u32::try_from(group).map_err(std::io::Error::other)?;
    if is_rendered(volume) {
        return give_to_group(place, group, 0o440);
    }
    if volume.host_path.is_some() || moment == Moment::Later {
        return Ok(());
    }
    let only_on_mismatch = context
        .and_then(|context| context.fs_group_change_policy.as_deref())
        .is_some_and(|policy| policy == "OnRootMismatch");
    let root = std::fs::metadata(place)?;
    let belongs = root.gid() == group && root.mode() & 0o2770 == 0o2770;
    if only_on_mismatch && belongs { Ok(()) } else { give_to_group(place, group, 0o660) }
}

/// Files get the permissions `mask`; folders can be entered, too, and pass their group on.
fn give_to_group(path: &Path, group: u32, mask: u32) -> std::io::Result<()> {
    std::os::unix::fs::chown(path, None, Some(group))?;
    let metadata = std::fs::symlink_metadata(path)?;
    if metadata.is_dir() {
        std::fs::set_permissions(
            path,
            std::fs::Permissions::from_mode(metadata.permissions().mode() | mask | 0o2110),
        )?;
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            if !entry.file_type()?.is_symlink() {
                give_to_group(&entry.path(), group, mask)?;
            }
        }
    } else {
        std::fs::set_permissions(
            path,
            std::fs::Permissions::from_mode(metadata.permissions().mode() | mask),
        )?;
    }
    Ok(())
}

async fn rendered(
    shared: &Shared,
    pod: &Pod,
    volume: &Volume,
    ip: Option<Ipv4Addr>,
) -> Result<Files, String> {
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let data = config_map(shared, pod, &source.name, source.optional == Some(true)).await?;
        pick(&mut files, data, source.items.as_deref(), source.default_mode)?;
    } else if let Some(source) = &volume.secret {
        let data = secret(
            shared,
            pod,
            source.secret_name.as_deref().unwrap_or_default(),
            source.optional == Some(true),
        )
        .await?;
        pick(&mut files, data, source.items.as_deref(), source.default_mode)?;
    } else if let Some(source) = &volume.downward_api {
        downward(
            shared,
            pod,
            &mut files,
            source.items.as_deref().unwrap_or_default(),
            source.default_mode,
            ip,
        )?;
    } else if let Some(projected) = &volume.projected {
        for source in projected.sources.iter().flatten() {
            if let Some(source) = &source.config_map {
                let data =
                    config_map(shared, pod, &source.name, source.optional == Some(true)).await?;
                pick(&mut files, data, source.items.as_deref(), projected.default_mode)?;
            }
            if let Some(source) = &source.secret {
                let data = secret(shared, pod, &source.name, source.optional == Some(true)).await?;
                pick(&mut files, data, source.items.as_deref(), projected.default_mode)?;
            }
            if let Some(source) = &source.downward_api {
                downward(
                    shared,
                    pod,
                    &mut files,
                    source.items.as_deref().unwrap_or_default(),
                    projected.default_mode,
                    ip,
                )?;
            }
        }
    } else {
        return Err("this type of volume is not supported".to_owned());
    }
    Ok(files)
}

fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    own.or(default).and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644)
}

fn pick(
    files: &mut Files,
    data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
) -> Result<(), String> {
    let Some(items) = items else {
        files.extend(data.into_iter().map(|(key, value)| (key, (value, mode(None, default_mode)))));
        return Ok(());
    };
    for item in items {
        let value = data
            .get(&item.key)
            .ok_or_else(|| format!("references non-existent config key: {}", item.key))?;
        files.insert(safe(&item.path)?, (value.clone(), mode(item.mode, default_mode)));
    }
    Ok(())
}

fn safe(path: &str) -> Result<String, String> {
    let escapes =
        path.starts_with('/') || path.split('/').any(|part| part == ".." || part.is_empty());
    if escapes {
        Err(format!("path {path:?} must be relative and stay inside the volume"))
    } else {
        Ok(path.to_owned())
    }
}

fn downward(
    shared: &Shared,
    pod: &Pod,
    files: &mut Files,
    items: &[DownwardAPIVolumeFile],
    default_mode: Option<i32>,
    ip: Option<Ipv4Addr>,
) -> Result<(), String> {
    for item in items {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => field_value(shared, pod, field, ip)?,
            (None, Some(resource)) => resource_value(pod, None, resource)?,
            (None, None) => continue,
        };
        files.insert(safe(&item.path)?, (value.into_bytes(), mode(item.mode, default_mode)));
    }
    Ok(())
}

/// Writes files so that readers see either all of the old ones or all of the new: through the link `..data`.
fn write_atomically(folder: &Path, files: &Files) -> std::io::Result<()> {
    let data = folder.join("..data");
    let same = |(path, (content, _)): (&String, &(Vec<u8>, u32))| {
        std::fs::read(data.join(path)).is_ok_and(|found| found == *content)
    };
    let before: Vec<String> = listed(&data);
    if data.exists() && before.len() == files.len() && files.iter().all(same) {
        return Ok(());
    }
    let name = format!("..{}", jiff::Timestamp::now().as_nanosecond());
    let fresh = folder.join(&name);
    std::fs::create_dir(&fresh)?;
    for (path, (content, mode)) in files {
        let file = fresh.join(path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&file, content)?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(*mode))?;
    }
    let former = std::fs::read_link(&data).ok();
    let link = folder.join("..data_tmp");
    match std::fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(&name, &link)?;
    std::fs::rename(&link, &data)?;
    let tops: std::collections::BTreeSet<&str> =
        files.keys().filter_map(|path| path.split('/').next()).collect();
    for top in &tops {
        let visible = folder.join(top);
        if std::fs::symlink_metadata(&visible).is_err() {
            std::os::unix::fs::symlink(Path::new("..data").join(top), visible)?;
        }
    }
    for entry in std::fs::read_dir(folder)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !tops.contains(name.as_str()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    former.map_or(Ok(()), |former| std::fs::remove_dir_all(folder.join(former)))
}

fn listed(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(here) = folders.pop() {
        for entry in std::fs::read_dir(&here).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path())
            } else {
                found.push(entry.path().to_string_lossy().into_owned())
            }
        }
    }
    found
}

/// What of the volumes a container sees, and where. A sub-path is made if it is not there; it cannot lead out.
pub(crate) fn mounts(
    container: &Container,
    places: &BTreeMap<String, PathBuf>,
) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let mut host_path = places
            .get(&mount.name)
            .cloned()
            .ok_or_else(|| format!("no volume {:?}", mount.name))?;
        if let Some(sub) = mount.sub_path.as_deref().filter(|sub| !sub.is_empty()) {
            host_path = sub_path(&host_path, sub)?;
        }
        mounts.push(Mount {
            host_path,
            container_path: PathBuf::from(&mount.mount_path),
            readonly: mount.read_only == Some(true),
        });
    }
    Ok(mounts)
}

fn sub_path(volume: &Path, sub: &str) -> Result<PathBuf, String> {
    let wanted = volume.join(sub);
    if !wanted.exists() {
        std::fs::create_dir_all(&wanted)
            .map_err(|error| format!("failed to prepare subPath {sub:?}: {error}"))?;
    }
    let (volume, wanted) = (
        volume.canonicalize().map_err(|e| e.to_string())?,
        wanted.canonicalize().map_err(|e| e.to_string())?,
    );
    if wanted.starts_with(&volume) {
        Ok(wanted)
    } else {
        Err(format!("subPath {sub:?} leads out of its volume"))
    }
}

/// Takes away what a pod had.
pub(crate) fn remove(shared: &Shared, uid: &str) {
    let folder = pod_folder(shared, uid);
    for entry in std::fs::read_dir(folder.join("volumes")).into_iter().flatten().flatten() {
        if is_mount(&entry.path())
            && let Err(error) = nix::mount::umount2(&entry.path(), nix::mount::MntFlags::MNT_DETACH)
        {
            tracing::warn!(uid, %error, "a volume in memory could not be unmounted");
        }
    }
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(uid, %error, "the files of a pod could not be removed")
        }
        _ => {}
    }
}

/// Removes the directories of volumes that were released with the policy Delete.
pub(crate) async fn reclaim(shared: Arc<Shared>) {
    let api: Api<PersistentVolume> = Api::all(shared.config.client.clone());
    let mut events = watcher::watcher(api.clone(), watcher::Config::default()).boxed();
    loop {
        match events.try_next().await {
            Ok(Some(Event::Apply(volume) | Event::InitApply(volume))) => {
                if let Err(error) = reclaim_one(&shared, &api, &volume).await {
                    tracing::warn!(
                        name = volume.name_any(),
                        error,
                        "a released volume could not be removed"
                    );
                }
            }
            Ok(Some(Event::Delete(_) | Event::Init | Event::InitDone)) => {}
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "the watch of volumes broke and is taken up again");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }
}

async fn reclaim_one(
    shared: &Shared,
    api: &Api<PersistentVolume>,
    volume: &PersistentVolume,
) -> Result<(), String> {
    let text = |error: kube::Error| error.to_string();
    let spec = volume.spec.clone().unwrap_or_default();
    let ours =
        volume.finalizers().iter().any(|name| name == LOCAL_VOLUME) && on_this_node(shared, volume);
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let delete = spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete");
    let root = shared.config.data_dir.join("volumes");
    let path = spec
        .host_path
        .map(|path| PathBuf::from(path.path))
        .filter(|path| path.parent() == Some(&root));
    if !(ours && delete && phase == Some("Released")) {
        return Ok(());
    }
    if let Some(path) = path {
        match tokio::task::spawn_blocking(move || std::fs::remove_dir_all(path))
            .await
            .map_err(|error| error.to_string())?
        {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error.to_string());
            }
            _ => {}
        }
    }
    let name = volume.name_any();
    if volume.metadata.deletion_timestamp.is_none() {
        api.delete(&name, &DeleteParams::default()).await.map_err(text)?;
    }
    let kept: Vec<&String> =
        volume.finalizers().iter().filter(|name| *name != LOCAL_VOLUME).collect();
    match api
        .patch(
            &name,
            &PatchParams::default(),
            &Patch::Merge(json!({"metadata": {"finalizers": kept}})),
        )
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop).map_err(text),
    }
}

fn on_this_node(shared: &Shared, volume: &PersistentVolume) -> bool {
    let terms = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.node_affinity.as_ref())
        .and_then(|affinity| affinity.required.as_ref())
        .map(|required| &required.node_selector_terms);
    terms.is_none_or(|terms| {
        terms.iter().flat_map(|term| term.match_expressions.iter().flatten()).any(|expression| {
            expression.key == "kubernetes.io/hostname"
                && expression.values.iter().flatten().any(|value| *value == shared.config.node_name)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_change_all_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let files = |pairs: &[(&str, &str)]| -> Files {
            pairs
                .iter()
                .map(|(path, text)| ((*path).to_owned(), (text.as_bytes().to_vec(), 0o644)))
                .collect()
        };
        write_atomically(folder.path(), &files(&[("a", "1"), ("b/c", "2")])).unwrap();
        let before = std::fs::read_link(folder.path().join("..data")).unwrap();
        write_atomically(folder.path(), &files(&[("a", "1"), ("b/c", "2")])).unwrap();
        assert_eq!(
            std::fs::read_link(folder.path().join("..data")).unwrap(),
            before,
            "nothing changed"
        );
        write_atomically(folder.path(), &files(&[("a", "3")])).unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("a")).unwrap(), "3");
        assert!(!folder.path().join("b").exists() && !folder.path().join(&before).exists());
    }

    #[test]
    fn a_sub_path_cannot_lead_out() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("v")).unwrap();
        std::os::unix::fs::symlink("/etc", folder.path().join("v/link")).unwrap();
        assert!(sub_path(&folder.path().join("v"), "link").is_err());
        assert!(sub_path(&folder.path().join("v"), "made/deep").is_ok());
    }
}
