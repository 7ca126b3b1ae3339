/** A peer of a Tandem network over WebSocket: in a page, in a worker, and in Node.js. */

/** What a body may be given as. */
export type Body = string | ArrayBuffer | ArrayBufferView

/** `queued`: taken for sending. `full`: too much waits, or there is no relay at the moment. `closed`: the node was closed. */
export type Admission = 'queued' | 'full' | 'closed'

export interface Message {
  tag: string
  /** Not compressed, not packed. */
  body: Uint8Array
  /** When it came: milliseconds since 1970, with fractions. */
  at: number
}

export interface Relay {
  address: string
  /** The identity that it has proved; null if it proves none. */
  peerId: string | null
  name: string
}

/** Every bound. Times in milliseconds. */
export interface Limits {
  connectMs: number
  startMs: number
  requestMs: number
  fetchMs: number
  silenceMs: number
  pauseMs: number
  longestPauseMs: number
  queueMessages: number
  queueBytes: number
  unsentBytes: number
  requests: number
}

export interface Options {
  /** `ws://HOST:PORT`, `wss://HOST`, `HOST:PORT`; one at a time, and the next one when it dies. */
  addresses: string | string[]
  network: string
  /** A name for the relay's operator. */
  name?: string
  /** Tags to be sent; those that peers get unasked if left out (all but SP). */
  tags?: string[]
  /** The key; null for an anonymous peer. The one kept for this origin if left out, where the platform can. */
  identity?: Identity | null
  /** Longest body of each tag, for a network with tags of its own. */
  bounds?: Record<string, number>
  limits?: Partial<Limits>
  /** Begin with the first address. Any of them if left out. */
  inOrder?: boolean
  /** Closes the node. */
  signal?: AbortSignal
  /** For Node.js before 22, which has none: that of the package `ws`. */
  WebSocket?: unknown
}

export type ErrorCode =
  | 'address' | 'body' | 'closed' | 'closed-by-relay' | 'compressed' | 'full' | 'identity' | 'network' | 'no-crypto' | 'no-websocket'
  | 'not-connected' | 'ourselves' | 'protocol' | 'silent' | 'storage' | 'tag' | 'timeout' | 'too-large' | 'unreachable'

export class TandemError extends Error {
  readonly code: ErrorCode
}

/** An Ed25519 key whose secret half cannot be read. */
export class Identity {
  static create (): Promise<Identity>
  /** The key of this origin in IndexedDB, held by one page at a time; a new one otherwise. */
  static load (name?: string): Promise<Identity>
  readonly publicKey: Uint8Array
  readonly peerId: string
  sign (bytes: Uint8Array): Promise<Uint8Array>
  release (): void
}

export interface Messages extends AsyncIterableIterator<Message> {
  /** Messages that were dropped because the loop was too slow. */
  readonly dropped: number
}

export interface Stats {
  received: number
  receivedBytes: number
  sent: number
  notSent: number
  /** Messages that readers were too slow for. */
  dropped: number
  /** Messages that nobody reads. */
  unread: number
  connects: number
  failedDials: number
}

/** Events: `connected` (CustomEvent of Relay), `disconnected` (CustomEvent of TandemError), `closed`. */
export class Node extends EventTarget {
  static connect (options: Options): Promise<Node>
  readonly relay: Relay | null
  readonly peerId: string | null
  readonly publicKey: Uint8Array | null
  readonly stats: Readonly<Stats>
  on (...tags: string[]): Messages
  broadcast (tag: string, body: Body): Admission
  request (topics: Record<string, Body>, options?: { timeoutMs?: number }): Promise<Map<string, Uint8Array>>
  fetch (path: string, init?: RequestInit & { peer?: string }): Promise<Response>
  close (): void
}
