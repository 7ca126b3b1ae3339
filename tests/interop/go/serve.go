package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"

	libp2phttp "github.com/libp2p/go-libp2p/p2p/http"
	"lukechampine.com/blake3"
)

// Length of a hash. Source: the BLAKE3 paper, its default.
const blake3Bytes = 32

// protocolName is what the well-known document maps to the path "/".
const protocolName = "/tandem-interop/1"

// Empty reads in a row that end a body. Chosen: what bufio allows.
const maxIdleReads = 100

// serve answers requests until stdin closes or ctx ends.
func serve(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	h, err := newHost(listenAddresses()...)
	if err != nil {
		return err
	}
	defer h.Close()
	serveCells(h)

	server := libp2phttp.Host{StreamHost: h}
	server.SetHTTPHandlerAtPath(protocolName, "/", routes())
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	defer server.Close()

	// Returns once the server listens, so that the address works when it is read.
	server.Addrs()
	for number, address := range h.Addrs() {
		if number > 0 {
			fmt.Fprint(stdout, " ")
		}
		fmt.Fprintf(stdout, "%s/p2p/%s", address, h.ID())
	}
	fmt.Fprintln(stdout)

	closed := make(chan struct{})
	go func() {
		// What stdin says does not matter, and an error ends it as well as an end of file.
		_, _ = io.Copy(io.Discard, stdin)
		close(closed)
	}()
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
		return nil
	case err := <-served:
		return err
	}
}

func routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) {
		// A failed write means that the caller has gone.
		_, _ = io.WriteString(w, "hi")
	})
	mux.HandleFunc("POST /echo", echo)
	mux.HandleFunc("POST /sink", sink)
	mux.HandleFunc("GET /bytes/{n}", func(w http.ResponseWriter, r *http.Request) {
		if n, ok := announce(w, r); ok {
			_, _ = io.CopyN(w, &pattern{}, int64(n))
		}
	})
	mux.HandleFunc("GET /until-close/{n}", func(w http.ResponseWriter, r *http.Request) {
		if n, ok := announce(w, r); ok {
			w.Header().Del("Content-Length")
			w.Header().Set("Transfer-Encoding", "identity")
			_, _ = io.CopyN(w, &pattern{}, int64(n))
		}
	})
	mux.HandleFunc("GET /cut/{n}", func(w http.ResponseWriter, r *http.Request) {
		if n, ok := announce(w, r); ok {
			_, _ = io.CopyN(w, &pattern{}, int64(n)/2)
			panic(http.ErrAbortHandler)
		}
	})
	return mux
}

// echo sends the body back while it still arrives.
func echo(w http.ResponseWriter, r *http.Request) {
	// Without this net/http reads the request to its end before the first byte of the response.
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if r.ContentLength >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if _, err := io.Copy(w, &progressing{Reader: r.Body}); err != nil {
		// Too late for a status: the caller must see that the body is short.
		reset(w)
	}
}

// sink reads the body to its end and says what it was.
func sink(w http.ResponseWriter, r *http.Request) {
	hash := blake3.New(blake3Bytes, nil)
	n, err := io.Copy(hash, &progressing{Reader: r.Body})
	if err != nil {
		reset(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"bytes":%d,"blake3":"%x"}`, n, hash.Sum(nil))
}

// reset resets the stream behind w. Leaving that to net/http (by a panic) would
// have it read what is left of the request, which is what progressing has to avoid.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if stream, ok := conn.(interface{ Reset() error }); ok {
		// It fails only if the stream is gone.
		_ = stream.Reset()
	}
}

// progressing ends a body that yields neither bytes nor an error: libp2phttp hides
// the end of a stream that the client half-closed, so that a body shorter than its
// Content-Length would be read for ever, at the cost of a whole core.
type progressing struct {
	io.Reader
	idle int
}

func (p *progressing) Read(buffer []byte) (int, error) {
	n, err := p.Reader.Read(buffer)
	if n > 0 || err != nil {
		p.idle = 0
		return n, err
	}
	if p.idle++; p.idle >= maxIdleReads {
		return 0, io.ErrNoProgress
	}
	return 0, nil
}

// announce reads {n} and sends the head of a response of n bytes.
func announce(w http.ResponseWriter, r *http.Request) (int, bool) {
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil || n < 0 || n > maxBytes {
		http.Error(w, "not a length", http.StatusBadRequest)
		return 0, false
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(n))
	return n, true
}
