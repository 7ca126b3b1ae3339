#!/usr/bin/env node
/**
 * Has the WebAssembly node gossip over libp2p: in Node.js over TCP and WebSocket, in Chromium over WebSocket and secure WebSocket.
 *
 *   libp2p.mjs CHROMIUM PROGRAM PACKAGE SCRATCH CERT KEY [GO]
 *
 * The node's only peer is a native one, by libp2p alone, and behind that is one that has gossip over WebSocket alone. GO is the peer of
 * tests/interop in Go: it dials the node, which listens on TCP in Node.js. Exit status 0 if all of it held; each thing that did not is a line
 * on stderr.
 */

import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import puppeteer from 'puppeteer-core'
import WebSocket from 'ws'
import { freePort, gossip, here as hereOf, inPage, serve, sha256 } from './gossiping.mjs'
import { start, stopAll, until } from './nodes.mjs'

const [executablePath, program, folder, scratch, cert, key, go] = process.argv.slice(2)
const { Node } = await import(`${folder}/tandem.js`)
const { tcp } = await import(`${folder}/tcp.js`)
const { websocket } = await import(`${folder}/websocket.js`)

let status = 0
const fail = (text) => {
  console.error(`libp2p: ${`${text}`.slice(0, 600)}`)
  status = 1
}
const here = hereOf(Node)

/** Objects that do not keep to what was agreed: each is a dial that failed, with a text, and the node goes on. */
async function misbehaving (address) {
  const connection = (parts) => ({ read: (async function * () {})(), write: async () => {}, shutdown: async () => {}, close () {}, ...parts })
  const never = new Promise(() => {})
  const closed = []
  const readings = (value, done = false) => ({ next: async () => ({ value, done }) })
  const cases = {
    throws: [() => { throw new Error('it threw at once') }, /it threw at once/],
    rejects: [async () => { throw new Error('it was rejected') }, /it was rejected/],
    'throws a text': [() => { throw 'only a text' }, /only a text/], // eslint-disable-line no-throw-literal
    'throws nothing': [() => { throw undefined }, /does not say why/], // eslint-disable-line no-throw-literal
    'gives nothing': [() => undefined, /gave no object/],
    'gives a text': [async () => 'a connection', /gave no object/],
    'cannot be read': [async () => connection({ read: undefined, close: () => closed.push('read') }), /no iterator read/],
    'cannot be written': [async () => connection({ write: 7, close: () => closed.push('write') }), /no method write/],
    'ends at once': [async () => connection({ close: () => closed.push('end') }), /./],
    'writes throw': [async () => connection({ read: { next: () => never }, write () { throw new Error('no room') } }), /no room/],
    'reads texts': [async () => connection({ read: readings('bytes') }), /something else than bytes/],
    'reads a fake': [async () => connection({ read: readings(new Proxy(new Uint8Array(9), {})) }), /something else than bytes/],
    'reads nothing for ever': [async () => connection({ read: readings(new Uint8Array(0)) }), /without bytes/],
    'reads no result': [async () => connection({ read: { next: () => 7 } }), /gave no result/],
    'reads a getter that throws': [async () => connection({ read: { next: async () => ({ get value () { throw new Error('x') } }) } }), /./],
    'reads bytes that were taken away': [async () => { const bytes = new Uint8Array(9); structuredClone(bytes, { transfer: [bytes.buffer] }); return connection({ read: readings(bytes) }) }, /./],
    'gives its own promise': [() => { const promise = Promise.resolve(7); Object.defineProperty(promise, 'constructor', { get () { throw new Error('no constructor') } }); return promise }, /./],
    'reads garbage': [async () => connection({ read: readings(randomBytes(100)) }), /./],
    'closes with an error': [async () => connection({ close () { throw new Error('not closed') } }), /./],
    'never answers': [() => never, /timed out|Timeout/i],
    'never connects above': [async () => connection({ read: { next: () => never }, write: () => never, close: () => closed.push('late') }), /timed out|Timeout/i]
  }
  const all = await Promise.all(Object.entries(cases).map(async ([name, [dial, expected]]) => {
    const node = await Node.start({ network: 'browser-check', identity: randomBytes(32), WebSocket: null, transports: [{ dial }], peers: [address] })
    const error = await until(`a dial that ${name}`, async () => node.dials()[0]?.error, 30_000)
    if (!expected.test(error)) fail(`a dial that ${name} told: ${error}`)
    if (node.broadcast('TX', 'still here') === 'closed') fail(`a dial that ${name} closed the node`)
    await node.close()
    return name
  }))
  for (const what of ['read', 'write', 'end', 'late']) if (!closed.includes(what)) fail(`a connection was not closed: ${what}`)

  // One that comes when nobody waits any more is closed.
  let bring; let late = 0
  const slow = await Node.start({ network: 'browser-check', identity: randomBytes(32), WebSocket: null, transports: [{ dial: () => new Promise((resolve) => { bring = resolve }) }], peers: [address] })
  await until('the slow dial', async () => bring)
  const answer = bring
  await slow.close()
  answer(connection({ close: () => { late += 1 } }))
  await until('the late connection is closed', async () => late === 1)

  // Listeners: an error of the start, with its text.
  for (const [listen, expected] of [
    [() => { throw new Error('no port') }, /no port/],
    [async () => ({}), /no iterator accepted/],
    [async () => ({ accepted: readings(0), addresses: [] }), /no address/],
    [async () => ({ accepted: readings(0), addresses: ['here'] }), /no multiaddr/]
  ]) {
    const told = await Node.start({ network: 'browser-check', identity: randomBytes(32), WebSocket: null, transports: [{ listen }], listen: '/ip4/127.0.0.1/tcp/1' }).then(() => 'it listens', ({ message }) => message)
    if (!expected.test(told)) fail(`a listener told: ${told}`)
  }
  const loose = await Node.start({
    network: 'browser-check',
    identity: randomBytes(32),
    WebSocket: null,
    listen: '/ip4/127.0.0.1/tcp/1',
    transports: [{ listen: async () => ({ addresses: ['/ip4/127.0.0.1/tcp/1'], accepted: readings({ connection: connection({ read: readings(randomBytes(64)) }), local: '/ip4/127.0.0.1/tcp/1', remote: '/ip4/127.0.0.1/tcp/2' }) }) }]
  })
  // A listener that always has somebody leaves the host its turns.
  await new Promise((resolve) => setTimeout(resolve, 300))
  await loose.close()
  console.log(`${all.length} transports that misbehave: each is a dial that failed, and the node goes on`)
}

