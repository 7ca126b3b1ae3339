package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	libp2p "github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2phttp "github.com/libp2p/go-libp2p/p2p/http"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
)

// relay carries circuits for others until stdin closes.
func relay(_ context.Context, stdin io.Reader, stdout io.Writer) error {
	h, err := newHostWith([]libp2p.Option{
		libp2p.EnableRelayService(), libp2p.ForceReachabilityPublic(),
	}, listenAddresses()...)
	if err != nil {
		return err
	}
	defer h.Close()
	fmt.Fprintf(stdout, "%s/p2p/%s\n", h.Addrs()[0], h.ID())
	// What stdin says does not matter, and an error ends it as well as an end of file.
	_, _ = io.Copy(io.Discard, stdin)
	return nil
}

// behind serves the routes, reached through a relay alone, until stdin closes.
func behind(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) != 1 {
		return errors.New(usage)
	}
	at, err := peer.AddrInfoFromString(args[0])
	if err != nil {
		return err
	}
	// It serves only if it listens somewhere; callers get the address through the relay alone.
	h, err := newHost(listenAddresses()...)
	if err != nil {
		return err
	}
	defer h.Close()
	serveCells(h)
	if err := h.Connect(ctx, *at); err != nil {
		return err
	}
	if _, err := client.Reserve(ctx, h, *at); err != nil {
		return err
	}
	server := libp2phttp.Host{StreamHost: h}
	server.SetHTTPHandlerAtPath(protocolName, "/", routes())
	go func() { _ = server.Serve() }()
	defer server.Close()
	server.Addrs()
	fmt.Fprintf(stdout, "%s/p2p-circuit/p2p/%s\n", args[0], h.ID())
	_, _ = io.Copy(io.Discard, stdin)
	return nil
}
