/** A node of a Tandem network, as WebAssembly: in a page, in a worker, and in Node.js. */

/** What a body may be given as. */
export type Body = string | ArrayBuffer | ArrayBufferView

/** `queued`: taken for sending, which promises no delivery. `full`: too much waits. `closed`: the node was closed. */
export type Admission = 'queued' | 'full' | 'closed'

/** Topics of a request or an answer: keys with texts or bytes. */
export type Topics = Record<string, Body> | Map<string, Body>

export interface Incoming {
  tag: string
  /** Not compressed, not packed. */
  body: Uint8Array
  /** The number of the link that it came over; null if it came on a topic. */
  link: number | null
  /** The identity of the peer that passed it on, which need not be its author; null if it proves none. */
  peerId: string | null
}

export interface Message extends Incoming {
  /** When it came: milliseconds since 1970, with fractions. */
  at: number
}

export interface Peer {
  /** The number of the link, which is not used again. */
  id: number
  /** The identity that it has proved; null if it proves none. */
  peerId: string | null
  transport: 'ws' | 'p2p' | (string & {})
  direction: 'in' | 'out' | (string & {})
  address: string
  /** Where its HTTP services are; null if that is not known. */
  http: string | null
  queuedBytes: number
  rttMs: number | null
}

export interface Dial {
  address: string
  outcome: 'pending' | 'connected' | 'connected_otherwise' | 'failed'
  /** In a row, without a success. */
  failures: number
  error: string | null
}

/** Every bound. Times in milliseconds. */
export interface Limits {
  /** Bytes of all queues inside the node. Default: 64 MiB. */
  budgetBytes: number
  /** Until `connected` gives up. Default: 30,000. */
  startMs: number
  /** Default: 30,000. */
  fetchMs: number
  /** Until a request has no answer. Default: 4,000. */
  requestMs: number
  /** For the head of an answer of this node, and for each piece of its body. Default: 30,000. */
  serveMs: number
  /** Bytes of the body of a request to this node. Default: 1 MiB. */
  serveBodyBytes: number
  /** Messages of one loop over `on`. Default: 1,024. */
  queueMessages: number
  /** Bytes of one loop over `on`. Default: 16 MiB. */
  queueBytes: number
}

/** The rule of a tag, the same at every node of a network. */
export interface TagRule {
  /** `priority` is written before everything else. */
  lane: 'priority' | 'bulk'
  /** Longest body on the wire. */
  maxBytes: number
  /** The GossipSub topic on which nodes of libp2p publish it. Default: none; it goes over the stream of each peer. */
  topic?: string
  /** Goes as one zstd frame. Default: false. */
  compressed?: boolean
  /** Relays pass it on. Default: true. */
  forwarded?: boolean
  /** Peers that never said what they want get it. Default: true. */
  sentByDefault?: boolean
}

/** The profile of a network with tags of its own, as `ProfileBuilder` makes it in a native node. */
export interface Profile {
  /** 1 to 32 lower-case letters, digits and hyphens; protocols and headers are named by it. */
  name: string
  tags: Record<string, TagRule>
  /** Longest request. Default: 64 KiB. */
  maxRequestBytes?: number
}

export interface Options {
  network: string
  /** Default: that of Tandem, with the tags AV, PP, TX and so on. */
  profile?: Profile
  /** `ws://HOST:PORT`, `wss://HOST`, `HOST:PORT`, or multiaddrs. All of them are dialled, and again when they are lost. */
  peers?: string | string[]
  /** A name for the operators of the peers. */
  name?: string
  /** Tags to be sent; those that peers send unasked if left out (all but SP). A loop over `on` adds its own. */
  tags?: string[]
  /**
   * The key: 32 bytes are its seed, null is none, a text names a kept one. Left out, it is the key kept for this origin under
   * `identity`, where there is IndexedDB and no other page has it, and else a new one.
   */
  identity?: Uint8Array | string | null
  /** Pass on what is accepted. Default: false. */
  relay?: boolean
  /** Learnt addresses are dialled while fewer peers are connected. Default: 4. */
  fanOut?: number
  limits?: Partial<Limits>
  /** Closes the node. */
  signal?: AbortSignal
  /** For Node.js before 22, which has none: that of the package `ws`. Null leaves gossip over `ws://` out. */
  WebSocket?: unknown
  /** Transports for libp2p. The first one that carries an address is asked. Default: none, and no libp2p. */
  transports?: (Transport | ChannelTransport)[]
  /**
   * Multiaddrs to listen on, with a transport that can; or `/…/p2p/RELAY_ID/p2p-circuit`, to be reached through a relay, which any transport can
   * dial. The node has no address while the relay has no place for it, and goes on asking.
   */
  listen?: string | string[]
  /** Where the WebAssembly is, if not beside the JavaScript: see `load`. */
  wasm?: WasmSource
}