/** The program of the manual's section on libp2p, with the network and the address of the relay. */
async function manual (address) {
  const page = readFileSync(new URL('../../docs/browser.md', import.meta.url), 'utf8')
  const block = [...page.matchAll(/^```js\n(.*?)^```/gms)].map(([, text]) => text).find((text) => text.includes('tandem-web/tcp'))
  const aimed = block.replace("'tandem'", "'browser-check'").replace(/'\/ip4\/[^']*PEER_ID'/, `'${address}'`)
    .replace(/'tandem-web(?:\/(\w+))?'/g, (_, name) => `'${folder}/${name ?? 'tandem'}.js'`)
  const place = new URL('./node_modules/.manual/', import.meta.url)
  mkdirSync(place, { recursive: true })
  writeFileSync(new URL('./libp2p.mjs', place), aimed)
  const child = run(process.execPath, new URL('./libp2p.mjs', place).pathname)
  const [listens, told] = [await child.line(), await child.line()]
  if (!listens.startsWith('/ip4/127.0.0.1/tcp/') || !/^p2p \{.*"state"/.test(told)) fail(`the program of the manual told: ${listens}, ${told}`)
  child.kill()
  console.log('the program of the manual does what it says')
}

/** Reads the lines of a program that ends with its input. */
function run (command, ...args) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const ended = new Promise((resolve) => child.once('exit', resolve))
  return { line: async () => (await lines.next()).value, end: async () => { child.stdin.end(); return ended }, kill: () => child.kill() }
}

