// Command peer speaks HTTP over libp2p (protocol /http/1.1) with go-libp2p and
// its p2p/http package, as a server and as a client, so that an implementation
// which shares no code with it can be tried against it.
//
//	peer serve            one line on stdout: the multiaddr to call; ends when stdin closes
//	peer call MULTIADDR   one line on stdout: JSON of what held; exit status 0 only if all of it did
//	peer dht MULTIADDR PREFIX FIND PROVIDE [VALUE]
//	                      joins a DHT, finds the node as a provider of FIND, provides PROVIDE, prints its
//	                      peer ID and serves until stdin closes
//	peer relay            carries circuits for others; one line: its multiaddr; ends when stdin closes
//	peer behind MULTIADDR the routes, reached through a relay alone; one line: the multiaddr to call
//	peer cells MULTIADDR...
//	                      tries everything over each address; a line of JSON for each
//	peer half-open MULTIADDR
//	                      pings among 2,000 streams that are left half open; one line
//	peer idontwant MULTIADDR NAME
//	                      publishes long messages around a node until IDONTWANT has gone both ways; one line
//	peer topic MULTIADDR NAME strict|none|author|floodsub
//	                      publishes on a topic of a node and prints the first message of the node there; ends
//	                      when stdin closes
//
// All speak TCP, WebSocket and QUIC, with Yamux over the first two, and a fresh Ed25519 key. INTEROP_SECURITY is noise (the
// default), tls or both, for all but QUIC. INTEROP_LISTEN is the multiaddrs that serve listens on. INTEROP_KEY is the kind of the key:
// ed25519 (the default), rsa, ecdsa or secp256k1. INTEROP_PSK is the key file of a private network, which has no QUIC.
// INTEROP_TLS is a folder with cert.pem and key.pem for secure WebSockets.
//
// The routes are the contract between all programs of this folder (see ../README.md):
//
//	GET  /hello       "hi"
//	POST /echo        the request body, streamed; Content-Length if the request had one, else chunked
//	POST /sink        {"bytes": how many, "blake3": "their hash"}
//	GET  /bytes/{n}   n bytes, byte i being i mod 251
//	GET  /until-close/{n}
//	                  the same, ended only by the end of the stream
//	GET  /cut/{n}     promises n bytes, sends half of them, and ends the stream
package main

import (
	"context"
	"crypto/rand"
	gotls "crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	libp2p "github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	webrtc "github.com/libp2p/go-libp2p/p2p/transport/webrtc"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
)

