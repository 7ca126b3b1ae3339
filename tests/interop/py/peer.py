"""A peer with py-libp2p: pings, identify, and HTTP/1.1 written by hand on streams of `/http/1.1`.

    peer.py serve       one line on stdout: the multiaddr to call; ends when stdin closes
    peer.py call ADDR   one line on stdout: JSON of what held; exit status 0 only if all of it did

    peer.py topic ADDR NAME strict|author|floodsub
                        publishes on a topic of a node and prints the first message of the node there; ends when
                        stdin closes
    peer.py relay       serve, and carries circuits for others
    peer.py cells ADDR...
                        tries everything over each address; a line of JSON for each
    peer.py half-open ADDR
                        pings among 2,000 streams that are left half open; one line
    peer.py perf ADDR   measures a node by /perf/1.0.0; exit status 0 only if all bytes came
    peer.py dht ADDR PREFIX FIND PROVIDE VALUE
                        joins the DHT of a node; one line: its own peer ID; then the values of the keys on stdin

All use TCP, WebSocket and QUIC, and Yamux over the first two. INTEROP_SECURITY is noise (the default), tls or both, for all but
QUIC. INTEROP_LISTEN is the multiaddrs that serve listens on. INTEROP_KEY is the kind of the key: secp256k1 (the default, as the
guides of py-libp2p make them), ed25519 or rsa. The routes are those of ../README.md without the ones that are asked for with -extra; one request a stream.
"""

import hashlib
import json
import logging
import os
import sys
from contextlib import nullcontext
from importlib.metadata import version

import trio
from blake3 import blake3
from circuit import circuits, connect, is_circuit, reserve
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair as create_new_ed25519_key_pair
from libp2p.crypto.rsa import create_new_key_pair as create_new_rsa_key_pair
from libp2p.crypto.secp256k1 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.ping import ID as PING
from libp2p.host.ping import PING_LENGTH
from libp2p.identity.identify.identify import ID as IDENTIFY
from libp2p.identity.identify.identify import parse_identify_response
from libp2p.io.utils import read_exactly
from libp2p.network.stream.exceptions import StreamEOF, StreamError
from libp2p.kad_dht import common, kad_dht, peer_routing, provider_store, value_store
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.perf import PerfService
from libp2p.pubsub.floodsub import FloodSub
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V12 as MESHSUB
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.security.tls.transport import PROTOCOL_ID as TLS
from libp2p.security.tls.transport import TLSTransport as Tls
from libp2p.records.validator import NamespacedValidator, Validator
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

HTTP = TProtocol("/http/1.1")

# Sends back what comes.
ECHO = TProtocol("/tandem-interop/echo/1")
ECHO_BYTES = 1 << 20

# Streams that nobody goes on with, and the time until a ping is answered among them. Chosen: twice what libp2p gives a negotiation.
HALF_OPEN_STREAMS = 2000
AMONG_SECONDS = 20

# The name that the well-known document maps to the path "/".
PROTOCOL_NAME = "/tandem-interop/1"

# Time that one call run may take. Chosen: every step takes well under a second on a loopback; a peer that
# never answers must end the run, not hang it.
CALL_DEADLINE_SECONDS = 60

# Largest head, and largest body of a route. Chosen: ten times what the steps ask for.
MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 100_000_000

# Bytes read or written at a time. Chosen: a quarter of a Yamux window.
PIECE_BYTES = 64 * 1024


KINDS = {"secp256k1": create_new_key_pair, "ed25519": create_new_ed25519_key_pair, "rsa": create_new_rsa_key_pair}


def make_host(security=None, kind=None, listen=()):
    """A host with Yamux that knows the transports of these addresses, and with a key of another kind than our nodes have."""
    key = KINDS[kind or os.environ.get("INTEROP_KEY", "secp256k1")]()
    security = security or os.environ.get("INTEROP_SECURITY", "noise")
    offers = {}
    if security != "tls":
        offers[NOISE] = Noise(key, noise_privkey=create_new_x25519_key_pair().private_key)
    if security in ("tls", "both"):
        offers[TLS] = Tls(key)
    host = new_host(
        key_pair=key,
        muxer_preference="YAMUX",
        sec_opt=offers,
        enable_quic=any("/quic-v1" in address for address in listen),
        enable_websocket=any("/ws" in address for address in listen),
    )
    return host


def pattern(first, last):
    """Bytes of the pattern, byte i being i mod 251."""
    return bytes(index % 251 for index in range(first, last))


