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
		{"loopback", "127.0.0.1:8470", "", "", addresses{"127.0.0.1:8470", "127.0.0.1:8471", "", ""}},
		{"free ports", "127.0.0.1:0", "", "", addresses{"127.0.0.1:0", "127.0.0.1:0", "", ""}},
		{"broker elsewhere", "127.0.0.1:0", "127.0.0.1:9", "", addresses{"127.0.0.1:0", "127.0.0.1:9", "", ""}},
		{"one address", "10.1.2.3:80", "", "", addresses{"10.1.2.3:80", "10.1.2.3:81", "", ""}},
		{"all, named", "0.0.0.0:80", "", "pi", addresses{"0.0.0.0:80", "0.0.0.0:81", "pi:80", "pi:81"}},
		{"all, named, IPv6", "[::]:80", "[::]:90", "fd00::1", addresses{"[::]:80", "[::]:90", "[fd00::1]:80", "[fd00::1]:90"}},
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
