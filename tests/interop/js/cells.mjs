/**
 * Every exchange over each address, with each security and with a key of each kind, each over a connection of its own. One line of
 * JSON for each.
 *
 * `serveCells` answers on the protocols of our own: `/tandem-interop/echo/1` sends back what comes, and `/perf/1.0.0` measures, which
 * this library has no package for in the registry.
 */

import { generateKeyPair } from '@libp2p/crypto/keys'
import { multiaddr } from '@multiformats/multiaddr'
import { Source, collect, equal, pattern, readBody, readHead, write } from './wire.mjs'

const ECHO = '/tandem-interop/echo/1'
const HTTP = '/http/1.1'
const PERF = '/perf/1.0.0'
const PING = '/ipfs/ping/1.0.0'

const PING_BYTES = 32
const ECHO_BYTES = 1 << 20
const PERF_BYTES = 1_000_000
const HALF_OPEN_STREAMS = 2000

/** Time for one step, in milliseconds. Chosen: each takes about a second at most on a loopback. */
const DEADLINE_MS = 20_000

/** Time until a ping is answered among half-open streams, in milliseconds. Chosen: twice what libp2p gives a negotiation. */
const AMONG_MS = 20_000

/** Time to open one of them, in milliseconds. Chosen: QUIC makes us wait where its peer allows no more. */
const OPENING_MS = 300

const OPTIONS = { runOnLimitedConnection: true, maxInboundStreams: 64, maxOutboundStreams: 64 }

/** Answers on the protocols of our own. */
export async function serveCells (node) {
  await node.handle(ECHO, answering(async (stream, source) => {
    for (let bytes = await source.take(); bytes != null; bytes = await source.take()) {
      await write(stream, bytes)
    }
  }), OPTIONS)
  await node.handle(PERF, answering(async (stream, source) => {
    const wanted = Number(new DataView((await exactly(source, 8)).buffer).getBigUint64(0))
    while (await source.take() != null) {
      // What comes does not matter.
    }
    for (let left = wanted; left > 0; left -= 65_536) {
      await write(stream, new Uint8Array(Math.min(left, 65_536)))
    }
  }), OPTIONS)
}

function answering (answer) {
  return async (stream) => {
    try {
      await answer(stream, new Source(stream))
      await stream.close()
    } catch (error) {
      stream.abort(error)
    }
  }
}

/** Tries all of them; `newNode` makes a node of a security and a key. Says whether all held. */
export async function cells (newNode, addresses) {
  let held = true
  for (const address of addresses) {
    for (const security of securities(address)) {
      for (const kind of isCircuit(address) ? ['Ed25519'] : ['Ed25519', 'secp256k1', 'RSA']) {
        const row = await cell(newNode, address, security, kind)
        held &&= row.ok
        console.log(JSON.stringify(row))
      }
    }
  }
  return held
}

/** What secures an address; WebRTC and QUIC have their own. */
function securities (address) {
  if (address.includes('/webrtc-direct')) {
    return ['webrtc']
  }
  return address.includes('/quic-v1') ? ['quic'] : ['noise', 'tls']
}

/** A circuit carries 128 KiB. */
const LONG = ['stream', 'perf']

function isCircuit (address) {
  return address.includes('/p2p-circuit')
}

const STEPS = { pings, five, identify, stream, hello, perf }

async function cell (newNode, address, security, kind) {
  const way = `${address.slice(0, address.lastIndexOf('/p2p/'))} ${security} ${kind}`
  const failed = []
  const notes = []
  let node
  try {
    node = await newNode({ security, privateKey: await generateKeyPair(kind) })
    const connection = await node.dial(multiaddr(address))
    for (const [name, step] of Object.entries(STEPS)) {
      if (isCircuit(address) && LONG.includes(name)) {
        continue
      }
      try {
        const note = await within(step(connection, node))
        if (note != null) {
          notes.push(`${name}: ${note}`)
        }
      } catch (error) {
        failed.push(`${name}: ${error.message}`)
      }
    }
  } catch (error) {
    failed.push(`connect: ${error.message}`)
  }
  await node?.stop()
  return { way, ok: failed.length === 0, failed, notes }
}

