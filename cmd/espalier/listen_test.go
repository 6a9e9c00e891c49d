package main

import (
	"errors"
	"testing"
)

func TestResolveAddresses(t *testing.T) {
	for _, tc := range []struct {
		name, listen, broker, host string
		want                       addresses
	}{
		{"loopback", "127.0.0.1:8470", "", "", addresses{listen: "127.0.0.1:8470", broker: "127.0.0.1:8471", advertise: "", brokerAdvertise: ""}},
		{"free ports", "127.0.0.1:0", "", "", addresses{listen: "127.0.0.1:0", broker: "127.0.0.1:0", advertise: "", brokerAdvertise: ""}},
		{"broker elsewhere", "127.0.0.1:0", "127.0.0.1:9", "", addresses{listen: "127.0.0.1:0", broker: "127.0.0.1:9", advertise: "", brokerAdvertise: ""}},
		{"one address", "10.1.2.3:80", "", "", addresses{listen: "10.1.2.3:80", broker: "10.1.2.3:81", advertise: "", brokerAdvertise: ""}},
		{"all, named", "0.0.0.0:80", "", "pi", addresses{listen: "0.0.0.0:80", broker: "0.0.0.0:81", advertise: "pi:80", brokerAdvertise: "pi:81"}},
		{"all, named, IPv6", "[::]:80", "[::]:90", "fd00::1", addresses{listen: "[::]:80", broker: "[::]:90", advertise: "[fd00::1]:80", brokerAdvertise: "[fd00::1]:90"}},
	} {
		if got, err := resolveAddresses(tc.listen, tc.broker, tc.host); err != nil || got != tc.want {
			t.Errorf("%s: got %+v, %v; want %+v", tc.name, got, err, tc.want)
		}
	}
	for _, bad := range [][3]string{{"8470", "", ""}, {"a:b", "", ""}, {"a:70000", "", ""}, {"0.0.0.0:0", "", "pi"}, {"127.0.0.1:0", "x", ""}} {
		if got, err := resolveAddresses(bad[0], bad[1], bad[2]); !errors.Is(err, errUsage) {
			t.Errorf("%v: got %+v, %v; want wrong use", bad, got, err)
		}
	}
}

func TestReplicate(t *testing.T) {
	a := addresses{listen: "0.0.0.0:80", advertise: "pi:80"}
	if err := a.replicate(); err != nil {
		t.Fatal(err)
	}
	if a.raft != "0.0.0.0:82" || a.raftAdvertise != "pi:82" || a.routes != "0.0.0.0:83" || a.routesAdvertise != "pi:83" {
		t.Errorf("got %+v", a)
	}
	a = addresses{listen: "127.0.0.1:0"}
	if err := a.replicate(); !errors.Is(err, errUsage) {
		t.Errorf("a free port: got %v, want wrong use", err)
	}
}
