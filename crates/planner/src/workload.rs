//! What the decisions about all kinds of workloads share.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

/// Digits and consonants that spell nothing and look unlike each other. As upstream: `rand.SafeEncodeString`.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A pod's name.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// A pod's uid.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// A pod's phase; empty when no node has told one.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == "Ready")
}

/// Running and Ready.
pub fn is_ready(pod: &Pod) -> bool {
    phase(pod) == "Running"
        && ready_condition(pod).is_some_and(|condition| condition.status == "True")
}

/// Since when a pod is what its Ready condition says.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    ready_condition(pod)?.last_transition_time.as_ref().map(|time| time.0)
}

/// Ready for so long.
pub fn is_available(pod: &Pod, min_ready_seconds: u64, now: Timestamp) -> bool {
    is_ready(pod)
        && (min_ready_seconds == 0
            || ready_since(pod).is_some_and(|since| {
                now.as_second().saturating_sub(since.as_second())
                    >= i64::try_from(min_ready_seconds).unwrap_or(i64::MAX)
            }))
}

/// Neither ended nor about to go. As upstream: `IsPodActive` in `pkg/controller/controller_utils.go`.
pub fn is_active(pod: &Pod) -> bool {
    !["Failed", "Succeeded"].contains(&phase(pod)) && pod.metadata.deletion_timestamp.is_none()
}

/// The owner that controls an object.
pub fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether the object with this uid controls this one.
pub fn is_controlled_by(metadata: &ObjectMeta, uid: Option<&String>) -> bool {
    controller(metadata).is_some_and(|owner| Some(&owner.uid) == uid)
}

/// FNV-1 (not 1a), 32 bit, over the data and the collision count, as a safe word.
pub fn hash(data: &Value, collision_count: i32) -> String {
    let text = format!("{data}{collision_count}");
    let hash = text
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| hash.wrapping_mul(0x0100_0193) ^ u32::from(byte));
    hash.to_string()
        .bytes()
        .map(|byte| ALPHABET[usize::from(byte) % ALPHABET.len()] as char)
        .collect()
}

/// Which way a share is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// To more.
    Up,
    /// To less.
    Down,
}

/// A number as it is, or a share (`25%`) of `whole`; what cannot be read is 0.
/// As upstream: `GetScaledValueFromIntOrPercent` in `k8s.io/apimachinery/pkg/util/intstr`.
pub fn scaled(value: Option<&IntOrString>, whole: i32, round: Round) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => (*number).max(0),
        Some(IntOrString::String(text)) => {
            let percent: i64 =
                text.strip_suffix('%').and_then(|digits| digits.parse().ok()).unwrap_or(0);
            let product = percent.saturating_mul(whole.into());
            let share = match round {
                Round::Up => product.saturating_add(99) / 100,
                Round::Down => product / 100,
            };
            i32::try_from(share.max(0)).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_as_asked() {
        let quarter = IntOrString::String("25%".to_owned());
        assert_eq!(scaled(Some(&quarter), 10, Round::Up), 3);
        assert_eq!(scaled(Some(&quarter), 10, Round::Down), 2);
        assert_eq!(scaled(Some(&IntOrString::Int(7)), 10, Round::Down), 7);
        assert_eq!(scaled(Some(&IntOrString::String("x".to_owned())), 10, Round::Up), 0);
        assert_eq!(scaled(None, 10, Round::Up), 0);
    }
}
