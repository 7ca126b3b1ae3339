import type { ChannelTransport } from './tandem.js'

/** WebRTC Direct: dials addresses with `/webrtc-direct/certhash/`, in a page. Throws where there is no `RTCPeerConnection`. */
export function webrtc (options?: {
  /** The version of the handshake. Default: 2. */
  version?: 1 | 2
  /** For a host that has none of its own. */
  RTCPeerConnection?: unknown
}): ChannelTransport

/** Host, port and SHA-256 of the certificate of a multiaddr of WebRTC Direct; null for any other one. */
export function placeOf (multiaddr: string): { family: 'IP4' | 'IP6', host: string, port: number, certificate: Uint8Array } | null
