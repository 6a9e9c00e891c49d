package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A replica that dials another one says first of which cluster it is:
//
//	"ESPR" version(1) length(1), the cluster's id
//
// and is answered
//
//	status(1) length(1), text
//
// Status 0: welcome, the text is the replica's id; 1: refused, the text says why. Raft's own messages begin with a byte
// below 16, so that a replica without a cluster id, which says nothing, is told apart.
const (
	greetingMagic   = "ESPR"
	greetingVersion = 1
	greetingWelcome = 0
	greetingRefused = 1
	greetingTimeout = 10 * time.Second
	// refusalEvery is how often the log says that a host is refused.
	refusalEvery = time.Minute
	// maxRefused bounds the memory of hosts that were refused.
	maxRefused = 1000
)

// greet says of which cluster this replica is and hears whether the other one agrees.
func (s *streams) greet(ctx context.Context, c net.Conn, to raft.ServerAddress) error {
	cluster := s.identity.id()
	if cluster == "" {
		return nil
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(greetingTimeout)
	}
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = c.Close() })() // ends a wait for a silent peer
	if _, err := c.Write(append([]byte(greetingMagic), frame(greetingVersion, cluster)...)); err != nil {
		return fmt.Errorf("greet replica at %s: %w", to, err)
	}
	status, text, err := readFrame(c)
	switch {
	case err != nil:
		return fmt.Errorf("greet replica at %s: %w", to, err)
	case status != greetingWelcome:
		return fmt.Errorf("%w: %s refuses: %s", ErrOtherCluster, to, text)
	}
	s.mu.Lock()
	s.at[to] = text
	s.mu.Unlock()
	return c.SetDeadline(time.Time{})
}

func frame(first byte, text string) []byte {
	text = text[:min(len(text), 255)]
	return append([]byte{first, byte(len(text))}, text...)
}

func readFrame(r io.Reader) (first byte, text string, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, "", err
	}
	b := make([]byte, head[1])
	_, err = io.ReadFull(r, b)
	return head[0], string(b), err
}

// answered is the id of the replica that answered at an address last; empty if it did not say.
func (s *streams) answered(to raft.ServerAddress) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[to]
}

// greeted is an accepted connection, which begins with a greeting. It is heard with the first read, so that a silent
// peer holds up nobody else.
type greeted struct {
	net.Conn
	streams *streams
	once    sync.Once
	first   []byte // read, and not part of a greeting
	err     error
}

func (g *greeted) Read(p []byte) (int, error) {
	g.once.Do(func() { g.err = g.hear() })
	if g.err != nil {
		return 0, g.err
	}
	if len(g.first) > 0 && len(p) > 0 {
		n := copy(p, g.first)
		g.first = g.first[n:]
		return n, nil
	}
	return g.Conn.Read(p)
}

// hear reads the greeting and answers it.
func (g *greeted) hear() error {
	if err := g.SetReadDeadline(time.Now().Add(greetingTimeout)); err != nil {
		return err
	}
	cluster := ""
	b := make([]byte, 1, len(greetingMagic))
	if _, err := io.ReadFull(g.Conn, b); err != nil {
		return err
	}
	named := b[0] == greetingMagic[0]
	if named {
		var err error
		if cluster, err = g.named(b); err != nil {
			return err
		}
	} else {
		g.first = b
	}
	if err := g.streams.identity.admit(cluster); err != nil {
		g.streams.refuse(g.RemoteAddr(), err)
		if named {
			_, _ = g.Write(frame(greetingRefused, err.Error())) // it may be gone
		}
		return err
	}
	if named {
		if _, err := g.Write(frame(greetingWelcome, g.streams.identity.replica)); err != nil {
			return err
		}
	}
	return g.SetReadDeadline(time.Time{})
}

// named reads the cluster's id behind the greeting's first byte.
func (g *greeted) named(b []byte) (string, error) {
	b = b[:len(greetingMagic)]
	if _, err := io.ReadFull(g.Conn, b[1:]); err != nil {
		return "", err
	}
	version, cluster, err := readFrame(g.Conn)
	if err == nil && (string(b) != greetingMagic || version != greetingVersion) {
		err = errors.New("not a replica's greeting")
	}
	return cluster, err
}

// refuse notes a refusal, once in a while for each host.
func (s *streams) refuse(from net.Addr, err error) {
	host, _, _ := net.SplitHostPort(from.String())
	s.mu.Lock()
	quiet := time.Since(s.refused[host]) < refusalEvery
	if !quiet {
		if len(s.refused) >= maxRefused {
			clear(s.refused)
		}
		s.refused[host] = time.Now()
	}
	s.mu.Unlock()
	if !quiet {
		s.log.Warn().Err(err).Str("from", host).Msg("replica of another cluster refused")
	}
}
