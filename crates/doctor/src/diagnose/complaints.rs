//! Lines of a log that say what is wrong. As printed by PostgreSQL's, MySQL's, MariaDB's, MongoDB's, Elasticsearch's,
//! libc's, BusyBox', curl's, Go's and Java's own sources.

/// What a program complains about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Complaint {
    /// The data were written by another version.
    DataIncompatible,
    /// A database server that was given no password to begin with.
    PasswordUnset(&'static str),
    /// The folder of the data is not empty, though it holds no database.
    FolderNotEmpty,
    /// A user that the server does not have.
    RoleMissing(Option<String>),
    /// A database that the server does not have.
    DatabaseMissing(Option<String>),
    /// The server's rules let no replication in.
    ReplicationRefused,
    /// A user's password is wrong.
    PasswordWrong(Option<String>),
    /// A name that does not resolve.
    NameUnknown(Option<String>),
    /// A peer that does not answer.
    Unreachable(Option<String>),
    /// The disk is full.
    DiskFull,
    /// A file system that cannot be written.
    ReadOnly,
    /// Another process has the port.
    AddressInUse,
    /// A program or file that is not there.
    FileMissing,
    /// Something may not be read or written.
    PermissionDenied,
}

/// The complaint in a log, and the line that it stands in. What says more goes before what says less; among equals the
/// newest line counts.
pub(super) fn recognise(lines: &[String]) -> Option<(Complaint, &str)> {
    RULES.iter().find_map(|rule| {
        lines.iter().rev().find_map(|line| rule(line).map(|complaint| (complaint, line.as_str())))
    })
}

type Rule = fn(&str) -> Option<Complaint>;

const RULES: &[Rule] = &[
    |line| any(line, &INCOMPATIBLE).then_some(Complaint::DataIncompatible),
    password_unset,
    |line| any(line, &["exists but is not empty"]).then_some(Complaint::FolderNotEmpty),
    |line| {
        let user = between(line, "role \"", "\" does not exist")?;
        Some(Complaint::RoleMissing(word(user)))
    },
    |line| {
        let name = between(line, "database \"", "\" does not exist")
            .or_else(|| between(line, "Unknown database '", "'"))?;
        Some(Complaint::DatabaseMissing(word(name)))
    },
    |line| {
        any(
            line,
            &[
                "no pg_hba.conf entry for replication",
                "must be superuser or replication role",
                "permission denied to start WAL sender",
            ],
        )
        .then_some(Complaint::ReplicationRefused)
    },
    |line| {
        let user = between(line, "password authentication failed for user \"", "\"")
            .or_else(|| between(line, "Access denied for user '", "'"))
            .or_else(|| {
                any(line, &["WRONGPASS", "NOAUTH Authentication required"]).then_some("")
            })?;
        Some(Complaint::PasswordWrong(word(user)))
    },
    |line| {
        any(line, &["No space left on device", "no space left on device", "ENOSPC"])
            .then_some(Complaint::DiskFull)
    },
    name_unknown,
    unreachable,
    |line| {
        any(line, &["Read-only file system", "read-only file system", "EROFS"])
            .then_some(Complaint::ReadOnly)
    },
    |line| {
        any(line, &["ddress already in use", "ddress in use", "EADDRINUSE"])
            .then_some(Complaint::AddressInUse)
    },
    |line| {
        any(
            line,
            &[
                "Permission denied",
                "permission denied",
                "Operation not permitted",
                "EACCES",
                "has wrong ownership",
                "has invalid permissions",
                "has group or world access",
            ],
        )
        .then_some(Complaint::PermissionDenied)
    },
    |line| {
        any(
            line,
            &[
                "No such file or directory",
                "no such file or directory",
                "ENOENT",
                ": not found",
                ": command not found",
                "executable file not found",
            ],
        )
        .then_some(Complaint::FileMissing)
    },
];

const INCOMPATIBLE: [&str; 8] = [
    "database files are incompatible with server",
    "data directory was initialized by PostgreSQL version",
    "Invalid MySQL server upgrade",
    "Invalid MySQL server downgrade",
    "Cannot downgrade from",
    "Unsupported redo log format",
    "Wrong mongod version",
    "featureCompatibilityVersion document",
];