/** go-libp2p dials a node that listens in Node.js, and is dialled by it. */
async function withGo () {
  const listening = await here({ transports: [tcp()], listen: '/ip4/127.0.0.1/tcp/0' })
  const [address] = listening.node.addresses
  const pings = run(go, 'call', '-only', 'pings', address)
  const pinged = JSON.parse(await pings.line())
  if (!pinged.ok || await pings.end() !== 0) fail(`go pings a node in Node.js: ${JSON.stringify(pinged)}`)
  const peer = run(go, 'topic', address, 'tandem/tx/1', 'author')
  await until('a transaction of go', async () => (await listening.heard('TX')).some((body) => body.startsWith('hello from go')), 60_000)
  let heard = null
  peer.line().then((line) => { heard = line })
  await until('a transaction to go', async () => {
    await listening.send('TX', [`hello from tandem, ${Math.random()}`])
    await new Promise((resolve) => setTimeout(resolve, 200))
    return heard
  }, 60_000)
  if (!/^hello from tandem.*inbound \/meshsub.*outbound \/meshsub/.test(heard)) fail(`go heard ${heard}`)
  if (await peer.end() !== 0) fail('the gossip of go did not end well')

  const server = run(go, 'serve')
  const to = await server.line()
  if (await listening.fetch(to, '/hello') !== 'hi') fail('the service of go answers otherwise')
  const body = randomBytes(1_000_000)
  const answer = await listening.node.fetch(to, '/echo', { method: 'POST', body })
  if (sha256(new Uint8Array(await answer.arrayBuffer())) !== sha256(body)) fail('go sent other bytes back')
  const long = await listening.node.fetch(to, '/bytes/5000000')
  if ((await long.arrayBuffer()).byteLength !== 5_000_000) fail('bytes of go are missing')
  if ((await listening.node.fetch(to, '/nothing')).status !== 404) fail('go has a service at /nothing')
  const given = await listening.node.fetch(to, '/bytes/50000000', { signal: AbortSignal.timeout(50) }).then((answer) => answer.arrayBuffer()).then(() => 'all', ({ name }) => name)
  if (given !== 'TimeoutError') fail(`an exchange that was given up: ${given}`)
  await listening.close()
  await server.end()
  console.log('go-libp2p dials a node in Node.js: five pings, transactions both ways; 1 MB echoed and 5 MB read over its streams')
}

const site = await serve(folder)
const browser = await puppeteer.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', `--ignore-certificate-errors-spki-list=${spki()}`, `--user-data-dir=${scratch}/profile`] })

/** The hash of the key of the certificate, which Chromium trusts by it. */
function spki () {
  return readFileSync(`${cert}.spki`, 'utf8').trim()
}

try {
  const [ws, plain, web, secure] = [await freePort(), await freePort(), await freePort(), await freePort()]
  const listens = ['--listen-ws', `127.0.0.1:${ws}`, ...[`tcp/${plain}`, `tcp/${web}/ws`, `tcp/${secure}/tls/ws`].flatMap((above) => ['--listen-p2p', `/ip4/127.0.0.1/${above}`])]
  const relay = { now: null }
  const restart = async () => {
    relay.now = await start(program, scratch, 'relay', ...listens, '--tls-cert', cert, '--tls-key', key, '--service', 'status', '--max-inbound-per-ip', '50', '--page-origin', site.origin)
  }
  await restart()
  const behind = await start(program, scratch, 'behind', '--mode', 'ws', '--tls-ca', cert, '--peer', `https://localhost:${ws}`)
  await until('the node behind has its relay', async () => (await behind.peers()).length === 1)
  const at = (host, above) => `${host}/tcp/${above}/p2p/${relay.now.peerId}`
  const native = { relay, behind, restart, fail }
  await manual(at('/ip4/127.0.0.1', plain))
  await misbehaving(at('/ip4/127.0.0.1', plain))
  await gossip('Node.js, TCP', (options) => here({ transports: [tcp()], ...options }), at('/ip4/127.0.0.1', plain), native)
  await gossip('Node.js, WebSocket', (options) => here({ transports: [websocket({ WebSocket })], ...options }), at('/ip4/127.0.0.1', `${web}/ws`), native)
  for (const [name, address] of [['Chromium, WebSocket', at('/ip4/127.0.0.1', `${web}/ws`)], ['Chromium, secure WebSocket', at('/dns4/localhost', `${secure}/tls/ws`)]]) {
    const page = await browser.newPage()
    page.on('pageerror', (error) => fail(`${name}: a script failed: ${error}`))
    await page.goto(`${site.origin}/`)
    await page.waitForFunction(() => document.title === 'ready')
    await gossip(name, inPage(page), address, native)
    await page.close()
  }
  if (go) await withGo()
  else console.log('go-libp2p is left out: its peer was not built')
} catch (error) {
  fail(error.stack)
} finally {
  await browser.close()
  stopAll()
  site.close()
}
process.exit(status)
