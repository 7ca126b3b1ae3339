import type { ChannelTransport } from './tandem.js'

/**
 * WebRTC in a page: dials addresses with `/webrtc-direct/certhash/`, and meets other pages at addresses with `/p2p-circuit/webrtc`. Throws where there is
 * no `RTCPeerConnection`.
 */
export function webrtc (options?: {
  /** The version of the handshake. Default: 2. */
  version?: 1 | 2
  /** Servers of STUN and TURN that help two pages to reach each other. Default: none. */
  iceServers?: { urls: string | string[], username?: string, credential?: string }[]
  /** For a host that has none of its own. */
  RTCPeerConnection?: unknown
}): ChannelTransport

/** Host, port and SHA-256 of the certificate of a multiaddr of WebRTC Direct; null for any other one. */
export function placeOf (multiaddr: string): { family: 'IP4' | 'IP6', host: string, port: number, certificate: Uint8Array } | null
