//! etcd as a client sees it: just enough of its version 3 API to put values at the leader.
//!
//! Field numbers are those of etcd's api/etcdserverpb/rpc.proto.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// How long members may take to elect a leader.
const ELECTION: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(100);

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// One connection.
pub struct Client {
    grpc: Grpc<Channel>,
}

impl Client {
    /// Connects to the member of `endpoints`, comma-separated `host:port`, that leads; waits for one that was just started.
    pub async fn at_leader(endpoints: &str) -> Result<Client> {
        let deadline = Instant::now() + ELECTION;
        loop {
            match Client::find_leader(endpoints).await {
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(RETRY).await,
                found => return found,
            }
        }
    }

    async fn find_leader(endpoints: &str) -> Result<Client> {
        for endpoint in endpoints.split(',') {
            let channel = Endpoint::from_shared(format!("http://{endpoint}"))?.tcp_nodelay(true).connect().await;
            let channel = channel.with_context(|| format!("etcd does not answer at {endpoint}"))?;
            let mut client = Client { grpc: Grpc::new(channel) };
            if client.leads().await? {
                return Ok(client);
            }
        }
        bail!("none of {endpoints} leads")
    }

    async fn leads(&mut self) -> Result<bool> {
        let path = PathAndQuery::from_static("/etcdserverpb.Maintenance/Status");
        self.grpc.ready().await.context("etcd is not ready")?;
        let codec = ProstCodec::<StatusRequest, StatusResponse>::default();
        let status = self.grpc.unary(tonic::Request::new(StatusRequest {}), path, codec).await?.into_inner();
        Ok(status.header.is_some_and(|header| header.member_id == status.leader && status.leader != 0))
    }

    /// Puts a value under the key `number`; returns once a majority has it on disk.
    pub async fn put(&mut self, number: u64, bytes: usize) -> Result<()> {
        let request = PutRequest { key: format!("n{number}").into_bytes(), value: vec![b'x'; bytes] };
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        self.grpc.ready().await.context("etcd is not ready")?;
        let codec = ProstCodec::<PutRequest, PutResponse>::default();
        self.grpc.unary(tonic::Request::new(request), path, codec).await?;
        Ok(())
    }
}
