/** A program in strict TypeScript on the package: compiles, and runs in no test. */

import { Node, TandemError, load } from 'tandem-web'
import type { Accepted, Admission, ChannelTransport, Connection, Dial, ErrorCode, Listener, Message, Peer, Served, Transport } from 'tandem-web'
import { tcp } from 'tandem-web/tcp'
import { placeOf, webrtc } from 'tandem-web/webrtc'
import { urlOf, websocket } from 'tandem-web/websocket'

export async function uses (seed: Uint8Array): Promise<void> {
  await load()
  const node: Node = await Node.start({ network: 'tandem', peers: ['ws://127.0.0.1:4160'], identity: seed, limits: { queueMessages: 10 } })
  const peer: Peer = await node.connected({ timeoutMs: 10 })
  const admission: Admission = node.broadcast('TX', 'text', { peer })
  const dials: Dial[] = node.dials()
  node.addEventListener('disconnected', ({ detail }) => { const reason: string = detail.reason; console.log(reason, detail.peer.peerId) })
  node.addEventListener('connected', ({ detail }) => { console.log(detail.rttMs) })
  node.validate('TX', ({ body }) => body.length > 0 ? 'accept' : 'reject')
  node.handle('TX', () => 'relay')
  node.handle('PP', async ({ peerId }) => { console.log(peerId) })
  node.handle('UE', async () => ({ answer: new Uint8Array(1) }))
  const answer: Map<string, Uint8Array> = await node.request({ key: 'data' }, { peer: 1 })
  const response: Response = await node.fetch(peer, '/health', { method: 'GET' })
  for await (const message of node.on('AV')) {
    const { tag, body, at }: Message = message
    console.log(tag, body.byteLength, at.toFixed(), admission, dials, answer, response.ok)
  }
  const end: () => void = node.serve('/echo/', async (request, { peerId }) => new Response(request.body, { headers: { peer: peerId ?? '' } }))
  const served: Served = node.served()
  console.log(served.requests, served.incidents.stalled, end)
  // @ts-expect-error a service gives a response
  node.serve('/text', () => 'a text')
  // @ts-expect-error a tag is a text
  node.on(1)
  // @ts-expect-error a judgement is one of three words
  node.validate('TX', () => 'perhaps')
  await Node.start({ network: 'mine', profile: { name: 'my-chain', tags: { vo: { lane: 'priority', maxBytes: 100 } } } })
  // @ts-expect-error a tag has a lane
  await Node.start({ network: 'mine', profile: { name: 'my-chain', tags: { vo: { maxBytes: 100 } } } })
  // @ts-expect-error a network is named
  await Node.start({ peers: [] })
  await node.close().catch((error: unknown) => {
    const code: ErrorCode | undefined = error instanceof TandemError ? error.code : undefined
    console.log(code)
  })
}

/** A transport of one's own: every connection says the same. */
class Saying implements Transport {
  constructor (private readonly says: Uint8Array) {}
  carries (multiaddr: string): boolean { return urlOf(multiaddr) === null }
  async dial (): Promise<Connection> { return this.connection() }
  async listen (multiaddr: string): Promise<Listener> {
    const { connection } = { connection: this.connection() }
    const accepted = async function * (): AsyncGenerator<Accepted> { yield { connection, local: multiaddr, remote: multiaddr } }
    return { addresses: [multiaddr], accepted: accepted() }
  }

  private connection (): Connection {
    const says = this.says
    return { read: (async function * () { yield says })(), async write (bytes) { console.log(bytes.length) }, close () {} }
  }
}

/** Data channels of a host's own: the same connection for every address. */
const joined: ChannelTransport = {
  carries: (multiaddr) => placeOf(multiaddr) !== null,
  dialChannels (multiaddr, events) {
    events.ended(new Error(multiaddr))
    return { certificate: new Uint8Array(32), open: (channel) => { events.opened(channel) }, send () {}, buffered: () => 0, closeChannel: (channel) => { events.closed(channel) } }
  },
  async meetChannels (role, signals, events) {
    if (role === 'offers') signals.send('offer', 'v=0')
    const signal = await signals.next()
    if (signal?.kind === 'candidate') events.ended(new Error(signal.data))
    return { open () {}, send () {}, buffered: () => 0, closeChannel () {} }
  }
}

export async function speaks (): Promise<string[]> {
  const node = await Node.start({ network: 'tandem', transports: [tcp(), websocket(), webrtc({ version: 2, iceServers: [{ urls: 'stun:stun.example:3478' }] }), joined, new Saying(new Uint8Array(1))], listen: '/ip4/127.0.0.1/tcp/0', WebSocket: null })
  // @ts-expect-error a connection can be read
  const mute: Connection = { async write () {} }
  return [...node.addresses, String(mute)]
}
