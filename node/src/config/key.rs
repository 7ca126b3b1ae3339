//! Every setting there is: its name, what may stand for it, its default, and what it does.
//!
//! # Invariants
//!
//! * A key is the same word everywhere: `listen_ws` in a file, `--listen-ws`, `TANDEM_LISTEN_WS`.
//!   Only a list has a flag in the singular, which is given once per item.

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};

use crate::cli::Offered;

/// What is logged unless something else is asked for. Chosen: GossipSub logs each message that a full
/// queue makes it drop, body and all, which costs more than the message; Tandem counts them.
const DEFAULT_LOG: &str = "warn,libp2p_gossipsub=error";

/// What stands for a value in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A string.
    Text,
    /// An array of strings; a comma separates them in the environment.
    List,
    /// A whole number.
    Number,
    /// `true`, `false`, `"on"` or `"off"`.
    Switch,
}

/// What a setting is when nobody sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Default {
    /// This text.
    Is(&'static str),
    /// Nothing: the setting is off, or the list is empty.
    Nothing,
    /// The data directory of the user's account.
    UserDataDir,
}

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Profile,
    Network,
    Mode,
    ListenWs,
    ListenP2p,
    Peers,
    PublicAddress,
    DataDir,
    IdentityFile,
    Relay,
    Mdns,
    MaxInbound,
    MaxInboundPerIp,
    BudgetMib,
    Services,
    Uploads,
    PassOnBlocks,
    HttpRate,
    TlsCert,
    TlsSecret,
    Log,
}

/// The fields of a [`Spec`], in their order.
type Row = (&'static str, &'static str, Kind, Default, &'static str, &'static str);

/// What is said of a setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    /// Its name in a file.
    pub(crate) name: &'static str,
    /// Its flag, without the dashes.
    pub(crate) flag: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: Default,
    /// What the help calls its value.
    placeholder: &'static str,
    pub(crate) help: &'static str,
}

impl Key {
    /// Every key, in the order of the help and of `tandem config`.
    pub(crate) const ALL: [Self; 21] = [
        Self::Profile,
        Self::Network,
        Self::Mode,
        Self::ListenWs,
        Self::ListenP2p,
        Self::Peers,
        Self::PublicAddress,
        Self::DataDir,
        Self::IdentityFile,
        Self::Relay,
        Self::Mdns,
        Self::MaxInbound,
        Self::MaxInboundPerIp,
        Self::BudgetMib,
        Self::Services,
        Self::Uploads,
        Self::PassOnBlocks,
        Self::HttpRate,
        Self::TlsCert,
        Self::TlsSecret,
        Self::Log,
    ];

    /// What is said of this key.
    pub(crate) const fn spec(self) -> Spec {
        use self::Default::{Is, Nothing, UserDataDir};
        use Kind::{List, Number, Switch, Text};
        let row: Row = match self {
            Self::Services
            | Self::Uploads
            | Self::PassOnBlocks
            | Self::HttpRate
            | Self::TlsCert
            | Self::TlsSecret => self.http_row(),
            Self::Profile => {
                let help = "Protocol names and numbers to use: tandem or algorand";
                ("profile", "profile", Text, Is("tandem"), "PROFILE", help)
            }
            Self::Network => {
                let help = "Name of the network; nodes of other networks are refused";
                ("network", "network", Text, Is("tandem"), "NAME", help)
            }
            Self::Mode => {
                let help = "Transports to use: hybrid, ws or p2p";
                ("mode", "mode", Text, Is("hybrid"), "MODE", help)
            }
            Self::ListenWs => {
                let help = "Where WebSocket peers connect to; port 0 picks a free one";
                ("listen_ws", "listen-ws", Text, Is("127.0.0.1:4160"), "HOST:PORT", help)
            }
            Self::ListenP2p => {
                let help = "Where libp2p peers connect to; /tcp/0 picks a free port";
                let default = Is("/ip4/127.0.0.1/tcp/4190");
                ("listen_p2p", "listen-p2p", List, default, "MULTIADDR", help)
            }
            Self::Peers => {
                let help =
                    "A node to stay connected to: host:port, a URL, or a multiaddr with /p2p/ID";
                ("peers", "peer", List, Nothing, "ADDRESS", help)
            }
            Self::PublicAddress => {
                let help = "host:port or URL at which others reach this node's WebSocket side";
                ("public_address", "public-address", Text, Nothing, "ADDRESS", help)
            }
            Self::DataDir => {
                let help = "Directory of the key, the lock and the admin socket";
                ("data_dir", "data-dir", Text, UserDataDir, "DIR", help)
            }
            Self::IdentityFile => {
                let help = "File of the node's key, if it is not to be in the data directory";
                ("key_file", "key-file", Text, Nothing, "FILE", help)
            }
            Self::Relay => {
                let help = "Whether to pass on what others send: on or off";
                ("relay", "relay", Switch, Is("on"), "SWITCH", help)
            }
            Self::Mdns => {
                let help = "Whether to look for libp2p peers in the local network: on or off";
                ("mdns", "mdns", Switch, Is("off"), "SWITCH", help)
            }
            Self::MaxInbound => {
                let help = "Most peers that may be connected to this node at one time";
                ("max_inbound", "max-inbound", Number, Is("2400"), "COUNT", help)
            }
            Self::MaxInboundPerIp => {
                let help = "Most of them from one IP address";
                ("max_inbound_per_ip", "max-inbound-per-ip", Number, Is("8"), "COUNT", help)
            }
            Self::BudgetMib => {
                let help = "Memory that waiting messages may take, in MiB";
                ("budget_mib", "budget-mib", Number, Is("256"), "MIB", help)
            }
            Self::Log => {
                let help = "What to log on stderr, e.g. info or tandem_net_ws=debug,warn";
                ("log", "log", Text, Is(DEFAULT_LOG), "FILTER", help)
            }
        };
        let (name, flag, kind, default, placeholder, help) = row;
        Spec { name, flag, kind, default, placeholder, help }
    }

