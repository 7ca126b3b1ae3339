#!/usr/bin/env node
/**
 * The node as WebAssembly serves HTTP over libp2p: in Node.js over TCP, in Chromium and Firefox over WebSocket.
 *
 *   serve.mjs PROGRAM CALLER PACKAGE SCRATCH GO BROWSER...
 *
 * PROGRAM is `tandem`, CALLER is `http_caller` of the test kit, a native node that calls and attacks; GO is the peer of tests/interop in Go, or nothing. Exit status 0 if
 * all of it held; each thing that did not is a line on stderr.
 */

import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { promisify } from 'node:util'
import puppeteer from 'puppeteer-core'
import { checking, run, until } from './nodes.mjs'
import { servePackage } from './package-site.mjs'

const [program, caller, folder, scratch, go, ...browsers] = process.argv.slice(2)
const { Node } = await import(`${folder}/tandem.js`)
const { tcp } = await import(`${folder}/tcp.js`)
/** That of the test kit's nodes. */
const network = 'conformance-v1'

const { fail, run: check } = checking('HTTP')

/** The services that the callers expect, for a page and for this program. `told` gets what the handlers saw. */
const SERVICES = `(node, told) => {
  const patterned = (count, from = 0) => Uint8Array.from({ length: count }, (_, at) => (from + at) % 251)
  const bytes = (request) => {
    let [sent, count] = [0, Number(new URL(request.url).pathname.split('/').pop())]
    // Pieces of a whole number of patterns.
    const pull = (controller) => {
      if (sent >= count) return controller.close()
      controller.enqueue(patterned(Math.min(251 * 256, count - sent)))
      sent += 251 * 256
    }
    request.signal.addEventListener('abort', () => told('gone'))
    return new Response(new ReadableStream({ pull }))
  }
  node.serve('/hello', (request, { peerId }) => {
    told(request.method + ' ' + peerId)
    return new Response('hi')
  })
  node.serve('/echo', (request) => new Response(request.body))
  node.serve('/read', async (request) => Response.json({ method: request.method, type: request.headers.get('content-type'), host: request.headers.has('host'), body: await request.clone().text() + await request.text() }))
  node.serve('/bytes/', bytes)
  node.serve('/throws', () => { throw new Error('expected here') })
  node.serve('/rejects', async () => { throw new Error('expected here') })
  node.serve('/never', () => new Promise(() => {}))
  node.serve('/breaks', () => new Response(new ReadableStream({ start (controller) { controller.enqueue(new Uint8Array(9)) }, pull (controller) { controller.error(new Error('expected here')) } })))
  node.serve('/texts', () => new Response(new ReadableStream({ start (controller) { controller.enqueue('a text') } })))
  node.serve('/nothing-like', () => ({ no: 'response' }))
}`
const serve = (0, eval)(SERVICES)

async function called (name, ...args) {
  const { stdout } = await promisify(execFile)(caller, args)
  console.log(`${name}:\n${stdout.replace(/^/gm, '  ').trimEnd()}`)
}

const OPTIONS = { network, WebSocket: null, limits: { serveMs: 2000 } }

