//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"strings"
)

const (
	bridge    = "chaos0"
	harnessIP = "10.99.0.1"
)

// host is a network namespace: a machine of one process.
type host struct {
	name, ip string
}

// filter drops what comes from the addresses in the set: so a partition may have one way only.
const filter = `table inet chaos {
	set cut { type ipv4_addr; }
	chain in {
		type filter hook input priority 0; policy accept;
		ip saddr @cut drop
	}
}
`

func newHost(name string, number int) (*host, error) {
	h := &host{name: name, ip: fmt.Sprintf("10.99.0.%d", number)}
	for _, c := range []string{
		"ip netns add " + name,
		"ip link add v-" + name + " type veth peer name eth0 netns " + name,
		"ip link set v-" + name + " master " + bridge + " up",
		"ip -n " + name + " addr add " + h.ip + "/24 dev eth0",
		"ip -n " + name + " link set eth0 up",
		"ip -n " + name + " link set lo up",
	} {
		if err := command(strings.Fields(c)...); err != nil {
			return nil, err
		}
	}
	cmd := h.command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(filter)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("nft on %s: %w: %s", name, err, out)
	}
	return h, nil
}

// command is a program on this host.
func (h *host) command(args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", h.name}, args...)...)
}

// deafen drops what comes from the addresses.
func (h *host) deafen(ips ...string) error {
	if len(ips) == 0 {
		return nil
	}
	return command("ip", "netns", "exec", h.name, "nft", "add", "element", "inet", "chaos", "cut", "{ "+strings.Join(ips, ", ")+" }")
}

// hear lets everything through again.
func (h *host) hear() error {
	return command("ip", "netns", "exec", h.name, "nft", "flush", "set", "inet", "chaos", "cut")
}

// slow lets out so many kilobits in a second; what waits longer than two seconds is dropped.
func (h *host) slow(kbit int) error {
	return command("ip", "netns", "exec", h.name, "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf",
		"rate", fmt.Sprintf("%dkbit", kbit), "burst", "4kb", "latency", "2s")
}

// fast takes the limit away.
func (h *host) fast() error {
	return command("ip", "netns", "exec", h.name, "tc", "qdisc", "del", "dev", "eth0", "root")
}
