/**
 * A node of a Tandem network, as WebAssembly: in a page, in a worker, and in Node.js.
 *
 *   const node = await Node.start({ network: 'tandem', peers: ['ws://127.0.0.1:4160'] })
 *   for await (const { tag, body } of node.on('AV')) console.log(tag, body.length)
 * Everything is bounded, and every error has a `code`. `tandem.d.ts` lists both; docs/browser.md says more.
 */

import init, { RawNode } from './wasm/tandem_web.js'
import { fetchOver } from './http.js'
import { keptSeed } from './keys.js'
import { Messages } from './queue.js'
import { Services } from './serve.js'

/** Every bound; `start({ limits })` replaces some. Times in milliseconds. */
const LIMITS = {
  budgetBytes: 64 * 1024 * 1024, // of all queues inside the node
  startMs: 30_000, // until `connected` gives up
  fetchMs: 30_000,
  requestMs: 4_000,
  serveMs: 30_000, // for the head of an answer of this node, and for each piece of its body
  serveBodyBytes: 1024 * 1024, // of a request to this node
  queueMessages: 1024, // of one loop over `on`
  queueBytes: 16 * 1024 * 1024 // of one loop over `on`; the newest message is kept however long it is
}

/** An error of this package. `code` is one of a few words, for programs. */
export class TandemError extends Error {
  constructor (code, message, cause) {
    super(message, { cause })
    this.name = 'TandemError'
    this.code = code
  }
}

let loaded = null

/**
 * Loads the WebAssembly, which `Node.start` does too. `wasm` says where it is if not beside this file: a URL, a Response, its bytes, or a
 * compiled module.
 */
export function load (wasm = new URL('./wasm/tandem_web_bg.wasm', import.meta.url)) {
  loaded ??= instantiate(wasm).catch((error) => {
    loaded = null
    throw new TandemError('wasm', `the WebAssembly cannot be loaded: ${error.message}`, error)
  })
  return loaded
}

async function instantiate (wasm) {
  // The fetch of Node.js reads no files.
  const isFile = wasm instanceof URL && wasm.protocol === 'file:'
  const module = isFile ? await (await import('node:fs/promises')).readFile(wasm) : wasm
  await init({ module_or_path: module })
}

/** A node. Events: `connected` and `identified` (detail: the peer), `disconnected` (detail: the peer and the reason), `closed`. */
export class Node extends EventTarget {
  /** Counts since the start; none of them falls. */
  stats = { received: 0, receivedBytes: 0, sent: 0, notSent: 0, dropped: 0 }
  #raw = null; #peerId = null; #limits; #release = () => {}
  #loops = new Set(); #services = new Services(report); #closing = null

  /** Starts a node, which dials its peers from then on, for as long as it runs. */
  static async start (options) {
    const { wasm, signal } = options
    await load(wasm)
    const aborted = () => new TandemError('closed', 'it was aborted', signal.reason)
    if (signal?.aborted) throw aborted()
    const node = new Node(options)
    await node.#start(options)
    if (signal?.aborted) {
      await node.close()
      throw aborted()
    }
    signal?.addEventListener('abort', () => { node.close() }, { once: true })
    return node
  }

  constructor ({ limits = {} } = {}) {
    super()
    this.#limits = { ...LIMITS, ...limits }
  }

