//! Label selectors: `app=web,tier in (a,b),!old`. As upstream: `k8s.io/apimachinery/pkg/labels/selector.go`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use std::collections::BTreeMap;
use std::fmt;

/// What a label must be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

/// Requirements, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<(String, Operator)>,
    /// Selects nothing at all: the absence of a selector in an object.
    nothing: bool,
}

impl LabelSelector {
    /// Reads a selector as it stands in a query. Empty selects everything.
    pub fn parse(text: &str) -> Result<LabelSelector, String> {
        let mut requirements = Vec::new();
        for part in split(text)? {
            requirements.push(
                requirement(part.trim())
                    .ok_or_else(|| format!("unable to parse requirement: {part:?}"))?,
            );
        }
        for (key, operator) in &requirements {
            let values = match operator {
                Operator::In(values) | Operator::NotIn(values) => values.as_slice(),
                _ => &[],
            };
            for (at, value) in values.iter().enumerate() {
                if let Some(error) = crate::metadata::label_value(value).first() {
                    return Err(format!(
                        "unable to parse requirement: values[{at}][{key}]: Invalid value: {value:?}: {error}"
                    ));
                }
            }
            if let Some(error) = crate::metadata::qualified_name(key).first() {
                return Err(format!(
                    "unable to parse requirement: <nil>: Invalid value: {key:?}: {error}"
                ));
            }
        }
        Ok(LabelSelector { requirements, nothing: false })
    }

    /// The selector of an object's field. An empty one selects everything, none at all selects nothing.
    pub fn of(selector: Option<&meta::LabelSelector>) -> LabelSelector {
        let Some(selector) = selector else {
            return LabelSelector { requirements: Vec::new(), nothing: true };
        };
        let mut requirements: Vec<(String, Operator)> = selector
            .match_labels
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), Operator::In(vec![value.clone()])))
            .collect();
        for expression in selector.match_expressions.iter().flatten() {
            let values = expression.values.clone().unwrap_or_default();
            requirements.push((
                expression.key.clone(),
                match expression.operator.as_str() {
                    "In" => Operator::In(values),
                    "NotIn" => Operator::NotIn(values),
                    "Exists" => Operator::Exists,
                    "DoesNotExist" => Operator::DoesNotExist,
                    // An operator that validation did not let through selects nothing.
                    _ => return LabelSelector { requirements: Vec::new(), nothing: true },
                },
            ));
        }
        LabelSelector { requirements, nothing: false }
    }

    /// The selector that a map of labels stands for (of Services).
    pub fn of_map(labels: &BTreeMap<String, String>) -> LabelSelector {
        let requirements = labels
            .iter()
            .map(|(key, value)| (key.clone(), Operator::In(vec![value.clone()])))
            .collect();
        LabelSelector { requirements, nothing: false }
    }

    /// Requirements as node selectors write them.
    pub fn of_node_expressions<'a>(
        expressions: impl Iterator<Item = (&'a str, &'a str, &'a [String])>,
    ) -> LabelSelector {
        let mut requirements = Vec::new();
        for (key, operator, values) in expressions {
            let number = || values.first().and_then(|value| value.parse().ok());
            let operator = match operator {
                "In" => Some(Operator::In(values.to_vec())),
                "NotIn" => Some(Operator::NotIn(values.to_vec())),
                "Exists" => Some(Operator::Exists),
                "DoesNotExist" => Some(Operator::DoesNotExist),
                "Gt" => number().map(Operator::GreaterThan),
                "Lt" => number().map(Operator::LessThan),
                _ => None,
            };
            match operator {
                Some(operator) => requirements.push((key.to_owned(), operator)),
                None => return LabelSelector { requirements: Vec::new(), nothing: true },
            }
        }
        LabelSelector { requirements, nothing: false }
    }

    /// Whether everything is selected.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether these labels are meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_lookup(|key| labels.get(key).map(String::as_str))
    }

    /// Whether an object's labels are meant; none are an empty set.
    pub fn matches_optional(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.matches_lookup(|key| labels?.get(key).map(String::as_str))
    }

    /// Whether the labels that `lookup` finds are meant.
    pub fn matches_lookup<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing
            && self.requirements.iter().all(|(key, operator)| {
                let value = lookup(key);
                let number = || value.and_then(|value| value.parse::<i64>().ok());
                match operator {
                    Operator::In(values) => {
                        value.is_some_and(|value| values.iter().any(|v| v == value))
                    }
                    Operator::NotIn(values) => {
                        value.is_none_or(|value| !values.iter().any(|v| v == value))
                    }
                    Operator::Exists => value.is_some(),
                    Operator::DoesNotExist => value.is_none(),
                    Operator::GreaterThan(bound) => number().is_some_and(|number| number > *bound),
                    Operator::LessThan(bound) => number().is_some_and(|number| number < *bound),
                }
            })
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self
            .requirements
            .iter()
            .map(|(key, operator)| match operator {
                Operator::In(values) if values.len() == 1 => format!("{key}={}", values[0]),
                Operator::In(values) => format!("{key} in ({})", values.join(",")),
                Operator::NotIn(values) if values.len() == 1 => format!("{key}!={}", values[0]),
                Operator::NotIn(values) => format!("{key} notin ({})", values.join(",")),
                Operator::Exists => key.clone(),
                Operator::DoesNotExist => format!("!{key}"),
                Operator::GreaterThan(bound) => format!("{key}>{bound}"),
                Operator::LessThan(bound) => format!("{key}<{bound}"),
            })
            .collect();
        f.write_str(&words.join(","))
    }
}

