// Has js-libp2p in a page meet the WebAssembly node in another one over WebRTC, both ways, through a native node as their relay. That is killed once
// they have met, and streams go on.
//
//   node meet.mjs CHROMIUM PROGRAM PACKAGE SCRATCH
//
// Exit status: 0 if all held.
import { build } from 'esbuild'
import puppeteer from 'puppeteer-core'
import { inPage, serve } from '../../browser/gossiping.mjs'
import { checking, start, until } from '../../browser/nodes.mjs'

const [executablePath, program, folder, scratch] = process.argv.slice(2)
const PATIENCE_MS = 20_000
const { fail, run } = checking('js-libp2p meets a page')

const built = await build({
  entryPoints: [new URL('js-libp2p-meets.mjs', import.meta.url).pathname], bundle: true, format: 'esm', write: false, platform: 'browser', logLevel: 'error'
})
const site = await serve(folder)
site.show('/js-libp2p.js', built.outputFiles[0].text)
const browser = await puppeteer.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] })

async function openPage () {
  const page = await browser.newPage()
  page.on('pageerror', (error) => fail(`a script failed: ${error}`))
  await page.goto(`${site.origin}/`)
  await page.waitForFunction(() => document.title === 'ready')
  return page
}

/** Two pages with a place at a relay of their own: ours serves `/hello`, and so does theirs. */
async function pages (name) {
  const relay = await start(program, scratch, name, '--mode', 'p2p', '--reachability', 'relay', '--listen-p2p', '/ip4/127.0.0.1/tcp/0/ws', '--page-origin', site.origin)
  const [ours, theirs] = [await openPage(), await openPage()]
  await inPage(ours)({ meets: true, listen: [`${relay.p2p}/p2p-circuit`] })
  await ours.evaluate(() => { node.serve('/hello', () => new Response('hello from tandem')) })
  const own = await until('our address to meet at', () => ours.evaluate(() => node.addresses.find((address) => address.includes('/p2p-circuit/webrtc/p2p/'))))
  const js = await theirs.evaluate(async (relay, patience) => (await import('/js-libp2p.js')).listen(relay, patience), relay.p2p, PATIENCE_MS)
  return { relay, ours, theirs, own, js }
}

async function theyDial () {
  const { relay, theirs, own } = await pages('relay-1')
  const dialled = await theirs.evaluate(async (address, patience) => (await import('/js-libp2p.js')).dial(address, patience), own, PATIENCE_MS)
  if (!dialled.endsWith('no limits')) fail(`js-libp2p has another connection: ${dialled}`)
  relay.kill()
  const told = await theirs.evaluate(async (patience) => (await import('/js-libp2p.js')).call(patience), PATIENCE_MS)
  if (told !== '5 pings; HTTP/1.1 200 OK') fail(`js-libp2p was told: ${told}`)
  console.log(`js-libp2p dials: ${told}`)
}

async function weDial () {
  const { relay, ours, js } = await pages('relay-2')
  const call = (to) => ours.evaluate(async (to) => (await node.fetch(to, '/hello')).text(), to)
  const first = await call(js)
  relay.kill()
  const second = await call(`/p2p/${js.split('/p2p/').at(-1)}`)
  if (first !== 'hello' || second !== 'hello') fail(`js-libp2p answered ${first}, and ${second} without the relay`)
  console.log(`we dial js-libp2p: ${first}, and without the relay ${second}`)
}

await run(async () => {
  await theyDial()
  await weDial()
}, () => browser.close(), () => site.close())
