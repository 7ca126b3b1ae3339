package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	libp2p "github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	libp2phttp "github.com/libp2p/go-libp2p/p2p/http"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

const (
	// echoProtocol sends back what comes.
	echoProtocol protocol.ID = "/tandem-interop/echo/1"
	// perfProtocol measures. Source: libp2p/specs, perf/perf.md.
	perfProtocol protocol.ID = "/perf/1.0.0"
	// Streams that nobody goes on with.
	halfOpenStreams = 2000
	// Time to open one of them. Chosen: QUIC makes us wait where its peer allows no more.
	halfOpenDeadline = 300 * time.Millisecond
	// Time until a ping is answered among them. Chosen: twice what libp2p gives a negotiation.
	amongDeadline = 20 * time.Second
	// Time for one address. Chosen: each takes well under a second, and amongDeadline more.
	wayDeadline = 40 * time.Second
	// Bytes of a measurement, each way.
	perfBytes = 1_000_000
)

// way is one row of the report: an address, a security and a kind of key.
type way struct {
	Way    string   `json:"way"`
	OK     bool     `json:"ok"`
	Failed []string `json:"failed,omitempty"`
	Notes  []string `json:"notes,omitempty"`
}

// cells tries every step over each address, with each security and with a key of each kind, each over a connection of its own. One
// line of JSON for each.
func cells(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	held := true
	for _, address := range args {
		securities, kinds := []string{"noise", "tls"}, []string{"ed25519", "secp256k1", "ecdsa", "rsa"}
		if strings.Contains(address, "/p2p-circuit") {
			kinds = kinds[:1]
		}
		if strings.Contains(address, "/quic-v1") {
			securities = []string{"quic"}
		}
		if strings.Contains(address, "/webrtc-direct") {
			securities = []string{"webrtc-v1", "webrtc-v2"}
		}
		for _, security := range securities {
			for _, kind := range kinds {
				row := cell(ctx, address, security, kind)
				held = held && row.OK
				if err := json.NewEncoder(stdout).Encode(row); err != nil {
					return err
				}
			}
		}
	}
	if !held {
		return errors.New("a step failed")
	}
	return nil
}

func cell(ctx context.Context, address, security, kind string) way {
	ctx, cancel := context.WithTimeout(ctx, wayDeadline)
	defer cancel()
	row := way{Way: strings.Join([]string{address[:strings.LastIndex(address, "/p2p/")], security, kind}, " ")}
	server, err := peer.AddrInfoFromString(address)
	var h host.Host
	if err == nil {
		h, err = newHostOf(security, kind, []libp2p.Option{libp2p.ResourceManager(&network.NullResourceManager{})})
	}
	if err == nil {
		defer h.Close()
		err = h.Connect(ctx, *server)
	}
	if err != nil {
		row.Failed = []string{"connect: " + err.Error()}
		return row
	}
	type namedStep struct {
		name string
		run  func(context.Context, host.Host, peer.ID) (string, error)
	}
	steps := []namedStep{{"pings", pingsOnOne}, {"five", pingsOnFive}, {"identify", identified}, {"hello", helloOnStream}}
	if strings.Contains(address, "/p2p-circuit") {
		steps = append(steps, namedStep{"forgotten", forgotten})
	} else {
		// A circuit carries 128 KiB.
		steps = append(steps, namedStep{"stream", echoedStream}, namedStep{"perf", measured})
	}
	for _, step := range steps {
		note, err := step.run(ctx, h, server.ID)
		if err != nil {
			row.Failed = append(row.Failed, step.name+": "+err.Error())
		} else if note != "" {
			row.Notes = append(row.Notes, step.name+": "+note)
		}
	}
	row.OK = len(row.Failed) == 0
	return row
}

// pingsOnOne sends all of them on one stream.
func pingsOnOne(ctx context.Context, h host.Host, id peer.ID) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := ping.Ping(ctx, h, id)
	for number := range pingsInARow {
		if answer, open := <-answers; !open || answer.Error != nil {
			return "", fmt.Errorf("ping %d: %w", number, answer.Error)
		}
	}
	return "", nil
}

// pingsOnFive sends one on each of five streams. This library allows a peer two at a time, so they follow each other.
func pingsOnFive(ctx context.Context, h host.Host, id peer.ID) (string, error) {
	for number := range pingsInARow {
		if err := pingOnce(ctx, h, id); err != nil {
			return "", fmt.Errorf("ping %d: %w", number, err)
		}
	}
	return "", nil
}

// pingOnce sends one on a stream of its own.
func pingOnce(ctx context.Context, h host.Host, id peer.ID) error {
	stream, err := h.NewStream(ctx, id, ping.ID)
	if err != nil {
		return err
	}
	defer stream.Close()
	sent, heard := patternBytes(ping.PingSize), make([]byte, ping.PingSize)
	if _, err := stream.Write(sent); err != nil {
		return err
	}
	if _, err := io.ReadFull(stream, heard); err != nil {
		return err
	}
	if !bytes.Equal(sent, heard) {
		return errors.New("another one came back")
	}
	return nil
}

// identified checks what the other side has told of itself.
func identified(_ context.Context, h host.Host, id peer.ID) (string, error) {
	agent, err := h.Peerstore().Get(id, "AgentVersion")
	if err != nil {
		return "", err
	}
	protocols, err := h.Peerstore().GetProtocols(id)
	if err != nil {
		return "", err
	}
	for _, name := range []protocol.ID{ping.ID, libp2phttp.ProtocolIDForMultistreamSelect} {
		if !slices.Contains(protocols, name) {
			return "", fmt.Errorf("%s is not among %v", name, protocols)
		}
	}
	return fmt.Sprint(agent), nil
}

