//! Who may do what.

use crate::MAPS;
use apiserver::Identity;
use testkit::TestServer;

#[tokio::test]
async fn anonymous_may_ask_for_health_and_version_only() {
    let server = TestServer::start().await;
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(server.request_as(None, "GET", path, &[], "").await.code, 200, "{path}");
    }
    for path in ["/api", "/apis", "/openapi/v2", "/metrics"] {
        assert_eq!(server.request_as(None, "GET", path, &[], "").await.code, 403, "{path}");
    }
    let refused = server.request_as(None, "GET", MAPS, &[], "").await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.json()["message"],
        "configmaps is forbidden: User \"system:anonymous\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
}

#[tokio::test]
async fn a_certificate_without_a_known_group_may_do_nothing() {
    let server = TestServer::start().await;
    let somebody =
        Identity { user: "jane".to_owned(), groups: vec!["system:authenticated".to_owned()] };
    let refused = server.request_as(Some(somebody), "DELETE", &format!("{MAPS}/a"), &[], "").await;
    assert_eq!((refused.code, &refused.json()["reason"]), (403, &"Forbidden".into()));
}
