//! Where the commands of a page run: a home, a `/tmp` and a network of their own, with the program on the path.
//!
//! # Invariants
//!
//! * Each block is a shell of its own, as if it were pasted into another terminal.
//! * A block that says `ready` or `forwarding` goes on in the background until the page is through. Then Ctrl-C ends
//!   it, and its exit code has to be 0, like that of every other block.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::page::{Block, Page, root};
use crate::support::Process;

/// Longest time for a page. Chosen: the demo sends for ten seconds, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(240);

/// Says that a page works while a node runs on the default ports. The test starts one then.
const BESIDE: &str = "works beside a node on the default ports";

/// `cargo` for the manual: its release builds would take minutes, so the programs are those that the tests have
/// built. The arguments are the same, but for the demo: a debug build on a busy machine keeps up with a tenth of its
/// messages.
const CARGO: &str = r#"#!/bin/sh
case "$*" in
    "run --release -- demo") exec tandem demo --rate 0.1 ;;
    "run --release -- "*) shift 3; exec tandem "$@" ;;
    "run --release --example "*)
        program=$4
        shift 4
        [ "${1:-}" != -- ] || shift
        exec "$program" "$@"
        ;;
    "run --release -p examples --bin "*) shift 5; name=$1; shift 2; exec "$name" "$@" ;;
esac
echo "the manual calls cargo in a way that its test does not know: $*" >&2
exit 1
"#;

/// The examples of the package `tandem`.
const EXAMPLES: [&str; 2] = ["first_engine", "http_service"];

/// The programs of the package `examples` that pages start.
const APPLICATIONS: [&str; 6] = [
    "chat",
    "key_value",
    "publish_subscribe",
    "relay_client",
    "remote_web_server",
    "replicated_log",
];

/// Runs the blocks `0.sh`, `1.sh` and so on, each with its output in a file beside it.
const RUNNER: &str = r#"
set -um
cd "$stage/home"
export HOME="$stage/home" PATH="$stage/bin:$PATH"
nodes=()
fail() {
    echo "block $1: $2" >&2
    cat "$stage/blocks/$1.out" >&2
    kill -KILL -- "${nodes[@]/#/-}" 2>/dev/null
    exit 1
}
# A node that dials others is there when it has them.
until_connected() {
    local dir
    dir=$(grep -o -- '--data-dir [^ ]*' "$1.sh" | tail -n 1 | cut -d ' ' -f 2)
    for _ in $(seq 300); do
        tandem status --json ${dir:+--data-dir "$dir"} 2>/dev/null | grep -q '"outcome":"connected"' && return
        sleep 0.1
    done
    return 1
}
run() {
    local block=$stage/blocks/$1 pid code
    bash -euo pipefail "$block.sh" > "$block.out" 2>&1 < /dev/null &
    pid=$!
    for _ in $(seq 900); do
        if ! kill -0 "$pid" 2>/dev/null; then
            wait "$pid"
            code=$?
            [ "$code" = 0 ] || fail "$1" "exit code $code"
            return
        fi
        if grep -qsE '^ready$|"event":"ready"|^forwarding http' "$block.out"; then
            nodes+=("$pid")
            # Applications have no status to ask for, and say it when they are.
            ! grep -qs -- '-p examples' "$block.sh" || return
            ! grep -qs -- --peer "$block.sh" || until_connected "$block" || fail "$1" "its peer is not there"
            # As long as somebody needs at least to paste the next block.
            sleep 1
            return
        fi
        sleep 0.1
    done
    nodes+=("$pid")
    fail "$1" "neither ends nor is ready"
}
if [ "$beside" = 1 ]; then
    echo 'tandem run --data-dir "$HOME/beside"' > "$stage/blocks/beside.sh"
    run beside
fi
for number in $(seq 0 $((blocks - 1))); do
    run "$number"