/** Carries the bytes of libp2p. What it throws ends a dial, a connection or a listener, with the text of the error. */
export interface Transport {
  /** False for addresses that are others' to carry. Left out, it is asked for all. */
  carries?(multiaddr: string): boolean
  dial?(multiaddr: string): Connection | Promise<Connection>
  listen?(multiaddr: string): Listener | Promise<Listener>
}

export interface Connection {
  /** Asked for a piece when the last one was read. Its end is that of the peer's bytes. */
  read: AsyncIterable<Uint8Array | ArrayBuffer> | AsyncIterator<Uint8Array | ArrayBuffer>
  /** Resolves when there is room for more; at most 64 KiB at once. */
  write(bytes: Uint8Array): void | Promise<void>
  /** Ends the bytes to the peer, behind those that were written. */
  shutdown?(): void | Promise<void>
  /** Ends both directions. Called once. */
  close?(): void
}

/** Makes connections with data channels, by either method or both, as `RTCPeerConnection` has them. What it throws ends a dial, with the text of the error. */
export interface ChannelTransport {
  /** False for addresses that are others' to carry. Left out, it is asked for all that name the hash of a certificate. */
  carries?(multiaddr: string): boolean
  /** Resolves once channel 0, which both ends negotiate, is open. What happens before and after goes to `events`. */
  dialChannels?(multiaddr: string, events: ChannelEvents): ChannelConnection | Promise<ChannelConnection>
  /**
   * Connects with a host that nobody can dial either: `signals` go between both over a circuit. The end that `offers` begins. Resolves once channels
   * can be opened; there is no channel 0.
   */
  meetChannels?(role: 'offers' | 'answers', signals: Signals, events: ChannelEvents): MetConnection | Promise<MetConnection>
}

/** Goes between two hosts that connect: descriptions in SDP, and candidates as JSON. */
export interface Signal {
  kind: 'offer' | 'answer' | 'candidate'
  data: string
}

/** The signals of one meeting. */
export interface Signals {
  /** Sends a signal: the description first, of at most 16 KiB, then up to 64 candidates of 2 KiB. Throws once the meeting is over. */
  send(kind: Signal['kind'], data: string): void
  /** The next signal of the peer; undefined when no more will come. */
  next(): Promise<Signal | undefined>
}

/** A connection that was dialled. */
export interface ChannelConnection extends MetConnection {
  /** SHA-256 of this end's certificate. */
  certificate: Uint8Array
}

/** A connection whose channels have numbers while they are open. */
export interface MetConnection {
  /** Opens a channel, which `opened` follows. */
  open(channel: number): void
  /** Sends a message of at most 16 KiB on an open channel. An error ends the connection. */
  send(channel: number, message: Uint8Array): void
  /** Bytes that were sent and did not leave. */
  buffered(channel: number): number
  /** Closes a channel behind what was sent on it; `closed` follows. */
  closeChannel(channel: number): void
  /** Ends the connection. Called once. */
  close?(): void
}

/** Takes what happens on the channels of a connection. */
export interface ChannelEvents {
  /** The number of a channel that the peer has opened; undefined if it is one too many, which is to be closed. */
  accepted(): number | undefined
  opened(channel: number): void
  message(channel: number, message: Uint8Array | ArrayBuffer): void
  /** There may be room on a channel for more to send. */
  drained(channel: number): void
  closed(channel: number): void
  ended(why: unknown): void
}

