//! Bodies that are larger than the memory that a process may use.
//!
//! Server, client and, if the route has one, `tandem forward` are processes of their own, and the memory of
//! each is measured separately.

use std::time::{Duration, Instant};

use testkit::http::{
    pattern,
    peer::{FarServer, Memory, PeerProcess},
    route::Route,
};
use tokio::time;

use crate::killed::program;

/// Length of the body, in bytes. Source: issue 4.
const LENGTH: u64 = 1 << 30;

/// Largest growth of any process's memory, in bytes. Source: issue 4.
const MAX_GROWTH: u64 = 32 * 1024 * 1024;

/// Longest time for one body.
const LIMIT: Duration = Duration::from_secs(300);

/// The processes on a route.
struct Line {
    server: FarServer,
    between: Option<(PeerProcess, Memory)>,
    /// The address that the client calls.
    address: String,
    before: Memory,
}

impl Line {
    async fn on(way: Route) -> Self {
        let mut server = FarServer::start(program()).await;
        let (between, address) = match way {
            Route::Forward => {
                let (forward, address) = server.forward().await;
                (Some(forward), format!("http://{address}"))
            }
            _ => (None, server.address(way)),
        };
        // Sends one small request before memory is measured, so that connections and code are in memory.
        server.client(&["get", &address, "/bytes/1000"]).await;
        let before = server.process().memory();
        let between = between.map(|process| {
            let memory = process.memory();
            (process, memory)
        });
        Self { server, between, address, before }
    }

    async fn carries(mut self, way: Route, what: &str, path: &str) {
        let shown = LENGTH.to_string();
        let mut arguments = vec![what, &self.address, path];
        if what == "put" {
            arguments.push(&shown);
        }
        let began = Instant::now();
        let told = time::timeout(LIMIT, self.server.client(&arguments)).await.expect("in time");
        let took = began.elapsed();
        let server = self.server.process().memory().growth_since(self.before);
        let between = self.between.map(|(process, before)| process.memory().growth_since(before));
        let growths = [Some(("client", told.growth)), Some(("server", server))];
        let growths = growths.into_iter().chain([between.map(|growth| ("forward", growth))]);
        let growths: Vec<(&str, u64)> = growths.flatten().collect();
        println!("{what} {LENGTH} bytes over {way:?} in {took:?}, memory grew by {growths:?}");
        assert_eq!((told.status, told.bytes), (200, LENGTH));
        assert_eq!(told.blake3, pattern::hash(LENGTH));
        for (process, growth) in growths {
            assert!(growth <= MAX_GROWTH, "the {process} grew by {growth} bytes");
        }
    }
}

pub(crate) async fn a_gibibyte_goes_down_in_little_memory(way: Route) {
    Line::on(way).await.carries(way, "get", &format!("/bytes/{LENGTH}")).await;
}

pub(crate) async fn a_gibibyte_goes_up_in_little_memory(way: Route) {
    Line::on(way).await.carries(way, "put", "/sink").await;
}
