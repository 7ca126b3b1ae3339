//! The requests that a member answers: Raft's messages from other members, and lines from anybody.
//!
//! | request | answer |
//! | --- | --- |
//! | `PUT /members` | founds the group: `{"1": "address", …}` |
//! | `POST /log` | appends a line, through the leader; its position once a majority has it on disk |
//! | `GET /log?from=1` | the lines that this member has applied, 1,000 at most |
//! | `GET /state` | this member, its addresses, and the leader it knows |

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::{get, post, put},
};
use openraft::{
    BasicNode, Raft,
    error::{ClientWriteError, InstallSnapshotError, RaftError},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest,
        InstallSnapshotResponse, VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::{group::Group, machine::Lines, network::Network};

/// Longest time until a majority has a line. Chosen: longer than an election.
const APPEND_WITHIN: Duration = Duration::from_secs(5);

/// Longest line in bytes. Chosen: a message of Raft has 64 of them at most, and fits into its limit.
const MAX_LINE: usize = 8 * 1024;

/// Most lines of one answer.
const MAX_LINES: usize = 1_000;

/// The parts of a member.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) id: u64,
    pub(crate) raft: Raft<Group>,
    pub(crate) network: Network,
    pub(crate) lines: Lines,
}

type Refusal = (StatusCode, String);
type Answer<T, E = openraft::error::Infallible> = Json<Result<T, RaftError<u64, E>>>;

impl Api {
    /// The requests as a router.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/raft/append", post(append_entries))
            .route("/raft/vote", post(vote))
            .route("/raft/snapshot", post(install_snapshot))
            .route("/raft/log", post(write))
            .route("/members", put(found))
            .route("/log", post(write_through_leader).get(read))
            .route("/state", get(state))
            .with_state(self)
    }
}

async fn append_entries(
    State(api): State<Api>,
    Json(message): Json<AppendEntriesRequest<Group>>,
) -> Answer<AppendEntriesResponse<u64>> {
    Json(api.raft.append_entries(message).await)
}

async fn vote(
    State(api): State<Api>,
    Json(message): Json<VoteRequest<u64>>,
) -> Answer<VoteResponse<u64>> {
    Json(api.raft.vote(message).await)
}

async fn install_snapshot(
    State(api): State<Api>,
    Json(message): Json<InstallSnapshotRequest<Group>>,
) -> Answer<InstallSnapshotResponse<u64>, InstallSnapshotError> {
    Json(api.raft.install_snapshot(message).await)
}

async fn found(State(api): State<Api>, members: String) -> Result<String, Refusal> {
    let members: BTreeMap<u64, String> = serde_json::from_str(&members)
        .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    let members = members.into_iter().map(|(id, address)| (id, BasicNode::new(address)));
    let founded = api.raft.initialize(members.collect::<BTreeMap<_, _>>()).await;
    founded.map_err(|error| (StatusCode::CONFLICT, error.to_string()))?;
    Ok("founded\n".into())
}

/// Appends a line here, if this member leads; else says who does.
async fn append(api: &Api, line: String) -> Result<String, Result<BasicNode, Refusal>> {
    let unavailable = |text: &str| Err((StatusCode::SERVICE_UNAVAILABLE, text.to_owned()));
    if line.is_empty() || line.len() > MAX_LINE {
        let text = format!("a line has 1 to {MAX_LINE} bytes");
        return Err(Err((StatusCode::BAD_REQUEST, text)));
    }
    match timeout(APPEND_WITHIN, api.raft.client_write(line)).await {
        Ok(Ok(written)) => Ok(format!("{}\n", written.data)),
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
            Err(to.leader_node.ok_or(()).or_else(|()| unavailable("no member leads at present")))
        }
        Ok(Err(error)) => Err(unavailable(&error.to_string())),
        Err(_late) => Err(unavailable("no majority in time: the line may be written yet")),
    }
}

async fn write(State(api): State<Api>, line: String) -> Result<String, Refusal> {
    append(&api, line).await.map_err(|refused| {
        refused.map_or_else(
            |refusal| refusal,
            |_leader| (StatusCode::SERVICE_UNAVAILABLE, "another member leads".into()),
        )
    })
}

async fn write_through_leader(State(api): State<Api>, line: String) -> Result<String, Refusal> {
    let leader = match append(&api, line.clone()).await {
        Ok(position) => return Ok(position),
        Err(Err(refusal)) => return Err(refusal),
        Err(Ok(leader)) => leader,
    };
    let answer = api.network.post(&leader.addr, "/raft/log", line, APPEND_WITHIN).await;
    let answer = answer.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[derive(Debug, Deserialize)]
struct From {
    #[serde(default)]
    from: usize,
}

async fn read(State(api): State<Api>, Query(wanted): Query<From>) -> Json<Vec<String>> {
    Json(api.lines.from(wanted.from, MAX_LINES))
}

#[derive(Debug, Serialize)]
struct Report {
    id: u64,
    addresses: Vec<String>,
    leader: Option<u64>,
    log_from: u64,
}

async fn state(State(api): State<Api>) -> Json<Report> {
    let metrics = api.raft.metrics().borrow().clone();
    Json(Report {
        id: api.id,
        addresses: api.network.addresses(),
        leader: metrics.current_leader,
        log_from: metrics.purged.map_or(1, |purged| purged.index + 1),
    })
}
