//! Why a registry did not give what it was asked for.

use std::fmt;

/// What a caller does differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::images) enum Kind {
    /// There is no such thing.
    NotFound,
    /// Other credentials may help.
    Denied,
    /// Nobody answers there.
    Unreachable,
    /// Trying again may help.
    Broken,
    /// Nothing helps but another image or registry.
    Refused,
}

/// A failure in words for people.
#[derive(Debug, Clone)]
pub(in crate::images) struct Failure {
    pub(super) kind: Kind,
    words: String,
}

impl Failure {
    pub(super) fn new(kind: Kind, words: impl Into<String>) -> Self {
        Failure { kind, words: words.into() }
    }

    pub(super) fn refused(words: impl Into<String>) -> Self {
        Failure::new(Kind::Refused, words)
    }

    /// The same, after what was being done.
    pub(super) fn while_doing(self, what: impl fmt::Display) -> Self {
        Failure { words: format!("{what}: {}", self.words), ..self }
    }

    /// The same, with more words after it.
    pub(super) fn followed_by(self, more: &str) -> Self {
        Failure { words: format!("{}{more}", self.words), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// An error of this machine: of its disk, of its tasks.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::new(Kind::Broken, error.to_string())
    }
}

/// A part of what a stranger says, fit for a line of text.
pub(super) fn quoted(words: &str) -> String {
    const LONGEST: usize = 300;
    words.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

/// An error with all its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Many repeat their cause themselves.
        if !words.ends_with(&text) {
            words = format!("{words}: {text}");
        }
        cause = error.source();
    }
    words
}
