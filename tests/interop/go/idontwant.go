package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// longMessage is a message that is announced by IDONTWANT. Chosen: twice the bound of go-libp2p-pubsub.
const longMessage = 2048

// counter counts the IDONTWANT of one host to a peer and from it.
type counter struct {
	peer        peer.ID
	sent, heard atomic.Int64
}

func (c *counter) SendRPC(rpc *pubsub.RPC, to peer.ID) {
	if to == c.peer {
		c.sent.Add(int64(len(rpc.GetControl().GetIdontwant())))
	}
}

func (c *counter) RecvRPC(rpc *pubsub.RPC) {
	if rpc.From() == c.peer {
		c.heard.Add(int64(len(rpc.GetControl().GetIdontwant())))
	}
}

func (*counter) OnNewOutboundStream(peer.ID, protocol.ID)             {}
func (*counter) OnClosedOutboundStream(peer.ID)                       {}
func (*counter) Join(string)                                          {}
func (*counter) Leave(string)                                         {}
func (*counter) Graft(peer.ID, string)                                {}
func (*counter) Prune(peer.ID, string)                                {}
func (*counter) ValidateMessage(*pubsub.Message)                      {}
func (*counter) DeliverMessage(*pubsub.Message)                       {}
func (*counter) RejectMessage(*pubsub.Message, string)                {}
func (*counter) DuplicateMessage(*pubsub.Message)                     {}
func (*counter) ThrottlePeer(peer.ID)                                 {}
func (*counter) SendRPCCompleted(*pubsub.RPC, peer.ID, time.Duration) {}
func (*counter) DropRPC(*pubsub.RPC, peer.ID)                         {}
func (*counter) UndeliverableMessage(*pubsub.Message)                 {}

// idontwant stands with two hosts around a node, all connected with each other, and publishes long messages at the first one until
// the second one has told the node, and been told by it, that it has one already. One line.
func idontwant(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) != 2 {
		return errors.New(usage)
	}
	server, err := peer.AddrInfoFromString(args[0])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, topicDeadline)
	defer cancel()
	var topics [2]*pubsub.Topic
	var counters [2]counter
	first := peer.AddrInfo{}
	for number := range topics {
		h, err := newHost(listenAddresses()...)
		if err != nil {
			return err
		}
		defer h.Close()
		counters[number].peer = server.ID
		router, err := pubsub.NewGossipSub(ctx, h, pubsub.WithRawTracer(&counters[number]))
		if err != nil {
			return err
		}
		if topics[number], err = router.Join(args[1]); err != nil {
			return err
		}
		if _, err := topics[number].Subscribe(); err != nil {
			return err
		}
		if err := h.Connect(ctx, *server); err != nil {
			return err
		}
		if number == 0 {
			first = peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}
		} else if err := h.Connect(ctx, first); err != nil {
			return err
		}
	}
	for number := 0; ctx.Err() == nil; number++ {
		message := patternBytes(longMessage + number)
		// Nobody may be subscribed yet.
		_ = topics[number%2].Publish(ctx, message)
		time.Sleep(topicPause)
		heard := counters[0].heard.Load() + counters[1].heard.Load()
		if sent := counters[0].sent.Load() + counters[1].sent.Load(); heard > 0 && sent > 0 {
			fmt.Fprintf(stdout, "IDONTWANT from the node and to it after %d messages\n", number+1)
			return nil
		}
	}
	return fmt.Errorf("%d heard and %d sent, %d heard and %d sent", counters[0].heard.Load(), counters[0].sent.Load(),
		counters[1].heard.Load(), counters[1].sent.Load())
}
