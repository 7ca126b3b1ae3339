/**
 * libp2p over WebRTC, in a page. It dials nodes by WebRTC Direct, without a certificate of a name: their addresses have its hash. And it connects
 * two pages, which tell each other how over a circuit through a relay.
 *
 *   const node = await Node.start({ network: 'tandem', transports: [webrtc()], peers: ['/ip4/HOST/udp/PORT/webrtc-direct/certhash/HASH/p2p/ID'] })
 *
 * The set-up of the connection is here; signals, Noise, messages and streams are in the WebAssembly.
 * Source: libp2p specifications, webrtc/webrtc-direct.md, libp2p/specs#715 for version 2, and webrtc/webrtc.md.
 */

/** Channels tell of room when they hold less, in bytes. Half of what a stream may have unsent. */
const LOW = 32 * 1024
/** Longest message of libp2p, its length included. */
const MESSAGE_BYTES = 16 * 1024
/** The channel of the Noise handshake. */
const HANDSHAKE = 0
/** The label of the channel that begins a connection between two pages, and is no stream. */
const INIT = 'init'
/** Most candidates that are told, and the time for two pages to connect. */
const CANDIDATES = 64
const MEETING_MS = 10_000
/** Length of what version 1 draws, and its letters, which ICE allows. */
const DRAWN = 32
const LETTERS = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/'

const SHAPE = /^\/(ip4|ip6)\/([^/]+)\/udp\/(\d{1,5})\/webrtc-direct\/certhash\/u([\w-]+)(?:\/p2p\/[^/]+)?$/

/**
 * A transport of addresses with `/webrtc-direct/certhash/` and `/p2p-circuit/webrtc`. `iceServers` are those of RTCPeerConnection, for two pages behind
 * routers: without any, pages of one network connect alone, and no third party learns of it. `version` is that of the handshake: 2 changes nothing in what the browser
 * describes, so it works where a browser forbids that, as Chromium may; 1 is for nodes that have no other (go-libp2p before 0.49).
 */
export function webrtc ({ version = 2, iceServers = [], RTCPeerConnection = globalThis.RTCPeerConnection } = {}) {
  if (version !== 1 && version !== 2) throw new Error(`there is no version ${version} of WebRTC Direct: 1 or 2`)
  if (!RTCPeerConnection) throw new Error('this host has no RTCPeerConnection, as workers and Node.js have none: run the node in the page, or give one as an option')
  return {
    carries: (multiaddr) => placeOf(multiaddr) !== null,
    dialChannels: (multiaddr, events) => dial({ RTCPeerConnection, version }, placeOf(multiaddr), events),
    meetChannels: (role, signals, events) => meet(new RTCPeerConnection({ iceServers }), role, signals, events)
  }
}

/** Host, port and certificate of an address; null for any other address. */
export function placeOf (multiaddr) {
  const parts = SHAPE.exec(multiaddr)
  if (!parts || Number(parts[3]) > 65_535) return null
  const [, kind, host, port, hash] = parts
  const bytes = Uint8Array.from(atob(hash.replaceAll('-', '+').replaceAll('_', '/')), (letter) => letter.charCodeAt(0))
  // SHA-256, with the length of such a hash.
  if (bytes.length !== 34 || bytes[0] !== 0x12 || bytes[1] !== 32) return null
  return { family: kind === 'ip4' ? 'IP4' : 'IP6', host, port: Number(port), certificate: bytes.subarray(2) }
}

/** The channels of a connection by number, as the node knows them: `take` gives it one, `methods` are what it calls. */
function channelsOf (connection, events) {
  const channels = new Map()
  const take = (id, channel) => {
    channels.set(id, channel)
    channel.binaryType = 'arraybuffer'
    channel.bufferedAmountLowThreshold = LOW
    channel.onopen = () => events.opened(id)
    channel.onmessage = ({ data }) => events.message(id, data)
    channel.onbufferedamountlow = () => events.drained(id)
    channel.onclose = () => {
      if (channels.delete(id)) events.closed(id)
    }
  }
  connection.ondatachannel = ({ channel }) => {
    if (channel.label === INIT) return
    const id = events.accepted()
    if (id === undefined) return channel.close()
    take(id, channel)
    if (channel.readyState === 'open') events.opened(id)
  }
  const methods = {
    open: (id) => take(id, connection.createDataChannel('')),
    // One that the peer has closed takes nothing more, and its end is told.
    send: (id, message) => {
      const channel = channels.get(id)
      if (channel?.readyState === 'open') channel.send(message)
    },
    buffered: (id) => channels.get(id)?.bufferedAmount ?? 0,
    closeChannel: (id) => channels.get(id)?.close(),
    close: () => connection.close()
  }
  return { take, methods }
}

/**
 * Resolves as the promise of `connects` does, which is given a function to call when both ends are described, and rejects if the connection fails first. Whatever ends the connection later is told as well;
 * the peer's end of it closes this one sooner than its silence would.
 */
function connected (connection, events, failure, connects) {
  return new Promise((resolve, reject) => {
    const failed = (error) => {
      reject(error)
      events.ended(error)
      connection.close()
    }
    const closed = () => failed(new Error('the peer has closed the WebRTC connection'))
    connection.onconnectionstatechange = () => {
      if (connection.connectionState === 'failed') failed(new Error(failure))
      if (connection.connectionState === 'closed') failed(new Error('the WebRTC connection was closed'))
    }
    const watch = () => {
      const { sctp } = connection
      if (sctp) sctp.onstatechange = () => { if (sctp.state === 'closed') closed() }
      if (sctp?.transport) sctp.transport.onstatechange = () => { if (['closed', 'failed'].includes(sctp.transport.state)) closed() }
    }
    connects(watch).then(resolve, failed)
  })
}

