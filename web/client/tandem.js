/**
 * A peer of a Tandem network over WebSocket: in a page, in a worker, and in Node.js. It gossips, asks its relay, and calls HTTP.
 *
 *   const node = await Node.connect({ addresses: ['ws://127.0.0.1:4160'], network: 'tandem' })
 *   for await (const { body } of node.on('AV')) console.log(body.length)
 * It has one relay at a time, and goes to the next address when that dies. Everything is bounded: what waits for a slow reader (the
 * oldest is dropped and counted), what waits to be sent, and every wait. docs/browser.md says more, docs/wire.md what is on the wire.
 */

const VERSION = '2.2'
const SUB_PROTOCOL = 'tandem-gossip.1'
const MAX_MESSAGE_BYTES = 6 * 1024 * 1024
const MAX_HELLO_CHARS = 8192
/** Most messages that wait while the relay's signature is checked. */
const MAX_EARLY = 4096
/** Longest body of each tag in a network of the profile `tandem`; a network with tags of its own gives them as `bounds`. */
const BOUNDS = { AV: 1228, PP: 5_250_618, SP: 6378, TX: 5_000_000, VB: MAX_MESSAGE_BYTES - 2 }
/** Tags of a connection itself: no message for an application, and none from one. */
const OF_CONNECTION = new Set(['MI', 'MS', 'NI', 'NP', 'TS', 'UE', 'VP'])
/** Every bound; `connect({ limits })` replaces some. Times in milliseconds. */
const LIMITS = {
  connectMs: 10_000, // from the dial to the relay's hello
  startMs: 30_000, // until `connect` gives up; later losses are tried for ever
  requestMs: 20_000,
  fetchMs: 30_000,
  silenceMs: 0, // a relay that sends nothing for so long is left; 0 for never, since a network may be quiet
  pauseMs: 250, // first pause before the next dial; it doubles with each failure in a row
  longestPauseMs: 30_000,
  queueMessages: 1024, // of one reader
  queueBytes: 16 * 1024 * 1024, // of one reader; the newest message is kept however long it is
  unsentBytes: 8 * 1024 * 1024,
  requests: 64 // under way
}

/** An error of this module. `code` is one of a few words, for programs. */
export class TandemError extends Error {
  constructor (code, message, cause) {
    super(message, { cause })
    this.name = 'TandemError'
    this.code = code
  }
}

/** The key of a node. Its secret half cannot be read, not even by the page that uses it. */
export class Identity {
  #pair; #release

  constructor (pair, publicKey, release) {
    [this.#pair, this.#release, this.publicKey, this.peerId] = [pair, release, publicKey, peerIdOf(publicKey)]
  }

  /** A new key that is forgotten with this object. */
  static async create () {
    const subtle = globalThis.crypto?.subtle
    if (!subtle) throw new TandemError('no-crypto', 'keys need a secure context: https, or this machine')
    return Identity.#of(await subtle.generateKey('Ed25519', false, ['sign', 'verify']))
  }

  /**
   * The key of this origin, kept in IndexedDB and made the first time; where there is no IndexedDB, a new one. One page at a time
   * has the kept key, because a network has one link for each identity: further pages get new ones.
   */
  static async load (name = 'identity') {
    const release = await takeLock(`tandem-${name}`)
    if (!release) return Identity.create()
    try {
      const database = await openDatabase()
      const kept = await inStore(database, 'readonly', (store) => store.get(name))
      const pair = kept ?? await crypto.subtle.generateKey('Ed25519', false, ['sign', 'verify'])
      if (!kept) await inStore(database, 'readwrite', (store) => store.put(pair, name))
      return await Identity.#of(pair, release)
    } catch (error) {
      release()
      // A browser may deny a page the storage.
      if (error?.name === 'NotSupportedError') throw error
      return Identity.create()
    }
  }

  static async #of (pair, release = () => {}) {
    return new Identity(pair, new Uint8Array(await crypto.subtle.exportKey('raw', pair.publicKey)), release)
  }

