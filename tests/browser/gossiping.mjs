/** A node as WebAssembly, here or in a page, that gossips over libp2p with one native node and with another one behind that. */

import { createHash, randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import { readFile } from 'node:fs/promises'
import { createServer as createTcpServer } from 'node:net'
import { until } from './nodes.mjs'

const VOTES = 1000
const TRANSACTIONS = 100
const PROPOSAL_BYTES = 5 * 1024 * 1024

export const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex')
export const names = (prefix, count) => Array.from({ length: count }, (_, at) => `${prefix} ${at}`)

/** A site with the package, whose pages may do nothing that they need not. */
export async function serve (folder) {
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
  return { origin: `http://127.0.0.1:${server.address().port}`, close: () => server.close(), show: (path, script) => { pages[path] = script } }
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
import { webrtc } from './webrtc.js'
import { websocket } from './websocket.js'
const joined = ${JOIN}
// The connections that were made, for those who attack them.
window.made = []
class Made extends (window.RTCPeerConnection ?? Object) { constructor (...given) { super(...given); made.push(this) } }
window.join = async ({ version, meets, ...options }) => {
  const transports = [...(version || meets ? [webrtc({ version, RTCPeerConnection: Made })] : []), ...(version ? [] : [websocket()])]
  Object.assign(window, await joined(Node, { transports, ...options }))
}
window.sha256 = async (bytes) => [...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))].map((byte) => byte.toString(16).padStart(2, '0')).join('')
document.title = 'ready'
`
const join = (0, eval)(JOIN)

/** Where a node runs: here, or in a page. Both answer the same questions. */
export const here = (Node) => async (options) => {
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
export const inPage = (page) => async (options) => {
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
export async function gossip (name, open, address, { relay, behind, restart, fail }) {
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

/** A port that is free now, for a node that comes back on it. */
export async function freePort () {
  const server = createTcpServer()
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}
