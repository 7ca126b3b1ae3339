// Calls a node from pages in headless Chromium, one after the other; a line of JSON for each.
//
//   node call.mjs CHROMIUM ADDRESS
//   node call.mjs CHROMIUM ADDRESS TOPIC
//
// With a topic, js-libp2p publishes on it until it hears the node there. With INTEROP_FIREFOX, the program of Firefox, the pages are
// there; it reaches nobody over WebRTC at a loopback address. Exit status: 0 if all held.
import { createServer } from 'node:http'
import { build } from 'esbuild'
import puppeteer from 'puppeteer-core'

const [, , chromium, address, topic] = process.argv
const asked = topic === undefined
  ? { protocol: '/tandem-interop/echo/1', bytes: 1_000_000, patience: 15_000 }
  : { name: topic, patience: 60_000 }
// Chromium's trial that forbids a page to change the description of its own end, as version 1 does.
const NO_MUNGING = '--force-fieldtrials=WebRTC-NoSdpMangleUfrag/Enabled/'
const overWebRtc = [
  { name: 'js-libp2p, v1', page: 'js-libp2p', flags: [], holds: true },
  { name: 'own JavaScript, v2', page: 'own', flags: [], holds: true },
  { name: 'own JavaScript, v2, where v1 is forbidden', page: 'own', flags: [NO_MUNGING], holds: true },
  { name: 'js-libp2p, v1, where it is forbidden', page: 'js-libp2p', flags: [NO_MUNGING], holds: false }
]
const firefox = process.env.INTEROP_FIREFOX
const ways = address.includes('/webrtc-direct') ? overWebRtc.filter(way => !firefox || way.flags.length === 0) : [{ name: 'js-libp2p', page: 'js-libp2p', flags: [], holds: true }]

const bundle = async page => {
  const built = await build({
    entryPoints: [new URL(`${page}.mjs`, import.meta.url).pathname], bundle: true, format: 'esm', write: false, platform: 'browser', logLevel: 'error'
  })
  return built.outputFiles[0].text
}
const pages = Object.fromEntries(await Promise.all(['js-libp2p', 'own'].map(async page => [`/${page}.js`, await bundle(page)])))
const server = createServer((request, response) => {
  const script = pages[request.url]
  response.writeHead(200, { 'content-type': script === undefined ? 'text/html' : 'text/javascript' })
  response.end(script ?? '<!doctype html><meta charset=utf-8><title>interop</title>')
})
await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
const origin = `http://127.0.0.1:${server.address().port}`

let held = true
for (const way of ways) {
  const browser = await puppeteer.launch(firefox
    ? { executablePath: firefox, browser: 'firefox', headless: true }
    : { executablePath: chromium, headless: true, args: ['--no-sandbox', ...way.flags] })
  let result
  try {
    const tab = await browser.newPage()
    await tab.goto(origin)
    result = await tab.evaluate(async (page, address, asked) => {
      try {
        const { call, topic } = await import(`/${page}.js`)
        return { ok: true, told: await (asked.name ? topic : call)(address, asked) }
      } catch (error) {
        return { ok: false, told: [error, ...(error.errors ?? [])].map(String).join('; ') }
      }
    }, way.page, address, asked)
  } catch (error) {
    result = { ok: false, told: String(error) }
  }
  await browser.close()
  const ok = result.ok === way.holds
  held = held && ok
  console.log(JSON.stringify({ way: way.name, ok, told: result.told }))
}
server.close()
process.exit(held ? 0 : 1)
