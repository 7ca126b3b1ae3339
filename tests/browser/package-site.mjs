/** A site on this machine that serves the package `tandem-web` and a page for it, as strict as a page can be about what it loads. */

import { createServer } from 'node:http'
import { readFileSync, readdirSync } from 'node:fs'

const TYPES = { js: 'text/javascript', wasm: 'application/wasm', html: 'text/html' }
const PAGE = '<!doctype html><html lang="en"><title>A page</title><link rel="icon" href="data:,"><script type="module" src="/page.js"></script></html>'

/** What runs in the page: it keeps what it hears, for the check to ask. */
const SCRIPT = `
import * as tandem from './tandem-web/tandem.js'
Object.assign(window, { tandem, nodes: {}, heard: {} })
window.join = async (name, { waits = true, ...options }) => {
  const node = await tandem.Node.start(options)
  nodes[name] = node
  const heard = window.heard[name] = { AV: [], PP: [], TX: [], events: [] }
  for (const event of ['connected', 'disconnected', 'closed']) {
    node.addEventListener(event, ({ detail }) => heard.events.push({ event, at: performance.now(), detail: detail?.reason ?? detail?.address ?? null }))
  }
  const listen = async () => { for await (const { tag, body } of node.on('AV', 'PP', 'TX')) heard[tag].push(tag === 'AV' ? new TextDecoder().decode(body) : body) }
  listen()
  return { peer: waits ? await node.connected() : null, peerId: node.peerId }
}
window.sha256 = async (bytes) => [...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))].map((byte) => byte.toString(16).padStart(2, '0')).join('')
document.title = 'ready'
`

/** In a worker of the page: joins, and tells the first vote. */
const WORKER = `
import { Node } from './tandem-web/tandem.js'
onmessage = async ({ data }) => {
  const node = await Node.start(data)
  const votes = node.on('AV')
  postMessage({ joined: await node.connected() })
  postMessage({ vote: new TextDecoder().decode((await votes.next()).value.body) })
  node.close()
}
`

export async function servePackage (folder) {
  const names = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  const files = new Map(names.map(({ parentPath, name }) => {
    const path = `${parentPath}/${name}`
    return [`/tandem-web/${path.slice(folder.length).replace(/^\/+/, '')}`, readFileSync(path)]
  }))
  for (const [path, text] of [['/', PAGE], ['/page.js', SCRIPT], ['/worker.js', WORKER]]) files.set(path, text)
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://x')
    const body = files.get(pathname)
    const type = pathname === '/' || pathname === '/manual' ? TYPES.html : TYPES[pathname.split('.').pop()] ?? 'text/plain'
    // The page of the manual has its script in itself.
    const inline = pathname === '/manual' ? " 'unsafe-inline'" : ''
    const policy = `default-src 'none'; script-src 'self' 'wasm-unsafe-eval'${inline}; worker-src 'self'; img-src 'self' data:; connect-src 'self' ws://127.0.0.1:* wss://127.0.0.1:* http://127.0.0.1:*; base-uri 'none'`
    response.writeHead(body ? 200 : 404, { 'content-type': type, 'content-security-policy': policy, 'x-content-type-options': 'nosniff' })
    response.end(body)
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { origin: `http://127.0.0.1:${server.address().port}`, close: () => server.close(), show: (html) => files.set('/manual', html) }
}