class Source:
    """Reads a stream by lines and by lengths."""

    def __init__(self, stream):
        self.stream = stream
        self.buffer = b""
        self.ended = False

    async def more(self):
        """Reads a piece; False at the end of the stream."""
        if self.ended:
            return False
        try:
            piece = await self.stream.read(PIECE_BYTES)
        except StreamEOF:
            piece = b""
        self.ended = not piece
        self.buffer += piece
        return not self.ended

    async def head(self):
        """The first line and the headers by lower-case name; None if the stream ends before any byte."""
        while b"\r\n\r\n" not in self.buffer:
            if len(self.buffer) > MAX_HEAD_BYTES:
                raise ValueError("the head does not end")
            if not await self.more():
                if self.buffer:
                    raise ValueError("the stream ends in the middle of a head")
                return None
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        start, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, value = line.split(":", 1)
            headers[name.lower()] = value.strip()
        return start, headers

    async def take(self, count):
        """Bytes of the stream, as many as there are and no more than `count`; none at its end."""
        if not self.buffer and not await self.more():
            return b""
        piece, self.buffer = self.buffer[:count], self.buffer[count:]
        return piece

    async def line(self):
        while b"\r\n" not in self.buffer:
            if len(self.buffer) > MAX_HEAD_BYTES or not await self.more():
                raise ValueError("a line does not end")
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode("latin-1")

    async def body(self, headers):
        """The pieces of the body that these headers announce."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while True:
                left = size = int((await self.line()).split(";")[0], 16)
                while left > 0:
                    piece = await self.take(left)
                    if not piece:
                        raise ValueError("the stream ends in the middle of a chunk")
                    left -= len(piece)
                    yield piece
                if await self.line() and size > 0:
                    raise ValueError("a chunk is longer than it says")
                if size == 0:
                    return
        left = int(headers.get("content-length", 0))
        while left > 0:
            piece = await self.take(left)
            if not piece:
                raise ValueError("the stream ends in the middle of a body")
            left -= len(piece)
            yield piece


async def answer(stream, status, body=b"", kind="text/plain"):
    lines = [f"HTTP/1.1 {status}", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"Content-Type: {kind}", "", ""]
    await stream.write("\r\n".join(lines).encode() + body)


async def route(stream, source, method, path, headers):
    """Answers one request."""
    match method, path.split("/")[1:]:
        case "GET", ["hello"]:
            await answer(stream, "200 OK", b"hi")
        case "POST", ["echo"]:
            body = b"".join([piece async for piece in source.body(headers)])
            await answer(stream, "200 OK", body)
        case "POST", ["sink"]:
            count, digest = 0, blake3()
            async for piece in source.body(headers):
                count += len(piece)
                digest.update(piece)
            told = {"bytes": count, "blake3": digest.hexdigest()}
            await answer(stream, "200 OK", json.dumps(told).encode(), "application/json")
        case "GET", ["bytes", count] if count.isdigit() and int(count) <= MAX_BODY_BYTES:
            count = int(count)
            head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {count}\r\n\r\n"
            await stream.write(head.encode())
            # A piece that is a multiple of 251 long begins where the one before ended.
            piece = pattern(0, 251 * 256)
            for first in range(0, count, len(piece)):
                await stream.write(piece[: count - first])
        case "GET", [".well-known", "libp2p", "protocols"]:
            told = json.dumps({PROTOCOL_NAME: {"path": "/"}}).encode()
            await answer(stream, "200 OK", told, "application/json")
        case _:
            await answer(stream, "404 Not Found")


async def serve_stream(stream):
    """Answers one request, and ends the stream."""
    try:
        source = Source(stream)
        head = await source.head()
        if head is not None:
            start, headers = head
            method, path, _version = start.split(" ")
            if "host" in headers:
                await route(stream, source, method, path, headers)
            else:
                await answer(stream, "400 Bad Request")
        await stream.close_write()
    except (StreamError, ValueError) as error:
        print(f"peer.py: {error!r}", file=sys.stderr)
        await stream.reset()


async def echo(stream):
    """Sends back what comes."""
    try:
        while piece := await stream.read(PIECE_BYTES):
            await stream.write(piece)
    except StreamEOF:
        pass
    await stream.close_write()


async def serve(relays=False):
    listen = os.environ.get("INTEROP_LISTEN", "/ip4/127.0.0.1/tcp/0").split()
    behind = [address for address in listen if is_circuit(address)]
    listen = [address for address in listen if not is_circuit(address)]
    host = make_host(listen=listen)
    host.set_stream_handler(HTTP, serve_stream)
    host.set_stream_handler(ECHO, echo)
    async with (
        host.run(listen_addrs=[Multiaddr(address) for address in listen]),
        circuits(host, relays=relays) as transport,
        trio.open_nursery() as nursery,
    ):
        addresses = [str(address) for address in host.get_addrs()] if listen else []
        for address in behind:
            addresses.append(await reserve(host, transport, address, nursery))
        await PerfService(host).start()
        print(" ".join(addresses), flush=True)
        # What stdin says does not matter.
        while await trio.to_thread.run_sync(os.read, 0, PIECE_BYTES, abandon_on_cancel=True):
            pass
        nursery.cancel_scope.cancel()


class Caller:
    """The steps, against one peer."""

    def __init__(self, host, peer):
        self.host = host
        self.peer = peer

    async def five_pings(self):
        stream = await self.host.new_stream(self.peer, [PING])
        for _ in range(5):
            sent = os.urandom(PING_LENGTH)
            await stream.write(sent)
            assert await read_exactly(stream, PING_LENGTH) == sent, "another ping came back"
        await stream.close()

    async def identify(self):
        stream = await self.host.new_stream(self.peer, [IDENTIFY])
        pieces = b""
        try:
            while piece := await stream.read(PIECE_BYTES):
                pieces += piece
        except StreamEOF:
            pass
        # The message stands behind its length, a varint.
        length, shift = 0, 0
        for at, byte in enumerate(pieces):
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        assert len(pieces) == at + 1 + length, "the length is another one"
        told = parse_identify_response(pieces[at + 1 :])
        assert HTTP in told.protocols and PING in told.protocols, list(told.protocols)
        assert told.public_key, "no key is told"

    async def request(self, method, path, body=None, chunked=False):
        """One request on a stream of its own: the status, and the body."""
        stream = await self.host.new_stream(self.peer, [HTTP])
        lines = [f"{method} {path} HTTP/1.1", "Host: ", "Connection: close"]
        if body is not None:
            lines.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}")
        await stream.write("\r\n".join([*lines, "", ""]).encode())
        for first in range(0, len(body or b""), PIECE_BYTES):
            piece = body[first : first + PIECE_BYTES]
            await stream.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            await stream.write(b"0\r\n\r\n")
        await stream.close_write()
        source = Source(stream)
        start, headers = await source.head()
        answered = b"".join([piece async for piece in source.body(headers)])
        assert not await source.take(1), "something stands behind the answer"
        return int(start.split(" ")[1]), answered

    async def hello(self):
        assert await self.request("GET", "/hello") == (200, b"hi")

    async def echo(self):
        for length, chunked in [(0, False), (300_000, False), (300_000, True)]:
            body = pattern(0, length)
            assert await self.request("POST", "/echo", body, chunked) == (200, body)

    async def bytes_of_the_pattern(self):
        status, body = await self.request("GET", "/bytes/1000000")
        assert (status, body) == (200, pattern(0, 1_000_000))

    async def not_found(self):
        status, _ = await self.request("GET", "/nothing")
        assert status == 404, status

    async def well_known(self):
        status, body = await self.request("GET", "/.well-known/libp2p/protocols")
        assert status == 200 and any(entry["path"] == "/" for entry in json.loads(body).values())


    async def pings_on_five(self):
        for number in range(5):
            await self.ping(number)

    async def ping(self, number):
        stream = await self.host.new_stream(self.peer, [PING])
        sent = bytes([number]) * PING_LENGTH
        await stream.write(sent)
        assert await read_exactly(stream, PING_LENGTH) == sent, "another ping came back"
        await stream.close()

    async def stream_of_a_mebibyte(self):
        stream = await self.host.new_stream(self.peer, [ECHO])
        sent, heard = pattern(0, ECHO_BYTES), b""

        async def write():
            for first in range(0, len(sent), PIECE_BYTES):
                await stream.write(sent[first : first + PIECE_BYTES])
            await stream.close_write()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            try:
                while piece := await stream.read(PIECE_BYTES):
                    heard += piece
            except StreamEOF:
                pass
        assert heard == sent, f"{len(heard)} other bytes came back"


async def cell(address, security, kind):
    """Everything over one address with one security and one kind of key."""
    row = {"way": f"{address.rsplit('/p2p/', 1)[0]} {security} {kind}", "ok": False, "failed": []}
    try:
        with trio.fail_after(CALL_DEADLINE_SECONDS):
            info = info_from_p2p_addr(Multiaddr(address))
            host = make_host(security, kind, [address])
            async with host.run(listen_addrs=[]), circuits(host) as transport:
                if is_circuit(address):
                    await connect(host, transport, address)
                else:
                    await host.connect(info)
                steps = Caller(host, info.peer_id)
                tried = [steps.five_pings, steps.pings_on_five, steps.identify, steps.hello]
                # A circuit carries 128 KiB.
                if not is_circuit(address):
                    tried.append(steps.stream_of_a_mebibyte)
                for step in tried:
                    try:
                        with trio.fail_after(STEP_DEADLINE_SECONDS):
                            await step()
                    except Exception as error:  # Whatever it is, the other steps are tried.
                        row["failed"].append(f"{step.__name__}: {error!r}")
                row["ok"] = not row["failed"]
    except BaseException as error:  # Some of the library's are groups.
        row["ok"] = False
        row["failed"].append(f"connect: {error!r}")
    print(json.dumps(row), flush=True)
    return row["ok"]


async def cells(addresses):
    held = True
    for address in addresses:
        for security in ["quic"] if "/quic-v1" in address else ["noise", "tls"]:
            for kind in ["secp256k1"] if is_circuit(address) else ["secp256k1", "ed25519", "rsa"]:
                held &= await cell(address, security, kind)
    return held


async def half_open(address):
    """Opens streams, begins to negotiate on each, goes on with none, and then pings until there is an answer."""
    info = info_from_p2p_addr(Multiaddr(address))
    host = make_host(listen=[address])
    async with host.run(listen_addrs=[]):
        await host.connect(info)
        connection = host.get_network().connections[info.peer_id]
        connection = connection[0] if isinstance(connection, list) else connection
        opened, last = 0, "all"
        while opened < HALF_OPEN_STREAMS:
            try:
                with trio.fail_after(1):
                    stream = await connection.muxed_conn.open_stream()
                    await stream.write(b"\x13/multistream/1.0.0\n")
                opened += 1
            except Exception as error:
                last = repr(error)
                break
        steps, began, pings = Caller(host, info.peer_id), trio.current_time(), 0
        while trio.current_time() - began < AMONG_SECONDS:
            pings += 1
            try:
                with trio.fail_after(AMONG_SECONDS):
                    await steps.ping(pings % 256)
                after = round(1000 * (trio.current_time() - began))
                print(f"{opened} opened ({last}), ping {pings} answered after {after} ms", flush=True)
                return True
            except Exception as error:
                print(f"peer.py: {error!r}", file=sys.stderr)
                await trio.sleep(0.1)
    return False


async def call(address):
    info = info_from_p2p_addr(Multiaddr(address))
    host = make_host()
    held = {"implementation": f"py-libp2p {version('libp2p')}"}
    async with host.run(listen_addrs=[]):
        with trio.fail_after(CALL_DEADLINE_SECONDS):
            await host.connect(info)
            steps = Caller(host, info.peer_id)
            for step in [
                steps.five_pings,
                steps.identify,
                steps.hello,
                steps.echo,
                steps.bytes_of_the_pattern,
                steps.not_found,
                steps.well_known,
            ]:
                try:
                    await step()
                    held[step.__name__] = True
                except Exception as error:  # Whatever it is, the other steps are tried.
                    print(f"peer.py: {step.__name__}: {error!r}", file=sys.stderr)
                    held[step.__name__] = False
    print(json.dumps(held))
    return all(held.values())


# Time between two messages of a topic.
TOPIC_PAUSE_SECONDS = 0.2


async def topic(address, name, policy):
    """Publishes on a topic of a node, and prints the first message of the node there."""
    info = info_from_p2p_addr(Multiaddr(address))
    host = make_host()
    if policy == "floodsub":
        router = FloodSub([TProtocol("/floodsub/1.0.0")])
    else:
        router = GossipSub([MESHSUB], degree=6, degree_low=4, degree_high=12, heartbeat_interval=1)
    pubsub = Pubsub(host, router, strict_signing=policy != "author")
    # FloodSub has nothing to do in the background.
    running = background_trio_service(router) if policy != "floodsub" else nullcontext()
    async with (
        host.run(listen_addrs=[]),
        background_trio_service(pubsub),
        running,
        trio.open_nursery() as nursery,
    ):
        await pubsub.wait_until_ready()
        messages = await pubsub.subscribe(name)
        await host.connect(info)

        async def publish():
            number = 0
            while True:
                await pubsub.publish(name, f"hello from py, {number}".encode())
                number += 1
                await trio.sleep(TOPIC_PAUSE_SECONDS)

        nursery.start_soon(publish)
        with trio.fail_after(CALL_DEADLINE_SECONDS):
            while not (message := await messages.get()).data.startswith(b"hello from tandem"):
                pass
        assert message.from_id == info.peer_id.to_bytes(), "another author"
        print(message.data.decode(), pubsub.peers[info.peer_id].get_protocol(), flush=True)
        # What stdin says does not matter.
        while await trio.to_thread.run_sync(os.read, 0, PIECE_BYTES, abandon_on_cancel=True):
            pass
        nursery.cancel_scope.cancel()


# Time for each step in a DHT, and between two tries of one that needs the other side to be ready. Chosen: each takes
# well under a second on a loopback.
STEP_DEADLINE_SECONDS = 30
STEP_PAUSE_SECONDS = 0.1


async def perf(address):
    """Sends and gets a million bytes by the library's own client."""
    host = make_host()
    async with host.run(listen_addrs=[]):
        with trio.fail_after(CALL_DEADLINE_SECONDS):
            async for told in PerfService(host).measure_performance(Multiaddr(address), 1_000_000, 1_000_000):
                print(json.dumps(told))


