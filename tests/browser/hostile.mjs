/** Relays that do what none should: one that sends garbage, and a wire that is cut, or that carries nothing for a while. */

import { createServer, connect } from 'node:net'
import { randomBytes } from 'node:crypto'
import { WebSocketServer } from 'ws'

const message = (tag, bytes) => Buffer.concat([Buffer.from(tag), Buffer.alloc(bytes, 7)])

/** A block of zstd that repeats one byte: 128 KiB of four. */
const REPEATED = [0x02, 0x00, 0x10, 0x00]
/** 256 MiB in a few kilobytes, whose frame says nothing of its size. */
const BOMB = Buffer.concat([Buffer.from('PP'), Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58]), ...Array.from({ length: 2048 }, () => Buffer.from(REPEATED)), Buffer.from([0x03, 0x00, 0x10, 0x00])])

/** What comes after the hello, by the name of the attack, and the reasons for which a node may end the link; null if it need not. */
export const ATTACKS = {
  text: { sends: ['a text'], ends: ['protocol'] },
  short: { sends: [Buffer.from('A')], ends: ['protocol'] },
  empty: { sends: [Buffer.alloc(0)], ends: ['protocol'] },
  'long-vote': { sends: [message('AV', 1229)], ends: ['oversized'] },
  huge: { sends: [message('VB', 6 * 1024 * 1024 - 1)], ends: ['oversized'] },
  answer: { sends: [Buffer.concat([Buffer.from('TS'), Buffer.from([1, 11]), Buffer.from('RequestHash'), Buffer.from([10]), Buffer.alloc(10)])], ends: ['unexpected_response', 'bad_data'] },
  bomb: { sends: [BOMB], ends: ['bad_data', 'oversized', 'flood', null] },
  unknown: { sends: Array.from({ length: 500 }, () => Buffer.concat([Buffer.from('ZZ'), randomBytes(20)])), ends: ['flood', 'protocol', null] },
  random: { sends: Array.from({ length: 500 }, () => randomBytes(200)), ends: ['flood', 'protocol', 'oversized', 'bad_data', null] }
}

const hello = (network) => `version=2.2&accept-version=2.2&genesis=${network}&noderandom=${encodeURIComponent(randomBytes(10).toString('base64'))}&peer-features=ppzstd`

/** Answers that are no hello, which never become a link. */
export const HELLOS = {
  binary: () => Buffer.from('version=2.2'),
  garbage: () => '%00%ff=%&&;',
  twice: () => 'version=2.2&version=2.2',
  long: (network) => `${hello(network)}&x=${'a'.repeat(5000)}`,
  network: () => hello('another'),
  unsigned: (network) => `${hello(network)}&identitychallenge=${'A'.repeat(400)}`
}

/** A relay that attacks: the first segment of the path names the attack. */
export async function attacker (network) {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', maxPayload: 64 * 1024 * 1024, handleProtocols: (wanted) => [...wanted][0] })
  server.on('connection', (socket, request) => {
    const name = request.url.split('/')[1]
    socket.on('error', () => {})
    if (HELLOS[name]) return socket.send(HELLOS[name](network))
    socket.send(hello(network))
    if (name === 'flood') {
      const flood = () => {
        if (socket.readyState !== 1) return
        for (let count = 0; count < 500 && socket.bufferedAmount < 1024 * 1024; count++) socket.send(Buffer.concat([Buffer.from('AV'), randomBytes(600)]))
        setTimeout(flood, 1)
      }
      return flood()
    }
    for (const sent of ATTACKS[name].sends) socket.send(sent)
  })
  await new Promise((resolve) => server.on('listening', resolve))
  const at = (name) => `ws://127.0.0.1:${server.address().port}/${name}`
  return { at, close: () => { for (const socket of server.clients) socket.terminate(); server.close() } }
}

/** A wire to a node, on a port of its own. */
export async function wire (to) {
  const target = new URL(to)
  const sockets = new Set()
  const server = createServer((near) => {
    const far = connect(Number(target.port), target.hostname)
    for (const [from, into] of [[near, far], [far, near]]) {
      sockets.add(from)
      from.on('error', () => {})
      from.on('close', () => { sockets.delete(from); into.destroy() })
      from.pipe(into)
    }
  })
  const listen = (port) => new Promise((resolve) => server.listen(port, '127.0.0.1', resolve))
  await listen(0)
  const { port } = server.address()
  return {
    ws: `ws://127.0.0.1:${port}`,
    /** Breaks every connection; no other one is taken until `mend`. */
    cut: () => { server.close(); for (const socket of sockets) socket.destroy() },
    mend: () => listen(port),
    /** Takes nothing more from either end. */
    clog: () => { for (const socket of sockets) { socket.unpipe(); socket.pause() } },
    close: () => { server.close(); for (const socket of sockets) socket.destroy() }
  }
}
