//! Which nodes a demo has, and who dials whom.
//!
//! ```text
//!   leaf ──▶ hub ◀── leaf        hubs: the hybrid nodes, or the first node where there is none
//!   leaf ──▶ hub ◀── leaf        every leaf dials every hub; a hub dials those before it
//! ```

use std::str::FromStr;

use tandem::Mode;

use super::error::DemoError;

/// Most nodes of a demo. Chosen: more processes than that tell nothing new on one machine.
pub(crate) const MAX_NODES: usize = 32;

/// Number of nodes of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Topology {
    ws: usize,
    p2p: usize,
    hybrid: usize,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) mode: Mode,
    /// Places of the nodes it dials; all of them before its own.
    pub(crate) dials: Vec<usize>,
}

/// Why a text is no topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TopologyError {
    /// It cannot be read.
    #[error("write for example ws=2,p2p=2,hybrid=1")]
    Malformed,
    /// There is nobody to talk to.
    #[error("a demo needs at least 2 nodes")]
    TooFew,
    /// There are more than the demo can do.
    #[error("a demo has at most {MAX_NODES} nodes")]
    TooMany,
    /// Nobody joins the two transports.
    #[error("ws and p2p nodes need a hybrid between them: add hybrid=1")]
    Apart,
}

impl Topology {
    /// The nodes, hubs first.
    pub(crate) fn members(&self) -> Vec<Member> {
        let kinds =
            [(Mode::Hybrid, self.hybrid), (Mode::WebSocket, self.ws), (Mode::Libp2p, self.p2p)];
        let hubs = self.hubs();
        let all = kinds.into_iter().flat_map(|(mode, count)| (1..=count).map(move |n| (mode, n)));
        all.enumerate()
            .map(|(place, (mode, number))| Member {
                name: format!("{}-{number}", mode.name()),
                mode,
                dials: (0..hubs.min(place)).collect(),
            })
            .collect()
    }

    /// The node to kill: the one named, or the first that no other node dials.
    pub(crate) fn victim(&self, name: Option<&str>) -> Result<usize, DemoError> {
        let members = self.members();
        let hubs = self.hubs();
        let Some(name) = name else {
            return if hubs < members.len() { Ok(hubs) } else { Err(DemoError::NoLeaf) };
        };
        let leaves = members.iter().enumerate().skip(hubs);
        leaves.clone().find(|(_, member)| member.name == name).map(|(place, _)| place).ok_or_else(
            || DemoError::NoVictim {
                name: name.to_owned(),
                known: leaves.map(|(_, leaf)| leaf.name.clone()).collect::<Vec<_>>().join(", "),
            },
        )
    }

    fn hubs(&self) -> usize {
        self.hybrid.max(1)
    }
}

impl FromStr for Topology {
    type Err = TopologyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut topology = Self { ws: 0, p2p: 0, hybrid: 0 };
        for part in text.split(',') {
            let (kind, count) = part.trim().split_once('=').ok_or(TopologyError::Malformed)?;
            let place = match kind.trim() {
                "ws" => &mut topology.ws,
                "p2p" => &mut topology.p2p,
                "hybrid" => &mut topology.hybrid,
                _ => return Err(TopologyError::Malformed),
            };
            *place = count.trim().parse().map_err(|_| TopologyError::Malformed)?;
        }
        let Self { ws, p2p, hybrid } = topology;
        let total = ws.saturating_add(p2p).saturating_add(hybrid);
        match total {
            0..2 => Err(TopologyError::TooFew),
            _ if total > MAX_NODES => Err(TopologyError::TooMany),
            _ if hybrid == 0 && ws > 0 && p2p > 0 => Err(TopologyError::Apart),
            _ => Ok(topology),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_dials_the_hubs() {
        let topology: Topology = "ws=2,p2p=1,hybrid=2".parse().unwrap();
        let members = topology.members();
        let told: Vec<_> =
            members.iter().map(|member| (member.name.as_str(), member.dials.clone())).collect();
        let expected = [
            ("hybrid-1", vec![]),
            ("hybrid-2", vec![0]),
            ("ws-1", vec![0, 1]),
            ("ws-2", vec![0, 1]),
            ("p2p-1", vec![0, 1]),
        ];
        assert_eq!(told, expected);
        assert_eq!(topology.victim(None).unwrap(), 2);
        assert_eq!(topology.victim(Some("p2p-1")).unwrap(), 4);
        let error = topology.victim(Some("hybrid-1")).unwrap_err();
        assert!(error.to_string().ends_with("name one of ws-1, ws-2, p2p-1"), "{error}");
    }

    #[test]
    fn without_a_hybrid_the_first_node_is_in_the_middle() {
        let topology: Topology = "p2p=3".parse().unwrap();
        let dials: Vec<_> = topology.members().into_iter().map(|member| member.dials).collect();
        assert_eq!(dials, [vec![], vec![0], vec![0]]);
    }

    #[test]
    fn a_text_that_is_no_network_is_refused() {
        for (text, expected) in [
            ("", TopologyError::Malformed),
            ("ws", TopologyError::Malformed),
            ("ws=x", TopologyError::Malformed),
            ("tcp=2", TopologyError::Malformed),
            ("ws=1", TopologyError::TooFew),
            ("ws=1,p2p=1", TopologyError::Apart),
            ("ws=33", TopologyError::TooMany),
            ("ws=18446744073709551615,p2p=9,hybrid=1", TopologyError::TooMany),
        ] {
            assert_eq!(text.parse::<Topology>(), Err(expected), "{text:?}");
        }
    }
}
