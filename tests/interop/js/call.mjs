/**
 * The client: a list of steps against one server, and a report of what held.
 *
 * Most steps write HTTP/1.1 by hand on a stream of their own. `fetch` and
 * `agent` use @libp2p/http: the fetch of js-libp2p, and node:http over libp2p
 * streams.
 *
 * Invariants
 *
 * - Every step ends within STEP_DEADLINE_MS.
 * - A step that asks for a second response on one stream also holds if the server
 *   announced with `Connection: close` that there would be none; its note says which.
 */

import { readFileSync } from 'node:fs'
import { request as nodeRequest } from 'node:http'
import { createRequire } from 'node:module'
import { multiaddr } from '@multiformats/multiaddr'
import { Source, collect, equal, framing, pattern, readBody, readHead, write } from './wire.mjs'

const PROTOCOL = '/http/1.1'
const PING = '/ipfs/ping/1.0.0'
const PING_BYTES = 32
const ECHO_BYTES = 1 << 20
const BODY_BYTES = 10_000_000
/** Past any window that has not grown yet, so that the client is still sending. */
const REFUSED_BYTES = 4 << 20
const MANY_REQUESTS = 200
const MANY_AT_ONCE = 16
const KEPT_REQUESTS = 20
const PIPELINED = 8
const PINGS = 5

/** Chosen: every step takes about a second at most on a loopback. */
const STEP_DEADLINE_MS = 20_000

/** Streams of ours on one connection. Chosen: more than MANY_AT_ONCE, with room for the closing ones. */
const MAX_STREAMS = 512

/** Steps that need routes which only the servers of this folder have. */
const EXTRA = ['until-close', 'cut']

