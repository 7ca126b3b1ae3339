#!/usr/bin/env node
/**
 * HTTP over libp2p (protocol /http/1.1) with js-libp2p, as a server and as a
 * client, so that an implementation which shares no code with it can be tried
 * against it.
 *
 *   peer.mjs serve                               one line on stdout: the multiaddr to call; ends when stdin closes
 *   peer.mjs call [-extra] [-only STEP,..] ADDR  one line on stdout: JSON of what held; exit status 0 only if all of it did
 *   peer.mjs topic ADDR NAME strict|none|floodsub
 *                                                publishes on a topic of a node and prints the first message of the node there;
 *                                                ends when stdin closes
 *   peer.mjs dht ADDR PREFIX FIND PROVIDE VALUE  joins the DHT of a node; one line: its own peer ID; then the values of
 *                                                the keys on stdin
 *
 *   peer.mjs relay                               carries circuits for others; one line: its multiaddr; ends when stdin closes
 *   peer.mjs cells ADDR...                       tries everything over each address; a line of JSON for each
 *   peer.mjs half-open ADDR                      pings among 2,000 streams that are left half open; one line
 *
 * All use TCP, WebSocket, QUIC and WebRTC Direct, and Yamux over the first two. INTEROP_SECURITY is noise (the default), tls or
 * both, for the first two. INTEROP_LISTEN is the multiaddrs that serve listens on. INTEROP_KEY is the kind of the key: Ed25519 (the default),
 * secp256k1 or RSA. INTEROP_PSK is the key file of a private network. With
 * INTEROP_DUMP=1 the bytes of every stream go to stderr. The routes are in ../README.md.
 */

import './node20.mjs'
import { readFileSync } from 'node:fs'
import { quic } from '@chainsafe/libp2p-quic'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { identify } from '@libp2p/identify'
import { http } from '@libp2p/http'
import { noise } from '@libp2p/noise'
import { preSharedKey } from '@libp2p/pnet'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { webRTCDirect } from '@libp2p/webrtc'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'
import { call } from './call.mjs'
import { cells, halfOpen, serveCells } from './cells.mjs'
import { serveStream } from './serve.mjs'
import { table, tableOf } from './table.mjs'
import { pubsubOf, topic } from './topic.mjs'

const PROTOCOL = '/http/1.1'
const USAGE = 'usage: peer.mjs serve | peer.mjs relay | peer.mjs call [-extra] [-only STEP,..] MULTIADDR | peer.mjs topic MULTIADDR NAME strict|none|floodsub' +
  ' | peer.mjs dht MULTIADDR PREFIX FIND PROVIDE VALUE | peer.mjs cells MULTIADDR... | peer.mjs half-open MULTIADDR'

/** Streams that one connection may open at once. Chosen: above the 256 callers of our benchmark. */
const MAX_STREAMS = 512

/** Streams of all protocols that one connection may open at once. Chosen: above the 2,000 half-open ones. */
const MUXED_STREAMS = 4096

/** What the environment says of a node. */
async function asked () {
  const { INTEROP_SECURITY = 'noise', INTEROP_KEY = 'Ed25519' } = process.env
  return { security: INTEROP_SECURITY, privateKey: await generateKeyPair(INTEROP_KEY) }
}

async function newNode (listen, services = {}, { security, privateKey } ) {
  const { INTEROP_PSK, INTEROP_TLS } = process.env
  // Those who dial trust what `NODE_EXTRA_CA_CERTS` names.
  const secure = INTEROP_TLS && { https: { cert: readFileSync(`${INTEROP_TLS}/cert.pem`), key: readFileSync(`${INTEROP_TLS}/key.pem`) } }
  const securities = { noise: [noise()], tls: [tls()], both: [noise(), tls()], quic: [noise()], webrtc: [noise()] }
  const node = await createLibp2p({
    privateKey,
    addresses: { listen },
    // A private network has no transport over UDP.
    transports: [tcp(), webSockets(secure || {}), circuitRelayTransport(), ...(INTEROP_PSK ? [] : [quic(), webRTCDirect()])],
    connectionEncrypters: securities[security],
    ...(INTEROP_PSK && { connectionProtector: preSharedKey({ psk: readFileSync(INTEROP_PSK) }) }),
    streamMuxers: [yamux({ maxOutboundStreams: MUXED_STREAMS })],
    // By default a host may connect five times a second, and is reset after that.
    connectionManager: { inboundConnectionThreshold: 1000 },
    // It ends a connection on which one of its own pings was reset, as it is among half-open streams.
    connectionMonitor: { enabled: false },
    services: { identify: identify(), ...services }
  })
  // rust-libp2p answers no pings of a peer that does not answer them itself. The DHT brings the library's own service.
  if (services.ping === undefined) {
    await node.handle('/ipfs/ping/1.0.0', (stream) => {
      stream.addEventListener('message', ({ data }) => stream.send(data))
      stream.addEventListener('remoteCloseWrite', () => stream.close().catch(() => {}))
    }, { runOnLimitedConnection: true })
  }
  return node
}

/** Serves, also behind a relay; with the service `relay`, carries circuits for others. */
async function serve (services = {}) {
  const listen = process.env.INTEROP_LISTEN?.split(' ') ?? ['/ip4/127.0.0.1/tcp/0']
  const node = await newNode(listen, services, await asked())
  await serveCells(node)
  await node.handle(PROTOCOL, serveStream, {
    maxInboundStreams: MAX_STREAMS,
    maxOutboundStreams: MAX_STREAMS,
    runOnLimitedConnection: true
  })
  // An address behind a relay is there once the relay has given a place.
  while (node.getMultiaddrs().length < listen.length) {
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  console.log(node.getMultiaddrs().join(' '))
  await new Promise((resolve) => process.stdin.on('end', resolve).on('close', resolve).on('error', resolve).resume())
  await node.stop()
}

const [command, ...rest] = process.argv.slice(2)
if (command === 'serve' && rest.length === 0) {
  await serve()
  process.exit(0)
} else if (command === 'relay' && rest.length === 0) {
  await serve({ relay: circuitRelayServer({ reservations: { applyDefaultLimit: true } }) })
  process.exit(0)
} else if (command === 'call' && rest.length > 0) {
  const node = await newNode([], { http: http() }, await asked())
  const held = await call(node, rest)
  await node.stop()
  process.exit(held ? 0 : 1)
} else if (command === 'topic' && rest.length === 3) {
  const node = await newNode([], { pubsub: pubsubOf(rest[2]) }, await asked())
  const held = await topic(node, rest)
  await node.stop()
  process.exit(held ? 0 : 1)
} else if (command === 'dht' && rest.length === 5) {
  const node = await newNode(['/ip4/127.0.0.1/tcp/0'], tableOf(rest[1]), await asked())
  const held = await table(node, rest)
  await node.stop()
  process.exit(held ? 0 : 1)
} else if (command === 'cells' && rest.length > 0) {
  const held = await cells((options) => newNode([], {}, options), rest)
  process.exit(held ? 0 : 1)
} else if (command === 'half-open' && rest.length === 1) {
  const held = await halfOpen(await newNode([], {}, await asked()), rest[0])
  process.exit(held ? 0 : 1)
} else {
  console.error(USAGE)
  process.exit(2)
}