const (
	usage = "usage: peer serve | peer call [-extra] [-only STEP,..] MULTIADDR | peer dht MULTIADDR PREFIX FIND PROVIDE [VALUE] | peer relay | peer behind MULTIADDR" +
		" | peer topic MULTIADDR NAME strict|none|author|floodsub | peer cells MULTIADDR... | peer half-open MULTIADDR | peer idontwant MULTIADDR NAME"

	// Time that one call run may take. Chosen: every step takes well under a second
	// on a loopback; a peer that never answers must end the run, not hang it.
	callDeadline = 60 * time.Second

	// Largest body that a route sends. Chosen: ten times what the steps ask for.
	maxBytes = 100_000_000

	// Exit status for a wrong command line, distinct from 1 ("a step failed").
	exitUsage = 2
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(exitUsage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Without it, the library uses no circuit that has limits.
	ctx = network.WithAllowLimitedConn(ctx, "circuits are tried too")

	var err error
	switch os.Args[1] {
	case "serve":
		err = serve(ctx, os.Stdin, os.Stdout)
	case "call":
		err = call(ctx, os.Args[2:], os.Stdout)
	case "cells":
		err = cells(ctx, os.Args[2:], os.Stdout)
	case "idontwant":
		err = idontwant(ctx, os.Args[2:], os.Stdout)
	case "half-open":
		err = halfOpenAt(ctx, os.Args[2:], os.Stdout)
	case "relay":
		err = relay(ctx, os.Stdin, os.Stdout)
	case "behind":
		err = behind(ctx, os.Args[2:], os.Stdin, os.Stdout)
	case "dht":
		err = table(ctx, os.Args[2:], os.Stdin, os.Stdout)
	case "topic":
		err = topic(ctx, os.Args[2:], os.Stdin, os.Stdout)
	default:
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(exitUsage)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "peer %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

// newHost starts a host. With no listen address it only dials.
func newHost(listen ...string) (host.Host, error) {
	return newHostWith(nil, listen...)
}

// newHostWith is newHost with further options.
func newHostWith(options []libp2p.Option, listen ...string) (host.Host, error) {
	return newHostOf(os.Getenv("INTEROP_SECURITY"), os.Getenv("INTEROP_KEY"), options, listen...)
}

// newHostOf is newHostWith for a security, or a version of WebRTC's handshake, and a kind of key.
func newHostOf(security, kind string, options []libp2p.Option, listen ...string) (host.Host, error) {
	key, err := newKey(kind)
	if err != nil {
		return nil, err
	}
	if security != "tls" {
		options = append(options, libp2p.Security(noise.ID, noise.New))
	}
	if security == "tls" || security == "both" {
		options = append(options, libp2p.Security(tls.ID, tls.New))
	}
	secure, err := secureWebSocket(os.Getenv("INTEROP_TLS"))
	if err != nil {
		return nil, err
	}
	options = append(options,
		libp2p.Identity(key),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(websocket.New, secure...),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.EnableRelay(),
		libp2p.DisableMetrics(),
	)
	if file := os.Getenv("INTEROP_PSK"); file == "" {
		version := 1
		if security == "webrtc-v2" {
			version = 2
		}
		options = append(options, libp2p.Transport(quic.NewTransport),
			libp2p.Transport(webrtc.New, webrtc.WithDialerVersion(version)))
	} else if key, err := privateKey(file); err != nil {
		return nil, err
	} else {
		options = append(options, libp2p.PrivateNetwork(key))
	}
	if len(listen) == 0 {
		options = append(options, libp2p.NoListenAddrs)
	} else {
		options = append(options, libp2p.ListenAddrStrings(listen...))
	}
	return libp2p.New(options...)
}

// secureWebSocket has the certificate of a folder for those who dial, and trusts it.
func secureWebSocket(folder string) ([]any, error) {
	if folder == "" {
		return nil, nil
	}
	cert := filepath.Join(folder, "cert.pem")
	pair, err := gotls.LoadX509KeyPair(cert, filepath.Join(folder, "key.pem"))
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(cert)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return []any{
		websocket.WithTLSConfig(&gotls.Config{Certificates: []gotls.Certificate{pair}}),
		websocket.WithTLSClientConfig(&gotls.Config{RootCAs: roots}),
	}, nil
}

// privateKey reads the key of a private network.
func privateKey(file string) (pnet.PSK, error) {
	opened, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	return pnet.DecodeV1PSK(opened)
}

// newKey draws a key of a kind.
func newKey(kind string) (crypto.PrivKey, error) {
	kinds := map[string]int{"": crypto.Ed25519, "ed25519": crypto.Ed25519, "rsa": crypto.RSA, "ecdsa": crypto.ECDSA,
		"secp256k1": crypto.Secp256k1}
	number, ok := kinds[kind]
	if !ok {
		return nil, fmt.Errorf("%q is no kind of key", kind)
	}
	key, _, err := crypto.GenerateKeyPairWithReader(number, 2048, rand.Reader)
	return key, err
}

// listenAddresses are the multiaddrs to listen on.
func listenAddresses() []string {
	if addresses := strings.Fields(os.Getenv("INTEROP_LISTEN")); len(addresses) > 0 {
		return addresses
	}
	return []string{"/ip4/127.0.0.1/tcp/0"}
}

// implementation names the library and the version that was linked in.
func implementation() string {
	const path = "github.com/libp2p/go-libp2p"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == path {
				return "go-libp2p " + module.Version
			}
		}
	}
	return "go-libp2p"
}

// pattern is an endless reader whose byte i is i mod 251: a prime, so that a
// block lost, doubled or moved never goes unseen.
type pattern struct{ at int }

func (p *pattern) Read(buffer []byte) (int, error) {
	for i := range buffer {
		buffer[i] = byte((p.at + i) % 251)
	}
	p.at += len(buffer)
	return len(buffer), nil
}

// patternBytes returns the first n bytes of the pattern.
func patternBytes(n int) []byte {
	buffer := make([]byte, n)
	// Reading from a pattern cannot fail.
	_, _ = io.ReadFull(&pattern{}, buffer)
	return buffer
}