  async #start ({ network, profile, name = '', peers = [], tags, identity, relay = false, fanOut = 4, WebSocket = globalThis.WebSocket, listen = [], transports = [] }) {
    const { seed, release } = await seedOf(identity)
    const raw = {
      network: `${network ?? ''}`,
      profile: profile && describe(profile),
      name: `${name}`.slice(0, 80),
      peers: [peers].flat().map(String),
      tags: tags && [...tags],
      seed,
      relay: Boolean(relay),
      fanOut,
      budgetBytes: this.#limits.budgetBytes,
      requestMs: this.#limits.requestMs,
      serveMs: this.#limits.serveMs,
      serveBodyBytes: this.#limits.serveBodyBytes,
      WebSocket,
      listen: [listen].flat().map(String),
      transports: [...transports],
      onRequest: (request) => this.#services.answer(request),
      onEvent: (kind, peer, reason) => this.#told(kind, peer, reason)
    }
    try {
      this.#raw = await asking(() => RawNode.start(raw))
    } catch (error) {
      release()
      throw error
    }
    this.#release = release
    this.#peerId = this.#raw.peerId ?? null
  }

  /** The peer ID of this node; null if it proves none. */
  get peerId () { return this.#peerId }

  /** The multiaddrs that it listens on, with its peer ID. */
  get addresses () { return this.isClosed ? [] : this.#raw?.addresses ?? [] }
  get isClosed () { return this.#closing !== null }

  /** The connected peers. */
  peers () { return this.isClosed ? [] : this.#raw.peers() }

  /** The state of every address that was given: the outcome of its last dial, and the error. */
  dials () { return this.isClosed ? [] : this.#raw.dials() }

  /** Resolves with a peer as soon as there is one. Rejects after `timeoutMs` with the errors of the last dials. */
  async connected ({ timeoutMs = this.#limits.startMs } = {}) {
    const [first] = this.peers()
    if (first) return first
    if (this.isClosed) throw closed()
    const waits = new AbortController()
    const until = (kind, settle) => this.addEventListener(kind, settle, { once: true, signal: waits.signal })
    try {
      return await new Promise((resolve, reject) => {
        until('connected', ({ detail }) => resolve(detail))
        until('closed', () => reject(closed()))
        const timer = setTimeout(() => {
          const errors = this.dials().filter(({ error }) => error).map(({ address, error }) => `${address}: ${error}`)
          reject(new TandemError('unreachable', errors.join('; ') || 'no peer was connected in time'))
        }, timeoutMs)
        waits.signal.addEventListener('abort', () => clearTimeout(timer))
      })
    } finally {
      waits.abort()
    }
  }

  /** Messages of these tags, all of them if none is named, from now on, until the loop is left or the node is closed. */
  on (...tags) {
    if (this.isClosed) throw closed()
    let subscription = null
    const loop = new Messages(this.#limits, () => {
      this.#loops.delete(loop)
      subscription?.free()
    })
    const deliver = (tag, body, link, peerId) => {
      const before = loop.dropped
      if (typeof tag === 'number') loop.dropped += tag
      else {
        this.stats.received += 1
        this.stats.receivedBytes += body.length
        loop.push({ tag, body, link, peerId, at: performance.timeOrigin + performance.now() })
      }
      this.stats.dropped += loop.dropped - before
    }
    subscription = asking(() => this.#raw.subscribe(tags, deliver))
    this.#loops.add(loop)
    return loop
  }

  /** Sends a message to every peer, or to one: `queued`, or `full` or `closed` if it was not taken. */
  broadcast (tag, body, { peer } = {}) {
    const bytes = toBytes(body)
    const admission = this.isClosed ? 'closed' : asking(() => this.#raw.broadcast(tag, bytes, peer && this.#link(peer)))
    this.stats[admission === 'queued' ? 'sent' : 'notSent'] += 1
    return admission
  }

  /** Sends a message, and resolves with the numbers of peers that it was written to, and given up for. */
  async broadcastAndWait (tag, body) {
    if (this.isClosed) throw closed()
    return asking(() => this.#raw.broadcastAndWait(tag, toBytes(body)))
  }

  /** Passes on the message of somebody else, if this node relays. */
  relay (tag, body) { return this.isClosed ? 'closed' : asking(() => this.#raw.relay(tag, toBytes(body))) }

  /** Tells that consensus made progress: the peers are no clique, and none of them is replaced for that. */
  networkAdvanced () { if (!this.isClosed) this.#raw.networkAdvanced() }

  /** Asks a peer, the first one if none is named. Topics are an object of texts or bytes; so is the answer, a Map of bytes. */
  async request (topics, { peer } = {}) {
    if (this.isClosed) throw closed()
    const link = peer ? this.#link(peer) : this.peers()[0]?.id
    if (link === undefined) throw new TandemError('not-connected', 'there is no peer to ask')
    return readTopics(await asking(() => this.#raw.request(link, writeTopics(topics))))
  }

  /**
   * Calls the HTTP services of a peer: one of `peers()`, a peer ID, or an address. A peer that is linked over libp2p is called over its
   * streams, and so is a multiaddr. A peer ID without a link leads through a peer that is connected over WebSocket, if that offers the service
   * `bridge`.
   */
  async fetch (peer, path, init = {}) {
    if (this.isClosed) throw closed()
    const deadline = AbortSignal.timeout(this.#limits.fetchMs)
    const signal = init.signal ? AbortSignal.any([init.signal, deadline]) : deadline
    const multiaddr = this.#multiaddrOf(peer)
    if (multiaddr) return asking(() => fetchOver(this.#raw, multiaddr, path, init, signal))
    const url = this.#urlOf(peer) + (path.startsWith('/') ? path : `/${path}`)
    return globalThis.fetch(url, { credentials: 'omit', redirect: 'error', ...init, signal })
  }

  /**
   * Answers the HTTP requests of peers over libp2p to a path, or to all below one that ends with a slash. The handler gets a `Request` and its sender,
   * and gives a `Response`; one that throws is answered 500. Returns a function that ends it.
   */
  serve (path, handler) {
    if (this.isClosed) throw closed()
    if (!this.#raw.canServe) throw new TandemError('transport', 'to serve, the node needs a transport: give one as the option transports')
    return this.#services.add(path, handler)
  }

  /** Counts of the requests of peers: how many there were, and how often each thing went wrong. */
  served () {
    if (this.isClosed) throw closed()
    return this.#raw.served()
  }

  /**
   * Handles the messages of a tag. The function gets the message, and may return, or resolve with, `relay` to pass it on, `disconnect` or
   * `bad` to end the connection of its sender, and for `UE` the topics of the answer.
   */
  handle (tag, handler) {
    if (this.isClosed) throw closed()
    asking(() => this.#raw.handle(tag, async (tag, body, link, peerId) => {
      try {
        const verdict = await handler({ tag, body, link, peerId })
        return verdict && typeof verdict === 'object' ? writeTopics(verdict) : verdict
      } catch (error) {
        report(error)
        throw error
      }
    }))
  }

  /** Judges the messages of a tag before anything else is done with them: `accept`, `ignore` or `reject`, at once. */
  validate (tag, validator) {
    if (this.isClosed) throw closed()
    asking(() => this.#raw.validate(tag, (tag, body, link, peerId) => {
      try {
        return validator({ tag, body, link, peerId })
      } catch (error) {
        report(error)
        return 'ignore'
      }
    }))
  }

  /** Keeps an address dialled, as one of the option `peers`. */
  addPeer (address) {
    if (this.isClosed) throw closed()
    asking(() => this.#raw.addPeer(`${address}`))
  }

  /** Forgets an address and ends the links to it. False if it was not known. */
  removePeer (address) { return !this.isClosed && asking(() => this.#raw.removePeer(`${address}`)) }

  /** Ends the connection to a peer. */
  disconnect (peer) { if (!this.isClosed) this.#raw.disconnect(this.#link(peer)) }

  /** Closes every connection in an orderly way, and ends every loop over `on`. */
  close () {
    this.#closing ??= (async () => {
      for (const loop of [...this.#loops]) loop.end()
      // Its memory can be used again at once: a collector would know nothing of its size.
      await this.#raw?.close()
      this.#raw?.free()
      this.#release()
      this.dispatchEvent(new Event('closed'))
    })()
    return this.#closing
  }

  /** The number of the link to a peer. */
  #link (peer) {
    if (typeof peer === 'number') return peer
    const link = typeof peer === 'string' ? asking(() => this.#raw.linkOf(peer)) : peer.id
    if (link === undefined) throw new TandemError('not-connected', `${peer} is not connected`)
    return link
  }

  /** Where streams of libp2p lead to a peer; null if none do. */
  #multiaddrOf (peer) {
    if (typeof peer === 'string' && peer.startsWith('/')) return peer
    const found = typeof peer === 'string' ? this.peers().find(({ peerId, transport }) => peerId === peer && transport === 'p2p') : peer
    return found?.transport === 'p2p' && found.peerId ? `/p2p/${found.peerId}` : null
  }

  #urlOf (peer) {
    if (typeof peer === 'string' && /^\w+:\/\//.test(peer)) return httpUrl(peer)
    const peers = this.peers()
    const found = typeof peer === 'string' ? peers.find(({ peerId }) => peerId === peer) : peer
    if (found?.http && !found.http.startsWith('/')) return httpUrl(found.http)
    const bridge = peers.find(({ http }) => http && !http.startsWith('/'))
    const peerId = typeof peer === 'string' ? peer : peer?.peerId
    if (!bridge || !peerId) throw new TandemError('not-connected', 'no peer leads there')
    return `${httpUrl(bridge.http)}/p2p/${encodeURIComponent(peerId)}`
  }

  #told (kind, peer, reason) {
    const detail = kind === 'disconnected' ? { peer, reason } : peer
    this.dispatchEvent(new CustomEvent(kind, { detail }))
  }
}

/** The option `profile`, with everything that it leaves out. */
function describe ({ name, tags = {}, maxRequestBytes }) {
  const rule = ([tag, { lane, maxBytes, topic, compressed = false, forwarded = true, sentByDefault = true }]) => {
    return { tag, lane: `${lane}`, maxBytes: Number(maxBytes), topic, compressed, forwarded, sentByDefault }
  }
  return { name: `${name ?? ''}`, maxRequestBytes, tags: Object.entries(tags).map(rule) }
}

/** The seed of the option `identity`: kept under a name, given, made anew, or none. */
async function seedOf (identity) {
  const release = () => {}
  if (identity === null) return { seed: undefined, release }
  if (identity instanceof Uint8Array) return { seed: identity, release }
  const kept = await keptSeed(identity ?? 'identity')
  return kept ?? { seed: crypto.getRandomValues(new Uint8Array(32)), release }
}

/** Calls into WebAssembly, whose errors are plain ones with a code. */
function asking (call) {
  const translate = (error) => error instanceof Error && error.code ? new TandemError(error.code, error.message) : error
  let result
  try { result = call() } catch (error) { throw translate(error) }
  return result instanceof Promise ? result.catch((error) => { throw translate(error) }) : result
}

const closed = () => new TandemError('closed', 'the node was closed')
const report = (error) => globalThis.reportError ? globalThis.reportError(error) : console.error(error)
const utf8 = (text) => new TextEncoder().encode(text)
const httpUrl = (address) => (/^\w+:\/\//.test(address) ? address.replace(/^ws/, 'http') : `http://${address}`).replace(/\/$/, '')

function toBytes (value) {
  if (typeof value === 'string') return utf8(value)
  if (value instanceof ArrayBuffer) return new Uint8Array(value)
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
  throw new TandemError('body', 'a body is a text or bytes')
}

const writeTopics = (topics) => {
  const pairs = topics instanceof Map ? [...topics] : Object.entries(topics)
  return pairs.map(([key, data]) => [utf8(key), toBytes(data)])
}
const readTopics = (pairs) => new Map(pairs.map(([key, data]) => [new TextDecoder().decode(key), data]))
