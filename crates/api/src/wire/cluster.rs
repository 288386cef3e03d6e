//! The cluster's settings.

use skep_model::{ClusterConfig, ClusterSpec, JoinTokenHashes, TrustHistory};

use super::message;

message!(
    ClusterConfig =
        ClusterConfig { id, meta, spec, ca_certificate, ca_key, join_tokens, next_raft_id, unlock_key, level, trust }
);
message!(TrustHistory = TrustHistory { trusted, crosses, retired });
message!(JoinTokenHashes = JoinTokenHashes { worker, manager });
message!(
    ClusterSpec = ClusterSpec {
        task_history_limit,
        heartbeat_period,
        node_certificate_validity,
        address_pool,
        subnet_prefix,
        autolock,
        bin_pack,
    }
);
