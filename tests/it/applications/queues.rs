//! RabbitMQ, and brokers that are numbered as Kafka's are.

use super::{example, ready};
use crate::harness::{Cluster, story};

story! {
    /// F6, A4: three nodes form a cluster; a message in a quorum queue outlives the node that took it.
    fn rabbitmq_nodes_form_a_cluster_that_keeps_messages(k, ["rabbitmq:3-management", "appropriate/curl"]) {
        k.sh(&format!("kubectl apply -f {}", example("rabbitmq")));
        k.sh("kubectl run curl --image=appropriate/curl --command -- sleep 3600");
        ready(k, "rabbitmq", 3);
        running(k);
        k.sh(&call(0, "PUT", "queues/%2f/orders", r#"{"durable":true,"arguments":{"x-queue-type":"quorum"}}"#));
        let message = r#"{"properties":{"delivery_mode":2},"routing_key":"orders","payload":"one coffee","payload_encoding":"string"}"#;
        assert_eq!(k.sh(&call(0, "POST", "exchanges/%2f/amq.default/publish", message)), r#"{"routed":true}"#);
        k.sh("kubectl delete pod rabbitmq-0");
        let get = r#"{"count":1,"ackmode":"ack_requeue_false","encoding":"auto"}"#;
        let found = k.until(&call(1, "POST", "queues/%2f/orders/get", get), |text| text.contains("payload"));
        assert!(found.contains(r#""payload":"one coffee""#), "{found}");
        ready(k, "rabbitmq", 3);
        running(k);
    }
}

/// A call of a node's management API.
fn call(ordinal: u32, method: &str, path: &str, body: &str) -> String {
    format!(
        "kubectl exec curl -- curl -sS --fail -u admin:change-me -X {method} -H 'content-type: application/json' --data '{body}' http://rabbitmq-{ordinal}.rabbitmq-headless:15672/api/{path}"
    )
}

/// Waits until every node says of all three that they run.
fn running(k: &Cluster) {
    for ordinal in 0..3 {
        k.until(
            &format!("kubectl exec curl -- curl -sS -u admin:change-me http://rabbitmq-{ordinal}.rabbitmq-headless:15672/api/nodes?columns=name,running"),
            |text| text.matches(r#""running":true"#).count() == 3,
        );
    }
}

story! {
    /// F6, A1, E2: the number comes from the pod's name and stays with its disk.
    fn a_broker_has_the_number_of_its_pod(k, ["busybox"]) {
        k.sh(&format!("kubectl apply -f {}", example("broker-id")));
        ready(k, "broker", 3);
        each_has_its_number(k);
        k.sh("kubectl delete pod broker-1");
        ready(k, "broker", 3);
        each_has_its_number(k);
        // A disk that was another's is refused.
        k.sh("kubectl exec broker-2 -- sh -c 'echo broker.id=7 > /data/meta.properties'");
        k.sh("kubectl delete pod broker-2");
        k.until("kubectl logs broker-2 -c configure", |text| text == "this disk is not mine: broker.id=7\n");
    }
}

fn each_has_its_number(k: &Cluster) {
    for ordinal in 0..3 {
        let found = k.sh(&format!("kubectl exec broker-0 -- wget -qO- http://broker-{ordinal}.broker:9092/server.properties"));
        assert!(found.starts_with(&format!("broker.id={ordinal}\n")), "{found}");
        assert!(
            found.contains(&format!(
                "advertised.listeners=PLAINTEXT://broker-{ordinal}.broker:9092\n"
            )),
            "{found}"
        );
    }
}