fn password_unset(line: &str) -> Option<Complaint> {
    let variables = [
        ("superuser password is not specified", "POSTGRES_PASSWORD"),
        ("POSTGRES_PASSWORD to a non-empty value", "POSTGRES_PASSWORD"),
        ("database is uninitialized and password option is not specified", "MYSQL_ROOT_PASSWORD"),
    ];
    let lower = line.to_lowercase();
    let found = variables.iter().find(|(words, _)| lower.contains(&words.to_lowercase()))?;
    Some(Complaint::PasswordUnset(found.1))
}

fn name_unknown(line: &str) -> Option<Complaint> {
    let host = between(line, "could not translate host name \"", "\"")
        .or_else(|| between(line, "Unknown MySQL server host '", "'"))
        .or_else(|| between(line, "Unknown server host '", "'"))
        .or_else(|| between(line, "bad address '", "'"))
        .or_else(|| between(line, "can't resolve '", "'"))
        .or_else(|| between(line, "Could not resolve host: ", " "))
        .or_else(|| between(line, "UnknownHostException: ", " "))
        .or_else(|| between(line, "ENOTFOUND ", " "))
        .or_else(|| line.contains("no such host").then(|| between(line, "lookup ", " ")).flatten());
    let words = [
        "Name or service not known",
        "Name does not resolve",
        "emporary failure in name resolution",
        "no such host",
        "NXDOMAIN",
        "ENOTFOUND",
        "nknown host",
    ];
    (host.is_some() || any(line, &words)).then(|| Complaint::NameUnknown(host.and_then(word)))
}

fn unreachable(line: &str) -> Option<Complaint> {
    let words = [
        "onnection refused",
        "ECONNREFUSED",
        "o route to host",
        "onnection timed out",
        "i/o timeout",
        "could not connect to server",
        "connection to database failed",
        "Can't connect to MySQL server",
        "Can't connect to server on",
        "the database system is starting up",
    ];
    let host = || {
        between(line, "connection to server at \"", "\"")
            .or_else(|| between(line, "connect to MySQL server on '", ":"))
            .or_else(|| between(line, "connect to MySQL server on '", "'"))
            .or_else(|| between(line, "connect to server on '", "'"))
            .or_else(|| between(line, "dial tcp ", ":"))
            .or_else(|| between(line, "Failed to connect to ", " "))
            .or_else(|| between(line, "connect to remote host (", ")"))
            .or_else(|| between(line, "onnect to host ", " "))
            .or_else(|| between(line, "host \"", "\""))
            .or_else(|| between(line, "onnect to Redis at ", ":"))
            .or_else(|| between(line, "onnect to ", ":").filter(|host| *host != "server"))
    };
    any(line, &words).then(|| Complaint::Unreachable(host().and_then(word)))
}

fn any(line: &str, words: &[&str]) -> bool {
    words.iter().any(|word| line.contains(word))
}

fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = &line[line.find(before)? + before.len()..];
    // A blank ends a word; the end of the line does as well.
    match rest.find(after) {
        Some(end) => Some(&rest[..end]),
        None if after == " " || after == ":" => rest.split_whitespace().next(),
        None => None,
    }
}

