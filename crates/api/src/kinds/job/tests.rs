use super::*;
use crate::field_path::FieldError;

fn made(change: impl Fn(&mut Object)) -> Object {
    let mut object = Object::new(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "backup", "namespace": "default", "uid": "u-1"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}})).unwrap();
    change(&mut object);
    let mut object = Object::new((KIND.decode)(object.into_value()).unwrap().value).unwrap();
    default(&mut object);
    create(&mut object);
    default(&mut object);
    object
}

fn words(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn refused(change: impl Fn(&mut Object)) -> String {
    words(&validation::create(&made(change)))
}

#[test]
fn a_job_gets_upstreams_defaults() {
    let object = made(|_| {});
    for (pointer, value) in [
        ("/spec/completions", json!(1)),
        ("/spec/parallelism", json!(1)),
        ("/spec/backoffLimit", json!(6)),
        ("/spec/completionMode", json!("NonIndexed")),
        ("/spec/suspend", json!(false)),
        ("/spec/manualSelector", json!(false)),
        ("/spec/podReplacementPolicy", json!("TerminatingOrFailed")),
    ] {
        assert_eq!(object.at(pointer), Some(&value), "{pointer}");
    }
    let queue = made(|object| object.set("/spec/parallelism", json!(3)));
    assert_eq!(queue.at("/spec/completions"), None, "a queue's end is known to its workers alone");
    let per_index = made(|object| object.set("/spec/backoffLimitPerIndex", json!(1)));
    assert_eq!(per_index.int_at("/spec/backoffLimit"), Some(i64::from(i32::MAX)));
    let policy = made(|object| {
        object.set("/spec/podFailurePolicy", json!({"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}));
    });
    assert_eq!(policy.str_at("/spec/podReplacementPolicy"), "Failed");
    assert_eq!(policy.str_at("/spec/podFailurePolicy/rules/0/onPodConditions/0/status"), "True");
}

#[test]
fn selector_and_labels_are_made_unless_the_client_manages_them() {
    let object = made(|object| {
        object.set("/spec/template/metadata/labels", json!({"app": "db"}));
    });
    let labels = json!({"app": "db", "batch.kubernetes.io/controller-uid": "u-1", "controller-uid": "u-1",
        "batch.kubernetes.io/job-name": "backup", "job-name": "backup"});
    assert_eq!(object.at("/spec/template/metadata/labels"), Some(&labels));
    assert_eq!(
        object.at("/spec/selector"),
        Some(&json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}))
    );
    assert_eq!(object.at("/metadata/labels"), Some(&json!({"app": "db"})));
    let bare = made(|_| {});
    assert_eq!(bare.label("job-name"), Some("backup"), "as upstream shows Jobs without labels");
    let manual = made(|object| {
        object.set("/spec/manualSelector", json!(true));
        object.set("/spec/selector", json!({"matchLabels": {"a": "b"}}));
        object.set("/spec/template/metadata/labels", json!({"a": "b"}));
    });
    assert_eq!(manual.at("/spec/template/metadata/labels"), Some(&json!({"a": "b"})));
    assert_eq!(validation::create(&manual), []);
}

#[test]
fn bad_jobs_are_refused_in_upstreams_words() {
    assert_eq!(refused(|_| {}), "");
    for (pointer, value, words) in [
        (
            "/spec/parallelism",
            json!(-1),
            "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "/spec/template/spec/restartPolicy",
            json!("Always"),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
        (
            "/spec/completionMode",
            json!("Sorted"),
            "spec.completionMode: Unsupported value: \"Sorted\": supported values: \"NonIndexed\", \"Indexed\"",
        ),
        (
            "/spec/backoffLimitPerIndex",
            json!(1),
            "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
        ),
        (
            "/spec/selector",
            json!({"matchLabels": {"a": "b"}}),
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"batch.kubernetes.io/controller-uid\":\"u-1\"}}: `selector` not auto-generated; \
             spec.template.metadata.labels: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u-1\",\"batch.kubernetes.io/job-name\":\"backup\",\"controller-uid\":\"u-1\",\"job-name\":\"backup\"}: `selector` does not match template `labels`",
        ),
        (
            "/spec/managedBy",
            json!("me"),
            "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")",
        ),
        (
            "/spec/podReplacementPolicy",
            json!("Never"),
            "spec.podReplacementPolicy: Unsupported value: \"Never\": supported values: \"Failed\", \"TerminatingOrFailed\"",
        ),
        (
            "/spec/successPolicy",
            json!({"rules": [{"succeededCount": 1}]}),
            "spec.successPolicy: Invalid value: {\"rules\":[{\"succeededCount\":1}]}: requires indexed completion mode",
        ),
        (
            "/spec/template/metadata/labels",
            json!({"job-name": "other"}),
            "spec.template.metadata.labels[job-name]: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u-1\",\"batch.kubernetes.io/job-name\":\"backup\",\"controller-uid\":\"u-1\",\"job-name\":\"other\"}: must be 'backup'",
        ),
    ] {
        assert_eq!(refused(|object| object.set(pointer, value.clone())), words);
    }
}

#[test]
fn indexed_jobs_have_rules_of_their_own() {
    let indexed = |fields: Value| {
        refused(move |object| {
            object.set("/spec/completionMode", json!("Indexed"));
            for (key, value) in fields.as_object().unwrap() {
                object.set(&format!("/spec/{key}"), value.clone());
            }
        })
    };
    assert_eq!(
        indexed(
            json!({"completions": 3, "parallelism": 2, "backoffLimitPerIndex": 1, "maxFailedIndexes": 2})
        ),
        ""
    );
    for (fields, words) in [
        (
            json!({"parallelism": 2}),
            "spec.completions: Required value: when completion mode is Indexed",
        ),
        (
            json!({"completions": 2, "parallelism": 100_001}),
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
        ),
        (
            json!({"completions": 2, "maxFailedIndexes": 3, "backoffLimitPerIndex": 1}),
            "spec.maxFailedIndexes: Invalid value: 3: must be less than or equal to completions",
        ),
        (
            json!({"completions": 2, "maxFailedIndexes": 1}),
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
        ),
        (
            json!({"completions": 100_001, "backoffLimitPerIndex": 1}),
            "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
        ),
        (
            json!({"completions": 5, "successPolicy": {"rules": [{}]}}),
            "spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified",
        ),
        (
            json!({"completions": 5, "successPolicy": {"rules": [{"succeededIndexes": "2-1"}]}}),
            "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"2-1\": error parsing succeededIndexes: non-increasing order, previous: 2, current: 1",
        ),
        (
            json!({"completions": 5, "successPolicy": {"rules": [{"succeededIndexes": "0-2", "succeededCount": 4}]}}),
            "spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of indexes in the specified succeededIndexes field)",
        ),
        (
            json!({"completions": 5, "successPolicy": {"rules": []}}),
            "spec.successPolicy.rules: Required value: at least one rules must be specified when the successPolicy is specified",
        ),
    ] {
        assert_eq!(indexed(fields.clone()), words, "{fields}");
    }
    let long = "a".repeat(62);
    let named = refused(|object| {
        object.set("/spec/completionMode", json!("Indexed"));
        object.set("/metadata/name", json!(long));
    });
    assert!(
        named.ends_with(&format!("will not able to create pod with invalid DNS label: {long}-0")),
        "{named}"
    );
}

#[test]
fn failure_policies_are_checked_rule_by_rule() {
    let with = |rule: Value| {
        refused(move |object| object.set("/spec/podFailurePolicy", json!({"rules": [rule]})))
    };
    let path = "spec.podFailurePolicy.rules[0]";
    assert_eq!(
        with(json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 2]}})),
        ""
    );
    for (rule, words) in [
        (
            json!({"action": "Count"}),
            format!(
                "{path}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"
            ),
        ),
        (
            json!({"action": "Explode", "onExitCodes": {"operator": "In", "values": [1]}}),
            format!(
                "{path}.action: Unsupported value: \"Explode\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\""
            ),
        ),
        (
            json!({"action": "", "onExitCodes": {"operator": "In", "values": [1]}}),
            format!(
                "{path}.action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"
            ),
        ),
        (
            json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}}),
            format!(
                "{path}.action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set"
            ),
        ),
        (
            json!({"action": "Count", "onExitCodes": {"containerName": "x", "operator": "NotIn", "values": []}}),
            format!(
                "{path}.onExitCodes.containerName: Invalid value: \"x\": must be one of the container or initContainer names in the pod template; \
                 {path}.onExitCodes.values: Invalid value: []: at least one value is required"
            ),
        ),
        (
            json!({"action": "Count", "onExitCodes": {"operator": "In", "values": [1, 0, 1]}}),
            format!(
                "{path}.onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator; \
                 {path}.onExitCodes.values[2]: Duplicate value: 1; \
                 {path}.onExitCodes.values: Invalid value: [1,0,1]: must be ordered"
            ),
        ),
        (
            json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "Maybe"}]}),
            format!(
                "{path}.onPodConditions[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \"Unknown\""
            ),
        ),
    ] {
        assert_eq!(with(rule.clone()), words, "{rule}");
    }
    let on_failure = refused(|object| {
        object.set("/spec/template/spec/restartPolicy", json!("OnFailure"));
        object.set("/spec/podFailurePolicy", json!({"rules": []}));
    });
    assert_eq!(
        on_failure,
        "spec.template.spec.restartPolicy: Invalid value: \"OnFailure\": only \"Never\" is supported when podFailurePolicy is specified"
    );
}

