/**
 * What js-libp2p 3 uses of Node 22 and Node 20 lacks. Imported first; does
 * nothing on a newer Node.
 */

Promise.withResolvers ??= function withResolvers () {
  let resolve
  let reject
  const promise = new Promise((onResolve, onReject) => {
    resolve = onResolve
    reject = onReject
  })
  return { promise, resolve, reject }
}

// Node 22 has this by itself.
if (globalThis.WebSocket == null) {
  globalThis.WebSocket = (await import('ws')).WebSocket
}
