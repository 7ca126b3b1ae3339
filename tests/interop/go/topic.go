package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/crypto/blake2b"
)

const (
	// Time until a message of the node has come. Chosen: a mesh forms within a second or two.
	topicDeadline = 60 * time.Second
	// Time between two messages of this peer.
	topicPause = 200 * time.Millisecond
)

// topic subscribes to a topic of a node, publishes on it five times a second, and
// prints the first message of the node. It goes on until stdin closes.
//
// The policy is strict (messages are signed), none (they name nobody), author (they
// name their author and are not signed), or floodsub (signed, without GossipSub).
func topic(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) != 3 {
		return errors.New(usage)
	}
	server, err := peer.AddrInfoFromString(args[0])
	if err != nil {
		return err
	}
	h, err := newHost()
	if err != nil {
		return err
	}
	defer h.Close()
	router, err := newRouter(ctx, h, args[2])
	if err != nil {
		return err
	}
	joined, err := router.Join(args[1])
	if err != nil {
		return err
	}
	messages, err := joined.Subscribe()
	if err != nil {
		return err
	}
	if err := h.Connect(ctx, *server); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for number := 0; ctx.Err() == nil; number++ {
			// Nobody may be subscribed yet.
			_ = joined.Publish(ctx, fmt.Appendf(nil, "hello from go, %d", number))
			time.Sleep(topicPause)
		}
	}()
	hears, stop := context.WithTimeout(ctx, topicDeadline)
	defer stop()
	for {
		message, err := messages.Next(hears)
		if err != nil {
			return fmt.Errorf("no message of the node: %w", err)
		}
		if text := string(message.Data); strings.HasPrefix(text, "hello from tandem") {
			author := peer.ID(message.From)
			if args[2] == "none" && author != "" || args[2] != "none" && author != server.ID {
				return fmt.Errorf("the author is %q", author)
			}
			fmt.Fprintf(stdout, "%s %s\n", text, spoken(h, server.ID))
			break
		}
	}
	// What stdin says does not matter, and an error ends it as well as an end of file.
	_, _ = io.Copy(io.Discard, stdin)
	return nil
}

// spoken names the protocols of pub-sub on the streams to a peer and from it.
func spoken(h host.Host, id peer.ID) string {
	var names []string
	for _, connection := range h.Network().ConnsToPeer(id) {
		for _, stream := range connection.GetStreams() {
			if name := string(stream.Protocol()); strings.Contains(name, "sub/") {
				names = append(names, fmt.Sprintf("%s %s", strings.ToLower(stream.Stat().Direction.String()), name))
			}
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func hashOfBody(message *pb.Message) string {
	hash := blake2b.Sum256(message.GetData())
	return string(hash[:])
}

// newRouter starts the pub-sub of a policy.
func newRouter(ctx context.Context, h host.Host, policy string) (*pubsub.PubSub, error) {
	switch policy {
	case "strict":
		return pubsub.NewGossipSub(ctx, h)
	case "none":
		return pubsub.NewGossipSub(ctx, h, pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), pubsub.WithNoAuthor(),
			pubsub.WithMessageIdFn(hashOfBody))
	case "author":
		return pubsub.NewGossipSub(ctx, h, pubsub.WithMessageSignaturePolicy(pubsub.LaxNoSign), pubsub.WithMessageIdFn(hashOfBody))
	case "floodsub":
		return pubsub.NewFloodSub(ctx, h)
	default:
		return nil, fmt.Errorf("%q is no policy", policy)
	}
}
