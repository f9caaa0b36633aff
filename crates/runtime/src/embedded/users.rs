//! Who runs inside: the image's user or the pod's, looked up in the image's own /etc/passwd and /etc/group.

use crate::{RuntimeError, Security};

/// Numbers that the kernel understands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) additional_gids: Vec<u32>,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

/// Decides from the image's `User` (`name`, `uid`, `name:group` …), the pod's security context, and the text of the two files.
pub(crate) fn resolve(
    image_user: &str,
    security: &Security,
    passwd: &str,
    group: &str,
) -> Result<User, RuntimeError> {
    let (user, group_name) = match image_user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (image_user, None),
    };
    let uid = security.run_as_user.map(|uid| number(uid, "runAsUser")).transpose()?;
    let account = match (uid, user) {
        (Some(uid), _) => by_uid(passwd, uid),
        (None, "") => by_uid(passwd, 0),
        (None, name) => match name.parse::<u32>() {
            Ok(uid) => by_uid(passwd, uid),
            Err(_) => Some(by_name(passwd, name).ok_or_else(|| {
                RuntimeError::Config(format!("failed to generate container spec: unable to find user {name}: no matching entries in passwd file"))
            })?),
        },
    };
    let numeric = || user.parse::<u32>().unwrap_or(0);
    let uid = uid.unwrap_or_else(|| account.as_ref().map_or_else(numeric, |account| account.uid));
    // The image's group belongs to the image's user.
    let image_group = group_name.filter(|_| security.run_as_user.is_none());
    let gid = match (security.run_as_group, image_group) {
        (Some(gid), _) => number(gid, "runAsGroup")?,
        (None, Some(name)) => gid_of(group, name)?,
        (None, None) => account.as_ref().map_or(0, |account| account.gid),
    };
    // The primary group too, as containerd does: a process that gives it up must not lose what the group may not do.
    let mut additional_gids = vec![gid];
    if let Some(account) = &account {
        additional_gids.extend(memberships(group, account.name));
    }
    for extra in &security.supplemental_groups {
        additional_gids.push(number(*extra, "supplementalGroups")?);
    }
    additional_gids.sort_unstable();
    additional_gids.dedup();
    Ok(User { uid, gid, additional_gids })
}

fn number(id: i64, field: &str) -> Result<u32, RuntimeError> {
    u32::try_from(id).map_err(|_| RuntimeError::Config(format!("{field}: {id} is out of range")))
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { name, uid, gid })
    })
}

fn by_uid(passwd: &str, uid: u32) -> Option<Account<'_>> {
    accounts(passwd).find(|account| account.uid == uid)
}

fn by_name<'a>(passwd: &'a str, name: &str) -> Option<Account<'a>> {
    accounts(passwd).find(|account| account.name == name)
}

/// Name, number and members.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn gid_of(group: &str, name: &str) -> Result<u32, RuntimeError> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    groups(group).find(|(known, ..)| *known == name).map(|(_, gid, _)| gid).ok_or_else(|| {
        RuntimeError::Config(format!("failed to generate container spec: unable to find group {name}: no matching entries in group file"))
    })
}

fn memberships<'a>(group: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    groups(group)
        .filter(move |(.., members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\npostgres:x:999:998::/var/lib:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nssl:x:101:postgres,other\nadm:x:4:root\npostgres:x:998:\n";

    fn check(image: &str, security: &Security, uid: u32, gid: u32, additional: &[u32]) {
        let user = resolve(image, security, PASSWD, GROUP).unwrap();
        assert_eq!(user, User { uid, gid, additional_gids: additional.to_vec() }, "{image}");
    }

    #[test]
    fn the_images_user_is_looked_up_in_the_images_files() {
        let none = Security::default();
        check("", &none, 0, 0, &[0, 4]);
        check("postgres", &none, 999, 998, &[101, 998]);
        check("999", &none, 999, 998, &[101, 998]);
        check("1234", &none, 1234, 0, &[0]);
        check("1234:ssl", &none, 1234, 101, &[101]);
        check("postgres:0", &none, 999, 0, &[0, 101]);
    }

    #[test]
    fn the_pods_user_wins_over_the_images() {
        let security = Security {
            run_as_user: Some(1000),
            supplemental_groups: vec![5, 5, 3],
            ..Security::default()
        };
        check("postgres:ssl", &security, 1000, 0, &[0, 3, 5]);
        let security =
            Security { run_as_user: Some(999), run_as_group: Some(7), ..Security::default() };
        check("", &security, 999, 7, &[7, 101]);
    }

    #[test]
    fn an_unknown_name_is_a_fault_of_the_configuration() {
        let none = Security::default();
        for image in ["nobody-here", "0:nogroup"] {
            assert!(
                matches!(resolve(image, &none, PASSWD, GROUP), Err(RuntimeError::Config(_))),
                "{image}"
            );
        }
        let negative = Security { run_as_user: Some(-1), ..Security::default() };
        assert!(matches!(resolve("", &negative, PASSWD, GROUP), Err(RuntimeError::Config(_))));
    }
}
