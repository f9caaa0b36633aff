//! CronJob. As upstream: `pkg/apis/batch/v1/defaults.go`, `pkg/apis/batch/validation`, `pkg/registry/batch/cronjob`.

use super::job;
use super::parts::{AGE, ALL, NAME, PREPARE_SPEC, child, column, default_at, or_none, or_unset};
use super::pod;
use super::workload::{containers, not_negative, selector_cell};
use crate::cron::{Schedule, time_zone};
use crate::field_path::{FieldError, FieldPath};
use crate::kind::{Kind, Names, Scope, Subresource, Validate};
use crate::object::Object;
use crate::table;
use serde_json::{Value, json};

/// On a Job of a CronJob: for which time it was made, as RFC 3339.
pub const SCHEDULED_TIMESTAMP: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// The Jobs' names are eleven characters longer, and may have 63.
const NAME_MAX: usize = 63 - 11;

/// The kind.
pub const KIND: Kind = Kind {
    names: Names {
        group: "batch",
        version: "v1",
        kind: "CronJob",
        plural: "cronjobs",
        singular: "cronjob",
        short: &["cj"],
        categories: &["all"],
    },
    scope: Scope::Namespaced,
    subresources: &[Subresource::Status],
    verbs: ALL,
    deletion: crate::kind::Deletion::Immediate,
    decode: crate::decode::typed::<k8s_openapi::api::batch::v1::CronJob>,
    default,
    prepare: PREPARE_SPEC,
    validate: Validate {
        name: crate::metadata::dns_subdomain,
        create,
        update,
        update_status: super::parts::fine_update,
    },
    columns: &[
        NAME,
        column("Schedule", 0, |object, _| json!(object.str_at("/spec/schedule"))),
        column("Timezone", 0, |object, _| or_none(object.str_at("/spec/timeZone"))),
        column("Suspend", 0, |object, _| {
            or_unset(match object.at("/spec/suspend").and_then(Value::as_bool) {
                Some(true) => "True",
                Some(false) => "False",
                None => "",
            })
        }),
        column("Active", 0, |object, _| json!(object.list_at("/status/active").len())),
        column("Last Schedule", 0, |object, now| match object.str_at("/status/lastScheduleTime") {
            "" => json!("<none>"),
            time => json!(table::since(time, now)),
        }),
        AGE,
        column("Containers", 1, |object, _| containers(object, CONTAINERS, "name")),
        column("Images", 1, |object, _| containers(object, CONTAINERS, "image")),
        column("Selector", 1, |object, _| {
            selector_cell(object.at("/spec/jobTemplate/spec/selector"))
        }),
    ],
    selectable_fields: &[],
    fields: pod::CRON_JOB_FIELDS,
    definition: "io.k8s.api.batch.v1.CronJob",
    schema: |generator| drop(generator.subschema_for::<k8s_openapi::api::batch::v1::CronJob>()),
};

const CONTAINERS: &str = "/spec/jobTemplate/spec/template/spec/containers";

/// Of the template only the pod's part is filled in; the rest is when a Job is made.
fn default(object: &mut Object) {
    let spec = child(object.value_mut(), "spec");
    if super::parts::text(spec, "concurrencyPolicy").is_empty() {
        spec["concurrencyPolicy"] = json!("Allow");
    }
    default_at(spec, "suspend", json!(false));
    default_at(spec, "successfulJobsHistoryLimit", json!(3));
    default_at(spec, "failedJobsHistoryLimit", json!(1));
    job::default_template(child(child(spec, "jobTemplate"), "spec"));
}

fn create(object: &Object) -> Vec<FieldError> {
    let mut errors = validate(object);
    errors.extend(validate_zone(object));
    errors.extend(validate_template(object));
    if object.name().len() > NAME_MAX {
        errors.push(FieldError::invalid(
            &FieldPath::new("metadata").child("name"),
            object.name(),
            &format!("must be no more than {NAME_MAX} characters"),
        ));
    }
    errors
}

fn update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = validate(new);
    // What was accepted once stays acceptable: zones come and go, templates are looked at when they are new.
    if new.at("/spec/timeZone") != old.at("/spec/timeZone") {
        errors.extend(validate_zone(new));
    }
    if new.at("/spec/jobTemplate") != old.at("/spec/jobTemplate") {
        errors.extend(validate_template(new));
    }
    errors
}

fn validate(object: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("spec");
    let spec = object.at("/spec").unwrap_or(&Value::Null);
    let schedule = validate_schedule(object.str_at("/spec/schedule"), &path.child("schedule"));
    let mut errors: Vec<FieldError> = schedule.into_iter().collect();
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"]
    {
        errors.extend(not_negative(spec, field, &path));
    }
    let policies = ["Allow", "Forbid", "Replace"];
    match object.str_at("/spec/concurrencyPolicy") {
        "" => errors.push(FieldError::required(&path.child("concurrencyPolicy"), "")),
        policy if policies.contains(&policy) => {}
        other => errors.push(FieldError::not_supported(
            &path.child("concurrencyPolicy"),
            other,
            &policies,
        )),
    }
    let path = path.child("jobTemplate").child("spec");
    let template = object.at("/spec/jobTemplate/spec").unwrap_or(&Value::Null);
    errors.extend(job::validate_spec(template, &path));
    if let Some(selector) = template.get("selector") {
        errors.push(FieldError::invalid(
            &path.child("selector"),
            selector,
            "`selector` will be auto-generated",
        ));
    }
    if template.get("manualSelector") == Some(&json!(true)) {
        errors.push(FieldError::not_supported(
            &path.child("manualSelector"),
            true,
            &["nil", "false"],
        ));
    }
    errors
}

