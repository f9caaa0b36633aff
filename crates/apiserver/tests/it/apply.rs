//! Server-side apply, and who manages what.

use crate::{MAPS, SETS, map, set};
use apiserver::Identity;
use serde_json::{Value, json};
use testkit::TestServer;

/// The managers of an object: name, operation, subresource.
fn managers(object: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|e| (text(&e["manager"]), text(&e["operation"]), text(&e["subresource"])))
        .collect()
}

fn entry(manager: &str, operation: &str, subresource: &str) -> (String, String, String) {
    (manager.to_owned(), operation.to_owned(), subresource.to_owned())
}

#[tokio::test]
async fn applying_what_is_not_there_makes_it_t76() {
    let server = TestServer::start().await;
    let path = format!("{SETS}/web");
    let configuration = set("web", 2);
    let tried = server.apply(&path, "fieldManager=helm&dryRun=All", &configuration).await;
    assert_eq!(tried.code, 201, "{}", tried.json());
    assert_eq!(server.get(&path).await.code, 404, "a dry run makes nothing");
    let made = server.apply(&path, "fieldManager=helm", &configuration).await;
    assert_eq!(made.code, 201);
    let made = made.json();
    assert_eq!(made["spec"]["podManagementPolicy"], "OrderedReady", "defaults are applied");
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(managers(&made), [entry("helm", "Apply", "")]);
    let fields = &made["metadata"]["managedFields"][0]["fieldsV1"];
    assert_eq!(
        fields,
        &json!({"f:spec": {"f:replicas": {}, "f:selector": {}, "f:serviceName": {}, "f:template": {
            "f:metadata": {"f:labels": {"f:app": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"main\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}})
    );
    let again = server.apply(&path, "fieldManager=helm", &configuration).await;
    assert_eq!((again.code, again.json()), (200, made), "no revision for no change");
}

#[tokio::test]
async fn somebody_elses_field_is_a_conflict_unless_it_is_forced() {
    let server = TestServer::start().await;
    let path = format!("{SETS}/web");
    server.apply(&path, "fieldManager=helm", &set("web", 2)).await;
    let agent =
        [("content-type", "application/merge-patch+json"), ("user-agent", "kubectl/v1.37.0 (x)")];
    let scale = json!({"spec": {"replicas": 5}}).to_string();
    assert_eq!(server.request("PATCH", &format!("{path}/scale"), &agent, scale).await.code, 200);
    let refused = server.apply(&path, "fieldManager=helm", &set("web", 2)).await;
    assert_eq!(refused.code, 409);
    let status = refused.json();
    assert_eq!(status["reason"], "Conflict");
    let who = "conflict with \"kubectl\" with subresource \"scale\" using apps/v1";
    assert_eq!(status["message"], format!("Apply failed with 1 conflict: {who}: .spec.replicas"));
    assert_eq!(
        status["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": who, "field": ".spec.replicas"}])
    );
    let forced = server.apply(&path, "fieldManager=helm&force=true", &set("web", 2)).await.json();
    assert_eq!(forced["spec"]["replicas"], 2);
    assert_eq!(managers(&forced), [entry("helm", "Apply", "")]);
}

#[tokio::test]
async fn what_is_no_longer_configured_goes_back_to_its_default() {
    let server = TestServer::start().await;
    let path = format!("{SETS}/web");
    let mut configuration = set("web", 3);
    configuration["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
    configuration["metadata"]["labels"] = json!({"a": "b"});
    server.apply(&path, "fieldManager=helm", &configuration).await;
    let annotated = json!({"metadata": {"annotations": {"x": "y"}}});
    server.patch(&path, "merge", &annotated).await;
    let spec = configuration["spec"].as_object_mut().unwrap();
    spec.remove("replicas");
    configuration["metadata"].as_object_mut().unwrap().remove("labels");
    configuration["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "B", "value": "2"}]);
    let applied = server.apply(&path, "fieldManager=helm", &configuration).await.json();
    assert_eq!(applied["spec"]["replicas"], 1);
    assert_eq!(applied["metadata"]["labels"], json!(null));
    assert_eq!(applied["metadata"]["annotations"], json!({"x": "y"}), "others' fields stay");
    assert_eq!(
        applied["spec"]["template"]["spec"]["containers"][0]["env"],
        json!([{"name": "B", "value": "2"}])
    );
}

#[tokio::test]
async fn a_configuration_may_be_yaml() {
    let server = TestServer::start().await;
    let path = format!("{MAPS}/a?fieldManager=me");
    let headers = [("content-type", "application/apply-patch+yaml; charset=utf-8")];
    let text = "# by hand\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: |\n    two\n    lines\n  n: \"1\"\n";
    let made = server.request("PATCH", &path, &headers, text).await;
    assert_eq!((made.code, &made.json()["data"]["x"]), (201, &json!("two\nlines\n")));
    for bad in ["a: [", "- a\n- b\n", "", "a: 1\na: 2\n", "{\"a\": 1"] {
        let refused = server.request("PATCH", &path, &headers, bad).await;
        assert_eq!((refused.code, &refused.json()["reason"]), (400, &json!("BadRequest")), "{bad}");
    }
}

#[tokio::test]
async fn bad_configurations_are_refused_in_upstreams_words() {
    let server = TestServer::start().await;
    let path = format!("{SETS}/web");
    let message = async |query: &str, configuration: &Value| {
        let answer = server.apply(&path, query, configuration).await;
        (answer.code, answer.json()["message"].as_str().unwrap_or_default().to_owned())
    };
    let good = set("web", 1);
    assert_eq!(
        message("", &good).await,
        (422, "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch".to_owned())
    );
    assert_eq!(
        message("fieldManager=a", &map("web", &json!({}))).await,
        (400, "invalid object type: /v1, Kind=ConfigMap".to_owned())
    );
    let mut wrong = good.clone();
    wrong["spec"]["replicas"] = json!("many");
    wrong["spec"]["replcas"] = json!(1);
    assert_eq!(
        message("fieldManager=a", &wrong).await,
        (400, "failed to create typed patch object (/web; apps/v1, Kind=StatefulSet): errors:\n  .spec.replcas: field not declared in schema\n  \
               .spec.replicas: expected numeric (int or float), got string".to_owned())
    );
    let (code, words) = message("fieldManager=a", &set("other", 1)).await;
    assert_eq!(code, 400);
    assert_eq!(words, "the name of the object (other) does not match the name on the URL (web)");
    let mut nameless = good.clone();
    nameless["metadata"] = json!({});
    assert_eq!(
        message("fieldManager=a", &nameless).await,
        (
            400,
            "the name of the object (web based on URL) was undeterminable: name must be provided"
                .to_owned()
        )
    );
    let mut elsewhere = good.clone();
    elsewhere["metadata"]["namespace"] = json!("kube-system");
    assert_eq!(
        message("fieldManager=a", &elsewhere).await,
        (
            400,
            "the namespace of the provided object does not match the namespace sent on the request"
                .to_owned()
        )
    );
    let mut identified = good.clone();
    identified["metadata"]["uid"] = json!("u");
    let (code, words) = message("fieldManager=a", &identified).await;
    assert_eq!(code, 409);
    assert!(
        words.ends_with(
            "uid mismatch: the provided object specified uid u, and no existing object was found"
        ),
        "{words}"
    );
    let (code, words) = message("fieldManager=a", &set("web", -1)).await;
    assert_eq!(code, 422, "{words}");
    assert_eq!(server.get(&path).await.code, 404, "nothing was made");
    assert_eq!(server.apply(&path, "fieldManager=a", &good).await.code, 201);
    let mut stale = good.clone();
    stale["metadata"]["resourceVersion"] = json!("1");
    assert_eq!(message("fieldManager=a", &stale).await.0, 409);
    assert_eq!(message("fieldManager=a", &identified).await.0, 409);
    assert_eq!(message("fieldManager=a", &nameless).await.0, 200, "the URL names it");
    let status =
        server.apply(&format!("{SETS}/none/status"), "fieldManager=a", &set("none", 1)).await;
    assert_eq!(status.code, 404, "a status of nothing");
}

#[tokio::test]
async fn clients_from_outside_are_tracked_and_the_control_plane_is_not() {
    let server = TestServer::start().await;
    let made = server.post(&format!("{SETS}?fieldManager=kubectl-create"), &set("web", 1)).await;
    assert_eq!(managers(&made.json()), [entry("kubectl-create", "Update", "")]);
    let controller = Identity::internal("system:serviceaccount:kube-system:statefulset-controller");
    let json_type = [("content-type", "application/json")];
    let inside = |method: &'static str, path: String, body: Value| {
        server.request_as(
            Some(controller.clone()),
            method,
            path.leak(),
            &json_type,
            body.to_string(),
        )
    };
    let status = json!({"replicas": 1, "observedGeneration": 1});
    let mut set = made.json();
    set["status"] = status.clone();
    let written = inside("PUT", format!("{SETS}/web/status"), set).await.json();
    assert_eq!(
        managers(&written),
        [
            entry("kubectl-create", "Update", ""),
            entry("statefulset-controller", "Update", "status")
        ]
    );
    assert_eq!(
        written["metadata"]["managedFields"][1]["fieldsV1"],
        json!({"f:status": {"f:observedGeneration": {}, "f:replicas": {}}})
    );
    let inner = inside("POST", MAPS.to_owned(), map("inner", &json!({"x": "1"}))).await.json();
    assert_eq!(managers(&inner), []);
    let path = format!("{MAPS}/inner");
    let patched = server.patch(&path, "merge", &json!({"data": {"y": "2"}})).await.json();
    assert_eq!(managers(&patched), []);
    let refused =
        server.apply(&path, "fieldManager=a", &map("inner", &json!({"x": "2", "y": "2"}))).await;
    assert_eq!(
        refused.json()["message"],
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.x"
    );
    let applied =
        server.apply(&path, "fieldManager=a", &map("inner", &json!({"y": "2"}))).await.json();
    assert_eq!(
        managers(&applied),
        [entry("a", "Apply", ""), entry("before-first-apply", "Update", "")]
    );
    let listed = server.get(MAPS).await.json();
    let shown =
        listed["items"].as_array().unwrap().iter().find(|o| o["metadata"]["name"] == "inner");
    assert_eq!(shown.unwrap()["metadata"]["managedFields"], applied["metadata"]["managedFields"]);
}

#[tokio::test]
async fn a_scale_and_a_status_are_applied_each_to_its_part() {
    let server = TestServer::start().await;
    let path = format!("{SETS}/web");
    server.apply(&path, "fieldManager=helm", &set("web", 2)).await;
    let scale = |replicas: i64| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": replicas}});
    let scales = format!("{path}/scale");
    assert_eq!(server.apply(&scales, "fieldManager=hpa", &scale(4)).await.code, 409);
    let scaled = server.apply(&scales, "fieldManager=hpa&force=true", &scale(4)).await;
    assert_eq!((scaled.code, &scaled.json()["spec"]["replicas"]), (200, &json!(4)));
    assert_eq!(server.apply(&scales, "fieldManager=hpa", &scale(-1)).await.code, 422);
    assert_eq!(server.apply(&scales, "fieldManager=hpa", &set("web", 1)).await.code, 400);
    let mut status = set("web", 9);
    status["status"] = json!({"replicas": 4});
    let written = server.apply(&format!("{path}/status"), "fieldManager=s", &status).await.json();
    assert_eq!(
        (&written["spec"]["replicas"], &written["status"]["replicas"]),
        (&json!(4), &json!(4))
    );
    assert_eq!(
        managers(&written),
        [entry("helm", "Apply", ""), entry("hpa", "Apply", "scale"), entry("s", "Apply", "status")]
    );
}

#[tokio::test]
async fn secrets_may_be_applied_as_text_again_and_again() {
    let server = TestServer::start().await;
    let path = "/api/v1/namespaces/default/secrets/s";
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}});
    let made = server.apply(path, "fieldManager=me", &secret).await.json();
    assert_eq!(made["data"], json!({"a": "Yg=="}), "{made}");
    let again = server.apply(path, "fieldManager=me", &secret).await.json();
    assert_eq!(again["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn managers_can_be_renamed_and_forgotten_by_a_patch() {
    let server = TestServer::start().await;
    let path = format!("{MAPS}/a");
    let configuration = map("a", &json!({"x": "1"}));
    let made = server.apply(&path, "fieldManager=a", &configuration).await.json();
    // As kubectl moves its client-side apply to server-side apply.
    let mut list = made["metadata"]["managedFields"].clone();
    list[0]["manager"] = json!("b");
    let patch = json!([
        {"op": "replace", "path": "/metadata/managedFields", "value": list},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": made["metadata"]["resourceVersion"]}
    ]);
    let moved = server.patch(&path, "json", &patch).await.json();
    assert_eq!(managers(&moved), [entry("b", "Apply", "")]);
    assert_eq!(server.patch(&path, "json", &patch).await.code, 409, "the object has changed since");
    let forgotten =
        server.patch(&path, "merge", &json!({"metadata": {"managedFields": [{}]}})).await.json();
    assert_eq!(managers(&forgotten), []);
    let nonsense = json!({"metadata": {"managedFields": [{"manager": "x", "operation": "Guess", "apiVersion": "v1", "fieldsType": "FieldsV1"}]}});
    let kept = server.patch(&path, "merge", &nonsense).await;
    assert_eq!((kept.code, managers(&kept.json())), (200, Vec::new()));
}

#[tokio::test]
async fn names_of_managers_are_checked_on_every_write() {
    let server = TestServer::start().await;
    let long = "x".repeat(129);
    let made = server.post(&format!("{MAPS}?fieldManager={long}"), &map("a", &json!({}))).await;
    assert_eq!(made.code, 422);
    assert!(
        made.json()["message"]
            .as_str()
            .unwrap()
            .starts_with("CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long")
    );
    server.post(MAPS, &map("a", &json!({}))).await;
    let path = format!("{MAPS}/a?force=true");
    let forced = server.patch(&path, "merge", &json!({})).await;
    assert_eq!((forced.code, &forced.json()["reason"]), (422, &json!("Invalid")));
}
