/**
 * TCP for a node in Node.js, which dials and listens: a full peer.
 *
 *   const node = await Node.start({ network: 'tandem', transports: [tcp()], listen: '/ip4/0.0.0.0/tcp/4190' })
 */

import { networkInterfaces } from 'node:os'
import { connect, createServer } from 'node:net'
import { read, write } from './multiaddr.js'

/** Connections that wait to be taken; further ones are closed. */
const MAX_WAITING = 64

/** A transport of Node.js: `/ip4`, `/ip6`, `/dns`, `/dns4` or `/dns6`, then `/tcp/PORT`. */
export function tcp () {
  return { carries, dial, listen }
}

const carries = (multiaddr) => read(multiaddr)?.above === ''

function dial (multiaddr) {
  const { host, port, family } = read(multiaddr)
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, family, allowHalfOpen: true, noDelay: true })
    socket.once('error', reject)
    socket.once('connect', () => resolve(connection(socket)))
  })
}

function connection (socket) {
  // Every error of the socket is that of a read or a write too.
  socket.on('error', () => {})
  return {
    // The end of the other side's bytes leaves this side's way open.
    read: socket.iterator({ destroyOnReturn: false }),
    write: (bytes) => new Promise((resolve, reject) => { socket.write(bytes, (error) => error ? reject(error) : resolve()) }),
    shutdown: () => new Promise((resolve) => { socket.end(resolve) }),
    close: () => { socket.destroy() }
  }
}

async function listen (multiaddr) {
  const { host, port, isName } = read(multiaddr)
  if (isName) throw new Error('a node listens on an IP address, not on a name')
  const waiting = queue()
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
    const { localAddress, localPort, remoteAddress, remotePort } = socket
    // A socket without addresses was reset before it was taken.
    if (waiting.length >= MAX_WAITING || !remoteAddress) return socket.destroy()
    waiting.push({ connection: connection(socket), local: write(localAddress, localPort), remote: write(remoteAddress, remotePort) })
  })
  await new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host, port, ipv6Only: true }, resolve)
  })
  server.on('error', (error) => waiting.end(error))
  const bound = server.address()
  const close = () => {
    server.close()
    for (const { connection } of waiting.end()) connection.close()
  }
  return { addresses: reachable(bound.address).map((ip) => write(ip, bound.port)), accepted: waiting, close }
}

/** The addresses under which a socket is reached that listens on `ip`. */
function reachable (ip) {
  const family = { '0.0.0.0': 'IPv4', '::': 'IPv6' }[ip]
  if (!family) return [ip]
  return Object.values(networkInterfaces()).flat().filter((own) => own.family === family && !own.scopeid).map(({ address }) => address)
}

/** A queue that is read as an iterator. */
function queue () {
  const items = []; let taker = null; let ended = null
  const settle = () => {
    if (!taker || (items.length === 0 && !ended)) return
    const { resolve, reject } = taker
    taker = null
    if (items.length > 0) resolve({ done: false, value: items.shift() })
    else if (ended.error) reject(ended.error)
    else resolve({ done: true, value: undefined })
  }
  return {
    get length () { return items.length },
    push (item) { items.push(item); settle() },
    /** Ends it, and returns what nobody took. */
    end (error) {
      ended ??= { error }
      const left = items.splice(0)
      settle()
      return left
    },
    next: () => new Promise((resolve, reject) => { taker = { resolve, reject }; settle() }),
    [Symbol.asyncIterator] () { return this }
  }
}