done
for pid in "${nodes[@]}"; do
    kill -INT -- "-$pid"
    wait "$pid" || { echo "a node that is stopped by Ctrl-C ends with $?" >&2; cat "$stage"/blocks/*.out >&2; exit 1; }
done
echo all blocks ran
"#;

/// The parts of the machine that a page's commands share with everything else on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// No network and no `/tmp`: the blocks run as they stand.
    Own,
    /// Both: ports and paths in the blocks are replaced by free ones.
    Shared,
}

impl Ground {
    /// The best that this machine allows for.
    pub(crate) fn best() -> Self {
        let trial = "mount -t tmpfs none /tmp && mount -t tmpfs none /mnt && ip link set lo up";
        let tried = unshared(trial).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if tried.is_ok_and(|status| status.success()) { Self::Own } else { Self::Shared }
    }
}

/// A command in namespaces of its own.
fn unshared(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    command.args(["--", "bash", "-c", script]);
    command
}

/// A page's commands, and what they print.
pub(crate) struct Stage {
    dir: TempDir,
    ground: Ground,
    /// The texts of the page that others stand for in a block, on shared ground.
    replaced: BTreeMap<String, String>,
}

impl Stage {
    /// A stage for these blocks.
    pub(crate) fn new(ground: Ground, blocks: &[&Block]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["bin", "home", "tmp", "blocks"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let bin = dir.path().join("bin");
        place(Path::new(env!("CARGO_BIN_EXE_tandem")), &bin.join("tandem"));
        for name in EXAMPLES {
            let file = format!("examples/{name}");
            place(&built(&file, &["-p", "tandem", "--example", name]), &bin.join(name));
        }
        let is_used =
            |name: &&str| blocks.iter().any(|block| block.text.contains(&format!("--bin {name} ")));
        for name in APPLICATIONS.into_iter().filter(is_used) {
            place(&built(name, &["-p", "examples", "--bin", name]), &bin.join(name));
        }
        fs::write(bin.join("cargo"), CARGO).unwrap();
        fs::set_permissions(bin.join("cargo"), fs::Permissions::from_mode(0o755)).unwrap();
        let replaced = match ground {
            Ground::Own => BTreeMap::new(),
            Ground::Shared => replacements(dir.path(), blocks),
        };
        let stage = Self { dir, ground, replaced };
        for (number, block) in blocks.iter().enumerate() {
            fs::write(stage.file(number, "sh"), stage.replace(&block.text)).unwrap();
        }
        stage
    }

    fn file(&self, number: usize, kind: &str) -> PathBuf {
        self.dir.path().join("blocks").join(format!("{number}.{kind}"))
    }

    /// A text of the page as it reads on this ground.
    pub(crate) fn replace(&self, text: &str) -> String {
        self.replaced.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// Runs all the blocks.
    pub(crate) fn run(&self, page: &Page, blocks: usize) {
        let dir = self.dir.path().display();
        let beside = self.ground == Ground::Own && page.text.contains(BESIDE);
        let script = format!("blocks={blocks} beside={}\n{RUNNER}", u8::from(beside));
        let mut command = match self.ground {
            Ground::Own => unshared(&format!(
                "set -e; ip link set lo up; mount --bind {dir} /mnt; mount --bind /mnt/tmp /tmp; set +e\n\
                 stage=/mnt\n{script}"
            )),
            Ground::Shared => {
                let mut command = Command::new("bash");
                command.args(["-c", &format!("stage={dir}\n{script}")]);
                for (name, port) in
                    [("TANDEM_LISTEN_WS", ":4160"), ("TANDEM_LISTEN_P2P", "/tcp/4190")]
                {
                    let address =
                        if port.starts_with(':') { "127.0.0.1" } else { "/ip4/127.0.0.1" };
                    command.env(name, self.replace(&format!("{address}{port}")));
                }
                command
            }
        };
        let mut process = Process::spawn(&mut command);
        let status = process.wait(PATIENCE);
        let (out, err): (Vec<String>, Vec<String>) =
            (process.stdout.iter().collect(), process.stderr.iter().collect());
        assert!(status.success(), "{}, {:?}: {out:?}\n{}", page.name, self.ground, err.join("\n"));
        assert_eq!(out.last().map(String::as_str), Some("all blocks ran"), "{err:?}");
    }

    /// The output of a block.
    pub(crate) fn printed(&self, number: usize) -> String {
        fs::read_to_string(self.file(number, "out")).unwrap()
    }
}

/// Puts a program where the blocks find it.
fn place(program: &Path, at: &Path) {
    // Another file system takes no link.
    if fs::hard_link(program, at).is_err() {
        fs::copy(program, at).unwrap();
    }
}

/// A program of the manual, which cargo builds with the tests of the workspace unless one of them alone is asked for.
fn built(file: &str, arguments: &[&str]) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_tandem")).with_file_name(file);
    if !program.exists() {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(root()).args(["build", "--offline"]).args(arguments);
        assert!(cargo.status().unwrap().success());
    }
    program
}

/// Free ports for the ports of the blocks, and for those that a node takes by default; another folder for `/tmp`.
fn replacements(dir: &Path, blocks: &[&Block]) -> BTreeMap<String, String> {
    let mut replaced =
        BTreeMap::from([("/tmp/".to_owned(), format!("{}/", dir.join("tmp").display()))]);
    let text: String = blocks.iter().map(|block| block.text.as_str()).collect();
    let texts = format!("{text} 127.0.0.1:4160 /tcp/4190");
    // All are held until all are chosen, so that no two are the same.
    let mut held = Vec::new();
    for before in [":", "/tcp/"] {
        for rest in texts.split(before).skip(1) {
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            if port.len() < 4 {
                continue;
            }
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let free = listener.local_addr().unwrap().port();
            held.push(listener);
            replaced.entry(format!("{before}{port}")).or_insert(format!("{before}{free}"));
        }
    }
    replaced
}
