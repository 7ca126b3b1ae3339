"""Circuits with py-libp2p: as client, as target and as relay."""

from contextlib import asynccontextmanager

from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.relay.circuit_v2.config import RelayConfig, RelayRole
from libp2p.relay.circuit_v2.protocol import PROTOCOL_ID as HOP
from libp2p.relay.circuit_v2.protocol import CircuitV2Protocol
from libp2p.relay.circuit_v2.resources import RelayLimits
from libp2p.relay.circuit_v2.transport import CircuitV2Transport
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

# Limits of a circuit: those of the others by default.
LIMITS = {"duration": 120, "data": 128 * 1024, "max_circuit_conns": 16, "max_reservations": 16}


def is_circuit(address):
    return "/p2p-circuit" in address


def relay_of(address):
    """The relay that an address leads through."""
    return info_from_p2p_addr(Multiaddr(address.split("/p2p-circuit")[0]))


@asynccontextmanager
async def circuits(host, *, relays=False):
    """Takes part in circuits, as a relay too if it `relays`."""
    limits = RelayLimits(**LIMITS)
    roles = RelayRole.CLIENT | RelayRole.STOP
    if relays:
        roles |= RelayRole.HOP
    protocol = CircuitV2Protocol(host, limits, allow_hop=relays)
    transport = CircuitV2Transport(host, protocol, RelayConfig(roles=roles, limits=limits))
    async with background_trio_service(protocol):
        yield transport


async def connect(host, transport, address):
    """Connects to the peer at the end of a circuit."""
    await host.connect(relay_of(address))
    await transport.dial(Multiaddr(address))


async def reserve(host, transport, address, nursery):
    """Takes a place at the relay of an address to listen on."""
    relay = relay_of(address)
    await host.connect(relay)
    stream = await host.new_stream(relay.peer_id, [HOP])
    assert await transport.reserve(stream, relay.peer_id, nursery), "the relay gave no place"
    return f"{address}/p2p/{host.get_id()}"
