// WebRTC Direct in plain JavaScript, version 2 of the handshake: nothing of the browser's own description is changed, so it
// works where Chromium forbids that. Source: libp2p/specs#715, webrtc/README.md, noise/README.md.
import { chacha20poly1305 } from '@noble/ciphers/chacha.js'
import { ed25519, x25519 } from '@noble/curves/ed25519.js'
import { hkdf } from '@noble/hashes/hkdf.js'
import { sha256 } from '@noble/hashes/sha2.js'

const text = new TextEncoder()
const words = new TextDecoder()
const join = (...parts) => Uint8Array.from(parts.flatMap(part => [...part]))
const equal = (one, other) => one.length === other.length && one.every((byte, at) => byte === other[at])

const PINGS = 5
// Longest message, with its length in front, and what the frame around the bytes takes of it.
const MESSAGE = 16384
const FRAME = 10
// Bytes that wait in a channel before the page waits itself.
const BUFFERED = 1 << 20
const FIN = 0
const STOP_SENDING = 1
const RESET = 2
const FIN_ACK = 3

function varint (number) {
  const bytes = []
  for (; number > 127; number = Math.floor(number / 128)) bytes.push(number % 128 + 128)
  return Uint8Array.from([...bytes, number])
}

// Reads a varint at the beginning: its value and length; nothing if it is not complete.
function readVarint (bytes) {
  let number = 0
  for (let at = 0; at < Math.min(bytes.length, 5); at++) {
    number += (bytes[at] & 127) * 128 ** at
    if (bytes[at] < 128) return [number, at + 1]
  }
}

// The fields of a protobuf message with varints and bytes.
function fields (bytes) {
  const found = {}
  while (bytes.length > 0) {
    const [tag, after] = readVarint(bytes)
    const [value, length] = readVarint(bytes.subarray(after))
    bytes = bytes.subarray(after + length)
    if (tag % 8 === 2) {
      found[tag >> 3] = bytes.subarray(0, value)
      bytes = bytes.subarray(value)
    } else {
      found[tag >> 3] = value
    }
  }
  return found
}
const field = (number, bytes) => join([number * 8 + 2], varint(bytes.length), bytes)

// A stream: a data channel whose messages are frames of protobuf.
class Stream {
  unread = []
  waiting = []
  frames = new Uint8Array()

  constructor (channel) {
    this.channel = channel
    channel.binaryType = 'arraybuffer'
    channel.onmessage = event => this.take(new Uint8Array(event.data))
    channel.onclose = () => this.end()
  }

  take (bytes) {
    this.frames = join(this.frames, bytes)
    for (let prefix; (prefix = readVarint(this.frames)) !== undefined;) {
      const [length, start] = prefix
      if (this.frames.length < start + length) break
      const { 1: flag, 2: data } = fields(this.frames.subarray(start, start + length))
      this.frames = this.frames.slice(start + length)
      if (data?.length > 0) this.unread.push(data)
      if (flag === FIN) {
        this.flag(FIN_ACK)
        this.end()
      }
      if (flag === RESET) this.end()
    }
    this.wake()
  }

  end () {
    this.ended = true
    this.wake()
  }

  wake () {
    for (const woken of this.waiting.splice(0)) woken()
  }

  flag (flag) {
    if (this.channel.readyState === 'open') this.channel.send(join([2, 8], [flag]))
  }

  // Resolves to the next bytes; nothing at the end.
  async read () {
    while (this.unread.length === 0 && !this.ended) await new Promise(resolve => this.waiting.push(resolve))
    return this.unread.shift()
  }

  async readExactly (length) {
    let bytes = new Uint8Array()
    while (bytes.length < length) {
      const more = await this.read()
      if (more === undefined) throw new Error('the stream ended early')
      bytes = join(bytes, more)
    }
    if (bytes.length > length) this.unread.unshift(bytes.slice(length))
    return bytes.slice(0, length)
  }

  async write (bytes) {
    for (let at = 0; at < bytes.length; at += MESSAGE - FRAME) {
      const frame = field(2, bytes.subarray(at, at + MESSAGE - FRAME))
      while (this.channel.bufferedAmount > BUFFERED) await new Promise(resolve => setTimeout(resolve, 1))
      this.channel.send(join(varint(frame.length), frame))
    }
  }

  close () {
    this.flag(FIN)
    this.flag(STOP_SENDING)
  }
}

