package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	libp2phttp "github.com/libp2p/go-libp2p/p2p/http"
	"github.com/libp2p/go-libp2p/p2p/net/gostream"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

// pingDeadline bounds a row of pings. Chosen: far more than they take on a loopback.
const pingDeadline = 10 * time.Second

const (
	echoBytes = 1 << 20
	bodyBytes = 10_000_000
	// Past any window that has not grown yet, so that the client is still sending.
	refusedBytes = 4 << 20
	manyRequests = 200
	manyAtOnce   = 16
	keptRequests = 20
	pingsInARow  = 5
)

// step is one row of the report.
type step struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Ms   int64  `json:"ms"`
	Note string `json:"note,omitempty"`
}

type report struct {
	OK             bool   `json:"ok"`
	Implementation string `json:"implementation"`
	Steps          []step `json:"steps"`
}

// caller holds what the steps share.
type caller struct {
	host   host.Host
	http   *libp2phttp.Host
	server peer.AddrInfo
	// client opens a stream for each request: the only way libp2phttp knows.
	client http.Client
}

// call runs every step against one server and prints the report.
func call(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("call", flag.ContinueOnError)
	extra := flags.Bool("extra", false, "also the steps that need the routes /until-close and /cut")
	only := flags.String("only", "", "comma-separated names of the steps to run")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New(usage)
	}
	server, err := peer.AddrInfoFromString(flags.Arg(0))
	if err != nil {
		return err
	}
	h, err := newHost()
	if err != nil {
		return err
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()

	c := caller{host: h, http: &libp2phttp.Host{StreamHost: h}, server: *server}
	tripper, err := c.http.NewConstrainedRoundTripper(*server)
	if err != nil {
		return err
	}
	c.client = http.Client{Transport: tripper}

	type namedStep struct {
		name string
		run  func(context.Context) (string, error)
	}
	all := []namedStep{
		{"pings", c.pings},
		{"hello", c.hello},
		{"echo", c.echoWithLength},
		{"echo-chunked", c.echoChunked},
		{"bytes", c.bytes},
		{"many", c.many},
		{"well-known", c.wellKnown},
		{"namespaced", c.namespaced},
		{"not-found", c.notFound},
		{"refused", c.refused},
		{"transport", c.transport},
	}
	if *extra || *only != "" {
		all = append(all, namedStep{"until-close", c.untilClose}, namedStep{"cut", c.cut})
	}
	result := report{OK: true, Implementation: implementation()}
	for _, s := range all {
		if *only != "" && !strings.Contains(","+*only+",", ","+s.name+",") {
			continue
		}
		started := time.Now()
		note, err := s.run(ctx)
		if err != nil {
			note = err.Error()
			result.OK = false
		}
		result.Steps = append(result.Steps, step{s.name, err == nil, time.Since(started).Milliseconds(), note})
	}
	if len(result.Steps) == 0 {
		return fmt.Errorf("no step is named %q", *only)
	}
	if err := json.NewEncoder(stdout).Encode(result); err != nil {
		return err
	}
	if !result.OK {
		return errors.New("a step failed")
	}
	return nil
}

// pings sends several over one stream, which is how this library does it.
func (c *caller) pings(ctx context.Context) (string, error) {
	if err := c.host.Connect(ctx, c.server); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, pingDeadline)
	defer cancel()
	answers := ping.Ping(ctx, c.host, c.server.ID)
	for number := range pingsInARow {
		answer, open := <-answers
		if !open {
			return "", fmt.Errorf("ping %d was not answered", number)
		}
		if answer.Error != nil {
			return "", fmt.Errorf("ping %d: %w", number, answer.Error)
		}
	}
	return fmt.Sprintf("%d on one stream", pingsInARow), nil
}

func (c *caller) hello(ctx context.Context) (string, error) {
	return helloWith(ctx, &c.client, "/hello")
}

func helloWith(ctx context.Context, client *http.Client, url string) (string, error) {
	response, body, err := fetch(ctx, client, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK || string(body) != "hi" {
		return "", fmt.Errorf("%s with %q", response.Status, body)
	}
	return fmt.Sprintf("%s %s", response.Proto, response.Status), nil
}

func (c *caller) echoWithLength(ctx context.Context) (string, error) {
	return c.echo(ctx, func(body []byte) io.Reader { return bytes.NewReader(body) })
}

// echoChunked hides the length of the body, which makes net/http send it chunked.
func (c *caller) echoChunked(ctx context.Context) (string, error) {
	return c.echo(ctx, func(body []byte) io.Reader { return struct{ io.Reader }{bytes.NewReader(body)} })
}

func (c *caller) echo(ctx context.Context, reader func([]byte) io.Reader) (string, error) {
	sent := patternBytes(echoBytes)
	response, got, err := fetch(ctx, &c.client, http.MethodPost, "/echo", reader(sent))
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK || !bytes.Equal(sent, got) {
		return "", fmt.Errorf("%s, %d bytes sent, %d other bytes back", response.Status, len(sent), len(got))
	}
	return framing(response), nil
}

func (c *caller) bytes(ctx context.Context) (string, error) {
	response, got, err := fetch(ctx, &c.client, http.MethodGet, fmt.Sprintf("/bytes/%d", bodyBytes), nil)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK || len(got) != bodyBytes {
		return "", fmt.Errorf("%s, %d bytes", response.Status, len(got))
	}
	// A server that repeats one byte is accepted too: its route promises only a length.
	constant := bytes.Repeat(got[:1], bodyBytes)
	if !bytes.Equal(got, patternBytes(bodyBytes)) && !bytes.Equal(got, constant) {
		return "", errors.New("the length is right, the bytes are not")
	}
	return framing(response), nil
}

// many makes the requests of a busy caller: manyRequests, manyAtOnce in flight.
func (c *caller) many(ctx context.Context) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var next atomic.Int64
	failures := make(chan error, manyAtOnce)
	var workers sync.WaitGroup
	for range manyAtOnce {
		workers.Go(func() {
			for next.Add(1) <= manyRequests {
				if _, err := c.hello(ctx); err != nil {
					cancel()
					failures <- err
					return
				}
			}
		})
	}
	workers.Wait()
	close(failures)
	if err, failed := <-failures; failed {
		return "", err
	}
	connections := c.host.Network().ConnsToPeer(c.server.ID)
	return fmt.Sprintf("%d requests, %d at once, %d connection", manyRequests, manyAtOnce, len(connections)), nil
}