const STEPS = {
  // The ping of js-libp2p opens a stream for each; others send all of them over one.
  pings: async ({ node, address }) => {
    const stream = await node.dialProtocol(address, PING)
    const source = new Source(stream)
    for (let number = 0; number < PINGS; number++) {
      const sent = new Uint8Array(PING_BYTES).fill(number)
      await write(stream, sent)
      const answer = []
      while (answer.length < PING_BYTES) {
        answer.push(...(await source.take(PING_BYTES - answer.length) ?? check(false, `no answer to ping ${number}`)))
      }
      check(equal(sent, Uint8Array.from(answer)), `another answer to ping ${number}`)
    }
    await finish(stream, source)
    return `${PINGS} on one stream`
  },

  hello: (peer) => hello(peer),

  echo: async (peer) => {
    const sent = pattern(ECHO_BYTES)
    const head = requestHead('POST', '/echo', [`Content-Length: ${sent.byteLength}`, 'Connection: close'])
    return echoed(sent, await once(peer, [head, sent]))
  },

  'echo-chunked': async (peer) => {
    const sent = pattern(ECHO_BYTES)
    const parts = [requestHead('POST', '/echo', ['Transfer-Encoding: chunked', 'Connection: close'])]
    // Chunks of all sorts of lengths, from 1 byte to past 64 KiB, with an extension on each.
    for (let at = 0, length = 1; at < sent.byteLength; at += length, length = (length * 3) % 70_001) {
      const chunk = sent.subarray(at, at + length)
      parts.push(`${chunk.byteLength.toString(16)};part=1\r\n`, chunk, '\r\n')
    }
    parts.push('0\r\n\r\n')
    return echoed(sent, await once(peer, parts))
  },

  bytes: async (peer) => {
    const response = await once(peer, [requestHead('GET', `/bytes/${BODY_BYTES}`, ['Connection: close'])])
    check(response.status === 200 && response.body.byteLength === BODY_BYTES, `${response.status}, ${response.body.byteLength} bytes`)
    // A server that repeats one byte is accepted too: its route promises only a length.
    const constant = new Uint8Array(BODY_BYTES).fill(response.body[0])
    check(equal(response.body, pattern(BODY_BYTES)) || equal(response.body, constant), 'the length is right, the bytes are not')
    return response.framing
  },

  many: async (peer) => {
    let next = 0
    const worker = async () => {
      while (next++ < MANY_REQUESTS) {
        await hello(peer)
      }
    }
    await Promise.all(Array.from({ length: MANY_AT_ONCE }, worker))
    const connections = peer.node.getConnections().length
    return `${MANY_REQUESTS} requests, ${MANY_AT_ONCE} at once, ${connections} connection`
  },

  'well-known': async (peer) => {
    const response = await once(peer, [requestHead('GET', '/.well-known/libp2p/protocols', ['Accept: application/json', 'Connection: close'])])
    const text = Buffer.from(response.body).toString()
    check(response.status === 200 && typeof JSON.parse(text) === 'object', `${response.status} with ${text}`)
    return `${response.headers.get('content-type')}: ${text.trim()}`
  },

  'not-found': async (peer) => {
    const response = await once(peer, [requestHead('GET', '/no/such/route', ['Connection: close'])])
    check(response.status === 404, response.start)
    return response.start
  },

  // Holds if the answer to a long body that nobody wants still arrives.
  refused: async (peer) => {
    const { stream, source } = await open(peer)
    const head = requestHead('POST', '/no/such/route', [`Content-Length: ${REFUSED_BYTES}`, 'Connection: close'])
    const written = write(stream, head).then(() => write(stream, pattern(REFUSED_BYTES))).catch(() => {})
    const response = await readResponse(source)
    check(response.status === 404, response.start)
    // Not a half-close: that waits until all is sent, and who answered early may read no more of it.
    stream.abort(new Error('refused'))
    await written
    return response.start
  },

  // The server must end the stream itself, for the client keeps its half open until then.
  'no-half-close': async (peer) => {
    const { stream, source } = await open(peer)
    await write(stream, requestHead('GET', '/hello', ['Connection: close']))
    const response = await readResponse(source)
    isHi(response)
    check(await source.take() == null, 'more bytes after the response')
    await stream.close()
    return response.start
  },

  'empty-host': async (peer) => {
    const response = await once(peer, ['GET /hello HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n'])
    isHi(response)
    return response.start
  },

  // A head that arrives a few bytes at a time.
  pieces: async (peer) => {
    const { stream, source } = await open(peer)
    for (const piece of requestHead('GET', '/hello', ['Connection: close']).match(/[^]{1,9}/g)) {
      await write(stream, piece)
      await new Promise((resolve) => setImmediate(resolve))
    }
    await stream.close()
    isHi(await readResponse(source))
    return 'answered'
  },

  'keep-alive': async (peer) => {
    const { stream, source } = await open(peer)
    await write(stream, requestHead('GET', '/hello', []))
    const first = await readResponse(source)
    isHi(first)
    if (announcesClose(first)) {
      await finish(stream, source)
      return '1 on one stream: the server announced the close'
    }
    const sent = pattern(1000)
    await write(stream, requestHead('POST', '/echo', [`Content-Length: ${sent.byteLength}`, 'Connection: close']))
    await write(stream, sent)
    await stream.close()
    echoed(sent, await readResponse(source))
    check(await source.take() == null, 'more bytes after the last response')
    return '2 on one stream'
  },

  pipelined: async (peer) => {
    const { stream, source } = await open(peer)
    const requests = Array.from({ length: PIPELINED }, (_, i) => requestHead('GET', '/hello', i + 1 === PIPELINED ? ['Connection: close'] : []))
    await write(stream, requests.join(''))
    for (let answered = 1; ; answered++) {
      const response = await readResponse(source)
      isHi(response)
      if (answered === PIPELINED || announcesClose(response)) {
        await finish(stream, source)
        return `${answered} of ${PIPELINED} answered`
      }
    }
  },

  fetch: async (peer) => {
    const resource = (path) => peer.address.encapsulate(`/http-path/${encodeURIComponent(path)}`)
    const { http } = peer.node.services
    const first = await http.fetch(resource('hello'))
    check(first.status === 200 && await first.text() === 'hi', `${first.status}`)
    const sent = pattern(ECHO_BYTES)
    const second = await http.fetch(resource('echo'), { method: 'POST', body: sent })
    check(second.status === 200 && equal(new Uint8Array(await second.arrayBuffer()), sent), 'the echo is not what was sent')
    return `protocols ${JSON.stringify(await http.getSupportedProtocols(peer.address))}`
  },

  agent: async (peer) => {
    const agent = peer.node.services.http.agent(peer.address, { keepAlive: true, maxSockets: 1 })
    const sockets = new Set()
    try {
      for (let i = 0; i < KEPT_REQUESTS; i++) {
        await new Promise((resolve, reject) => {
          const request = nodeRequest({ agent, path: '/hello', host: 'peer.invalid' }, async (response) => {
            try {
              const text = Buffer.concat(await response.toArray()).toString()
              check(response.statusCode === 200 && text === 'hi', `${response.statusCode} with ${text}`)
              resolve()
            } catch (error) {
              reject(error)
            }
          })
          request.on('socket', (socket) => sockets.add(socket))
          request.on('error', reject)
          request.end()
        })
      }
    } finally {
      agent.destroy()
    }
    return `${KEPT_REQUESTS} requests, ${sockets.size} streams`
  },

  // A body that only the end of the stream ends.
  'until-close': async (peer) => {
    const response = await once(peer, [requestHead('GET', '/until-close/100000', ['Connection: close'])])
    check(response.status === 200 && equal(response.body, pattern(100_000)), `${response.start}, ${response.body.byteLength} other bytes`)
    return response.framing
  },

  // Holds if a response that ends early is an error and not a short body.
  cut: async (peer) => {
    let response
    try {
      response = await once(peer, [requestHead('GET', '/cut/100000', ['Connection: close'])])
    } catch (error) {
      return `${error.name}: ${error.message}`
    }
    throw new Error(`${response.start} with ${response.body.byteLength} bytes taken as whole`)
  }
}

