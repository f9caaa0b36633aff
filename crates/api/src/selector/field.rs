//! Field selectors: `spec.nodeName=n1,status.phase!=Running`. As upstream: `k8s.io/apimachinery/pkg/fields`.

/// Requirements, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    /// Field, whether it must be equal (or else differ), value.
    pub requirements: Vec<(String, bool, String)>,
}

impl FieldSelector {
    /// Reads a selector as it stands in a query.
    pub fn parse(text: &str) -> Result<FieldSelector, String> {
        let mut requirements = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (field, equal, value) = if let Some((field, value)) = part.split_once("!=") {
                (field, false, value)
            } else if let Some((field, value)) =
                part.split_once("==").or_else(|| part.split_once('='))
            {
                (field, true, value)
            } else {
                return Err(format!("invalid selector: '{text}'; can't understand '{part}'"));
            };
            requirements.push((field.to_owned(), equal, value.to_owned()));
        }
        Ok(FieldSelector { requirements })
    }

    /// Whether the fields that `lookup` finds are meant.
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements
            .iter()
            .all(|(field, equal, value)| (lookup(field).unwrap_or_default() == value) == *equal)
    }

    /// The value that `field` must have, if the selector says so.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find(|(name, equal, _)| name == field && *equal)
            .map(|(_, _, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_compared() {
        let selector = FieldSelector::parse("spec.nodeName=a,status.phase!=Failed").unwrap();
        assert!(selector.matches(|field| (field == "spec.nodeName").then_some("a")));
        assert!(!selector.matches(|_| None));
        assert_eq!(selector.required("spec.nodeName"), Some("a"));
        assert!(FieldSelector::parse("a").is_err());
    }
}
