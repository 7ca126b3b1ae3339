//! Calls of one member to another one: Raft's messages as requests over Tandem's HTTP, whatever carries it.

use std::{io, time::Duration};

use openraft::{
    BasicNode, OptionalSend, RaftNetwork, RaftNetworkFactory,
    error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest,
        InstallSnapshotResponse, VoteRequest, VoteResponse,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use tandem::gossip::{
    LateNode, NodeAddress,
    http::{BoxError, HttpBody, Timeout, read_all},
};

use crate::group::Group;

/// Longest answer of a member, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Makes clients of members by their addresses, which may be of any transport.
#[derive(Clone, Debug)]
pub(crate) struct Network(pub(crate) LateNode);

impl Network {
    /// The addresses of this member's own node.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let node = self.0.node();
        node.map(|node| node.addresses().iter().map(ToString::to_string).collect())
            .unwrap_or_default()
    }

    /// Posts a body to a member, and returns the answer of one that could do it.
    pub(crate) async fn post(
        &self,
        member: &str,
        path: &str,
        body: impl Into<axum::body::Bytes>,
        within: Duration,
    ) -> Result<axum::body::Bytes, BoxError> {
        let node = self.0.node().ok_or("the node does not run")?;
        let client = node.http_client(&member.parse::<NodeAddress>()?)?;
        let request = axum::http::Request::post(path).extension(Timeout(within));
        let request = request.header("content-type", "application/json");
        let answer = client.send(request.body(HttpBody::full(body.into()))?).await?;
        let status = answer.status();
        let body = read_all(answer.into_body(), MAX_ANSWER).await?;
        match status.is_success() {
            true => Ok(body),
            false => Err(format!("{member} answers {status}").into()),
        }
    }
}

impl RaftNetworkFactory<Group> for Network {
    type Network = Member;

    async fn new_client(&mut self, id: u64, member: &BasicNode) -> Member {
        Member { network: self.clone(), id, address: member.addr.clone() }
    }
}

/// A member as another one sees it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    network: Network,
    id: u64,
    address: String,
}

type Called<T, E = openraft::error::Infallible> =
    Result<T, RPCError<u64, BasicNode, RaftError<u64, E>>>;

impl Member {
    async fn call<T, E>(
        &self,
        path: &str,
        message: impl Serialize + OptionalSend,
        option: RPCOption,
    ) -> Called<T, E>
    where
        T: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        let body = serde_json::to_vec(&message).map_err(|error| NetworkError::new(&error))?;
        let answer = self.network.post(&self.address, path, body, option.hard_ttl()).await;
        let answer = answer.map_err(|error| Unreachable::new(&io::Error::other(error)))?;
        let answer: Result<T, RaftError<u64, E>> =
            serde_json::from_slice(&answer).map_err(|error| NetworkError::new(&error))?;
        answer.map_err(|error| RemoteError::new(self.id, error).into())
    }
}

impl RaftNetwork<Group> for Member {
    async fn append_entries(
        &mut self,
        message: AppendEntriesRequest<Group>,
        option: RPCOption,
    ) -> Called<AppendEntriesResponse<u64>> {
        self.call("/raft/append", message, option).await
    }

    async fn vote(
        &mut self,
        message: VoteRequest<u64>,
        option: RPCOption,
    ) -> Called<VoteResponse<u64>> {
        self.call("/raft/vote", message, option).await
    }

    async fn install_snapshot(
        &mut self,
        message: InstallSnapshotRequest<Group>,
        option: RPCOption,
    ) -> Called<InstallSnapshotResponse<u64>, InstallSnapshotError> {
        self.call("/raft/snapshot", message, option).await
    }
}
