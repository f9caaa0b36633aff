//! Watches: from a revision, with bookmarks, and 410 Gone.

use crate::{MAPS, map};
use futures::StreamExt;
use http::Request;
use serde_json::{Value, json};
use testkit::TestServer;

/// Reads a watch's events until `count` have come.
async fn events(server: &TestServer, query: &str, count: usize) -> Vec<Value> {
    let mut request =
        Request::get(format!("{MAPS}?watch=1&{query}")).body(axum::body::Body::empty()).unwrap();
    request.extensions_mut().insert(apiserver::Identity::internal("a test"));
    let response = server.api.answer(request).await;
    assert_eq!(response.status(), 200);
    let mut stream = response.into_body().into_data_stream();
    let mut text = String::new();
    while text.matches('\n').count() < count {
        let Some(bytes) = stream.next().await else { break };
        text.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
    }
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn told(events: &[Value]) -> Vec<(&str, &str)> {
    events
        .iter()
        .map(|event| {
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
            (event["type"].as_str().unwrap(), name)
        })
        .collect()
}

#[tokio::test]
async fn a_watch_from_a_revision_replays_what_happened_after_it() {
    let server = TestServer::start().await;
    server.post(MAPS, &map("before", &json!({}))).await;
    let list = server.get(MAPS).await.json();
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    server.post(MAPS, &map("a", &json!({}))).await;
    server.patch(&format!("{MAPS}/a"), "merge", &json!({"data": {"x": "1"}})).await;
    server.delete(&format!("{MAPS}/a")).await;
    let seen = events(&server, &format!("resourceVersion={revision}"), 3).await;
    assert_eq!(told(&seen), [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]);
    let versions: Vec<u64> = seen
        .iter()
        .map(|event| {
            event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
        })
        .collect();
    assert!(versions.is_sorted() && versions[0] > revision.parse().unwrap(), "{versions:?}");
}

#[tokio::test]
async fn a_watch_without_a_revision_begins_with_what_is_there() {
    let server = TestServer::start().await;
    server.post(MAPS, &map("a", &json!({}))).await;
    assert_eq!(told(&events(&server, "", 1).await), [("ADDED", "a")]);
}

#[tokio::test]
async fn what_leaves_a_selector_is_told_as_deleted() {
    let server = TestServer::start().await;
    let mut object = map("a", &json!({}));
    object["metadata"]["labels"] = json!({"color": "red"});
    let made = server.post(MAPS, &object).await.json();
    let revision = made["metadata"]["resourceVersion"].as_str().unwrap();
    server
        .patch(&format!("{MAPS}/a"), "merge", &json!({"metadata": {"labels": {"color": "blue"}}}))
        .await;
    let seen =
        events(&server, &format!("labelSelector=color%3Dred&resourceVersion={revision}"), 1).await;
    assert_eq!(told(&seen), [("DELETED", "a")]);
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = TestServer::start().await;
    server.post(MAPS, &map("a", &json!({}))).await;
    let query = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let seen = events(&server, query, 2).await;
    assert_eq!(told(&seen), [("ADDED", "a"), ("BOOKMARK", "")]);
    assert_eq!(seen[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_is_sent_bookmarks() {
    let server = TestServer::start().await;
    let seen = events(&server, "allowWatchBookmarks=true&resourceVersion=0", 1).await;
    assert_eq!(told(&seen), [("BOOKMARK", "")]);
}

#[tokio::test]
async fn a_watch_from_a_forgotten_revision_is_answered_410() {
    let server = TestServer::with(store::Options { history_events: 5, snapshots: 5 }).await;
    for number in 0..20 {
        server.post(MAPS, &map(&format!("map-{number}"), &json!({}))).await;
    }
    let seen = events(&server, "resourceVersion=1", 1).await;
    assert_eq!(seen[0]["type"], "ERROR");
    assert_eq!(
        (&seen[0]["object"]["code"], &seen[0]["object"]["reason"]),
        (&json!(410), &json!("Expired"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_after_the_time_it_asked_for() {
    let server = TestServer::start().await;
    assert_eq!(
        events(&server, "timeoutSeconds=2&resourceVersion=0", 99).await,
        Vec::<Value>::new()
    );
}
