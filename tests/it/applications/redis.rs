//! Redis: a master and its replicas.

use super::{example, ready};
use crate::harness::story;

story! {
    /// F6, E3: replicas follow redis-0, also after it was replaced, and refuse writes.
    fn redis_replicas_follow_the_ordinal_0(k, ["redis:7"]) {
        k.sh(&format!("kubectl apply -f {}", example("redis")));
        ready(k, "redis", 3);
        assert_eq!(k.sh("kubectl exec redis-0 -- redis-cli set greeting hello"), "OK\n");
        for ordinal in [1, 2] {
            k.until(&format!("kubectl exec redis-{ordinal} -- redis-cli get greeting"), |text| text == "hello\n");
            assert!(k.sh(&format!("kubectl exec redis-{ordinal} -- redis-cli set greeting no 2>&1")).contains("READONLY"));
        }
        k.sh("kubectl delete pod redis-0");
        ready(k, "redis", 3);
        assert_eq!(k.sh("kubectl exec redis-0 -- redis-cli get greeting"), "hello\n");
        // By the Service that is the master alone, whatever its address now is.
        assert_eq!(k.sh("kubectl exec redis-1 -- redis-cli -h redis set greeting again"), "OK\n");
        for ordinal in [1, 2] {
            k.until(&format!("kubectl exec redis-{ordinal} -- redis-cli get greeting"), |text| text == "again\n");
        }
        k.until("kubectl exec redis-0 -- redis-cli info replication", |text| text.matches("state=online").count() == 2);
    }
}