async function within (step, limit = DEADLINE_MS) {
  let timer
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${limit} ms`)), limit)
  })
  try {
    return await Promise.race([step, late])
  } finally {
    clearTimeout(timer)
  }
}

async function open (connection, protocol) {
  const stream = await connection.newStream(protocol, OPTIONS)
  return { stream, source: new Source(stream) }
}

async function exactly (source, count) {
  const bytes = []
  while (bytes.length < count) {
    const piece = await source.take(count - bytes.length)
    if (piece == null) {
      throw new Error('the stream ended early')
    }
    bytes.push(...piece)
  }
  return Uint8Array.from(bytes)
}

async function ping ({ stream, source }, number) {
  const sent = new Uint8Array(PING_BYTES).fill(number)
  await write(stream, sent)
  if (!equal(sent, await exactly(source, PING_BYTES))) {
    throw new Error(`another answer to ping ${number}`)
  }
}

async function pings (connection) {
  const opened = await open(connection, PING)
  for (let number = 0; number < 5; number++) {
    await ping(opened, number)
  }
  await opened.stream.close()
}

async function five (connection) {
  for (let number = 0; number < 5; number++) {
    const opened = await open(connection, PING)
    await ping(opened, number)
    await opened.stream.close()
  }
}

async function identify (connection, node) {
  const { agentVersion, protocols } = await node.services.identify.identify(connection)
  for (const name of [PING, HTTP]) {
    if (!protocols.includes(name)) {
      throw new Error(`${name} is not among ${protocols}`)
    }
  }
  return agentVersion
}

async function stream (connection) {
  const { stream, source } = await open(connection, ECHO)
  const sent = pattern(ECHO_BYTES)
  const written = write(stream, sent).then(() => stream.close())
  const [heard] = await Promise.all([collect(rest(source)), written])
  if (!equal(sent, heard)) {
    throw new Error(`${heard.byteLength} other bytes came back`)
  }
}

async function * rest (source) {
  for (let bytes = await source.take(); bytes != null; bytes = await source.take()) {
    yield bytes
  }
}

async function hello (connection) {
  const { stream, source } = await open(connection, HTTP)
  await write(stream, 'GET /hello HTTP/1.1\r\nHost: peer.invalid\r\nConnection: close\r\n\r\n')
  const head = await readHead(source)
  const body = await collect(readBody(source, head, 'until close'))
  await stream.close()
  if (!head.start.startsWith('HTTP/1.1 200 ') || Buffer.from(body).toString() !== 'hi') {
    throw new Error(head.start)
  }
}

async function perf (connection) {
  const { stream, source } = await open(connection, PERF)
  const wanted = new Uint8Array(8)
  new DataView(wanted.buffer).setBigUint64(0, BigInt(PERF_BYTES))
  await write(stream, wanted)
  await write(stream, new Uint8Array(PERF_BYTES))
  const [{ byteLength }] = await Promise.all([collect(rest(source)), stream.close()])
  if (byteLength !== PERF_BYTES) {
    throw new Error(`${byteLength} bytes came`)
  }
}

/** Opens streams, begins to negotiate on each, goes on with none, and then pings until there is an answer. */
export async function halfOpen (node, address) {
  const connection = await node.dial(multiaddr(address))
  let opened = 0
  let last = 'all'
  while (opened < HALF_OPEN_STREAMS) {
    try {
      const stream = await within(connection.muxer.createStream(), OPENING_MS)
      stream.send(new TextEncoder().encode('\x13/multistream/1.0.0\n'))
      opened++
    } catch (error) {
      last = error.message
      break
    }
    if (opened % 50 === 0) {
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  const started = Date.now()
  for (let tries = 1; ; tries++) {
    try {
      const pinged = await open(connection, PING)
      await ping(pinged, 1)
      console.log(`${opened} opened (${last}), ping ${tries} answered after ${Date.now() - started} ms`)
      return true
    } catch (error) {
      if (Date.now() - started > AMONG_MS) {
        console.error(`peer.mjs: ${opened} opened (${last}), ${tries} pings failed: ${error.message}`)
        return false
      }
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
}
