import type { Transport } from './tandem.js'

/** The host's WebSocket: dials addresses that end with `/ws`, `/wss` or `/tls/ws`. */
export function websocket (options?: {
  /** For Node.js before 22, which has none: that of the package `ws`. */
  WebSocket?: unknown
}): Transport

/** The URL of a multiaddr; null if it is not for a WebSocket. */
export function urlOf (multiaddr: string): string | null