def content_key(value):
    return f"/content/{hashlib.sha256(value).hexdigest()}"


class Contents(Validator):
    """Admits values whose key is their hash."""

    def validate(self, key, value):
        if key != content_key(value):
            raise ValueError("the value is not the one of its key")

    def select(self, key, values):
        return 0


def capability(name):
    """The key under which nodes that offer something are found: a multihash in hexadecimal digits."""
    return "1220" + hashlib.sha256(name.encode()).hexdigest()


async def until(what, step):
    """Repeats a step until it gives something."""
    with trio.move_on_after(STEP_DEADLINE_SECONDS):
        while True:
            result = await step()
            if result:
                return result
            await trio.sleep(STEP_PAUSE_SECONDS)
    raise TimeoutError(what)


async def table(address, prefix, find, provide, value):
    """Takes part in the DHT of a node, and prints the value of each key on stdin."""
    # The library has the name of its protocol in five places, and no parameter for it.
    for module in [common, kad_dht, peer_routing, provider_store, value_store]:
        module.PROTOCOL_ID = TProtocol(f"{prefix}/kad/1.0.0")
    info = info_from_p2p_addr(Multiaddr(address))
    host = make_host()
    validator = NamespacedValidator({"content": Contents()}, strict_validation=True)
    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        dht = KadDHT(
            host,
            DHTMode.SERVER,
            validator=validator,
            validator_changed=True,
            protocol_prefix=TProtocol(prefix),
            strict_validation=True,
        )
        async with background_trio_service(dht):
            await host.connect(info)
            await until("the node is in the routing table", lambda: dht.add_peer(info.peer_id))

            async def finds():
                found = await dht.find_providers(capability(find))
                return any(one.peer_id == info.peer_id and one.addrs for one in found)

            await until(f"the node provides {find}", finds)
            await until(f"providing {provide}", lambda: dht.provide(capability(provide)))
            await dht.put_value(content_key(value.encode()), value.encode())
            print(host.get_id(), flush=True)
            pieces = b""
            while piece := await trio.to_thread.run_sync(os.read, 0, PIECE_BYTES, abandon_on_cancel=True):
                *keys, pieces = (pieces + piece).split(b"\n")
                for key in keys:
                    found = await until(f"getting {key!r}", lambda key=key: dht.get_value(key.decode()))
                    print(found.decode(), flush=True)


def main():
    # The library warns of every peer whose addresses it does not know.
    logging.disable(logging.WARNING)
    match sys.argv[1:]:
        case ["serve"]:
            trio.run(serve)
        case ["relay"]:
            trio.run(serve, True)
        case ["topic", address, name, policy]:
            trio.run(topic, address, name, policy)
        case ["perf", address]:
            trio.run(perf, address)
        case ["dht", address, prefix, find, provide, value]:
            trio.run(table, address, prefix, find, provide, value)
        case ["cells", *addresses] if addresses:
            sys.exit(0 if trio.run(cells, addresses) else 1)
        case ["half-open", address]:
            sys.exit(0 if trio.run(half_open, address) else 1)
        case ["call", address]:
            sys.exit(0 if trio.run(call, address) else 1)
        case _:
            usage = "usage: peer.py serve | peer.py relay | peer.py call MULTIADDR | peer.py topic MULTIADDR NAME strict|author|floodsub"
            usage += " | peer.py perf MULTIADDR | peer.py dht MULTIADDR PREFIX FIND PROVIDE VALUE"
            usage += " | peer.py cells MULTIADDR... | peer.py half-open MULTIADDR"
            print(usage, file=sys.stderr)
            sys.exit(2)


main()