// echoedStream sends a MiB on a stream of our own, half-closes it, and reads the same bytes back.
func echoedStream(ctx context.Context, h host.Host, id peer.ID) (string, error) {
	stream, err := h.NewStream(ctx, id, echoProtocol)
	if err != nil {
		return "", err
	}
	defer stream.Close()
	sent := patternBytes(echoBytes)
	written := make(chan error, 1)
	go func() {
		_, err := stream.Write(sent)
		written <- errors.Join(err, stream.CloseWrite())
	}()
	got, err := io.ReadAll(io.LimitReader(stream, echoBytes+1))
	if err := errors.Join(err, <-written); err != nil {
		return "", err
	}
	if !bytes.Equal(sent, got) {
		return "", fmt.Errorf("%d other bytes came back", len(got))
	}
	return "", nil
}

// helloOnStream is one request of the library's HTTP client.
//
// The client forgets the context of a request that has no deadline, or one beyond ten seconds, and with it that a
// connection with limits is allowed; it then waits for a direct one. Source: go-libp2p, p2p/http/libp2phttp.go,
// streamRoundTripper.RoundTrip. A nearer deadline keeps the context.
func helloOnStream(ctx context.Context, h host.Host, id peer.ID) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, libp2phttp.DefaultNewStreamTimeout-time.Second)
	defer cancel()
	return requestHello(ctx, h, id)
}

// forgotten holds if the same request without a deadline is not sent over a circuit: whoever makes it waits for a direct connection.
func forgotten(_ context.Context, h host.Host, id peer.ID) (string, error) {
	waits := libp2phttp.DefaultNewStreamTimeout
	libp2phttp.DefaultNewStreamTimeout = time.Second
	defer func() { libp2phttp.DefaultNewStreamTimeout = waits }()
	allowed := network.WithAllowLimitedConn(context.Background(), "circuits are tried too")
	_, err := requestHello(allowed, h, id)
	if err == nil {
		return "", errors.New("the library has mended it: docs/interop.md says otherwise")
	}
	return err.Error(), nil
}

func requestHello(ctx context.Context, h host.Host, id peer.ID) (string, error) {
	client := libp2phttp.Host{StreamHost: h}
	tripper, err := client.NewConstrainedRoundTripper(peer.AddrInfo{ID: id})
	if err != nil {
		return "", err
	}
	return helloWith(ctx, &http.Client{Transport: tripper}, "/hello")
}

// measured sends and gets a million bytes by the protocol for measurements, which this library has none of.
func measured(ctx context.Context, h host.Host, id peer.ID) (string, error) {
	stream, err := h.NewStream(ctx, id, perfProtocol)
	if err != nil {
		return "", err
	}
	defer stream.Close()
	if _, err := stream.Write(binary.BigEndian.AppendUint64(nil, perfBytes)); err != nil {
		return "", err
	}
	if _, err := stream.Write(make([]byte, perfBytes)); err != nil {
		return "", err
	}
	if err := stream.CloseWrite(); err != nil {
		return "", err
	}
	count, err := io.Copy(io.Discard, io.LimitReader(stream, perfBytes+1))
	if err == nil && count != perfBytes {
		err = fmt.Errorf("%d bytes came", count)
	}
	return "", err
}

// halfOpenAt opens streams, begins to negotiate on each, goes on with none, and then pings until there is an answer.
func halfOpenAt(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) != 1 {
		return errors.New(usage)
	}
	server, err := peer.AddrInfoFromString(args[0])
	if err != nil {
		return err
	}
	h, err := newHostWith([]libp2p.Option{libp2p.ResourceManager(&network.NullResourceManager{})})
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.Connect(ctx, *server); err != nil {
		return err
	}
	note, err := halfOpen(ctx, h, server.ID)
	if err == nil {
		fmt.Fprintln(stdout, note)
	}
	return err
}

func halfOpen(ctx context.Context, h host.Host, id peer.ID) (string, error) {
	opened := 0
	for opened < halfOpenStreams {
		waits, cancel := context.WithTimeout(ctx, halfOpenDeadline)
		stream, err := h.Network().NewStream(waits, id)
		cancel()
		if err != nil {
			break
		}
		opened++
		// One that was reset may not be written to.
		_, _ = stream.Write([]byte("\x13/multistream/1.0.0\n"))
	}
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, amongDeadline)
	defer cancel()
	for tries := 1; ; tries++ {
		err := pingOnce(ctx, h, id)
		if err == nil {
			return fmt.Sprintf("%d opened, ping %d answered after %d ms", opened, tries, time.Since(started).Milliseconds()), nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%d opened, and %d pings failed: %w", opened, tries, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// serveCells answers on the protocols of our own.
func serveCells(h host.Host) {
	h.SetStreamHandler(echoProtocol, func(stream network.Stream) {
		// A failure ends the stream either way.
		_, err := io.Copy(stream, stream)
		finish(stream, err)
	})
	h.SetStreamHandler(perfProtocol, func(stream network.Stream) {
		wanted := make([]byte, 8)
		_, err := io.ReadFull(stream, wanted)
		if err == nil {
			_, err = io.Copy(io.Discard, stream)
		}
		if err == nil {
			_, err = io.CopyN(stream, &pattern{}, int64(binary.BigEndian.Uint64(wanted)))
		}
		finish(stream, err)
	})
}

func finish(stream network.Stream, err error) {
	if err == nil {
		err = stream.CloseWrite()
	}
	if err != nil {
		_ = stream.Reset()
	}
}
