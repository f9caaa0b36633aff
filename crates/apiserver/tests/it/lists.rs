//! Lists: selectors, pages, tables, compression.

use crate::{MAPS, map};
use serde_json::{Value, json};
use std::io::Read;
use testkit::TestServer;

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

async fn ten(server: &TestServer) {
    for number in 0..10 {
        let mut object = map(&format!("map-{number}"), &json!({}));
        let parity = if number % 2 == 0 { "even" } else { "odd" };
        object["metadata"]["labels"] = json!({"parity": parity});
        assert_eq!(server.post(MAPS, &object).await.code, 201);
    }
}

#[tokio::test]
async fn selectors_choose_by_labels_and_fields() {
    let server = TestServer::start().await;
    ten(&server).await;
    for (query, expected) in [
        ("labelSelector=parity%3Dodd", vec!["map-1", "map-3", "map-5", "map-7", "map-9"]),
        ("labelSelector=parity+notin+(odd,even)", vec![]),
        ("labelSelector=!parity", vec![]),
        ("fieldSelector=metadata.name%3Dmap-4", vec!["map-4"]),
        (
            "fieldSelector=metadata.name!%3Dmap-4&labelSelector=parity%3Deven",
            vec!["map-0", "map-2", "map-6", "map-8"],
        ),
    ] {
        let list = server.get(&format!("{MAPS}?{query}")).await.json();
        assert_eq!(names(&list), expected, "{query}");
    }
    for query in ["labelSelector=a%3D%3D%3Db", "fieldSelector=spec.color%3Dred", "limit=many"] {
        assert_eq!(server.get(&format!("{MAPS}?{query}")).await.code, 400, "{query}");
    }
}

#[tokio::test]
async fn pages_show_one_state_whatever_changes_meanwhile() {
    let server = TestServer::start().await;
    ten(&server).await;
    let first = server.get(&format!("{MAPS}?limit=4")).await.json();
    assert_eq!(names(&first), ["map-0", "map-1", "map-2", "map-3"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 6);
    server.delete(&format!("{MAPS}/map-5")).await;
    server.post(MAPS, &map("map-55", &json!({}))).await;
    let go_on = first["metadata"]["continue"].as_str().unwrap();
    let second = server.get(&format!("{MAPS}?limit=4&continue={go_on}")).await.json();
    assert_eq!(names(&second), ["map-4", "map-5", "map-6", "map-7"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let go_on = second["metadata"]["continue"].as_str().unwrap();
    let last = server.get(&format!("{MAPS}?limit=4&continue={go_on}")).await.json();
    assert_eq!(names(&last), ["map-8", "map-9"]);
    assert!(last["metadata"].get("continue").is_none_or(|token| token == ""));
    assert_eq!(server.get(&format!("{MAPS}?limit=4&continue=nonsense")).await.code, 400);
}

#[tokio::test]
async fn a_page_of_a_forgotten_state_is_answered_410() {
    let server = TestServer::with(store::Options { history_events: 5, snapshots: 5 }).await;
    ten(&server).await;
    let first = server.get(&format!("{MAPS}?limit=4")).await.json();
    for number in 0..20 {
        server.post(MAPS, &map(&format!("later-{number}"), &json!({}))).await;
    }
    let go_on = first["metadata"]["continue"].as_str().unwrap();
    let late = server.get(&format!("{MAPS}?limit=4&continue={go_on}")).await;
    assert_eq!((late.code, &late.json()["reason"]), (410, &"Expired".into()));
}

#[tokio::test]
async fn tables_have_upstreams_columns() {
    let server = TestServer::start().await;
    server.post(MAPS, &map("a", &json!({"x": "1", "y": "2"}))).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = server.request("GET", MAPS, &[("accept", accept)], "").await.json();
    assert_eq!(table["kind"], "Table");
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(columns, ["Name", "Data", "Age"]);
    assert_eq!(table["rows"][0]["cells"][1], 2);
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn large_answers_are_compressed_for_whoever_accepts_it() {
    let server = TestServer::start().await;
    server.post(MAPS, &map("a", &json!({"x": "y".repeat(300_000)}))).await;
    let plain = server.get(MAPS).await;
    let packed = server.request("GET", MAPS, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.bytes.len() * 10 < plain.bytes.len());
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(packed.bytes.as_slice()).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.bytes);
}
