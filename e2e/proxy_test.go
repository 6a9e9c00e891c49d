package e2e

import (
	"net"
	"sync"
	"testing"
)

// proxy passes bytes between clients and a server, and shows them to a test on
// the way. Its own address stays while the server comes and goes.
type proxy struct {
	t        *testing.T
	listener net.Listener
	target   string

	mu    sync.Mutex
	conns map[net.Conn]bool
	// up and down see what clients and the server send. False keeps it from the
	// other side, and breaks the connection.
	up, down func([]byte) bool
	// refuse, if set, tells whether a client's connection is not passed on.
	refuse func(net.Conn) bool
	wg     sync.WaitGroup
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, listener: l, target: target, conns: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// watch sets what sees the bytes from now on; nil lets them pass.
func (p *proxy) watch(up, down func([]byte) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up, p.down = up, down
}

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	p.mu.Lock()
	refuse := p.refuse
	p.mu.Unlock()
	if refuse != nil && refuse(client) {
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { p.pass(server, client, func() func([]byte) bool { return p.up }) })
	wg.Go(func() { p.pass(client, server, func() func([]byte) bool { return p.down }) })
	wg.Wait()
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

// pass copies until either side ends or the hook says no; then both end.
func (p *proxy) pass(to, from net.Conn, hook func() func([]byte) bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			p.mu.Lock()
			see := hook()
			p.mu.Unlock()
			if see != nil && !see(buf[:n]) {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
