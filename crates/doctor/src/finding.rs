//! What the doctor says.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Something is not up and will not come up by waiting alone.
    Problem,
    /// Something is not up yet, and nothing speaks against its coming up.
    Progress,
    /// Everything is up; still there is something to know.
    Advice,
}

impl Severity {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Problem => "problem",
            Severity::Progress => "in progress",
            Severity::Advice => "advice",
        }
    }
}

/// An object by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectName {
    /// For example `Pod`.
    pub kind: &'static str,
    /// None for objects of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl ObjectName {
    /// An object in a namespace.
    pub fn new(kind: &'static str, namespace: &str, name: &str) -> ObjectName {
        ObjectName { kind, namespace: Some(namespace.to_owned()), name: name.to_owned() }
    }
}

/// What a finding rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Where it was seen: an event, a field, a log.
    pub source: String,
    /// What was seen there, on one line.
    pub text: String,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What and why.
    pub sentence: String,
    /// Shell to copy; may have several lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// One trouble, with its cause and cure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which rule found it; never changes its meaning.
    pub rule: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub object: ObjectName,
    /// Others of the same kind and namespace that have the same trouble.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// The symptom, in a sentence.
    pub summary: String,
    /// The cause, in a sentence or two.
    pub cause: String,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
    /// What to do; the first step is the usual cure.
    pub advice: Vec<Step>,
}

impl Finding {
    /// A finding without cause, evidence or advice yet.
    pub(crate) fn new(
        rule: &'static str,
        severity: Severity,
        object: ObjectName,
        summary: impl Into<String>,
    ) -> Finding {
        Finding {
            rule,
            severity,
            object,
            also: Vec::new(),
            summary: one_line(&summary.into()),
            cause: String::new(),
            evidence: Vec::new(),
            advice: Vec::new(),
        }
    }

    /// Says why.
    pub(crate) fn because(mut self, cause: impl Into<String>) -> Finding {
        self.cause = one_line(&cause.into());
        self
    }

    /// Adds evidence.
    pub(crate) fn seen(mut self, source: impl Into<String>, text: &str) -> Finding {
        self.evidence.push(evidence(source, text));
        self
    }

    /// Adds what was seen, if anything was.
    pub(crate) fn seen_all(mut self, more: impl IntoIterator<Item = Evidence>) -> Finding {
        self.evidence.extend(more);
        self
    }

    /// Adds a step with a command.
    pub(crate) fn step(
        mut self,
        sentence: impl Into<String>,
        command: impl Into<String>,
    ) -> Finding {
        self.advice.push(step(sentence, command));
        self
    }

    /// Adds a step that no command does.
    pub(crate) fn hint(mut self, sentence: impl Into<String>) -> Finding {
        self.advice.push(hint(sentence));
        self
    }

    /// Adds steps.
    pub(crate) fn steps(mut self, more: Vec<Step>) -> Finding {
        self.advice.extend(more);
        self
    }
}

/// Evidence, cut to what fits a line of a terminal's history and freed of control characters.
pub(crate) fn evidence(source: impl Into<String>, text: &str) -> Evidence {
    Evidence { source: source.into(), text: one_line(text) }
}

/// A step with a command.
pub(crate) fn step(sentence: impl Into<String>, command: impl Into<String>) -> Step {
    Step { sentence: sentence.into(), command: Some(command.into()) }
}

/// A step that no command does.
pub(crate) fn hint(sentence: impl Into<String>) -> Step {
    Step { sentence: sentence.into(), command: None }
}

/// Longest text that is quoted.
const LONGEST: usize = 600;

fn one_line(text: &str) -> String {
    let clean: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    let cut = clean.chars().count() == LONGEST;
    if cut { format!("{clean}…") } else { clean }
}

/// Everything that the doctor has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Whether there is no finding.
    pub healthy: bool,
    /// How things stand, a sentence for each set.
    pub state: Vec<String>,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// What is good to know and no trouble.
    pub notes: Vec<String>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
}