/** Connects, and resolves once the first channel is open. */
async function dial ({ RTCPeerConnection, version }, place, events) {
  const connection = new RTCPeerConnection()
  const { take, methods } = channelsOf(connection, events)
  const first = connection.createDataChannel('', { negotiated: true, id: HANDSHAKE })
  take(HANDSHAKE, first)
  const failure = `no WebRTC to ${place.host}, UDP port ${place.port}: the node does not answer, or has another certificate`
  await connected(connection, events, failure, async (watch) => {
    const isOpen = new Promise((resolve) => { first.onopen = resolve })
    await describe(connection, version, place)
    watch()
    await isOpen
  })
  const [, own] = /^a=fingerprint:sha-256 (\S+)/mi.exec(connection.localDescription.sdp)
  return { certificate: Uint8Array.from(own.split(':'), (byte) => parseInt(byte, 16)), ...methods }
}

/** Connects with another page, and resolves once streams can be opened. */
async function meet (connection, role, signals, events) {
  const { methods } = channelsOf(connection, events)
  let left = CANDIDATES
  connection.onicecandidate = ({ candidate }) => {
    if (!candidate?.candidate || left === 0) return
    left -= 1
    // The meeting may be over.
    try { signals.send('candidate', JSON.stringify(candidate)) } catch {}
  }
  let late = null
  const expired = new Promise((_, reject) => { late = setTimeout(() => reject(new Error('no WebRTC to the peer in time')), MEETING_MS) })
  const begin = async (watch) => {
    const begun = role === 'offers' ? initiated(connection) : answered(connection)
    await exchange(connection, role, signals)
    watch()
    addCandidates(connection, signals)
    await begun
  }
  try {
    const failure = 'no WebRTC to the peer: no candidate of either end leads to the other'
    await connected(connection, events, failure, (watch) => Promise.race([begin(watch), expired]))
  } finally {
    clearTimeout(late)
    connection.onicecandidate = null
  }
  return methods
}

/** Describes both ends to the browser: the peer's description is never sent, because the address says it all. */
async function describe (connection, version, place) {
  const offer = await connection.createOffer()
  const drawn = () => [...crypto.getRandomValues(new Uint8Array(DRAWN))].map((byte) => LETTERS[byte % LETTERS.length]).join('')
  // One name is the password of both ends in version 1, so this end has to have it too.
  const shared = version === 1 ? `libp2p+webrtc+v1/${drawn()}` : null
  const sdp = shared ? offer.sdp.replace(/^a=ice-ufrag:.*$/gm, `a=ice-ufrag:${shared}`).replace(/^a=ice-pwd:.*$/gm, `a=ice-pwd:${shared}`) : offer.sdp
  await connection.setLocalDescription({ type: 'offer', sdp })
  const local = connection.localDescription.sdp
  const name = shared ?? `libp2p+webrtc+v2/${/^a=ice-pwd:(\S+)/m.exec(local)[1]}`
  const [, mid] = /^a=mid:(\S+)/m.exec(local)
  const { family, host, port, certificate } = place
  const hash = [...certificate].map((byte) => byte.toString(16).padStart(2, '0').toUpperCase()).join(':')
  const lines = [
    'v=0', `o=- 0 0 IN ${family} ${host}`, 's=-', 't=0 0', 'a=ice-lite', `m=application ${port} UDP/DTLS/SCTP webrtc-datachannel`, `c=IN ${family} ${host}`,
    `a=mid:${mid}`, 'a=setup:passive', `a=ice-ufrag:${name}`, `a=ice-pwd:${name}`, `a=fingerprint:sha-256 ${hash}`, 'a=sctp-port:5000',
    `a=max-message-size:${MESSAGE_BYTES}`, `a=candidate:1 1 UDP 1 ${host} ${port} typ host`, ''
  ]
  await connection.setRemoteDescription({ type: 'answer', sdp: lines.join('\r\n') })
}

/** Opens the channel that gives the offer something to connect. Resolves once that is closed at both ends, so that its number is free for a stream. */
function initiated (connection) {
  const channel = connection.createDataChannel(INIT)
  channel.onopen = () => channel.close()
  return new Promise((resolve) => { channel.onclose = resolve })
}

/** Resolves once both ends know that they reach each other. */
function answered (connection) {
  return new Promise((resolve) => {
    connection.addEventListener('connectionstatechange', () => { if (connection.connectionState === 'connected') resolve() })
  })
}

/** Tells each end of the other. An end is told before its browser looks for candidates, which therefore come behind it. */
async function exchange (connection, role, signals) {
  if (role === 'offers') {
    const offer = await connection.createOffer()
    signals.send('offer', offer.sdp)
    await connection.setLocalDescription(offer)
    await connection.setRemoteDescription({ type: 'answer', sdp: await described(signals) })
  } else {
    await connection.setRemoteDescription({ type: 'offer', sdp: await described(signals) })
    const answer = await connection.createAnswer()
    signals.send('answer', answer.sdp)
    await connection.setLocalDescription(answer)
  }
}

/** The description of the peer. */
async function described (signals) {
  const signal = await signals.next()
  if (!signal) throw new Error('the peer has not said how to connect')
  return signal.data
}

/** Adds the peer's candidates as they come. One that the browser does not know is of no use, and of no harm. */
async function addCandidates (connection, signals) {
  for (let signal = await signals.next(); signal; signal = await signals.next()) {
    try { await connection.addIceCandidate(JSON.parse(signal.data)) } catch {}
  }
}
