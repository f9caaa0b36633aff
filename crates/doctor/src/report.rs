//! Writes a diagnosis down.

use crate::finding::{Diagnosis, Finding, Severity, Step};

/// For people.
pub fn text(diagnosis: &Diagnosis) -> String {
    let mut text = String::new();
    for sentence in &diagnosis.state {
        text += &format!("{sentence}\n");
    }
    for (at, finding) in diagnosis.findings.iter().enumerate() {
        text += &one(at + 1, finding);
    }
    for (title, lines) in
        [("Good to know:", &diagnosis.notes), ("Not looked at:", &diagnosis.unseen)]
    {
        if !lines.is_empty() {
            text += &format!("\n{title}\n");
            for line in lines {
                text += &format!("  {}\n", plain(line));
            }
        }
    }
    text
}

fn one(number: usize, finding: &Finding) -> String {
    let object = &finding.object;
    let place =
        object.namespace.as_ref().map_or(String::new(), |namespace| format!("{namespace}/"));
    let mut text = format!(
        "\n{number}. {} with {} {place}{}",
        finding.severity.word(),
        object.kind,
        object.name
    );
    if finding.severity == Severity::Advice {
        text = format!("\n{number}. advice on {} {place}{}", object.kind, object.name);
    }
    if !finding.also.is_empty() {
        text += &format!(", likewise {}", finding.also.join(", "));
    }
    text += &format!("  [{}]\n   {}.\n", finding.rule, capital(&finding.summary));
    if !finding.cause.is_empty() {
        text += &format!("   why   {}\n", finding.cause);
    }
    for evidence in &finding.evidence {
        text += &format!("   seen  {}: {}\n", evidence.source, evidence.text);
    }
    for step in &finding.advice {
        text += &told(step);
    }
    text
}

fn told(step: &Step) -> String {
    let mut text =
        format!("   do    {}{}\n", step.sentence, if step.command.is_some() { ":" } else { "" });
    let Some(command) = &step.command else { return text };
    // A here-document must begin at the margin to be copied as it stands.
    let margin = if command.contains("<<") { "" } else { "         " };
    for line in command.lines() {
        text += &format!("{margin}{line}\n");
    }
    text
}

fn capital(text: &str) -> String {
    // A name stays as it is written.
    let first = text.split(' ').next().unwrap_or_default();
    let is_word = !first.is_empty() && first.chars().all(|c| c.is_ascii_lowercase());
    match text.chars().next() {
        Some(c) if is_word => format!("{}{}", c.to_ascii_uppercase(), &text[1..]),
        _ => text.to_owned(),
    }
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// For programs.
pub fn json(diagnosis: &Diagnosis) -> String {
    serde_json::to_string_pretty(diagnosis)
        .map_or_else(|error| format!("{{\"error\":{:?}}}\n", error.to_string()), |text| text + "\n")
}

/// Lets every command speak of the cluster that was asked about, where that is not kubectl's own.
pub fn with_flags(mut diagnosis: Diagnosis, flags: &str) -> Diagnosis {
    if flags.is_empty() {
        return diagnosis;
    }
    let steps = diagnosis.findings.iter_mut().flat_map(|finding| &mut finding.advice);
    for command in steps.filter_map(|step| step.command.as_mut()) {
        *command = command.replace("kubectl ", &format!("kubectl {flags} "));
    }
    diagnosis
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::ObjectName;

    fn diagnosis() -> Diagnosis {
        let finding = Finding::new(
            "crash",
            Severity::Problem,
            ObjectName::new("Pod", "shop", "db-1"),
            "container main of db-1 crashes",
        )
        .because("The program gave up.")
        .seen("last lines of db-1 (main)", "no \u{1b}[31msuch\tluck\n")
        .step("Start it anew", "kubectl delete pod -n shop db-1")
        .hint("Or wait");
        Diagnosis {
            healthy: false,
            state: vec!["db: 1 of 2 pods are Ready".to_owned()],
            findings: vec![finding],
            notes: vec!["a note".to_owned()],
            unseen: vec![],
        }
    }

    #[test]
    fn people_read_sentences_and_copy_commands() {
        let told = text(&diagnosis());
        assert_eq!(
            told,
            "db: 1 of 2 pods are Ready\n\n1. problem with Pod shop/db-1  [crash]\n   Container main of db-1 crashes.\n   \
             why   The program gave up.\n   seen  last lines of db-1 (main): no  [31msuch luck\n   do    Start it anew:\n         \
             kubectl delete pod -n shop db-1\n   do    Or wait\n\nGood to know:\n  a note\n"
        );
    }

    #[test]
    fn commands_mean_the_cluster_that_was_asked_about() {
        let told = json(&with_flags(diagnosis(), "--context=prod"));
        assert!(
            told.contains("\"command\": \"kubectl --context=prod delete pod -n shop db-1\""),
            "{told}"
        );
    }
}
