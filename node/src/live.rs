//! The configuration in force, and its reading anew while the node runs.
//!
//! # Invariants
//!
//! * A configuration that cannot be used changes nothing: the one before stays in force, and the reason is told.
//! * A setting that needs a restart is named, and shown with its old value until then.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use broadcaster::Broadcaster;
use gossip::NodeAddress;
use tandem::{AddPeerError, InboundLimits, PeerControl, TlsError, View};

use crate::{
    admin::wire::{Certificates, Reloaded},
    config::{ConfigError, Flags, Key, Layers, Settings, Value},
    log,
};

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The files of the certificates cannot be used.
    #[error("the certificates that were read before stay in use")]
    Certificates(#[from] TlsError),
}

/// The configuration of a running node.
#[derive(Debug)]
pub(crate) struct Live {
    file: Option<PathBuf>,
    flags: Flags,
    view: View,
    control: PeerControl,
    broadcaster: Broadcaster,
    /// Lowers bounds to what this process can keep to.
    fit: fn(InboundLimits) -> InboundLimits,
    state: Mutex<InForce>,
}

#[derive(Debug)]
struct InForce {
    layers: Layers,
    peers: Vec<NodeAddress>,
}

/// A setting as it is shown: its name, the texts of its value, its origin.
pub(crate) type Shown = (&'static str, Vec<String>, String);

impl Live {
    /// The configuration that a node was started with.
    pub(crate) fn new(
        (file, flags): (Option<PathBuf>, Flags),
        (layers, peers): (Layers, Vec<NodeAddress>),
        (view, control, broadcaster): (View, PeerControl, Broadcaster),
        fit: fn(InboundLimits) -> InboundLimits,
    ) -> Self {
        Self {
            file,
            flags,
            view,
            control,
            broadcaster,
            fit,
            state: Mutex::new(InForce { layers, peers }),
        }
    }

    /// Every setting, and variables of the environment that look like settings and are none.
    pub(crate) fn shown(&self) -> (Vec<Shown>, Vec<String>) {
        let state = self.state();
        let show = |key: Key| {
            let given = state.layers.get(key);
            let origin =
                given.map_or_else(|| "default".to_owned(), |given| given.origin.to_string());
            (key.spec().name, given.map(texts).unwrap_or_default(), origin)
        };
        (Key::ALL.into_iter().map(show).collect(), state.layers.unknown().to_vec())
    }

    /// The text of a setting, if it has one.
    pub(crate) fn setting(&self, name: &str) -> Option<String> {
        let state = self.state();
        state.layers.get(Key::named(name)?).map(|given| texts(given).join(","))
    }

    /// Reads the configuration again and puts into force what can be changed while the node runs: the log filter, the
    /// configured peers, the bounds on inbound peers, the sample of traced messages, and the files of the certificates. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// [`ReloadError`] when some of it cannot be used. Nothing has changed then.
    pub(crate) fn reload(&self) -> Result<Reloaded, ReloadError> {
        let layers = Layers::gather(self.file.as_deref(), &self.flags)?;
        let settings = Settings::check(&layers)?;
        let certificates = self.view.reload_certificates()?;
        let mut state = self.state();
        let value = |layers: &Layers, key| layers.get(key).map(|given| given.value.clone());
        let differs = |key: &Key| {
            // An operator may have changed the filter by the admin API meanwhile.
            let is_overruled = *key == Key::Log && log::filter() != settings.log;
            is_overruled || value(&state.layers, *key) != value(&layers, *key)
        };
        let keys: Vec<Key> = Key::ALL.into_iter().filter(differs).collect();
        let (mut changed, mut needs_restart) = (Vec::new(), Vec::new());
        for key in keys {
            let name = key.spec().name.to_owned();
            match key {
                Key::Log => {
                    // Checked above.
                    let _ = log::set_filter(&settings.log);
                    changed.push(name);
                }
                Key::Peers => {
                    self.follow(&state.peers, &settings.peers);
                    state.peers.clone_from(&settings.peers);
                    changed.push(name);
                }
                Key::MaxInbound | Key::MaxInboundPerIp | Key::MaxInboundPerOrigin => {
                    self.control.resize_inbound((self.fit)(settings.inbound()));
                    changed.push(name);
                }
                Key::TraceOneIn => {
                    self.broadcaster.tracer().set_one_in(settings.trace_one_in);
                    changed.push(name);
                }
                _ => {
                    needs_restart.push(name);
                    continue;
                }
            }
            state.layers.take_over(key, &layers);
        }
        Ok(Reloaded { certificates: Certificates::of(certificates), changed, needs_restart })
    }

    /// Dials the peers that are new, and forgets those that are gone.
    fn follow(&self, before: &[NodeAddress], after: &[NodeAddress]) {
        for gone in before.iter().filter(|peer| !after.contains(peer)) {
            // An operator may have removed it already.
            let _ = self.control.remove_peer(gone);
        }
        for new in after.iter().filter(|peer| !before.contains(peer)) {
            match self.control.add_peer(new) {
                Ok(()) | Err(AddPeerError::Gone) => {}
                Err(error) => {
                    tracing::warn!(peer = %new, %error, "a configured peer is not dialled")
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, InForce> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn texts(given: &crate::config::Given) -> Vec<String> {
    match &given.value {
        Value::One(text) => vec![text.clone()],
        Value::Many(texts) => texts.clone(),
    }
}