/** Runs the steps, prints the report, and says whether all held. */
export async function call (node, args) {
  const address = multiaddr(args.at(-1))
  const only = args.includes('-only') ? args[args.indexOf('-only') + 1].split(',') : undefined
  const names = only ?? Object.keys(STEPS).filter((name) => args.includes('-extra') || !EXTRA.includes(name))
  const peer = { node, address }
  const steps = []
  for (const name of names) {
    const started = performance.now()
    let ok = true
    let note
    try {
      check(name in STEPS, 'no such step')
      note = await within(STEPS[name](peer))
    } catch (error) {
      ok = false
      note = `${error.name}: ${error.message}`
    }
    steps.push({ name, ok, ms: Math.round(performance.now() - started), note })
  }
  const held = steps.every(({ ok }) => ok)
  console.log(JSON.stringify({ ok: held, implementation: implementation(), steps }))
  return held
}

async function hello (peer) {
  const response = await once(peer, [requestHead('GET', '/hello', ['Connection: close'])])
  isHi(response)
  return response.start
}

/** One request on a stream of its own, half-closed after it, and read to the end of the stream. */
async function once (peer, parts) {
  const { stream, source } = await open(peer)
  // Reading has to go on while a long body is written, or both sides wait for each other.
  const written = (async () => {
    for (const part of parts) {
      await write(stream, part)
    }
    await stream.close()
  })()
  const [response] = await Promise.all([readResponse(source), written])
  check(await source.take() == null, 'more bytes after the response')
  return response
}

async function open ({ node, address }) {
  const stream = await node.dialProtocol(address, PROTOCOL, { maxOutboundStreams: MAX_STREAMS })
  return { stream, source: new Source(stream) }
}

async function readResponse (source) {
  const head = await readHead(source)
  check(head != null, 'the stream ended without a response')
  const status = /^HTTP\/1\.1 (\d{3}) /.exec(head.start)
  check(status != null, `not a status line: ${JSON.stringify(head.start)}`)
  const body = await collect(readBody(source, head, 'until close'))
  return { ...head, status: Number(status[1]), framing: framing(head, 'until close'), body }
}

/** Closes our half and reads to the end, whatever the server still says. */
async function finish (stream, source) {
  await stream.close()
  while (await source.take() != null) {
    // What comes after an announced close does not matter.
  }
}

function requestHead (method, path, headers) {
  return [`${method} ${path} HTTP/1.1`, 'Host: peer.invalid', ...headers, '', ''].join('\r\n')
}

function announcesClose (response) {
  return /\bclose\b/i.test(response.headers.get('connection') ?? '')
}

function isHi (response) {
  check(response.status === 200 && Buffer.from(response.body).toString() === 'hi', `${response.start} with ${response.body.byteLength} bytes`)
}

function echoed (sent, response) {
  check(response.status === 200 && equal(sent, response.body), `${response.start}, ${sent.byteLength} bytes sent, ${response.body.byteLength} other bytes back`)
  return response.framing
}

function check (held, otherwise) {
  if (!held) {
    throw new Error(otherwise)
  }
}

async function within (promise) {
  let timer
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${STEP_DEADLINE_MS} ms`)), STEP_DEADLINE_MS)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** The library and its version. */
function implementation () {
  const entry = createRequire(import.meta.url).resolve('libp2p')
  const manifest = new URL('../../package.json', `file://${entry}`)
  return `js-libp2p ${JSON.parse(readFileSync(manifest, 'utf8')).version}`
}
