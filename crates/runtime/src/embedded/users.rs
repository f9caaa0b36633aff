//! Who runs inside, by the image's own `/etc/passwd` and `/etc/group`.

use crate::RuntimeError;
use std::path::Path;

/// A user as the kernel knows one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

/// Reads `user[:group]`, each a name or a number, as an image's `User` has it.
pub(super) fn resolve(rootfs: &Path, user: &str) -> Result<User, RuntimeError> {
    let read = |name: &str| std::fs::read_to_string(rootfs.join("etc").join(name)).unwrap_or_default();
    let (passwd, group) = (read("passwd"), read("group"));
    let (user, asked_group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    let entry = rows(&passwd).find(|row| row.first() == Some(&user) || row.get(2) == Some(&user));
    let mut found = match &entry {
        Some(row) => User {
            uid: row.get(2).and_then(|uid| uid.parse().ok()).unwrap_or(0),
            gid: row.get(3).and_then(|gid| gid.parse().ok()).unwrap_or(0),
            groups: Vec::new(),
            home: row.get(5).map(|home| (*home).to_owned()).unwrap_or_default(),
        },
        None => {
            let uid = user.parse().map_err(|_| RuntimeError::Config(format!("unable to find user {user}: no matching entries in passwd file")))?;
            User { uid, ..User::default() }
        }
    };
    if let Some(asked) = asked_group {
        let by_name = rows(&group).find(|row| row.first() == Some(&asked)).and_then(|row| row.get(2).and_then(|gid| gid.parse().ok()));
        found.gid = match (by_name, asked.parse()) {
            (Some(gid), _) | (None, Ok(gid)) => gid,
            (None, Err(_)) => return Err(RuntimeError::Config(format!("unable to find group {asked}: no matching entries in group file"))),
        };
    }
    let name = entry.as_ref().and_then(|row| row.first().copied()).unwrap_or(user);
    found.groups = rows(&group)
        .filter(|row| row.get(3).is_some_and(|members| members.split(',').any(|member| member == name)))
        .filter_map(|row| row.get(2).and_then(|gid| gid.parse().ok()))
        .collect();
    if found.home.is_empty() {
        found.home = if found.uid == 0 { "/root".to_owned() } else { "/".to_owned() };
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        std::fs::write(folder.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\npostgres:x:105:110::/var/lib/postgresql:/bin/sh\n").unwrap();
        std::fs::write(folder.path().join("etc/group"), "ssl:x:109:postgres,www\npostgres:x:110:\n").unwrap();
        let postgres = User { uid: 105, gid: 110, groups: vec![109], home: "/var/lib/postgresql".into() };
        assert_eq!(resolve(folder.path(), "postgres").unwrap(), postgres);
        assert_eq!(resolve(folder.path(), "105").unwrap(), postgres);
        assert_eq!(resolve(folder.path(), "").unwrap().home, "/root");
        assert_eq!(resolve(folder.path(), "7:ssl").unwrap(), User { uid: 7, gid: 109, groups: vec![], home: "/".into() });
        assert_eq!(resolve(folder.path(), "nobody").unwrap_err().to_string(), "unable to find user nobody: no matching entries in passwd file");
    }
}