fn validate_template(object: &Object) -> Vec<FieldError> {
    let path = FieldPath::new("spec").child("jobTemplate").child("spec");
    job::validate_template(object.at("/spec/jobTemplate/spec").unwrap_or(&Value::Null), &path)
}

fn validate_schedule(schedule: &str, path: &FieldPath) -> Option<FieldError> {
    if schedule.is_empty() {
        return Some(FieldError::required(path, ""));
    }
    if schedule.contains("TZ") {
        return Some(FieldError::invalid(
            path,
            schedule,
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        ));
    }
    Schedule::parse(schedule).err().map(|error| FieldError::invalid(path, schedule, &error))
}

/// As upstream: `validateTimeZone`. Where the machine has no database of zones, only `UTC` is known.
fn validate_zone(object: &Object) -> Option<FieldError> {
    let zone = object.at("/spec/timeZone")?.as_str()?;
    let path = FieldPath::new("spec").child("timeZone");
    if zone.is_empty() {
        return Some(FieldError::invalid(&path, zone, "timeZone must be nil or non-empty string"));
    }
    if zone.eq_ignore_ascii_case("local") {
        return Some(FieldError::invalid(
            &path,
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        ));
    }
    time_zone(zone).err().map(|error| FieldError::invalid(&path, zone, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron_job(change: impl Fn(&mut Object)) -> Object {
        let mut object = Object::new(json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "backup", "namespace": "default"},
            "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "i:1"}]}}}}}})).unwrap();
        change(&mut object);
        let mut object = Object::new((KIND.decode)(object.into_value()).unwrap().value).unwrap();
        default(&mut object);
        object
    }

    fn refused(change: impl Fn(&mut Object)) -> String {
        create(&cron_job(change)).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_cron_job_gets_upstreams_defaults() {
        let object = cron_job(|_| {});
        for (pointer, value) in [
            ("/spec/concurrencyPolicy", json!("Allow")),
            ("/spec/suspend", json!(false)),
            ("/spec/successfulJobsHistoryLimit", json!(3)),
            ("/spec/failedJobsHistoryLimit", json!(1)),
            ("/spec/jobTemplate/spec/template/spec/dnsPolicy", json!("ClusterFirst")),
        ] {
            assert_eq!(object.at(pointer), Some(&value), "{pointer}");
        }
        // The Job itself gets its defaults when it is made.
        assert_eq!(object.at("/spec/jobTemplate/spec/backoffLimit"), None);
    }

    #[test]
    fn bad_cron_jobs_are_refused_in_upstreams_words() {
        assert_eq!(refused(|_| {}), "");
        assert_eq!(refused(|object| object.set("/spec/timeZone", json!("Europe/Rome"))), "");
        for (pointer, value, words) in [
            ("/spec/schedule", json!(""), "spec.schedule: Required value"),
            (
                "/spec/schedule",
                json!("every day"),
                "spec.schedule: Invalid value: \"every day\": expected exactly 5 fields, found 2: [every day]",
            ),
            (
                "/spec/schedule",
                json!("TZ=UTC 0 0 * * *"),
                "spec.schedule: Invalid value: \"TZ=UTC 0 0 * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ),
            (
                "/spec/timeZone",
                json!("Mars/Base"),
                "spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base",
            ),
            (
                "/spec/timeZone",
                json!(""),
                "spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string",
            ),
            (
                "/spec/timeZone",
                json!("Local"),
                "spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            ),
            (
                "/spec/concurrencyPolicy",
                json!("Never"),
                "spec.concurrencyPolicy: Unsupported value: \"Never\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            ),
            (
                "/spec/startingDeadlineSeconds",
                json!(-1),
                "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "/spec/jobTemplate/spec/selector",
                json!({"matchLabels": {"a": "b"}}),
                "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be auto-generated",
            ),
            (
                "/spec/jobTemplate/spec/manualSelector",
                json!(true),
                "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
            ),
            (
                "/spec/jobTemplate/spec/template/spec/restartPolicy",
                json!("Always"),
                "spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
            ),
            (
                "/metadata/name",
                json!("a".repeat(53)),
                &format!(
                    "metadata.name: Invalid value: \"{}\": must be no more than 52 characters",
                    "a".repeat(53)
                ),
            ),
        ] {
            assert_eq!(refused(|object| object.set(pointer, value.clone())), words);
        }
    }

    #[test]
    fn a_zone_that_is_no_more_hinders_no_other_change() {
        let with = |suspend: bool| {
            cron_job(|object| {
                object.set("/spec/timeZone", json!("Mars/Base"));
                object.set("/spec/suspend", json!(suspend));
            })
        };
        assert_eq!(update(&with(true), &with(false)), []);
    }

    #[test]
    fn a_cron_job_is_shown_as_upstream_shows_it() {
        let now = "2027-01-01T00:10:00Z".parse().unwrap();
        let cells = |object: &Object| -> Vec<Value> {
            KIND.columns.iter().map(|column| (column.cell)(object, now)).collect()
        };
        let mut object = cron_job(|object| {
            object.set("/metadata/creationTimestamp", json!("2026-12-31T23:10:00Z"));
        });
        let shown = |suspend: &str, active: u32, last: &str| {
            json!([
                "backup",
                "*/5 * * * *",
                "<none>",
                suspend,
                active,
                last,
                "60m",
                "c",
                "i:1",
                "<none>"
            ])
        };
        assert_eq!(json!(cells(&object)), shown("False", 0, "<none>"));
        object.set("/spec/suspend", json!(true));
        object.set("/status", json!({"active": [{}], "lastScheduleTime": "2027-01-01T00:09:00Z"}));
        assert_eq!(json!(cells(&object)), shown("True", 1, "60s"));
    }
}