/// A name out of a log goes into commands that people copy: only what needs no quoting passes.
fn word(text: &str) -> Option<String> {
    let text = text.trim_end_matches(['.', ',', ':', ';']);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let fits = !text.is_empty() && text.len() <= 253 && text.chars().all(plain);
    (fits && !text.starts_with('-')).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<Complaint> {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        recognise(&lines).map(|(complaint, _)| complaint)
    }

    #[test]
    fn lines_of_well_known_programs_are_understood() {
        use Complaint::*;
        let host = |name: &str| Some(name.to_owned());
        for (line, wanted) in [
            ("FATAL:  role \"replicator\" does not exist", RoleMissing(host("replicator"))),
            (
                "pg_basebackup: error: connection to server at \"db-0.db\" (10.42.0.3), port 5432 failed: FATAL:  role \"repl\" does not exist",
                RoleMissing(host("repl")),
            ),
            ("FATAL:  database \"app\" does not exist", DatabaseMissing(host("app"))),
            (
                "connection to server at \"db-0.db\" (10.42.0.3), port 5432 failed: Connection refused",
                Unreachable(host("db-0.db")),
            ),
            ("could not connect to server: Connection refused", Unreachable(None)),
            (
                "Error: cannot execute pg_basebackup: connection to database failed",
                Unreachable(None),
            ),
            (
                "dial tcp 10.42.0.7:2380: connect: connection refused",
                Unreachable(host("10.42.0.7")),
            ),
            (
                "Could not connect to Redis at redis-0.redis:6379: Connection refused",
                Unreachable(host("redis-0.redis")),
            ),
            (
                "ERROR 2003 (HY000): Can't connect to MySQL server on 'mysql-0.mysql:3306' (111)",
                Unreachable(host("mysql-0.mysql")),
            ),
            (
                "wget: can't connect to remote host (10.42.0.9): Connection refused",
                Unreachable(host("10.42.0.9")),
            ),
            (
                "could not translate host name \"db-0.db\" to address: Name or service not known",
                NameUnknown(host("db-0.db")),
            ),
            (
                "ERROR 2005 (HY000): Unknown MySQL server host 'mysql-0.mysql' (-2)",
                NameUnknown(host("mysql-0.mysql")),
            ),
            ("wget: bad address 'web-0.web'", NameUnknown(host("web-0.web"))),
            (
                "dial tcp: lookup etcd-0.etcd on 10.43.0.10:53: no such host",
                NameUnknown(host("etcd-0.etcd")),
            ),
            ("curl: (6) Could not resolve host: web-0.web", NameUnknown(host("web-0.web"))),
            (
                "nslookup: can't resolve 'postgres-0.postgres-headless'",
                NameUnknown(host("postgres-0.postgres-headless")),
            ),
            (
                "FATAL:  no pg_hba.conf entry for replication connection from host \"10.42.0.5\", user \"replicator\", no encryption",
                ReplicationRefused,
            ),
            (
                "FATAL:  password authentication failed for user \"postgres\"",
                PasswordWrong(host("postgres")),
            ),
            (
                "ERROR 1045 (28000): Access denied for user 'repl'@'10.42.0.5' (using password: YES)",
                PasswordWrong(host("repl")),
            ),
            (
                "DETAIL:  The data directory was initialized by PostgreSQL version 15, which is not compatible with this version 16.4.",
                DataIncompatible,
            ),
            (
                "[ERROR] [MY-014061] [InnoDB] Invalid MySQL server downgrade: Cannot downgrade from 80400 to 80036",
                DataIncompatible,
            ),
            (
                "initdb: error: directory \"/var/lib/postgresql/data\" exists but is not empty",
                FolderNotEmpty,
            ),
            (
                "Error: Database is uninitialized and superuser password is not specified.",
                PasswordUnset("POSTGRES_PASSWORD"),
            ),
            ("mkdir: cannot create directory '/data/x': Permission denied", PermissionDenied),
            ("write /data/x: no space left on device", DiskFull),
            ("sh: /start.sh: not found", FileMissing),
            ("bind: Address already in use", AddressInUse),
        ] {
            assert_eq!(found(line), Some(wanted), "{line}");
        }
    }

    #[test]
    fn what_says_more_goes_before_what_came_later() {
        let text = "FATAL: role \"repl\" does not exist\nConnection refused\nexit";
        assert_eq!(found(text), Some(Complaint::RoleMissing(Some("repl".to_owned()))));
        assert_eq!(found("ready to accept connections\nshutting down"), None);
    }

    #[test]
    fn names_out_of_logs_cannot_become_commands() {
        assert_eq!(found("role \"$(reboot)\" does not exist"), Some(Complaint::RoleMissing(None)));
        assert_eq!(found("role \"--x\" does not exist"), Some(Complaint::RoleMissing(None)));
    }
}
