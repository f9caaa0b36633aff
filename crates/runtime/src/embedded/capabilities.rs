//! Which capabilities a container has.

use crate::{RuntimeError, Security};

/// All that Linux knows, in the order of their numbers.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containers have unless told otherwise; Docker's and containerd's fourteen.
const USUAL: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The container's capabilities with their `CAP_` prefix. `own` is the mask of what this process has itself (CapPrm of
/// /proc/self/status): nothing else can be handed on.
pub(crate) fn decide(security: &Security, own: u64) -> Result<Vec<String>, RuntimeError> {
    let mut chosen: Vec<bool> =
        ALL.iter().map(|name| security.privileged || USUAL.contains(name)).collect();
    for (given, value) in [(&security.add_capabilities, true), (&security.drop_capabilities, false)]
    {
        if given.iter().any(|name| plain(name) == "ALL") {
            chosen.iter_mut().for_each(|has| *has = value);
        }
    }
    for (given, value) in [(&security.drop_capabilities, false), (&security.add_capabilities, true)]
    {
        for name in given.iter().map(|name| plain(name)).filter(|name| name != "ALL") {
            let index = ALL.iter().position(|known| *known == name);
            let index = index.ok_or_else(|| {
                RuntimeError::Config(format!("unknown capability \"CAP_{name}\""))
            })?;
            chosen[index] = value;
        }
    }
    let ours = |index: usize| own & (1 << index) != 0;
    let kept = ALL.iter().enumerate().filter(|(index, _)| chosen[*index] && ours(*index));
    Ok(kept.map(|(_, name)| format!("CAP_{name}")).collect())
}

fn plain(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

/// The mask of what this process has, from the text of /proc/self/status.
pub(crate) fn own(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(add: &[&str], drop: &[&str]) -> Vec<String> {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        let security = Security {
            add_capabilities: words(add),
            drop_capabilities: words(drop),
            ..Security::default()
        };
        decide(&security, u64::MAX).unwrap()
    }

    #[test]
    fn the_usual_fourteen_are_added_to_and_taken_from() {
        assert_eq!(decided(&[], &[]).len(), 14);
        assert_eq!(decided(&["NET_ADMIN"], &["CHOWN", "cap_kill"]).len(), 13);
        assert_eq!(decided(&["NET_BIND_SERVICE"], &["ALL"]), ["CAP_NET_BIND_SERVICE"]);
        assert_eq!(decided(&["ALL"], &[]).len(), 41);
        assert_eq!(decided(&["ALL"], &["SYS_ADMIN"]).len(), 40);
    }

    #[test]
    fn what_this_process_lacks_is_not_handed_on() {
        let privileged = Security { privileged: true, ..Security::default() };
        assert_eq!(
            decide(&privileged, own("Name:\tx\nCapPrm:\t0000000000000003\n")).unwrap(),
            ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]
        );
    }

    #[test]
    fn an_unknown_capability_is_a_fault_of_the_configuration() {
        let security = Security { add_capabilities: vec!["FLY".into()], ..Security::default() };
        assert_eq!(
            decide(&security, u64::MAX).unwrap_err().to_string(),
            "unknown capability \"CAP_FLY\""
        );
    }
}
