package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multihash"
)

const (
	// Time for each step. Chosen: each takes well under a second on a loopback.
	tableDeadline = 30 * time.Second
	// Time between two tries of a step that needs the other side to be ready.
	tableRetry = 100 * time.Millisecond
)

// table joins the DHT of a network through one of its nodes, finds that node as
// a provider of the first capability, provides the second, and prints its own
// peer ID. With a fifth argument it also puts that as a value under its hash, and
// prints the value of each key that stdin names. It serves until stdin closes.
func table(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) != 4 && len(args) != 5 {
		return errors.New(usage)
	}
	server, err := peer.AddrInfoFromString(args[0])
	if err != nil {
		return err
	}
	h, err := newHost("/ip4/127.0.0.1/tcp/0")
	if err != nil {
		return err
	}
	defer h.Close()
	values := dht.DisableValues()
	if len(args) == 5 {
		values = dht.Validator(record.NamespacedValidator{"content": contents{}})
	}
	node, err := dht.New(h, dht.Mode(dht.ModeServer), dht.ProtocolPrefix(protocol.ID(args[1])),
		values, dht.BootstrapPeers(*server))
	if err != nil {
		return err
	}
	defer node.Close()
	if err := h.Connect(ctx, *server); err != nil {
		return err
	}
	if err := until(ctx, "the node is in the routing table", func(context.Context) error {
		if node.RoutingTable().Find(server.ID) == "" {
			return errors.New("it is not")
		}
		return nil
	}); err != nil {
		return err
	}
	if err := until(ctx, "the node provides "+args[2], func(ctx context.Context) error {
		providers, err := node.FindProviders(ctx, capability(args[2]))
		if err != nil {
			return err
		}
		for _, provider := range providers {
			if provider.ID == server.ID && len(provider.Addrs) > 0 {
				return nil
			}
		}
		return fmt.Errorf("found %v", providers)
	}); err != nil {
		return err
	}
	if err := until(ctx, "providing "+args[3], func(ctx context.Context) error {
		return node.Provide(ctx, capability(args[3]), true)
	}); err != nil {
		return err
	}
	if len(args) == 5 {
		if err := until(ctx, "putting a value", func(ctx context.Context) error {
			return node.PutValue(ctx, contentKey([]byte(args[4])), []byte(args[4]))
		}); err != nil {
			return err
		}
	}
	fmt.Fprintln(stdout, h.ID())
	// An error ends it as well as an end of file.
	for lines := bufio.NewScanner(stdin); lines.Scan(); {
		if err := until(ctx, "getting "+lines.Text(), func(ctx context.Context) error {
			value, err := node.GetValue(ctx, lines.Text())
			if err == nil {
				fmt.Fprintf(stdout, "%s\n", value)
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// contents admits values whose key is their hash.
type contents struct{}

func (contents) Validate(key string, value []byte) error {
	if key != contentKey(value) {
		return errors.New("the value is not the one of its key")
	}
	return nil
}

func (contents) Select(_ string, values [][]byte) (int, error) {
	if len(values) == 0 {
		return 0, errors.New("there is no value")
	}
	for _, value := range values {
		if !bytes.Equal(value, values[0]) {
			return 0, errors.New("a key has one value")
		}
	}
	return 0, nil
}

func contentKey(value []byte) string {
	hash := sha256.Sum256(value)
	return "/content/" + hex.EncodeToString(hash[:])
}

// capability is the content ID under which nodes that offer something are found.
func capability(name string) cid.Cid {
	hash, err := multihash.Sum([]byte(name), multihash.SHA2_256, -1)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.Raw, hash)
}

// until repeats a step until it succeeds.
func until(ctx context.Context, what string, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, tableDeadline)
	defer cancel()
	for {
		err := step(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		case <-time.After(tableRetry):
		}
	}
}
