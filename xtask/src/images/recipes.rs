//! What each image is made of.

/// How an image is made.
#[derive(Debug)]
pub(super) struct Recipe {
    /// The public name.
    pub(super) name: &'static str,
    /// What its lowest layer holds. Recipes with the same content share the layer.
    pub(super) content: Content,
    /// What lies above, executable: entry points.
    pub(super) files: &'static [File],
    /// Folders above, of the user 999 and with this mode. For what is below `/run`, which no layer of packages has.
    pub(super) folders: &'static [(&'static str, u32)],
    /// A folder of programs before the usual ones.
    pub(super) programs: Option<&'static str>,
    /// Environment, besides `PATH`.
    pub(super) env: &'static [(&'static str, &'static str)],
    /// Entry point.
    pub(super) entrypoint: &'static [&'static str],
    /// Default arguments.
    pub(super) cmd: &'static [&'static str],
    /// Where the main process starts.
    pub(super) folder: &'static str,
    /// Signal that asks the main process to end.
    pub(super) stop_signal: &'static str,
}

/// What a layer holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Content {
    /// Debian's essential packages and these.
    Debian {
        /// What the layer is called.
        key: &'static str,
        packages: &'static [&'static str],
        /// Name and home of the user 999, whom the public images of databases have.
        user: Option<(&'static str, &'static str)>,
        /// Paths of packages that are left out.
        without: &'static [&'static str],
        /// Lines of shell that are run outside, with the root file system as `$1`.
        customize: &'static [&'static str],
    },
    /// One static busybox and its names.
    Busybox,
}

/// A file of an image.
#[derive(Debug)]
pub(super) struct File {
    /// Where, without the leading slash.
    pub(super) path: &'static str,
    pub(super) text: &'static str,
}

const PLAIN: Recipe = Recipe {
    name: "",
    content: Content::Busybox,
    files: &[],
    folders: &[],
    programs: None,
    env: &[],
    entrypoint: &[],
    cmd: &["sh"],
    folder: "/",
    stop_signal: "SIGTERM",
};

const SETTINGS: File =
    File { path: "usr/local/lib/settings.sh", text: include_str!("entrypoints/settings.sh") };

/// The name that entry points have in public images.
const ENTRYPOINT: &str = "usr/local/bin/docker-entrypoint.sh";

const NGINX: Recipe = Recipe {
    content: Content::Debian {
        key: "nginx",
        packages: &["nginx-light", "procps", "curl"],
        user: None,
        without: &[],
        customize: &[
            "mkdir -p \"$1\"/usr/share/nginx/html",
            "cp \"$1\"/var/www/html/index.nginx-debian.html \"$1\"/usr/share/nginx/html/index.html",
            "sed -i 's|root /var/www/html;|root /usr/share/nginx/html;|; s|index index.html index.htm index.nginx-debian.html;|index index.html;|' \"$1\"/etc/nginx/sites-available/default",
            "ln -sf /dev/stdout \"$1\"/var/log/nginx/access.log",
            "ln -sf /dev/stderr \"$1\"/var/log/nginx/error.log",
        ],
    },
    cmd: &["nginx", "-g", "daemon off;"],
    stop_signal: "SIGQUIT",
    ..PLAIN
};

const CURL: Recipe = Recipe {
    content: Content::Debian {
        key: "curl",
        packages: &["curl", "busybox-static", "ca-certificates"],
        user: None,
        without: &[],
        customize: &["for name in nslookup wget ping vi; do ln -sf busybox \"$1\"/bin/$name; done"],
    },
    entrypoint: &["curl"],
    cmd: &["-h"],
    ..PLAIN
};

const POSTGRES: Recipe = Recipe {
    content: Content::Debian {
        key: "postgres",
        packages: &["postgresql-15"],
        user: Some(("postgres", "/var/lib/postgresql")),
        // Compiling queries needs the largest library of all. Without it the server goes on with its interpreter.
        without: &[
            "/usr/lib/x86_64-linux-gnu/libLLVM*",
            "/usr/lib/x86_64-linux-gnu/libz3*",
            "/usr/lib/postgresql/*/lib/llvmjit*",
            "/usr/lib/postgresql/*/lib/bitcode/*",
        ],
        customize: &[
            "rm -rf \"$1\"/var/lib/postgresql/15 \"$1\"/etc/postgresql/15",
            "mkdir -p \"$1\"/docker-entrypoint-initdb.d \"$1\"/var/lib/postgresql/data",
            "chown 999:999 \"$1\"/var/lib/postgresql/data && chmod 1777 \"$1\"/var/lib/postgresql/data",
            "sed -i \"s/^#*listen_addresses = .*/listen_addresses = '*'/\" \"$1\"/usr/share/postgresql/15/postgresql.conf.sample",
        ],
    },
    files: &[SETTINGS, File { path: ENTRYPOINT, text: include_str!("entrypoints/postgres.sh") }],
    folders: &[("run/postgresql", 0o3777)],
    programs: Some("/usr/lib/postgresql/15/bin"),
    env: &[("LANG", "C.UTF-8"), ("PGDATA", "/var/lib/postgresql/data")],
    entrypoint: &["docker-entrypoint.sh"],
    cmd: &["postgres"],
    // "Fast": sessions are ended, nothing is lost.
    stop_signal: "SIGINT",
    ..PLAIN
};

