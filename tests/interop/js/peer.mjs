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
 * All use TCP and WebSocket, Noise and Yamux, with a fresh Ed25519 key. INTEROP_SECURITY is noise (the default) or tls.
 * INTEROP_LISTEN is the multiaddr that serve listens on. INTEROP_PSK is the key file of a private network. With
 * INTEROP_DUMP=1 the bytes of every stream go to stderr. The routes are in ../README.md.
 */

import './node20.mjs'
import { readFileSync } from 'node:fs'
import { identify } from '@libp2p/identify'
import { http } from '@libp2p/http'
import { noise } from '@libp2p/noise'
import { preSharedKey } from '@libp2p/pnet'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'
import { call } from './call.mjs'
import { serveStream } from './serve.mjs'
import { table, tableOf } from './table.mjs'
import { pubsubOf, topic } from './topic.mjs'

const PROTOCOL = '/http/1.1'
const USAGE = 'usage: peer.mjs serve | peer.mjs call [-extra] [-only STEP,..] MULTIADDR | peer.mjs topic MULTIADDR NAME strict|none|floodsub' +
  ' | peer.mjs dht MULTIADDR PREFIX FIND PROVIDE VALUE'

/** Streams that one connection may open at once. Chosen: above the 256 callers of our benchmark. */
const MAX_STREAMS = 512

async function newNode (listen, services = {}) {
  const { INTEROP_SECURITY, INTEROP_PSK } = process.env
  const node = await createLibp2p({
    addresses: { listen },
    transports: [tcp(), webSockets()],
    connectionEncrypters: [INTEROP_SECURITY === 'tls' ? tls() : noise()],
    ...(INTEROP_PSK && { connectionProtector: preSharedKey({ psk: readFileSync(INTEROP_PSK) }) }),
    streamMuxers: [yamux()],
    // By default a host may connect five times a second, and is reset after that.
    connectionManager: { inboundConnectionThreshold: 1000 },
    services: { identify: identify(), ...services }
  })
  // rust-libp2p answers no pings of a peer that does not answer them itself. The DHT brings the library's own service.
  if (services.ping === undefined) {
    await node.handle('/ipfs/ping/1.0.0', (stream) => {
      stream.addEventListener('message', ({ data }) => stream.send(data))
      stream.addEventListener('remoteCloseWrite', () => stream.close().catch(() => {}))
    })
  }
  return node
}

async function serve () {
  const node = await newNode([process.env.INTEROP_LISTEN ?? '/ip4/127.0.0.1/tcp/0'])
  await node.handle(PROTOCOL, serveStream, {
    maxInboundStreams: MAX_STREAMS,
    maxOutboundStreams: MAX_STREAMS
  })
  console.log(String(node.getMultiaddrs()[0]))
  await new Promise((resolve) => process.stdin.on('end', resolve).on('close', resolve).on('error', resolve).resume())
  await node.stop()
}

const [command, ...rest] = process.argv.slice(2)
if (command === 'serve' && rest.length === 0) {
  await serve()
  process.exit(0)
} else if (command === 'call' && rest.length > 0) {
  const node = await newNode([], { http: http() })
  const held = await call(node, rest)
  await node.stop()
  process.exit(held ? 0 : 1)
} else if (command === 'topic' && rest.length === 3) {
  const node = await newNode([], { pubsub: pubsubOf(rest[2]) })
  const held = await topic(node, rest)
  await node.stop()
  process.exit(held ? 0 : 1)
} else if (command === 'dht' && rest.length === 5) {
  const node = await newNode(['/ip4/127.0.0.1/tcp/0'], tableOf(rest[1]))
  const held = await table(node, rest)
  await node.stop()
  process.exit(held ? 0 : 1)
} else {
  console.error(USAGE)
  process.exit(2)
}
