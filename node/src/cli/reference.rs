//! The pages of the manual that are made from the program: its commands, and its settings.

#![allow(clippy::disallowed_methods, reason = "a test may use the system directly")]

use std::{env, fs, path::Path};

use clap::{Arg, Command, CommandFactory};
use clap_markdown::MarkdownOptions;

use super::Cli;
use crate::config::Key;

/// Set to write the pages anew instead of comparing them.
const WRITE: &str = "TANDEM_WRITE_REFERENCE";

/// The parts of the manual that say more about some settings: title, place, settings.
const SAID_ELSEWHERE: [(&str, &str, &[Key]); 15] = [
    ("the admin API", "api.md", &[Key::AdminListen]),
    ("Deployment", "deployment.md", &[Key::DrainSeconds]),
    ("Metrics", "metrics.md", &[Key::Metrics]),
    ("Finding peers", "peers.md", &[Key::Bootstrap, Key::LearntHosts]),
    ("the DHT", "peers.md#the-dht", &[Key::Dht, Key::DhtProvides]),
    ("values in the DHT", "peers.md#values-in-the-dht", &[Key::DhtValues]),
    ("Members", "peers.md#members", &[Key::Admit]),
    ("Pages in a browser", "browser.md", &[Key::PageOrigins, Key::MaxInboundPerOrigin]),
    ("Proxies", "proxies.md", &[Key::TrustedProxies, Key::ProxyProtocol, Key::RealIpHeader]),
    ("Being reachable", "reachability.md", &[Key::Reachability]),
    ("being a relay", "reachability.md#being-a-relay", &[Key::RelayLimits]),
    ("Interest", "running.md#interest", &[Key::Interest]),
    ("Topics", "topics.md", &[Key::Topics, Key::TagTopics]),
    ("Spans", "trace.md#spans", &[Key::Otlp]),
    ("the way of a message", "trace.md", &[Key::TraceOneIn]),
];

/// The beginning of the page of the commands.
const HEAD: &str = "# Commands

Here stands what `tandem help COMMAND` says, made from the program. `tandem man --out DIR` writes the same as pages for `man`, and
`tandem completions SHELL` prints a script that completes commands in a shell.

";

/// Compares a page with what it should be, or writes it.
fn is_up_to_date(name: &str, made: impl FnOnce(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let made = made(&kept);
    if env::var_os(WRITE).is_some() {
        fs::write(&path, made).unwrap();
        return;
    }
    assert!(kept == made, "{name}: run this test once with {WRITE}=1, and look at what changed");
}

/// A command for the page: without the settings, which have a page of their own, and without the size of this terminal.
fn for_page(command: Command) -> Command {
    let is_setting = |arg: &Arg| {
        Key::ALL.into_iter().any(|key| arg.get_long() == Some(key.spec().flag))
            && arg.get_id() != "help"
    };
    let has_settings =
        command.get_arguments().filter(|arg| is_setting(arg)).count() == Key::ALL.len();
    let command = if has_settings {
        let shown = "Every [setting](configuration.md) is a flag of it as well.";
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        command.about(format!("{about}. {shown}")).mut_args(|arg| {
            let hidden = is_setting(&arg);
            arg.hide(hidden)
        })
    } else {
        command
    };
    command.mut_subcommands(for_page)
}

// Issue 12, 9.
#[test]
fn the_page_of_the_commands_is_that_of_this_program() {
    let options = MarkdownOptions::new().show_footer(false).show_table_of_contents(false);
    is_up_to_date("cli.md", |_kept| {
        let page = clap_markdown::help_markdown_command_custom(&for_page(Cli::command()), &options);
        let (_title, body) = page.split_once("## `tandem`").expect("the program is described");
        // Its headings of the sixth level would be in the table of contents, and a usage of one's own has the name in it.
        let body = body.replace("###### **", "**").replace("`tandem tandem ", "`tandem ");
        let lines: Vec<_> = body.lines().map(str::trim_end).collect();
        let body = lines.join("\n").replace("\n\n\n", "\n\n").replace("\n\n\n", "\n\n");
        format!("{HEAD}## `tandem`{}\n", body.trim_end())
    });
}

/// The lines of the table of settings.
fn settings() -> String {
    let mut table =
        "| key | flag | variable | default | meaning |\n| --- | --- | --- | --- | --- |\n"
            .to_owned();
    for key in Key::ALL {
        let spec = key.spec();
        let (name, flag, upper) = (spec.name, spec.flag, spec.name.to_uppercase());
        let default = spec.default.text().map_or("none".to_owned(), |text| format!("`{text}`"));
        let more = SAID_ELSEWHERE.iter().find(|(_, _, keys)| keys.contains(&key));
        let more = more.map_or(String::new(), |(title, at, _)| format!("; see [{title}]({at})"));
        let help = spec.help;
        table.push_str(&format!(
            "| `{name}` | `--{flag}` | `TANDEM_{upper}` | {default} | {help}{more} |\n"
        ));
    }
    table
}

// Issue 12, 9.
#[test]
fn the_table_of_the_settings_is_that_of_this_program() {
    is_up_to_date("configuration.md", |kept| {
        let (head, rest) = kept.split_once("| key |").expect("there is a table");
        let (_table, tail) = rest.split_once("\n\n").expect("text follows the table");
        format!("{head}{}\n{tail}", settings())
    });
}
