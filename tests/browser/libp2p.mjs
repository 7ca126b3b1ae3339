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
import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { readFile } from 'node:fs/promises'
import { createServer as createTcpServer } from 'node:net'
import { createInterface } from 'node:readline'
import puppeteer from 'puppeteer-core'
import WebSocket from 'ws'
import { start, stopAll, until } from './nodes.mjs'

const [executablePath, program, folder, scratch, cert, key, go] = process.argv.slice(2)
const { Node } = await import(`${folder}/tandem.js`)
const { tcp } = await import(`${folder}/tcp.js`)
const { websocket } = await import(`${folder}/websocket.js`)
const VOTES = 1000
const TRANSACTIONS = 100
const PROPOSAL_BYTES = 5 * 1024 * 1024

let status = 0
const fail = (text) => {
  console.error(`libp2p: ${`${text}`.slice(0, 600)}`)
  status = 1
}
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex')
const names = (prefix, count) => Array.from({ length: count }, (_, at) => `${prefix} ${at}`)
const text = (bytes) => new TextDecoder().decode(bytes)

/** A site with the package, whose pages may do nothing that they need not. */
async function serve () {
  const types = { js: 'text/javascript', wasm: 'application/wasm', html: 'text/html' }
  const pages = { '/': '<!doctype html><html lang="en"><title>A page</title><link rel="icon" href="data:,"><script type="module" src="/page.js"></script></html>', '/page.js': SCRIPT }
  const server = createServer(async (request, response) => {
    const path = new URL(request.url, 'http://x').pathname
    const body = pages[path] ?? await readFile(folder + path).catch(() => null)
    const policy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; img-src data:; connect-src 'self' ws://127.0.0.1:* wss://localhost:*; base-uri 'none'"
    response.writeHead(body ? 200 : 404, { 'content-type': types[path === '/' ? 'html' : path.split('.').pop()], 'content-security-policy': policy })
    response.end(body)
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { origin: `http://127.0.0.1:${server.address().port}`, close: () => server.close() }
}

/** A node, and what it has heard, for a page and for this program. */
const JOIN = `async (Node, options) => {
  const node = await Node.start({ network: 'browser-check', identity: crypto.getRandomValues(new Uint8Array(32)), WebSocket: null, ...options })
  const heard = { AV: [], PP: [], TX: [] }
  const listen = async () => { for await (const { tag, body } of node.on('AV', 'PP', 'TX')) heard[tag].push(tag === 'PP' ? body : new TextDecoder().decode(body)) }
  listen()
  return { node, heard }
}`
const SCRIPT = `
import { Node } from './tandem.js'
import { websocket } from './websocket.js'
const joined = ${JOIN}
window.join = async (options) => { Object.assign(window, await joined(Node, { transports: [websocket()], ...options })) }
window.sha256 = async (bytes) => [...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))].map((byte) => byte.toString(16).padStart(2, '0')).join('')
document.title = 'ready'
`
const join = (0, eval)(JOIN)

/** Where a node runs: here, or in a page. Both answer the same questions. */
const here = async (options) => {
  const { node, heard } = await join(Node, options)
  return {
    node,
    peerId: async () => node.peerId,
    peers: async () => node.peers(),
    heard: async (tag) => [...heard[tag]],
    count: async (tag) => heard[tag].length,
    proposal: async (at) => sha256(heard.PP[at]),
    send: async (tag, bodies) => bodies.map((body) => node.broadcast(tag, body)),
    fetch: async (peer, path, init) => (await node.fetch(peer, path, init)).text(),
    dials: async () => node.dials(),
    close: () => node.close()
  }
}
const inPage = (page) => async (options) => {
  await page.evaluate((options) => window.join(options), options)
  return {
    peerId: () => page.evaluate(() => node.peerId),
    peers: () => page.evaluate(() => node.peers()),
    heard: (tag) => page.evaluate((tag) => heard[tag], tag),
    count: (tag) => page.evaluate((tag) => heard[tag].length, tag),
    proposal: (at) => page.evaluate((at) => sha256(heard.PP[at]), at),
    send: (tag, bodies) => page.evaluate((tag, bodies) => bodies.map((body) => node.broadcast(tag, body)), tag, bodies),
    fetch: (peer, path, init) => page.evaluate(async (peer, path, init) => (await node.fetch(peer, path, init)).text(), peer, path, init),
    dials: () => page.evaluate(() => node.dials()),
    close: () => page.evaluate(() => node.close())
  }
}

/** Everything that a node does with its one peer, which is cut off and comes back on the same ports. */
async function gossip (name, open, address, { relay, behind, restart }) {
  let began = performance.now()
  const joined = await open({ peers: [address] })
  const own = await joined.peerId()
  await until(`${name}: the link`, async () => (await joined.peers()).some(({ peerId, transport }) => peerId === relay.now.peerId && transport === 'p2p'))
  await until(`${name}: the link at the relay`, async () => (await relay.now.peers()).some(({ peer_id: id, transport }) => id === own && transport === 'p2p'))
  await until(`${name}: a ping`, async () => (await joined.peers())[0]?.rttMs !== null)
  console.log(`${name}: joined in ${Math.round(performance.now() - began)} ms`)

  began = performance.now()
  await behind.send('AV', names(`${name}, vote`, VOTES))
  await until(`${name}: every vote`, async () => await joined.count('AV') >= VOTES)
  const votes = await joined.heard('AV')
  if (votes.length !== VOTES || new Set(votes).size !== VOTES) fail(`${name}: of ${VOTES} votes came ${votes.length}, ${new Set(votes).size} of them different`)
  const took = Math.round(performance.now() - began)
  const proposal = randomBytes(PROPOSAL_BYTES)
  began = performance.now()
  await behind.send('PP', [proposal])
  await until(`${name}: the proposal`, async () => await joined.count('PP') === 1)
  if (await joined.proposal(0) !== sha256(proposal)) fail(`${name}: the proposal was changed on its way`)
  console.log(`${name}: ${VOTES} votes in ${took} ms, a proposal of ${PROPOSAL_BYTES} bytes in ${Math.round(performance.now() - began)} ms`)

  const transactions = await behind.heard('TX')
  const sent = await joined.send('TX', names(`${name}, transaction`, TRANSACTIONS))
  if (sent.some((admission) => admission !== 'queued')) fail(`${name}: a transaction was not taken: ${sent}`)
  await until(`${name}: every transaction`, async () => new Set(transactions).size === TRANSACTIONS)
  if (transactions.length !== TRANSACTIONS) fail(`${name}: ${TRANSACTIONS} transactions were handled ${transactions.length} times`)

  const health = JSON.parse(await joined.fetch(relay.now.peerId, '/health'))
  if (health.mode !== 'hybrid') fail(`${name}: another node answered: ${JSON.stringify(health)}`)
  if (JSON.parse(await joined.fetch(address, '/health')).mode !== 'hybrid') fail(`${name}: the address leads elsewhere`)

  relay.now.kill()
  await until(`${name}: the link ends`, async () => (await joined.peers()).length === 0, 60_000)
  began = performance.now()
  await restart()
  await until(`${name}: the link comes back`, async () => (await joined.peers()).length === 1, 60_000)
  console.log(`${name}: back ${Math.round(performance.now() - began)} ms after its peer began to come back`)
  await until('the node behind is back too', async () => (await behind.peers()).some(({ peer_id: id }) => id === relay.now.peerId), 60_000)
  await behind.send('AV', [`${name}, a vote after`])
  await until(`${name}: the vote after`, async () => (await joined.heard('AV')).includes(`${name}, a vote after`))
  await joined.close()
  await until(`${name}: the relay sees it go`, async () => !(await relay.now.peers()).some(({ peer_id: id }) => id === own))
}

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

const site = await serve()
const browser = await puppeteer.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', `--ignore-certificate-errors-spki-list=${spki()}`, `--user-data-dir=${scratch}/profile`] })

/** The hash of the key of the certificate, which Chromium trusts by it. */
function spki () {
  return readFileSync(`${cert}.spki`, 'utf8').trim()
}

/** A port that is free now, for a node that comes back on it. */
async function freePort () {
  const server = createTcpServer()
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
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
  const native = { relay, behind, restart }
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
