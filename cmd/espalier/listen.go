package main

import (
	"net"
	"strconv"
)

// addresses are where a server listens and what it tells others.
type addresses struct {
	listen, broker, advertise, brokerAdvertise   string
	raft, routes, raftAdvertise, routesAdvertise string // of a replica among several
}

// resolveAddresses fills in what was left out: the broker listens beside the
// API, one port higher; beyond this machine, others are told host, or this
// machine's first address that is not loopback.
func resolveAddresses(listen, broker, host string) (addresses, error) {
	a := addresses{listen: listen, broker: broker}
	h, p, err := net.SplitHostPort(listen)
	if err != nil {
		return a, usagef("--listen %q: want HOST:PORT: %v", listen, err)
	}
	port, err := strconv.Atoi(p)
	if err != nil || port < 0 || port > 65534 {
		return a, usagef("--listen %q: want a port from 0 to 65534", listen)
	}
	if a.broker == "" {
		next := port + 1
		if port == 0 {
			next = 0
		}
		a.broker = net.JoinHostPort(h, strconv.Itoa(next))
	}
	bh, bp, err := net.SplitHostPort(a.broker)
	if err != nil {
		return a, usagef("--broker-listen %q: want HOST:PORT: %v", a.broker, err)
	}
	if host == "" && !wildcard(h) && !wildcard(bh) {
		return a, nil
	}
	if port == 0 || bp == "0" {
		return a, usagef("port 0 beyond this machine: others must know the port: want --listen %s with a port", h)
	}
	if host == "" {
		if host = ownAddress(); host == "" {
			return a, usagef("--advertise is missing: this machine has no address but loopback")
		}
	}
	a.advertise, a.brokerAdvertise = net.JoinHostPort(host, p), net.JoinHostPort(host, bp)
	return a, nil
}

// replicate adds where the other replicas connect: Raft two ports above the API,
// the brokers of the cluster three. All must know the ports.
func (a *addresses) replicate() error {
	h, p, err := net.SplitHostPort(a.listen)
	if err != nil {
		return usagef("--listen %q: want HOST:PORT: %v", a.listen, err)
	}
	port, err := strconv.Atoi(p)
	if err != nil || port == 0 || port > 65532 {
		return usagef("--listen %q: want a port from 1 to 65532 for a replica: the others must know it, and the three above it", a.listen)
	}
	at := func(host string, n int) string { return net.JoinHostPort(host, strconv.Itoa(port+n)) }
	a.raft, a.routes = at(h, 2), at(h, 3)
	if a.advertise != "" {
		host, _, err := net.SplitHostPort(a.advertise)
		if err != nil {
			return usagef("--advertise: %v", err)
		}
		a.raftAdvertise, a.routesAdvertise = at(host, 2), at(host, 3)
	}
	return nil
}

// wildcard tells whether a host means every address of this machine.
func wildcard(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// ownAddress is the first address of this machine that others may reach.
func ownAddress() string {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	return ""
}