export interface Listener {
  /** Multiaddrs under which others reach it. */
  addresses: string[]
  accepted: AsyncIterable<Accepted> | AsyncIterator<Accepted>
  /** Called once. */
  close?(): void
}

export interface Accepted {
  connection: Connection
  /** Multiaddrs of both ends. */
  local: string
  remote: string
}

/** A URL, a response, the bytes, or a module. */
export type WasmSource = URL | string | Request | Response | Promise<Response> | BufferSource | WebAssembly.Module

export type ErrorCode =
  | 'address' | 'body' | 'closed' | 'full' | 'http' | 'key' | 'network' | 'not-connected' | 'profile' | 'tag' | 'timeout' | 'too-large' | 'topics' | 'transport'
  | 'unreachable' | 'wasm'

export class TandemError extends Error {
  readonly code: ErrorCode
}

export interface Messages extends AsyncIterableIterator<Message> {
  /** Messages that were dropped because the loop was too slow. */
  readonly dropped: number
  /** Ends the loop once it has read what is there. */
  end (): void
}

export interface Stats {
  received: number
  receivedBytes: number
  sent: number
  notSent: number
  /** Messages that loops were too slow for. */
  dropped: number
}

/** The sender of an HTTP request. */
export interface Caller {
  /** The identity that it has proved. */
  peerId: string | null
  /** The multiaddr that it is connected from. */
  address: string | null
}

/** Answers an HTTP request. The signal of the request is aborted when the client is gone. */
export type Service = (request: Request, caller: Caller) => Response | Promise<Response>

export interface Served {
  /** Requests that reached the handlers. */
  requests: number
  /** Requests and streams that ended otherwise than by an answer, by the names that the native node counts them under. */
  incidents: Record<string, number>
}

/** Nothing more; pass it on; end the connection of its sender, for no reason that is told or because the message was malformed; an answer. */
export type Verdict = void | 'relay' | 'disconnect' | 'bad' | Topics

export interface NodeEvents {
  connected: CustomEvent<Peer>
  identified: CustomEvent<Peer>
  disconnected: CustomEvent<{ peer: Peer, reason: string }>
  closed: Event
}

export class Node extends EventTarget {
  static start (options: Options): Promise<Node>
  readonly peerId: string | null
  /** The multiaddrs that it listens on, with its peer ID. */
  readonly addresses: string[]
  readonly isClosed: boolean
  readonly stats: Readonly<Stats>
  peers (): Peer[]
  dials (): Dial[]
  connected (options?: { timeoutMs?: number }): Promise<Peer>
  on (...tags: string[]): Messages
  broadcast (tag: string, body: Body, options?: { peer?: Peer | string | number }): Admission
  broadcastAndWait (tag: string, body: Body): Promise<{ written: number, givenUp: number }>
  relay (tag: string, body: Body): Admission
  networkAdvanced (): void
  request (topics: Topics, options?: { peer?: Peer | string | number }): Promise<Map<string, Uint8Array>>
  fetch (peer: Peer | string, path: string, init?: RequestInit): Promise<Response>
  /** A path, or all below one that ends with a slash; the longest that fits answers. Returns a function that ends it. Needs a transport for libp2p. */
  serve (path: string, handler: Service): () => void
  served (): Served
  handle (tag: string, handler: (message: Incoming) => Verdict | Promise<Verdict>): void
  validate (tag: string, validator: (message: Incoming) => 'accept' | 'ignore' | 'reject'): void
  addPeer (address: string): void
  removePeer (address: string): boolean
  disconnect (peer: Peer | string | number): void
  close (): Promise<void>
  addEventListener<K extends keyof NodeEvents> (kind: K, listener: (event: NodeEvents[K]) => void, options?: boolean | AddEventListenerOptions): void
}

/** Loads the WebAssembly, once. `Node.start` does it too. */
export function load (wasm?: WasmSource): Promise<void>
