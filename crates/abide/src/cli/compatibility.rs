//! docs/compatibility.md, from what the kinds say of themselves.

use api::kind::{Scope, Support};

/// The whole document.
pub(crate) fn table() -> String {
    let mut text = String::from(
        "# Compatibility\n\n<!-- Written by `cargo xtask compat` from the kinds' own descriptions. Do not edit. -->\n\n\
         Served are the kinds below, nothing else: a kind that nothing here acts upon is not in discovery. A field that no \
         table names is honoured as upstream honours it.\n\n\
         | kind | API | scope | subresources |\n|---|---|---|---|\n",
    );
    for kind in api::kinds::KINDS {
        let subresources: Vec<String> = kind
            .subresources
            .iter()
            .map(|s| api::discovery::subresource_name(s).to_owned())
            .collect();
        let scope = match kind.scope {
            Scope::Namespaced => "namespaced",
            Scope::Cluster => "cluster",
        };
        text += &format!(
            "| {} | `{}` | {scope} | {} |\n",
            kind.names.kind,
            kind.names.api_version(),
            subresources.join(", ")
        );
    }
    for kind in api::kinds::KINDS.iter().filter(|kind| !kind.fields.is_empty()) {
        text += &format!(
            "\n## {}\n\n| field | what happens to it | why |\n|---|---|---|\n",
            kind.names.kind
        );
        for field in kind.fields {
            let support = match field.support {
                Support::StoredOnly => {
                    "stored, not acted upon; using it is answered with a warning"
                }
                Support::NoEffect => "stored; has no effect here",
                Support::Refused => "refused",
            };
            text += &format!("| `{}` | {support} | {} |\n", field.path, field.why);
        }
    }
    text
}