#[test]
fn most_of_a_job_stays_as_it_is() {
    let changed = |before: &[(&str, Value)], change: &[(&str, Value)]| {
        let old =
            made(|object| before.iter().for_each(|(at, value)| object.set(at, value.clone())));
        let mut new = old.clone();
        change.iter().for_each(|(at, value)| new.set(at, value.clone()));
        words(&validation::update(&new, &old))
    };
    assert_eq!(
        changed(&[], &[("/spec/parallelism", json!(2)), ("/spec/suspend", json!(true))]),
        ""
    );
    assert_eq!(
        changed(&[], &[("/spec/completions", json!(2))]),
        "spec.completions: Invalid value: 2: field is immutable"
    );
    assert!(
        changed(&[], &[("/spec/template/spec/containers/0/image", json!("i:2"))])
            .ends_with("field is immutable")
    );
    let node = [("/spec/template/spec/nodeSelector", json!({"disk": "ssd"}))];
    assert!(changed(&[], &node).starts_with("spec.template: Invalid value"));
    let suspended = [("/spec/suspend", json!(true))];
    assert_eq!(changed(&suspended, &node), "", "where it runs may be said until it starts");
    let indexed = [("/spec/completionMode", json!("Indexed")), ("/spec/completions", json!(2))];
    assert_eq!(
        changed(&indexed, &[("/spec/completions", json!(3)), ("/spec/parallelism", json!(3))]),
        ""
    );
    assert_eq!(
        changed(&indexed, &[("/spec/completions", json!(3))]),
        "spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism"
    );
}

