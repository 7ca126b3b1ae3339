/**
 * libp2p over the host's WebSocket, in a page, a worker or Node.js. It dials.
 *
 *   const node = await Node.start({ network: 'tandem', transports: [websocket()], peers: ['/dns4/HOST/tcp/443/wss/p2p/ID'] })
 */

import { read } from './multiaddr.js'

/** Bytes that the host may hold unsent before a write waits. */
const MAX_UNSENT = 256 * 1024
/** Bytes that may wait to be read: a WebSocket cannot be told to wait, so that it is closed beyond them. */
const MAX_UNREAD = 16 * 1024 * 1024
/** How often a full WebSocket is asked whether it has room: nothing tells that. */
const LOOK_MS = 5

/** A transport of addresses that end with `/ws`, `/wss` or `/tls/ws`. Node.js 20 needs the `WebSocket` of the package `ws`. */
export function websocket ({ WebSocket = globalThis.WebSocket } = {}) {
  if (!WebSocket) throw new Error('this host has no WebSocket: give that of the package ws')
  return { carries: (multiaddr) => urlOf(multiaddr) !== null, dial: (multiaddr) => dial(WebSocket, urlOf(multiaddr)) }
}

/** The URL of an address; null if it is not for a WebSocket. A browser verifies the name that it dials, so there is no other one. */
export function urlOf (multiaddr) {
  const address = read(multiaddr)
  const secure = address && { '/ws': false, '/wss': true, '/tls/ws': true, [`/tls/sni/${address.host}/ws`]: true }[address.above]
  if (secure === undefined || secure === null) return null
  const host = address.host.includes(':') ? `[${address.host}]` : address.host
  return `${secure ? 'wss' : 'ws'}://${host}:${address.port}/`
}

function dial (WebSocket, url) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url)
    socket.binaryType = 'arraybuffer'
    const unread = pieces(socket)
    socket.onmessage = ({ data }) => unread.push(data)
    socket.onopen = () => resolve(connection(socket, unread))
    socket.onerror = ({ message }) => {
      const error = new Error(message || `no WebSocket to ${url}: the node does not answer, or the certificate is not trusted`)
      unread.end(error)
      reject(error)
    }
    socket.onclose = ({ wasClean }) => {
      unread.end(wasClean ? null : new Error('the WebSocket broke off'))
      reject(new Error(`the WebSocket to ${url} was closed before it was open`))
    }
  })
}

function connection (socket, unread) {
  return {
    read: unread,
    async write (bytes) {
      if (socket.readyState !== 1) throw new Error('the WebSocket is closed')
      socket.send(bytes)
      while (socket.bufferedAmount > MAX_UNSENT) {
        await new Promise((resolve) => { setTimeout(resolve, LOOK_MS) })
        if (socket.readyState !== 1) throw new Error('the WebSocket was closed before everything was sent')
      }
    },
    // What was sent before goes out first.
    shutdown: async () => { socket.close() },
    close: () => {
      unread.end(null)
      socket.close()
    }
  }
}

/** The messages of a socket, as an iterator. A socket of the package `ws` waits while they are unread. */
function pieces (socket) {
  const items = []; let bytes = 0; let taker = null; let ended = null
  const settle = () => {
    if (!taker || (items.length === 0 && !ended)) return
    const { resolve, reject } = taker
    taker = null
    if (items.length > 0) {
      const value = items.shift()
      bytes -= value.byteLength
      if (bytes < MAX_UNSENT && socket.isPaused) socket.resume()
      resolve({ done: false, value })
    } else if (ended.error) reject(ended.error)
    else resolve({ done: true, value: undefined })
  }
  return {
    push (data) {
      if (ended) return
      if (!(data instanceof ArrayBuffer)) return this.end(new Error('the peer sent a text'))
      items.push(data)
      bytes += data.byteLength
      if (bytes > MAX_UNREAD && items.length > 1) return this.end(new Error('the node did not read in time'))
      if (bytes > MAX_UNSENT) socket.pause?.()
      settle()
    },
    end (error) {
      ended ??= { error }
      if (error) socket.close()
      settle()
    },
    next: () => new Promise((resolve, reject) => { taker = { resolve, reject }; settle() }),
    [Symbol.asyncIterator] () { return this }
  }
}
