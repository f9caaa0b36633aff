//! Addresses of Services: rules are computed ([`rules`]), then applied as one nf_tables transaction (`nftables`).

mod nftables;
pub mod rules;

use crate::NetworkError;
use crate::host::ClusterAddresses;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rules::{Target, targets};
use std::collections::BTreeMap;
use tokio::sync::Mutex;

/// Namespace and name.
pub type Key = (String, String);

/// What every Service leads to, and the rules that are applied.
type State = (BTreeMap<Key, Vec<Target>>, Option<String>);

/// The balanced addresses.
#[derive(Debug)]
pub struct Services {
    cluster: ClusterAddresses,
    /// By Service; what is applied.
    state: Mutex<State>,
}

impl Services {
    /// Nothing is balanced yet; rules of an earlier process stand until the first [`Services::update`].
    pub fn new(cluster: ClusterAddresses) -> Services {
        Services { cluster, state: Mutex::new((BTreeMap::new(), None)) }
    }

    /// Takes what changed and applies it in one transaction. `None` for a Service that is gone.
    pub async fn update(
        &self,
        changes: Vec<(Key, Option<Service>, Vec<EndpointSlice>)>,
    ) -> Result<(), NetworkError> {
        let mut state = self.state.lock().await;
        for (key, service, slices) in changes {
            let found = service.map(|service| targets(&service, &slices)).unwrap_or_default();
            if found.is_empty() {
                state.0.remove(&key)
            } else {
                state.0.insert(key, found)
            };
        }
        let text = rules::ruleset(&self.cluster, state.0.values().flatten());
        if state.1.as_ref() != Some(&text) {
            nftables::apply(&text).await?;
            state.1 = Some(text);
        }
        Ok(())
    }
}

/// Removes the rules of all Services from the kernel. Idempotent.
pub async fn remove() -> Result<(), NetworkError> {
    // The first line makes the second possible where there are none.
    nftables::apply("table ip abide\ndelete table ip abide\n").await
}
