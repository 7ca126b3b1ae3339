#!/usr/bin/env node
/**
 * Has the WebAssembly node in a page gossip over WebRTC Direct: in Chromium with both versions of the handshake, and with the second one where
 * the browser forbids the first; in Firefox with both.
 *
 *   webrtc.mjs BROWSER PROGRAM PACKAGE SCRATCH
 *
 * The node's only peer is a native one, by libp2p alone, and behind that is one that has gossip over WebSocket alone. Exit status 0 if all of it
 * held; each thing that did not is a line on stderr.
 */

import { createSocket } from 'node:dgram'
import { readFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import puppeteer from 'puppeteer-core'
import { freePort, gossip, inPage, serve } from './gossiping.mjs'
import { start, stopAll, until } from './nodes.mjs'

const [executablePath, program, folder, scratch] = process.argv.slice(2)
const isFirefox = executablePath.includes('firefox')
const browserName = isFirefox ? 'Firefox' : 'Chromium'
/** Chromium's trial that forbids a page to change the description of its own end, as version 1 does. */
const NO_MUNGING = '--force-fieldtrials=WebRTC-NoSdpMangleUfrag/Enabled/'

let status = 0
const fail = (text) => {
  console.error(`WebRTC: ${`${text}`.slice(0, 600)}`)
  status = 1
}

/** Firefox reaches nobody over WebRTC at a loopback address. */
const host = isFirefox
  ? Object.values(networkInterfaces()).flat().find(({ family, internal }) => family === 'IPv4' && !internal)?.address
  : '127.0.0.1'

const launch = (...args) => puppeteer.launch(isFirefox
  ? { browser: 'firefox', executablePath, headless: true }
  : { executablePath, args: ['--no-sandbox', '--disable-gpu', ...args] })

/** A UDP port that is free now, for a node that comes back on it. */
async function freeUdpPort () {
  const socket = createSocket('udp4')
  await new Promise((resolve) => socket.bind(0, '127.0.0.1', resolve))
  const { port } = socket.address()
  await new Promise((resolve) => socket.close(resolve))
  return port
}

async function openPage (browser, name, site) {
  const page = await browser.newPage()
  page.on('pageerror', (error) => fail(`${name}: a script failed: ${error}`))
  page.on('console', (message) => { if (message.type() === 'error') fail(`${name}: the console: ${message.text()}`) })
  await page.goto(`${site.origin}/`)
  await page.waitForFunction(() => document.title === 'ready')
  return page
}

/** The program of the manual's section on WebRTC Direct, with the network and the address of the relay. */
async function manual (browser, site, { address, peerId }) {
  const text = readFileSync(new URL('../../docs/browser.md', import.meta.url), 'utf8')
  const block = [...text.matchAll(/^```js\n(.*?)^```/gms)].map(([, text]) => text).find((text) => text.includes('tandem-web/webrtc'))
  const aimed = block.replace("'tandem'", "'browser-check'").replace(/'\/ip4\/[^']*PEER_ID'/, `'${address}'`)
    .replace(/'tandem-web(?:\/(\w+))?'/g, (_, name) => `'./${name ?? 'tandem'}.js'`)
  site.show('/manual.js', aimed)
  const page = await openPage(browser, 'the manual', site)
  const told = []
  page.on('console', (message) => told.push(message.text()))
  await page.evaluate(() => import('/manual.js').then(() => {}))
  await until('the program of the manual tells its peer', async () => told.includes(peerId))
  await page.close()
  console.log('the program of the manual does what it says')
}

const site = await serve(folder)
let browser = null
try {
  const [ws, udp] = [await freePort(), await freeUdpPort()]
  const relay = { now: null }
  const restart = async () => {
    relay.now = await start(program, scratch, 'relay', '--listen-ws', `127.0.0.1:${ws}`, '--listen-p2p', `/ip4/${host}/udp/${udp}/webrtc-direct`, '--service', 'status', '--max-inbound-per-ip', '50')
  }
  await restart()
  const behind = await start(program, scratch, 'behind', '--mode', 'ws', '--peer', `127.0.0.1:${ws}`)
  await until('the node behind has its relay', async () => (await behind.peers()).length === 1)
  const native = { relay, behind, restart, fail }
  const address = relay.now.addresses.find((address) => address.includes('/webrtc-direct/certhash/'))
  const ways = [[2], [1], ...(isFirefox ? [] : [[2, NO_MUNGING]])]
  for (const [version, ...flags] of ways) {
    const name = `${browserName}, WebRTC v${version}${flags.length > 0 ? ', where v1 is forbidden' : ''}`
    browser = await launch(...flags)
    if (version === 2 && flags.length === 0) await manual(browser, site, { address, peerId: relay.now.peerId })
    const page = await openPage(browser, name, site)
    await gossip(name, (options) => inPage(page)({ version, ...options }), address, native)
    await browser.close()
  }
} catch (error) {
  fail(error.stack)
} finally {
  await browser?.close()
  stopAll()
  site.close()
}
process.exit(status)