async function inNode () {
  globalThis.reportError = ({ message }) => { if (!/expected here|bytes|undefined|iterable|chunks of the body/.test(message)) fail(`a handler failed: ${message}`) }
  const node = await Node.start({ ...OPTIONS, identity: randomBytes(32), transports: [tcp()], listen: '/ip4/127.0.0.1/tcp/0' })
  const told = []
  serve(node, (what) => told.push(what))
  const [address] = node.addresses
  await called('a native node, over TCP', 'call', address)
  if (!told.some((what) => /^GET 12D3KooW/.test(what))) fail(`the caller has no name: ${told[0]}`)
  const { requests, incidents } = node.served()
  if (requests < 110 || incidents.failed < 2) fail(`served: ${JSON.stringify({ requests, incidents })}`)

  // The command line, as a user would.
  const tandem = async (...args) => (await promisify(execFile)(program, ['http', ...args])).stdout
  if (await tandem(`${address}/hello`) !== 'hi') fail('the command line gets another answer')
  const read = JSON.parse(await tandem('POST', `${address}/read?a=b`, '-d', 'a text', '-H', 'content-type: text/x'))
  if (read.method !== 'POST' || read.type !== 'text/x' || read.body !== 'a texta text' || read.host !== true) fail(`a request was read as ${JSON.stringify(read)}`)
  for (const path of ['/texts', '/nothing-like']) if (await tandem(`${address}${path}`).then(() => true, () => false)) fail(`${path} is answered`)

  // What cannot be served is refused at once.
  const twice = (path, handler) => { try { node.serve(path, handler); return 'taken' } catch (error) { return error.name } }
  if (twice('/hello', () => {}) !== 'TypeError' || twice('hello', () => {}) !== 'TypeError' || twice('/a?b', () => {}) !== 'TypeError' || twice('/a', 7) !== 'TypeError') fail('a service that is none was taken')
  const end = node.serve('/once', () => new Response('once'))
  if (await tandem(`${address}/once`) !== 'once') fail('a service that was added later is not there')
  end()
  if (await tandem(`${address}/once`).then(() => true, () => false)) fail('a service goes on after its end')

  // Clients that misbehave: each is cut and counted, and an honest one is served meanwhile.
  const before = node.served().incidents
  await called('clients that misbehave', 'attack', address)
  const after = node.served().incidents
  for (const reason of ['head_timeout', 'stalled', 'malformed', 'no_host', 'ambiguous', 'head_too_long']) {
    if (after[reason] <= before[reason]) fail(`no client is counted as ${reason}: ${JSON.stringify(after)}`)
  }
  await until('the handler is told that its client is gone', async () => told.includes('gone'))
  console.log(`counted: ${JSON.stringify(after)}`)

  await manual()
  if (go) {
    const peer = run(go, 'call', '-only', 'hello,echo,echo-chunked,bytes,many,well-known,namespaced,not-found', address)
    const { ok, steps } = JSON.parse(await peer.line())
    for (const step of steps) console.log(`  go-libp2p, ${step.name}: ${step.ms} ms ${step.note ?? ''}`)
    if (!ok || await peer.end() !== 0) fail(`go-libp2p: ${JSON.stringify(steps.filter((step) => !step.ok))}`)
  } else console.log('go-libp2p is left out: its peer was not built')

  await node.close()
  if (twice('/late', () => {}) !== 'TandemError') fail('a node that was closed serves')
  const alone = await Node.start({ ...OPTIONS, identity: null })
  try { alone.serve('/', () => {}); fail('a node without libp2p serves') } catch ({ code }) { if (code !== 'transport') fail(`a node without libp2p: ${code}`) }
  await alone.close()
  delete globalThis.reportError
}

/** The program of the manual. */
async function manual () {
  const page = readFileSync(new URL('../../docs/browser.md', import.meta.url), 'utf8')
  const block = [...page.matchAll(/^```js\n(.*?)^```/gms)].map(([, text]) => text).find((text) => text.includes('node.serve('))
  const place = `${scratch}/manual.mjs`
  writeFileSync(place, block.replace(/'tandem-web(?:\/(\w+))?'/g, (_, name) => `'${folder}/${name ?? 'tandem'}.js'`))
  const child = run(process.execPath, place)
  const address = await child.line()
  const { stdout } = await promisify(execFile)(program, ['http', 'POST', `${address}/echo/a`, '-d', 'of the manual'])
  if (stdout !== 'of the manual' || !/^12D3KooW\w+ POST \/echo\/a$/.test(await child.line())) fail(`the program of the manual answered ${stdout}`)
  child.kill()
  console.log('the program of the manual does what it says')
}

async function inPage (executablePath) {
  const name = executablePath.split('/').pop()
  const site = await servePackage(folder)
  const browser = await puppeteer.launch(executablePath.includes('firefox')
    ? { browser: 'firefox', executablePath }
    : { executablePath, args: ['--no-sandbox', '--disable-gpu', `--user-data-dir=${scratch}/profile-${name}`] })
  try {
    const page = await browser.newPage()
    page.on('pageerror', (error) => { if (!/expected here/.test(error)) fail(`${name}: a script failed: ${error}`) })
    await page.goto(`${site.origin}/`)
    await page.waitForFunction(() => document.title === 'ready')
    const native = run(caller, 'call-whom', site.origin)
    const address = await native.line()
    await page.evaluate(`window.services = ${SERVICES}`)
    await page.evaluate(async (options, address) => {
      const { websocket } = await import('/tandem-web/websocket.js')
      window.told = []
      window.serving = await tandem.Node.start({ ...options, identity: crypto.getRandomValues(new Uint8Array(32)), transports: [websocket()] })
      services(serving, (what) => told.push(what))
      serving.addPeer(address)
      await serving.connected()
    }, OPTIONS, address)
    const lines = []
    for (let line = await native.line(); line !== undefined; line = await native.line()) lines.push(line)
    if (await native.end() !== 0) fail(`${name}: the native caller failed after ${lines.at(-1)}`)
    console.log(`${name}, by a native node, over WebSocket:\n  ${lines.join('\n  ')}`)
    const { requests } = await page.evaluate(() => serving.served())
    if (requests < 110) fail(`${name}: it served ${requests}`)
    await page.evaluate(() => serving.close())
  } finally {
    await browser.close()
    site.close()
  }
}

await check(async () => {
  await inNode()
  for (const browser of browsers) await inPage(browser)
})