  async sign (bytes) { return new Uint8Array(await crypto.subtle.sign('Ed25519', this.#pair.privateKey, bytes)) }

  /** Lets another page have the kept key. */
  release () { this.#release() }
}

/** A peer of a network. Events: `connected` (detail: the relay), `disconnected` (detail: a TandemError), `closed`. */
export class Node extends EventTarget {
  /** Counts since the start; none of them falls. */
  stats = { received: 0, receivedBytes: 0, sent: 0, notSent: 0, dropped: 0, unread: 0, connects: 0, failedDials: 0 }
  #options; #limits; #identity
  #random = base64(randomBytes(10))
  #readers = new Map(); #waiting = new Map()
  #nonce = 0n; #turn = 0; #failures = 0
  #link = null; #closed = false
  #wake = () => {}

  /** Connects to the first address that answers. Rejects after `startMs` with the reason of the last dial. */
  static async connect (options) {
    const node = new Node(options)
    // Without a secure context, or without Ed25519, the page is an anonymous peer.
    node.#identity = options.identity === undefined ? await Identity.load().catch(() => null) : options.identity
    options.signal?.addEventListener('abort', () => node.close(), { once: true })
    const deadline = Date.now() + node.#limits.startMs
    for (;;) {
      try {
        if (options.signal?.aborted) throw new TandemError('closed', 'it was aborted', options.signal.reason)
        await node.#dial()
        node.#run()
        return node
      } catch (error) {
        const pause = node.#pause()
        if (node.#closed || options.signal?.aborted || Date.now() + pause > deadline) { node.close(); throw error }
        await node.#sleep(pause)
      }
    }
  }

  constructor ({ addresses, network, name = '', bounds = BOUNDS, limits = {}, WebSocket = globalThis.WebSocket, ...options }) {
    super()
    const list = [addresses ?? []].flat().map(parseAddress)
    if (list.length === 0) throw new TandemError('address', 'there is no address to connect to')
    if (typeof network !== 'string' || !/^[\w.-]{1,128}$/.test(network)) throw new TandemError('network', `${network} is no name of a network`)
    if (!WebSocket) throw new TandemError('no-websocket', 'this platform has no WebSocket: give a constructor as the option WebSocket')
    this.#options = { ...options, addresses: list, network, name: `${name}`.slice(0, 80), bounds, WebSocket }
    this.#limits = { ...LIMITS, ...limits }
    // So that pages which start together do not all have the same relay.
    this.#turn = options.inOrder ? 0 : randomBytes(1)[0] % list.length
  }

  /** The relay, as long as there is a connection: its address, peer ID (null if it proves none) and name. */
  get relay () { return this.#link?.relay ?? null }
  get peerId () { return this.#identity?.peerId ?? null }
  get publicKey () { return this.#identity?.publicKey ?? null }

  /** Messages of these tags, all of them if none is named, from now on, until the loop is left or the node is closed. */
  on (...tags) {
    const reader = new Reader(this.#limits, () => { this.stats.dropped += 1 }, () => this.#readers.delete(reader))
    this.#readers.set(reader, new Set(tags))
    if (this.#closed) reader.end()
    return reader
  }

  /** Sends a message to the network: `queued`, or `full` or `closed` if it was not taken. */
  broadcast (tag, body) {
    const bytes = toBytes(body)
    const most = Object.hasOwn(this.#options.bounds, tag) ? this.#options.bounds[tag] : undefined
    if (most === undefined || OF_CONNECTION.has(tag)) throw new TandemError('tag', `${tag} is no tag of this network`)
    if (bytes.length > most) throw new TandemError('too-large', `${bytes.length} bytes are too many for ${tag}, which has ${most} at most`)
    // A node would take it for compressed, and decompress it.
    const isCompressed = tag === 'PP' && bytes.length > 4 && [0x28, 0xb5, 0x2f, 0xfd].every((byte, at) => bytes[at] === byte)
    if (isCompressed) throw new TandemError('compressed', 'a proposal is sent as it is: compress nothing')
    return this.#send(tag, bytes)
  }

  /** Asks the relay (`UE`): topics are an object of texts or bytes. Resolves with the topics of the answer, a Map of bytes. */
  async request (topics, { timeoutMs = this.#limits.requestMs } = {}) {
    if (this.#waiting.size >= this.#limits.requests) throw new TandemError('full', 'too many requests are under way')
    const payload = encodeTopics([...Object.entries(topics), ['nonce', padded(++this.#nonce)]])
    const key = requestKey(payload)
    if (this.#send('UE', payload) !== 'queued') throw new TandemError('not-connected', 'there is no relay to ask')
    return new Promise((resolve, reject) => {
      const end = (settle, value) => { clearTimeout(timer); this.#waiting.delete(key); settle(value) }
      const timer = setTimeout(() => end(reject, new TandemError('timeout', 'the relay did not answer in time')), timeoutMs)
      this.#waiting.set(key, { answer: (found) => end(resolve, found), fail: (error) => end(reject, error) })
    })
  }

  /** Calls the HTTP services of the relay; with `peer`, a peer ID, those of a libp2p peer of the relay, if that is a bridge. */
  async fetch (path, { peer, ...init } = {}) {
    if (!this.#link) throw new TandemError('not-connected', 'there is no relay to ask')
    const base = this.#link.address.http + (peer ? `/p2p/${encodeURIComponent(peer)}` : '')
    const deadline = AbortSignal.timeout(this.#limits.fetchMs)
    const signal = init.signal ? AbortSignal.any([init.signal, deadline]) : deadline
    return fetch(base + (path.startsWith('/') ? path : `/${path}`), { credentials: 'omit', redirect: 'error', ...init, signal })
  }

  /** Ends the connection, every loop over `on`, and every request. */
  close () {
    if (this.#closed) return
    this.#closed = true
    this.#link?.end(new TandemError('closed', 'the node was closed'))
    for (const reader of [...this.#readers.keys()]) reader.end()
    this.#identity?.release?.()
    this.#wake()
    this.dispatchEvent(new Event('closed'))
  }

  #send (tag, bytes) {
    const message = new Uint8Array(2 + bytes.length)
    message.set(utf8(tag))
    message.set(bytes, 2)
    const admission = this.#closed ? 'closed' : this.#link?.send(message, this.#limits.unsentBytes) ?? 'full'
    this.stats[admission === 'queued' ? 'sent' : 'notSent'] += 1
    return admission
  }

  /** Connects to the address whose turn it is, and the next time to the next one. */
  async #dial () {
    const { addresses, network, name, tags, WebSocket } = this.#options
    const address = addresses[this.#turn++ % addresses.length]
    try {
      const hello = { version: VERSION, 'accept-version': VERSION, genesis: network, noderandom: this.#random, instancename: name }
      const identity = this.#identity
      const challenge = randomBytes(32)
      if (identity) hello.identitychallenge = base64(await introduction(identity, address.name, challenge))
      const link = new Link(WebSocket, address, `/v1/${network}/gossip?${new URLSearchParams(hello)}`)
      try {
        const told = await link.hello(this.#limits.connectMs)
        if (told.get('version') !== VERSION || told.get('genesis') !== network) throw new TandemError('network', `${address.text} is of another network`)
        if (told.get('noderandom') === this.#random) throw new TandemError('ourselves', 'the node dialled itself')
        const met = identity && told.get('identitychallenge') ? await meet(identity, told.get('identitychallenge'), challenge) : null
        if (this.#closed) throw new TandemError('closed', 'the node was closed')
        link.relay = { address: address.text, peerId: met ? peerIdOf(met.publicKey) : null, name: told.get('instancename') ?? '' }
        link.start((text) => this.#hear(text), this.#limits.silenceMs)
        if (met) link.send(concat(utf8('NI'), met.proof), Infinity)
        if (tags) link.send(concat(utf8('MI'), encodeTopics([['tags', tags.join(',') || 'pi']])), Infinity)
      } catch (error) {
        link.end(error)
        throw error
      }
      this.#link = link
      this.stats.connects += 1
      this.dispatchEvent(new CustomEvent('connected', { detail: link.relay }))
    } catch (error) {
      this.#failures += 1
      this.stats.failedDials += 1
      throw error
    }
  }

  /** Waits for the end of each connection, and makes the next one. */
  async #run () {
    while (!this.#closed) {
      const began = Date.now()
      const reason = await this.#link.ended
      this.#link = null
      for (const { fail } of [...this.#waiting.values()]) fail(new TandemError('not-connected', 'the relay is gone'))
      this.dispatchEvent(new CustomEvent('disconnected', { detail: reason }))
      // A relay that lets a page in and out again at once is no better than one that does not answer.
      this.#failures = Date.now() - began < this.#limits.connectMs ? this.#failures + 1 : 0
      while (!this.#closed && !this.#link) {
        await this.#sleep(this.#pause())
        if (!this.#closed) await this.#dial().catch(() => {})
      }
    }
  }

  /** The pause before the next dial: longer with each failure in a row, and never the same on all pages that lost a relay. */
  #pause () {
    return (0.5 + Math.random() / 2) * Math.min(this.#limits.pauseMs * 2 ** this.#failures, this.#limits.longestPauseMs)
  }

  #sleep (ms) { return new Promise((resolve) => { this.#wake = resolve; setTimeout(resolve, ms) }) }

  #hear (message) {
    const tag = String.fromCharCode(message[0], message[1])
    const body = message.subarray(2)
    this.stats.received += 1
    this.stats.receivedBytes += message.length
    if (tag === 'TS') return this.#answered(body)
    if (tag === 'UE') return this.#asked(body)
    if (OF_CONNECTION.has(tag)) return
    const readers = [...this.#readers].filter(([, tags]) => tags.size === 0 || tags.has(tag))
    for (const [reader] of readers) reader.push({ tag, body, at: performance.timeOrigin + performance.now() })
    if (readers.length === 0) this.stats.unread += 1
  }

  #answered (payload) {
    const topics = decodeTopics(payload)
    const hash = topics?.get('RequestHash')
    topics?.delete('RequestHash')
    if (hash) this.#waiting.get(number(hash))?.answer(topics)
  }

  /** It serves nothing, and says so: the relay need not wait for the end of its time. */
  #asked (payload) {
    this.#send('TS', encodeTopics([['Error', 'this peer serves no requests'], ['RequestHash', padded(requestKey(payload))]]))
  }
}

/** A bounded queue of messages with one reader. Without room it drops the oldest, and counts them. */
class Reader {
  /** Messages that were dropped because the loop was too slow. */
  dropped = 0
  #limits; #onDrop; #onEnd
  #messages = []; #bytes = 0; #waiting = []; #ended = false

  constructor (limits, onDrop, onEnd) { [this.#limits, this.#onDrop, this.#onEnd] = [limits, onDrop, onEnd] }

  push (message) {
    const next = this.#waiting.shift()
    if (next) return next({ done: false, value: message })
    this.#messages.push(message)
    this.#bytes += message.body.length
    while (this.#messages.length > this.#limits.queueMessages || (this.#bytes > this.#limits.queueBytes && this.#messages.length > 1)) {
      this.#bytes -= this.#messages.shift().body.length
      this.dropped += 1
      this.#onDrop()
    }
  }

  end () {
    this.#ended = true
    for (const next of this.#waiting.splice(0)) next({ done: true, value: undefined })
    this.#onEnd()
  }

  async next () {
    const message = this.#messages.shift()
    this.#bytes -= message?.body.length ?? 0
    if (message) return { done: false, value: message }
    return this.#ended ? { done: true, value: undefined } : new Promise((resolve) => this.#waiting.push(resolve))
  }

  async return () {
    this.#messages = []
    this.end()
    return { done: true, value: undefined }
  }
  [Symbol.asyncIterator] () { return this }
}

/** One WebSocket. `ended` resolves once with the reason. */
class Link {
  relay = null
  #socket; #end; #watch
  #isOver = false; #early = []; #deliver = null; #heard = Date.now()

  constructor (WebSocket, address, target) {
    this.address = address
    this.ended = new Promise((resolve) => { this.#end = resolve })
    this.#socket = new WebSocket(address.ws + target, SUB_PROTOCOL)
    this.#socket.binaryType = 'arraybuffer'
    this.#socket.onmessage = ({ data }) => {
      this.#heard = Date.now()
      if (this.#deliver) this.#deliver(data)
      else if (this.#early.push(data) > MAX_EARLY) this.end(new TandemError('protocol', 'the relay speaks before its hello is judged'))
    }
    const how = ({ code, reason }) => code === 1006 ? 'broke off' : `closed the connection: ${code} ${reason}`.trim()
    this.#socket.onclose = (event) => this.end(new TandemError('closed-by-relay', `${address.text} ${how(event)}`))
    // A page is not told why: the relay may be away, may be full, or may not let this origin in.
    this.#socket.onerror = () => this.end(new TandemError('unreachable', `${address.text} cannot be reached, or lets this page not in`))
  }

  /** The first message: the hello of the relay. */
  async hello (withinMs) {
    const timer = setTimeout(() => this.end(new TandemError('timeout', `${this.address.text} did not answer in time`)), withinMs)
    const first = new Promise((resolve) => { this.#deliver = (data) => { this.#deliver = null; resolve(data) } })
    const said = await Promise.race([first, this.ended])
    clearTimeout(timer)
    if (said instanceof TandemError) throw said
    if (typeof said !== 'string' || said.length > MAX_HELLO_CHARS) throw new TandemError('protocol', `${this.address.text} answers with no hello: is it a node for pages?`)
    return new URLSearchParams(said)
  }

  /** Takes messages from now on, those that came meanwhile first. */
  start (hear, silenceMs) {
    this.#deliver = (data) => {
      if (this.#isOver) return
      if (data instanceof ArrayBuffer && data.byteLength >= 2 && data.byteLength <= MAX_MESSAGE_BYTES) hear(new Uint8Array(data))
      else this.end(new TandemError('protocol', 'the relay sent something that is no message'))
    }
    this.#early.splice(0).forEach(this.#deliver)
    const look = () => { if (Date.now() - this.#heard > silenceMs) this.end(new TandemError('silent', `${this.address.text} is silent`)) }
    if (silenceMs > 0) this.#watch = setInterval(look, silenceMs / 4)
  }

  send (message, most) {
    if (this.#isOver || this.#socket.readyState !== 1 || this.#socket.bufferedAmount + message.length > most) return 'full'
    this.#socket.send(message)
    return 'queued'
  }

  end (reason) {
    if (this.#isOver) return
    this.#isOver = true
    clearInterval(this.#watch)
    this.#socket.close()
    this.#end(reason)
  }
}

/** `host:port`, `ws://…`, `wss://…`, `http://…` or `https://…`, with a path where a proxy serves the node under one. */
function parseAddress (text) {
  const whole = /^\w+:\/\//.test(text) ? text : `ws://${text}`
  const url = URL.canParse(whole) ? new URL(whole) : { protocol: 'none' }
  const isSecure = { 'ws:': false, 'http:': false, 'wss:': true, 'https:': true }[url.protocol]
  if (isSecure === undefined || url.search || url.hash || url.username) throw new TandemError('address', `${text} is no address: write ws://HOST:PORT or wss://HOST`)
  const rest = url.host + url.pathname.replace(/\/$/, '')
  const name = url.port ? url.host : `${url.host}:${isSecure ? 443 : 80}`
  return { text, name, ws: (isSecure ? 'wss://' : 'ws://') + rest, http: (isSecure ? 'https://' : 'http://') + rest }
}

// The identity exchange: MessagePack maps in one canonical form, under a signature.

/** Message 1: the challenge, the address that is dialled, and the key. */
async function introduction (identity, name, challenge) {
  const address = name.length > 255 ? new Uint8Array() : utf8(name.toLowerCase())
  return sealed(identity, 'NIC', 'ic', packed([['a', address], ['c', challenge], ['pk', identity.publicKey]]))
}

/** Judges message 2, and gives the key of the relay and message 3. */
async function meet (identity, header, challenge) {
  const wrong = (why) => new TandemError('identity', `the relay proves no identity: ${why}`)
  const [inner, signature] = unpack(fromBase64(header), 'icr') ?? []
  const [theirs, publicKey, response] = ['c', 'pk', 'rc'].map((key) => inner && unpackMap(inner)?.get(key))
  if (![theirs, publicKey, response].every((value) => value?.length === 32)) throw wrong('its message cannot be read')
  if (!theirs.every((byte, at) => byte === challenge[at])) throw wrong('it answers another challenge')
  const key = await crypto.subtle.importKey('raw', publicKey, 'Ed25519', true, ['verify'])
  if (!await crypto.subtle.verify('Ed25519', key, signature, concat(utf8('NIR'), inner))) throw wrong('its signature is wrong')
  return { publicKey, proof: await sealed(identity, 'NIV', 'ivm', packed([['rc', response]])) }
}

async function sealed (identity, domain, name, inner) {
  const signature = await identity.sign(concat(utf8(domain), inner))
  return concat([0x82], packedText(name), inner, packedText('sig'), packedBytes(signature))
}

const packedText = (text) => concat([0xa0 | text.length], utf8(text))
const packedBytes = (bytes) => concat([0xc4, bytes.length], bytes)

function packed (fields) {
  const present = fields.filter(([, bytes]) => bytes.length > 0)
  return concat([0x80 | present.length], ...present.flatMap(([name, bytes]) => [packedText(name), packedBytes(bytes)]))
}

/** The inner map of a signed message, as it stands there, and the signature. */
function unpack (bytes, name) {
  const begin = concat([0x82], packedText(name))
  const end = bytes.length - 4 - 66
  const tail = concat(packedText('sig'), [0xc4, 64])
  if (end <= begin.length || !begin.every((byte, at) => byte === bytes[at]) || !tail.every((byte, at) => byte === bytes[end + at])) return undefined
  return [bytes.subarray(begin.length, end), bytes.subarray(end + 6)]
}

/** A map of short texts to bytes; undefined if it is none, or something follows it. */
function unpackMap (bytes) {
  const fields = new Map()
  let at = 1
  for (let left = bytes[0] & 0x0f; left > 0; left--) {
    const text = bytes.subarray(at + 1, at + 1 + (bytes[at] & 0x1f))
    at += 1 + text.length
    if (bytes[at] !== 0xc4) return undefined
    fields.set(String.fromCharCode(...text), bytes.subarray(at + 2, at + 2 + bytes[at + 1]))
    at += 2 + bytes[at + 1]
  }
  return at === bytes.length && (bytes[0] & 0xf0) === 0x80 ? fields : undefined
}

// Topics: a count, then keys and data, each behind its length.

function encodeTopics (topics) {
  const part = (value) => { const bytes = toBytes(value); return [varint(BigInt(bytes.length)), bytes] }
  return concat(varint(BigInt(topics.length)), ...topics.flatMap(([key, data]) => [...part(key), ...part(data)]))
}

function decodeTopics (bytes) {
  let at = 0
  const length = () => {
    let value = 0
    for (let factor = 1; at < bytes.length && factor < 2 ** 42; factor *= 128) {
      value += (bytes[at] & 0x7f) * factor
      if (bytes[at++] < 0x80) return value
    }
    return NaN
  }
  const part = () => { const size = length(); const data = bytes.subarray(at, at + size); at += size; return at <= bytes.length ? data : null }
  const topics = new Map()
  const count = length()
  for (let left = count; left > 0 && count <= 32; left--) {
    const [key, data] = [part(), part()]
    if (!key || !data) return null
    topics.set(new TextDecoder().decode(key), data)
  }
  return count <= 32 ? topics : null
}

function varint (value) {
  const bytes = []
  for (; value >= 0x80n; value >>= 7n) bytes.push(Number(value & 0x7fn) | 0x80)
  return [...bytes, Number(value)]
}
const padded = (value) => Uint8Array.from({ length: 10 }, (_, at) => varint(value)[at] ?? 0)

function number (bytes) {
  const end = bytes.findIndex((byte) => byte < 0x80)
  return wrap(bytes.subarray(0, end + 1).reduceRight((value, byte) => value << 7n | BigInt(byte & 0x7f), 0n))
}

/** The number by which an answer names its request: the first eight bytes of a hash, the lowest first. */
function requestKey (payload) {
  const hash = sha512t256(payload)
  return hash.subarray(0, 8).reduceRight((value, byte) => value << 8n | BigInt(byte), 0n)
}

// SHA-512/256 (FIPS 180-4), which WebCrypto does not have. For requests alone, which are short.

const START = '22312194fc2bf72c9f555fa3c84c64c22393b86b6f53b151963877195940eabd96283ee2a88effe3be5e1e25538639922b0199fc2c85b8aa0eb72ddc81c52ca2'
let constants
const wrap = (value) => BigInt.asUintN(64, value)
const turned = (value, ...by) => by.reduce((sum, bits) => sum ^ (value >> bits | wrap(value << (64n - bits))), 0n)

function sha512t256 (message) {
  constants ??= cubeRoots(80)
  const block = new Uint8Array(Math.ceil((message.length + 17) / 128) * 128)
  block.set(message)
  block[message.length] = 0x80
  const view = new DataView(block.buffer)
  view.setBigUint64(block.length - 8, BigInt(message.length * 8))
  const state = Array.from({ length: 8 }, (_, at) => BigInt(`0x${START.slice(16 * at, 16 * at + 16)}`))
  for (let from = 0; from < block.length; from += 128) {
    const words = Array.from({ length: 16 }, (_, at) => view.getBigUint64(from + 8 * at))
    for (let at = 16; at < 80; at++) {
      const [a, b] = [words[at - 15], words[at - 2]]
      words[at] = wrap(words[at - 16] + (turned(a, 1n, 8n) ^ a >> 7n) + words[at - 7] + (turned(b, 19n, 61n) ^ b >> 6n))
    }
    let [a, b, c, d, e, f, g, h] = state
    for (let at = 0; at < 80; at++) {
      const one = h + turned(e, 14n, 18n, 41n) + (e & f ^ ~e & g) + constants[at] + words[at]
      const two = turned(a, 28n, 34n, 39n) + (a & b ^ a & c ^ b & c);
      [h, g, f, e, d, c, b, a] = [g, f, e, wrap(d + one), c, b, a, wrap(one + two)]
    }
    [a, b, c, d, e, f, g, h].forEach((value, at) => { state[at] = wrap(state[at] + value) })
  }
  const out = new DataView(new ArrayBuffer(64))
  state.forEach((value, at) => out.setBigUint64(8 * at, value))
  return new Uint8Array(out.buffer, 0, 32)
}

/** The first 64 bits behind the point of the cube roots of so many primes. */
function cubeRoots (count) {
  const primes = []
  for (let next = 2; primes.length < count; next++) if (primes.every((prime) => next % prime !== 0)) primes.push(next)
  return primes.map((prime) => {
    let root = 0n
    for (let bit = 1n << 67n; bit > 0n; bit >>= 1n) if ((root | bit) ** 3n <= BigInt(prime) << 192n) root |= bit
    return wrap(root)
  })
}

// Bytes and texts.

const utf8 = (text) => new TextEncoder().encode(text)
const randomBytes = (length) => crypto.getRandomValues(new Uint8Array(length))
const base64 = (bytes) => btoa(String.fromCharCode(...bytes))

function fromBase64 (text) {
  try { return Uint8Array.from(atob(text), (char) => char.charCodeAt(0)) } catch { return new Uint8Array() }
}

function toBytes (value) {
  if (typeof value === 'string') return utf8(value)
  if (value instanceof ArrayBuffer) return new Uint8Array(value)
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
  throw new TandemError('body', 'a body is a text or bytes')
}

function concat (...parts) {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  parts.reduce((at, part) => { bytes.set(part, at); return at + part.length }, 0)
  return bytes
}

/** The peer ID of an Ed25519 key: base58 of its protobuf behind an identity multihash. */
function peerIdOf (publicKey) {
  const alphabet = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'
  let value = concat([0x00, 0x24, 0x08, 0x01, 0x12, 0x20], publicKey).reduce((sum, byte) => sum << 8n | BigInt(byte), 0n)
  let text = ''
  for (; value > 0n; value /= 58n) text = alphabet[Number(value % 58n)] + text
  return `1${text}`
}

// The kept key.

/** Takes a lock without waiting, and returns what releases it; null if another page has it. */
async function takeLock (name) {
  const locks = globalThis.navigator?.locks
  if (!locks) return () => {}
  return new Promise((resolve, reject) => {
    const hold = (lock) => lock ? new Promise((release) => resolve(release)) : resolve(null)
    locks.request(name, { ifAvailable: true }, hold).catch(reject)
  })
}
const done = (asked) => new Promise((resolve, reject) => {
  asked.onsuccess = () => resolve(asked.result)
  asked.onerror = asked.onblocked = () => reject(asked.error ?? new TandemError('storage', 'another page keeps an older store open'))
})

function openDatabase () {
  const opening = indexedDB.open('tandem', 1)
  opening.onupgradeneeded = () => opening.result.createObjectStore('keys')
  return done(opening)
}
const inStore = (database, mode, ask) => done(ask(database.transaction('keys', mode).objectStore('keys')))