/// Splits at the commas that stand outside of parentheses.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => {
                depth = depth
                    .checked_sub(1)
                    .ok_or_else(|| format!("found ')', expected: identifier in {text:?}"))?
            }
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err(format!(
            "unable to parse requirement: found '', expected: ',' or ')' in {text:?}"
        ));
    }
    parts.push(&text[start..]);
    Ok(if text.trim().is_empty() { Vec::new() } else { parts })
}

fn requirement(part: &str) -> Option<(String, Operator)> {
    let key = |text: &str| {
        let text = text.trim();
        (!text.is_empty() && !text.contains(char::is_whitespace)).then(|| text.to_owned())
    };
    if let Some(rest) = part.strip_prefix('!') {
        return Some((key(rest)?, Operator::DoesNotExist));
    }
    if let Some(list) = part.strip_suffix(')') {
        let (head, values) = list.split_once('(')?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        let (name, word) = head.trim().rsplit_once(char::is_whitespace)?;
        return match word {
            "in" => Some((key(name)?, Operator::In(values))),
            "notin" => Some((key(name)?, Operator::NotIn(values))),
            _ => None,
        };
    }
    if let Some((name, value)) = part.split_once("!=") {
        return Some((key(name)?, Operator::NotIn(vec![value.trim().to_owned()])));
    }
    if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Some((key(name)?, Operator::In(vec![value.trim().to_owned()])));
    }
    if let Some((name, value)) = part.split_once('>') {
        return Some((key(name)?, Operator::GreaterThan(value.trim().parse().ok()?)));
    }
    if let Some((name, value)) = part.split_once('<') {
        return Some((key(name)?, Operator::LessThan(value.trim().parse().ok()?)));
    }
    Some((key(part)?, Operator::Exists))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        LabelSelector::parse(selector).unwrap().matches(&labels)
    }

    #[test]
    fn every_form_of_requirement_selects() {
        let web = [("app", "web"), ("tier", "a"), ("n", "5")];
        for selector in [
            "",
            "app=web",
            "app==web",
            "app!=db",
            "tier in (a, b)",
            "tier notin (c)",
            "app",
            "!old",
            "app=web,tier in (a,b),!x",
            "n>4",
            "n<6",
        ] {
            assert!(matches(selector, &web), "{selector}");
        }
        for selector in ["app=db", "app!=web", "tier in (c)", "!app", "old", "n>5"] {
            assert!(!matches(selector, &web), "{selector}");
        }
    }

    #[test]
    fn selectors_that_cannot_be_read_are_refused() {
        for selector in ["a in (b", "a b", "=x", "a)", "a in b)", "%=1", "a===b", "a=b c"] {
            assert!(LabelSelector::parse(selector).is_err(), "{selector}");
        }
    }

    #[test]
    fn an_absent_selector_selects_nothing_and_an_empty_one_everything() {
        assert!(!LabelSelector::of(None).matches(&BTreeMap::new()));
        assert!(LabelSelector::of(Some(&meta::LabelSelector::default())).matches(&BTreeMap::new()));
    }
}