#[test]
fn a_status_that_cannot_be_is_refused() {
    let of = |status: Value| {
        let mut object = made(|_| {});
        object.set("/status", status);
        object
    };
    let refused = |new: Value, old: Value| words(&status::update(&of(new), &of(old)));
    let holding = |kinds: &[&str]| {
        json!(kinds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect::<Vec<_>>())
    };
    let at = "2027-01-01T00:00:00Z";
    let complete = json!({"startTime": at, "completionTime": at, "succeeded": 1, "conditions": holding(&["SuccessCriteriaMet", "Complete"])});
    assert_eq!(refused(complete.clone(), json!({})), "");
    assert_eq!(
        refused(json!({"failed": 1}), json!({"failed": 2})),
        "status.failed: Invalid value: 1: cannot decrease the failed counter"
    );
    assert_eq!(
        refused(json!({"conditions": holding(&["Failed"]), "startTime": at}), json!({})),
        "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition"
    );
    assert_eq!(
        refused(json!({"succeeded": 1, "startTime": at}), complete),
        "status.conditions: Invalid value: cannot disable the terminal Complete=True condition; \
         status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition"
    );
    assert_eq!(
        refused(
            json!({"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a", ""]}}),
            json!({})
        ),
        "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"; \
         status.uncountedTerminatedPods.failed[1]: Invalid value: \"\": must not be empty"
    );
    assert_eq!(
        refused(json!({"ready": 2, "active": 1}), json!({})),
        "status.ready: Invalid value: 2: cannot set more ready pods than active"
    );
    assert_eq!(
        refused(json!({"completedIndexes": "0"}), json!({})),
        "status.completedIndexes: Invalid value: \"0\": cannot set non-empty completedIndexes when non-indexed completion mode"
    );
}

#[test]
fn a_job_is_shown_as_upstream_shows_it() {
    let now = "2027-01-01T00:10:00Z".parse().unwrap();
    let shown = |change: &dyn Fn(&mut Object)| -> Vec<Value> {
        let mut object = made(|_| {});
        object.set("/metadata/creationTimestamp", json!("2027-01-01T00:09:00Z"));
        change(&mut object);
        KIND.columns.iter().map(|column| (column.cell)(&object, now)).collect()
    };
    assert_eq!(
        json!(shown(&|_| {})),
        json!([
            "backup",
            "Running",
            "0/1",
            "",
            "60s",
            "c",
            "i:1",
            "batch.kubernetes.io/controller-uid=u-1"
        ])
    );
    let done = shown(&|object| {
        object.set("/status", json!({"succeeded": 1, "startTime": "2027-01-01T00:09:00Z", "completionTime": "2027-01-01T00:09:05Z", "conditions": [{"type": "Complete", "status": "True"}]}));
    });
    assert_eq!(json!(done[1..4]), json!(["Complete", "1/1", "5s"]));
    let queue = shown(&|object| {
        object.remove("/spec/completions");
        object.set("/spec/parallelism", json!(4));
        object.set("/status", json!({"startTime": "2027-01-01T00:08:00Z", "conditions": [{"type": "Suspended", "status": "True"}]}));
    });
    assert_eq!(json!(queue[1..4]), json!(["Suspended", "0/1 of 4", "2m"]));
}