func (c *caller) wellKnown(ctx context.Context) (string, error) {
	response, body, err := fetch(ctx, &c.client, http.MethodGet, libp2phttp.WellKnownProtocols, nil)
	if err != nil {
		return "", err
	}
	var meta libp2phttp.PeerMeta
	if err := json.Unmarshal(body, &meta); err != nil || response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s with %q", response.Status, body)
	}
	return fmt.Sprintf("%s: %s", response.Header.Get("Content-Type"), bytes.TrimSpace(body)), nil
}

// namespaced finds a protocol in the well-known document, as an application
// that knows only the name of its protocol would.
func (c *caller) namespaced(ctx context.Context) (string, error) {
	getter, ok := c.client.Transport.(libp2phttp.PeerMetadataGetter)
	if !ok {
		return "", errors.New("the round tripper has no metadata")
	}
	meta, err := getter.GetPeerMetadata()
	if err != nil {
		return "", err
	}
	var root protocol.ID
	for name, at := range meta {
		if at.Path == "/" && (root == "" || name < root) {
			root = name
		}
	}
	if root == "" {
		return "no protocol at /", nil
	}
	client, err := c.http.NamespacedClient(root, c.server)
	if err != nil {
		return "", err
	}
	if _, err := helloWith(ctx, &client, "/hello"); err != nil {
		return "", err
	}
	return string(root), nil
}

func (c *caller) notFound(ctx context.Context) (string, error) {
	response, _, err := fetch(ctx, &c.client, http.MethodGet, "/no/such/route", nil)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusNotFound {
		return "", errors.New(response.Status)
	}
	return response.Status, nil
}

// refused holds if the answer to a long body that nobody wants still arrives.
func (c *caller) refused(ctx context.Context) (string, error) {
	response, _, err := fetch(ctx, &c.client, http.MethodPost, "/no/such/route", bytes.NewReader(patternBytes(refusedBytes)))
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusNotFound {
		return "", errors.New(response.Status)
	}
	return response.Status, nil
}

// transport uses net/http's own pooling transport over libp2p streams: unlike
// libp2phttp it keeps a stream for the next request if the server lets it, and
// sends a Host.
func (c *caller) transport(ctx context.Context) (string, error) {
	var streams atomic.Int64
	pool := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			streams.Add(1)
			return gostream.Dial(ctx, c.host, c.server.ID, libp2phttp.ProtocolIDForMultistreamSelect)
		},
	}
	defer pool.CloseIdleConnections()
	c.host.Peerstore().AddAddrs(c.server.ID, c.server.Addrs, time.Minute)
	client := http.Client{Transport: pool}
	for range keptRequests {
		if _, err := helloWith(ctx, &client, "http://peer.invalid/hello"); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d requests, %d streams", keptRequests, streams.Load()), nil
}

// untilClose reads a body that only the end of the stream ends.
func (c *caller) untilClose(ctx context.Context) (string, error) {
	response, got, err := fetch(ctx, &c.client, http.MethodGet, "/until-close/100000", nil)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(got, patternBytes(100_000)) {
		return "", fmt.Errorf("%s, %d other bytes", response.Status, len(got))
	}
	return framing(response), nil
}

// cut holds if a response that ends early is an error and not a short body.
func (c *caller) cut(ctx context.Context) (string, error) {
	response, body, err := fetch(ctx, &c.client, http.MethodGet, "/cut/100000", nil)
	if err == nil {
		return "", fmt.Errorf("%s with %d bytes taken as whole", response.Status, len(body))
	}
	return fmt.Sprintf("after %d bytes: %v", len(body), err), nil
}

// fetch makes one request and reads the response to its end. After an error it
// returns what had arrived.
func fetch(ctx context.Context, client *http.Client, method, url string, body io.Reader) (*http.Response, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	got, err := io.ReadAll(io.LimitReader(response.Body, maxBytes))
	return response, got, err
}

// framing says how the end of a body was marked.
func framing(response *http.Response) string {
	switch {
	case response.ContentLength >= 0:
		return "content-length"
	case len(response.TransferEncoding) > 0:
		return strings.Join(response.TransferEncoding, ", ")
	default:
		return "until close"
	}
}
