//! Bad input: upstream's status, reason, field path and words; nothing changes, nothing panics.

use crate::{MAPS, SETS, map, set};
use serde_json::{Value, json};
use testkit::TestServer;

/// What an answer complains of: code, reason, message.
async fn complaint(server: &TestServer, path: &str, object: &Value) -> (u16, String, String) {
    let answer = server.post(path, object).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let json = answer.json();
    (answer.code, text(&json["reason"]), text(&json["message"]))
}

#[tokio::test]
async fn what_does_not_exist_is_not_found_in_upstreams_words() {
    let server = TestServer::start().await;
    let answer = server.get(&format!("{MAPS}/absent")).await;
    assert_eq!(answer.code, 404);
    let status = answer.json();
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["message"], "configmaps \"absent\" not found");
    assert_eq!(status["details"], json!({"name": "absent", "kind": "configmaps"}));
    assert_eq!(server.get("/apis/example.com/v1/things").await.code, 404);
    let unknown = server.get("/apis/example.com/v1/things").await.json();
    assert_eq!(unknown["message"], "the server could not find the requested resource");
}

#[tokio::test]
async fn invalid_sets_are_refused_with_their_field_paths() {
    let server = TestServer::start().await;
    let mut bad = set("web", -1);
    bad["spec"]["podManagementPolicy"] = json!("Sometimes");
    let (code, reason, message) = complaint(&server, SETS, &bad).await;
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    assert!(message.starts_with("StatefulSet.apps \"web\" is invalid: ["), "{message}");
    assert!(message.contains("spec.podManagementPolicy: Invalid value: \"Sometimes\": must be 'OrderedReady' or 'Parallel'"), "{message}");
    assert!(
        message.contains("spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        "{message}"
    );
    let mut other = set("web", 1);
    other["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    let (_, _, message) = complaint(&server, SETS, &other).await;
    assert!(message.contains("`selector` does not match template `labels`"), "{message}");
    assert_eq!(server.get(SETS).await.json()["items"], json!([]), "nothing has changed");
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_refused_and_change_nothing() {
    let server = TestServer::start().await;
    let cases: &[(&str, u16)] = &[
        ("", 400),
        ("{", 400),
        ("[]", 400),
        ("null", 400),
        ("{\"kind\":\"Secret\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"a\"}}", 400),
        ("{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":7}}", 400),
        ("{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":[]}", 400),
        (
            "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"data\":{\"a\":{}},\"metadata\":{\"name\":\"a\"}}",
            400,
        ),
        (
            "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"Not_A_Name\"}}",
            422,
        ),
        ("{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{}}", 422),
    ];
    for (body, code) in cases {
        let answer = server
            .request("POST", MAPS, &[("content-type", "application/json")], (*body).to_owned())
            .await;
        assert_eq!(answer.code, *code, "{body}: {}", answer.json());
        assert_eq!(answer.json()["kind"], "Status", "{body}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let answer = server.request("POST", MAPS, &[("content-type", "application/json")], deep).await;
    assert_eq!(answer.code, 400);
    let text = server.request("POST", MAPS, &[("content-type", "text/plain")], "{}").await;
    assert_eq!((text.code, &text.json()["reason"]), (415, &"UnsupportedMediaType".into()));
    let large = "x".repeat(4 * 1024 * 1024);
    let large = server.request("POST", MAPS, &[("content-type", "application/json")], large).await;
    assert_eq!(large.code, 413);
    assert_eq!(server.get(MAPS).await.json()["items"], json!([]), "nothing has changed");
}

#[tokio::test]
async fn unknown_fields_are_warned_of_or_refused_as_the_client_asks() {
    let server = TestServer::start().await;
    let mut object = map("a", &json!({}));
    object["dta"] = json!({});
    let warned = server.post(&format!("{MAPS}?fieldValidation=Warn"), &object).await;
    assert_eq!(
        (warned.code, warned.warnings()),
        (201, vec!["299 - \"unknown field \\\"dta\\\"\""])
    );
    object["metadata"]["name"] = json!("b");
    let refused = server.post(&format!("{MAPS}?fieldValidation=Strict"), &object).await;
    assert_eq!(refused.code, 400);
    assert!(
        refused.json()["message"]
            .as_str()
            .unwrap()
            .contains("strict decoding error: unknown field \"dta\""),
        "{}",
        refused.json()
    );
    let ignored = server.post(&format!("{MAPS}?fieldValidation=Ignore"), &object).await;
    assert_eq!((ignored.code, ignored.warnings().len()), (201, 0));
}

#[tokio::test]
async fn immutable_fields_of_a_set_are_named_t70() {
    let server = TestServer::start().await;
    server.post(SETS, &set("web", 1)).await;
    let patch = json!({"spec": {"serviceName": "other"}});
    let refused = server.patch(&format!("{SETS}/web"), "merge", &patch).await;
    assert_eq!(refused.code, 422);
    assert_eq!(
        refused.json()["details"]["causes"][0]["message"],
        "Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
    );
}