// Noise XX as the responder, as the end that dials is over WebRTC. Resolves to the public key of the peer.
async function authenticate (stream, prologue) {
  const name = text.encode('Noise_XX_25519_ChaChaPoly_SHA256')
  let hash = name
  let chaining = name
  let key
  let nonce = 0
  const mix = bytes => { hash = sha256(join(hash, bytes)) }
  const mixKey = secret => {
    const derived = hkdf(sha256, secret, chaining, undefined, 64)
    chaining = derived.slice(0, 32)
    key = derived.slice(32)
    nonce = 0
  }
  const cipher = () => {
    const counter = new Uint8Array(12)
    new DataView(counter.buffer).setUint32(4, nonce++, true)
    return chacha20poly1305(key, counter, hash)
  }
  const seal = bytes => {
    const sealed = key === undefined ? bytes : cipher().encrypt(bytes)
    mix(sealed)
    return sealed
  }
  const open = sealed => {
    const bytes = cipher().decrypt(sealed)
    mix(sealed)
    return bytes
  }
  const receive = async () => {
    const [high, low] = await stream.readExactly(2)
    return stream.readExactly(high * 256 + low)
  }
  mix(prologue)
  const own = { static: x25519.keygen(), ephemeral: x25519.keygen(), identity: ed25519.keygen() }
  // -> e
  const theirs = { ephemeral: (await receive()).slice(0, 32) }
  mix(theirs.ephemeral)
  mix(new Uint8Array())
  // <- e, ee, s, es
  mix(own.ephemeral.publicKey)
  mixKey(x25519.getSharedSecret(own.ephemeral.secretKey, theirs.ephemeral))
  const shown = seal(own.static.publicKey)
  mixKey(x25519.getSharedSecret(own.static.secretKey, theirs.ephemeral))
  const signed = text.encode('noise-libp2p-static-key:')
  const publicKey = join([8, 1], field(2, own.identity.publicKey))
  const signature = ed25519.sign(join(signed, own.static.publicKey), own.identity.secretKey)
  const message = join(own.ephemeral.publicKey, shown, seal(join(field(1, publicKey), field(2, signature))))
  await stream.write(join([message.length >> 8, message.length & 255], message))
  // -> s, se
  const last = await receive()
  theirs.static = open(last.slice(0, 48))
  mixKey(x25519.getSharedSecret(own.ephemeral.secretKey, theirs.static))
  const { 1: identity, 2: proof } = fields(open(last.slice(48)))
  const { 1: kind, 2: peer } = fields(identity)
  if (kind !== 1 || !ed25519.verify(proof, join(signed, theirs.static), peer)) throw new Error('the node has not proven its key')
  return identity
}

const BASE58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'
function base58 (bytes) {
  let number = bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n)
  let encoded = ''
  for (; number > 0n; number /= 58n) encoded = BASE58[Number(number % 58n)] + encoded
  return '1'.repeat(bytes.findIndex(byte => byte !== 0)) + encoded
}

const hex = fingerprint => fingerprint.split(':').map(byte => parseInt(byte, 16))

async function connect (address, patience) {
  const [, host, port, hash, expected] = address.match(/\/ip4\/([\d.]+)\/udp\/(\d+)\/webrtc-direct\/certhash\/u([\w-]+)\/p2p\/(\w+)/)
  const certificate = Uint8Array.from(atob(hash.replaceAll('-', '+').replaceAll('_', '/')), letter => letter.charCodeAt(0)).slice(2)
  const colons = [...certificate].map(byte => byte.toString(16).padStart(2, '0').toUpperCase()).join(':')
  const connection = new RTCPeerConnection()
  const channel = connection.createDataChannel('', { negotiated: true, id: 0 })
  await connection.setLocalDescription()
  const local = connection.localDescription.sdp
  const name = 'libp2p+webrtc+v2/' + local.match(/^a=ice-pwd:(\S+)/m)[1]
  const lines = [
    'v=0', `o=- 0 0 IN IP4 ${host}`, 's=-', 't=0 0', 'a=ice-lite', `m=application ${port} UDP/DTLS/SCTP webrtc-datachannel`, `c=IN IP4 ${host}`,
    'a=mid:0', 'a=setup:passive', `a=ice-ufrag:${name}`, `a=ice-pwd:${name}`, `a=fingerprint:sha-256 ${colons}`, 'a=sctp-port:5000',
    `a=max-message-size:${MESSAGE}`, `a=candidate:1 1 UDP 1 ${host} ${port} typ host`, ''
  ]
  // The other end begins at once.
  const stream = new Stream(channel)
  await connection.setRemoteDescription({ type: 'answer', sdp: lines.join('\r\n') })
  await new Promise((resolve, reject) => {
    channel.onopen = resolve
    setTimeout(() => reject(new Error(`no channel: ${connection.connectionState}`)), patience)
  })
  const own = hex(local.match(/^a=fingerprint:sha-256 (\S+)/m)[1])
  const prologue = join(text.encode('libp2p-webrtc-noise:'), [0x12, 32], own, [0x12, 32], certificate)
  const identity = await authenticate(stream, prologue)
  const peer = base58(join([0, identity.length], identity))
  if (peer !== expected) throw new Error(`${peer} has answered`)
  stream.close()
  return connection
}

// Opens a stream of a protocol, named as multistream-select has it.
async function open (connection, protocol) {
  const channel = connection.createDataChannel('')
  const stream = new Stream(channel)
  await new Promise(resolve => { channel.onopen = resolve })
  const line = name => join(varint(name.length + 1), text.encode(name + '\n'))
  const named = ['/multistream/1.0.0', protocol].map(line)
  await stream.write(join(...named))
  for (const expected of named) {
    const answer = await stream.readExactly(expected.length)
    if (!equal(answer, expected)) throw new Error(`${protocol} is answered with ${words.decode(answer)}`)
  }
  return stream
}

export async function call (address, { protocol, bytes, patience }) {
  const connection = await connect(address, patience)
  const pings = await open(connection, '/ipfs/ping/1.0.0')
  for (let number = 0; number < PINGS; number++) {
    const sent = crypto.getRandomValues(new Uint8Array(32))
    await pings.write(sent)
    if (!equal(await pings.readExactly(32), sent)) throw new Error('a ping came back changed')
  }
  pings.close()
  const echo = await open(connection, protocol)
  const sent = Uint8Array.from({ length: bytes }, (_, at) => at % 251)
  const writing = echo.write(sent)
  let back = 0
  while (back < bytes) {
    const piece = await echo.read()
    if (piece === undefined) throw new Error(`${back} of ${bytes} bytes came back`)
    if (!equal(piece, sent.subarray(back, back + piece.length))) throw new Error(`bytes from ${back} on came back changed`)
    back += piece.length
  }
  await writing
  echo.close()
  connection.close()
  return `${PINGS} pings, ${back} bytes back`
}
