//! What is asked about.

/// What the doctor looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// None: all namespaces.
    pub namespace: Option<String>,
    /// None: everything there.
    pub target: Option<Target>,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A StatefulSet, with its pods, claims and Service.
    Set(String),
    /// A pod.
    Pod(String),
    /// A claim.
    Claim(String),
    /// A Service.
    Service(String),
    /// A Deployment, ReplicaSet, DaemonSet or Job, with its pods.
    Workload {
        /// The kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
}

const KINDS: &[(&str, &[&str])] = &[
    ("StatefulSet", &["sts", "statefulset", "statefulsets"]),
    ("Pod", &["po", "pod", "pods"]),
    ("PersistentVolumeClaim", &["pvc", "persistentvolumeclaim", "persistentvolumeclaims"]),
    ("Service", &["svc", "service", "services"]),
    ("Deployment", &["deploy", "deployment", "deployments"]),
    ("ReplicaSet", &["rs", "replicaset", "replicasets"]),
    ("DaemonSet", &["ds", "daemonset", "daemonsets"]),
    ("Job", &["job", "jobs"]),
];

impl Target {
    /// Reads `sts/web`, as kubectl does: short names, plurals, with or without the group.
    pub fn parse(text: &str) -> Result<Target, String> {
        let Some((word, name)) = text.split_once('/') else {
            return Err(format!(
                "{text:?} is not KIND/NAME: write for example sts/{text} or pod/{text}"
            ));
        };
        let lower = word.to_lowercase();
        let plain = lower.split('.').next().unwrap_or_default();
        let kind = KINDS.iter().find(|(_, words)| words.contains(&plain)).map(|(kind, _)| *kind);
        let Some(kind) = kind else {
            let known: Vec<&str> = KINDS.iter().map(|(_, words)| words[0]).collect();
            return Err(format!(
                "nothing is known about kind {word:?}: use one of {}",
                known.join(", ")
            ));
        };
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        if name.is_empty() || !name.chars().all(fits) {
            return Err(format!("{name:?} is not an object's name: write for example {word}/web"));
        }
        let name = name.to_owned();
        Ok(match kind {
            "StatefulSet" => Target::Set(name),
            "Pod" => Target::Pod(name),
            "PersistentVolumeClaim" => Target::Claim(name),
            "Service" => Target::Service(name),
            _ => Target::Workload { kind, name },
        })
    }

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Target::Set(_) => "StatefulSet",
            Target::Pod(_) => "Pod",
            Target::Claim(_) => "PersistentVolumeClaim",
            Target::Service(_) => "Service",
            Target::Workload { kind, .. } => kind,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Target::Set(name)
            | Target::Pod(name)
            | Target::Claim(name)
            | Target::Service(name)
            | Target::Workload { name, .. } => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_written_as_for_kubectl() {
        let set = Target::Set("web".to_owned());
        for text in [
            "sts/web",
            "statefulset/web",
            "StatefulSets/web",
            "statefulset.apps/web",
            "statefulsets.v1.apps/web",
        ] {
            assert_eq!(Target::parse(text).as_ref(), Ok(&set), "{text}");
        }
        assert_eq!(Target::parse("po/a.b"), Ok(Target::Pod("a.b".to_owned())));
        assert_eq!(Target::parse("deploy/a").map(|target| target.kind()), Ok("Deployment"));
    }

    #[test]
    fn bad_words_are_answered_with_the_remedy() {
        assert_eq!(
            Target::parse("web").unwrap_err(),
            "\"web\" is not KIND/NAME: write for example sts/web or pod/web"
        );
        assert!(Target::parse("node/a").unwrap_err().contains("use one of sts, po, pvc"));
        assert!(Target::parse("sts/").unwrap_err().contains("is not an object's name"));
        assert!(Target::parse("sts/a b").is_err());
    }
}