    /// The row of a setting of the HTTP services.
    const fn http_row(self) -> Row {
        use self::Default::{Is, Nothing};
        use Kind::{List, Number, Switch, Text};
        match self {
            Self::Services => {
                let help = "An HTTP service to offer: status, blocks, files or kv";
                ("services", "service", List, Is("status"), "NAME", help)
            }
            Self::Uploads => {
                let help = "Who may put files here: a peer ID, or anyone";
                ("uploads", "uploads-from", List, Nothing, "WHO", help)
            }
            Self::PassOnBlocks => {
                let help =
                    "Whether a relay asks other peers for blocks it does not have: on or off";
                ("pass_on_blocks", "pass-on-blocks", Switch, Is("on"), "SWITCH", help)
            }
            Self::HttpRate => {
                let help = "HTTP requests a second that one peer may make; 0 for any number";
                ("http_rate", "http-rate", Number, Is("1000"), "COUNT", help)
            }
            Self::TlsCert => {
                let help = "File with the certificates for HTTPS on the WebSocket port, in PEM";
                ("tls_cert", "tls-cert", Text, Nothing, "FILE", help)
            }
            // The only one left.
            _ => {
                let help = "File with the key to them, in PEM";
                ("tls_key", "tls-key", Text, Nothing, "FILE", help)
            }
        }
    }

    /// The key of a name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.spec().name == name)
    }

    /// The words that may stand for it, where they are few: for shells to complete.
    const fn words(self) -> &'static [&'static str] {
        match self {
            Self::Profile => &["tandem", "algorand"],
            Self::Mode => &["hybrid", "ws", "p2p"],
            Self::Relay | Self::Mdns | Self::PassOnBlocks => &["on", "off"],
            Self::Services => &["status", "blocks", "files", "kv"],
            Self::Uploads => &["anyone"],
            Self::Log => &["error", "warn", "info", "debug", "trace"],
            _ => &[],
        }
    }

    /// What else a shell completes for it.
    const fn hint(self) -> ValueHint {
        match self {
            Self::DataDir => ValueHint::DirPath,
            Self::IdentityFile | Self::TlsCert | Self::TlsSecret => ValueHint::FilePath,
            _ => ValueHint::Other,
        }
    }

    /// Its environment variable.
    pub(crate) fn variable(self) -> String {
        format!("TANDEM_{}", self.spec().name.to_ascii_uppercase())
    }
}

/// What the flags of the settings say: one entry for each that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) given: Vec<(Key, Vec<String>)>,
}

impl Flags {
    /// The flag of the data directory alone, as commands have it that speak to a running node.
    pub(crate) fn data_dir(dir: Option<&String>) -> Self {
        Self { given: dir.map(|dir| (Key::DataDir, vec![dir.clone()])).into_iter().collect() }
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = Key::ALL.into_iter().filter_map(|key| {
            let values = matches.get_many::<String>(key.spec().name)?;
            Some((key, values.cloned().collect()))
        });
        Ok(Self { given: given.collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.next_help_heading("Settings").args(Key::ALL.map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The flag of a key.
fn argument(key: Key) -> Arg {
    let spec = key.spec();
    let default = match spec.default {
        Default::Is(text) => format!(" [default: {text}]"),
        Default::UserDataDir => " [default: ~/.local/share/tandem]".to_owned(),
        Default::Nothing => String::new(),
    };
    let often = if spec.kind == Kind::List { "; may be given several times" } else { "" };
    let help = format!("{}{often}{default} [env: {}]", spec.help, key.variable());
    let argument = Arg::new(spec.name).long(spec.flag).value_name(spec.placeholder).help(help);
    let argument = match key.words() {
        [] => argument.value_hint(key.hint()),
        words => argument.value_parser(Offered(words)).hide_possible_values(true),
    };
    match spec.kind {
        Kind::List => argument.action(ArgAction::Append),
        Kind::Text | Kind::Number | Kind::Switch => argument.action(ArgAction::Set),
    }
}