const MARIADB: Recipe = Recipe {
    content: Content::Debian {
        key: "mariadb",
        packages: &["mariadb-server-core", "mariadb-client"],
        user: Some(("mysql", "/var/lib/mysql")),
        without: &["/usr/share/mysql/mysql-test/*"],
        customize: &[
            "mkdir -p \"$1\"/docker-entrypoint-initdb.d \"$1\"/var/lib/mysql",
            "chown 999:999 \"$1\"/var/lib/mysql && chmod 1777 \"$1\"/var/lib/mysql",
            "printf '[mariadbd]\\ndatadir=/var/lib/mysql\\nsocket=/run/mysqld/mysqld.sock\\npid-file=/run/mysqld/mysqld.pid\\nbind-address=*\\nskip-name-resolve\\nskip-host-cache\\n' > \"$1\"/etc/mysql/mariadb.conf.d/05-container.cnf",
            "ln -sf mariadbd \"$1\"/usr/sbin/mysqld",
        ],
    },
    files: &[SETTINGS, File { path: ENTRYPOINT, text: include_str!("entrypoints/mariadb.sh") }],
    folders: &[("run/mysqld", 0o1777)],
    env: &[("LANG", "C.UTF-8")],
    entrypoint: &["docker-entrypoint.sh"],
    cmd: &["mariadbd"],
    ..PLAIN
};

const REDIS: Recipe = Recipe {
    content: Content::Debian {
        key: "redis",
        packages: &["redis-server"],
        user: Some(("redis", "/data")),
        without: &[],
        customize: &["mkdir -p \"$1\"/data", "chown 999:999 \"$1\"/data"],
    },
    files: &[SETTINGS, File { path: ENTRYPOINT, text: include_str!("entrypoints/redis.sh") }],
    entrypoint: &["docker-entrypoint.sh"],
    cmd: &["redis-server"],
    folder: "/data",
    ..PLAIN
};

const RABBITMQ: Recipe = Recipe {
    content: Content::Debian {
        key: "rabbitmq",
        packages: &["rabbitmq-server"],
        user: Some(("rabbitmq", "/var/lib/rabbitmq")),
        without: &[],
        customize: &[
            "rm -rf \"$1\"/var/lib/rabbitmq/.erlang.cookie \"$1\"/var/lib/rabbitmq/mnesia",
            "mkdir -p \"$1\"/etc/rabbitmq/conf.d \"$1\"/var/lib/rabbitmq \"$1\"/var/log/rabbitmq",
            "chown -R 999:999 \"$1\"/etc/rabbitmq \"$1\"/var/lib/rabbitmq \"$1\"/var/log/rabbitmq",
            "chmod 777 \"$1\"/etc/rabbitmq \"$1\"/etc/rabbitmq/conf.d \"$1\"/var/lib/rabbitmq \"$1\"/var/log/rabbitmq",
            "printf 'loopback_users.guest = false\\nlog.console = true\\n' > \"$1\"/etc/rabbitmq/conf.d/10-defaults.conf",
            "echo '[rabbitmq_management,rabbitmq_prometheus].' > \"$1\"/etc/rabbitmq/enabled_plugins",
            "ln -sf /var/lib/rabbitmq/.erlang.cookie \"$1\"/root/.erlang.cookie",
        ],
    },
    files: &[SETTINGS, File { path: ENTRYPOINT, text: include_str!("entrypoints/rabbitmq.sh") }],
    programs: Some("/usr/lib/rabbitmq/bin"),
    env: &[("LANG", "C.UTF-8"), ("HOME", "/var/lib/rabbitmq"), ("RABBITMQ_LOGS", "-")],
    entrypoint: &["docker-entrypoint.sh"],
    cmd: &["rabbitmq-server"],
    ..PLAIN
};

const ETCD: Recipe = Recipe {
    content: Content::Debian {
        key: "etcd",
        packages: &["etcd-server", "etcd-client"],
        user: None,
        without: &[],
        customize: &["mv \"$1\"/usr/bin/etcd \"$1\"/usr/bin/etcdctl \"$1\"/usr/local/bin/"],
    },
    cmd: &["/usr/local/bin/etcd"],
    folder: "/var/lib/etcd",
    ..PLAIN
};

/// Every image that can be built.
pub(super) const RECIPES: &[Recipe] = &[
    Recipe { name: "nginx:1.12", ..NGINX },
    Recipe { name: "nginx:1.13", ..NGINX },
    Recipe { name: "appropriate/curl", ..CURL },
    Recipe { name: "busybox", ..PLAIN },
    Recipe { name: "postgres:15", ..POSTGRES },
    Recipe { name: "postgres:15-alpine", ..POSTGRES },
    Recipe { name: "postgres:16-alpine", ..POSTGRES },
    Recipe { name: "mysql:8.0", cmd: &["mysqld"], ..MARIADB },
    Recipe { name: "mariadb:10.11", ..MARIADB },
    Recipe { name: "redis:7", ..REDIS },
    Recipe { name: "rabbitmq:3-management", ..RABBITMQ },
    Recipe { name: "quay.io/coreos/etcd:v3.5.21", ..ETCD },
];
