//! The documents of an image: index, manifest, configuration, as OCI and as Docker's schema 2 write them.

use super::{ImageConfig, null_is_empty};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Says what a document or a layer is, and where.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    /// Bytes; archives may leave it out.
    pub(super) size: Option<u64>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) platform: Option<Platform>,
}

/// What a manifest is for, in Go's words.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Platform {
    pub(super) architecture: String,
    pub(super) os: String,
    pub(super) variant: String,
}

/// An index or a manifest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Document {
    pub(super) media_type: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(super) manifests: Vec<Descriptor>,
    pub(super) config: Option<Descriptor>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(super) layers: Vec<Descriptor>,
}

/// An image's configuration.
#[derive(Debug, Deserialize)]
pub(super) struct ConfigDocument {
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) config: Option<ImageConfig>,
    pub(super) rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
pub(super) struct RootFs {
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(super) diff_ids: Vec<String>,
}

/// The manifest of an index that fits this machine best; one that does not say what it is for fits last.
pub(super) fn choose(manifests: &[Descriptor]) -> Option<&Descriptor> {
    choose_for(manifests, architecture())
}

fn choose_for<'a>(manifests: &'a [Descriptor], architecture: &str) -> Option<&'a Descriptor> {
    let fits = |manifest: &'a Descriptor| Some((fit(manifest, architecture)?, manifest));
    manifests.iter().filter_map(fits).min_by_key(|(fit, _)| *fit).map(|(_, manifest)| manifest)
}

/// Whether a manifest is for this machine. One that says nothing is.
pub(super) fn is_for_us(manifest: &Descriptor) -> bool {
    fit(manifest, architecture()).is_some()
}

/// How well a manifest fits, best first.
fn fit(manifest: &Descriptor, architecture: &str) -> Option<usize> {
    let Some(platform) = &manifest.platform else { return Some(usize::MAX) };
    if platform.os != "linux" || platform.architecture != architecture {
        return None;
    }
    variants(architecture).iter().position(|variant| *variant == platform.variant)
}

/// The variants that every machine of an architecture runs, best first.
fn variants(architecture: &str) -> &'static [&'static str] {
    match architecture {
        "amd64" => &["", "v1"],
        "arm64" => &["v8", ""],
        "arm" => &["v7", "", "v6", "v5"],
        _ => &[""],
    }
}

/// This machine's architecture in Go's words.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_that_fits_a_machine_best_is_chosen() {
        let manifest = |platform: &str| {
            let mut parts = platform.split('/').map(str::to_owned);
            let mut next = || parts.next().unwrap_or_default();
            let platform = (!platform.is_empty()).then(|| Platform {
                os: next(),
                architecture: next(),
                variant: next(),
            });
            Descriptor { platform, ..Descriptor::default() }
        };
        let cases: [(&str, &[&str], Option<usize>); 9] = [
            ("amd64", &["linux/arm64/v8", "linux/amd64"], Some(1)),
            ("amd64", &["windows/amd64", "linux/amd64/v3", "unknown/unknown"], None),
            ("amd64", &["linux/amd64/v3", "linux/amd64/v1"], Some(1)),
            ("arm64", &["linux/arm64", "linux/arm64/v8"], Some(1)),
            ("arm", &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"], Some(1)),
            ("s390x", &["linux/amd64", "linux/s390x"], Some(1)),
            ("amd64", &["", "linux/amd64"], Some(1)),
            ("amd64", &["linux/arm64", ""], Some(1)),
            ("amd64", &[], None),
        ];
        for (architecture, platforms, expected) in cases {
            let manifests: Vec<_> = platforms.iter().map(|platform| manifest(platform)).collect();
            let chosen = choose_for(&manifests, architecture);
            let index = chosen.and_then(|chosen| manifests.iter().position(|m| m == chosen));
            assert_eq!(index, expected, "{architecture} of {platforms:?}");
        }
    }
}
