package store

import (
	"errors"
	"strings"
	"testing"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// TestGate: a kind of command that a member does not know is refused before it is committed, and all goes on.
func TestGate(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	must(t, s, submit(1, "a", "local"))
	for what, cmds := range map[string][]*v1.Command{
		"alone":      {newerCommand()},
		"behind one": {submit(2, "b", "local"), newerCommand()},
		"in a batch": {{Op: &v1.Command_Batch{Batch: &v1.Batch{Commands: []*v1.Command{newerCommand()}}}}},
	} {
		if _, err := s.Apply(t.Context(), cmds...); !errors.Is(err, ErrOlder) || !strings.Contains(err.Error(), "command 9999") {
			t.Errorf("%s: %v, want ErrOlder naming the command", what, err)
		}
	}
	must(t, s, submit(3, "c", "local"))
	err := s.View(func(v *View) error {
		if v.Job("b") != nil || v.Job("c") == nil {
			t.Errorf("b is %v, c is %v; want only c", v.Job("b"), v.Job("c"))
		}
		return nil
	})
	if err != nil || s.Err() != nil {
		t.Errorf("%v, %v", err, s.Err())
	}
}

// TestKnownToAll: what counts is the least that a member knows: this replica by its build, the others by their records.
func TestKnownToAll(t *testing.T) {
	records := map[string]*v1.Replica{
		"b":    {Id: "b", Version: "2.0", Commands: 20},
		"c":    {Id: "c", Version: "1.9", Commands: 19},
		"old":  {Id: "old", Version: "1.0"},
		"self": {Id: "self", Version: "1.0", Commands: 17}, // as it was before its upgrade
	}
	for _, v := range []struct {
		kind    uint32
		members []string
		missing string // the replica that does not know it; empty if all do
		says    string
	}{
		{20, []string{"self"}, "", ""},
		{21, []string{"self"}, "self", "this one"},
		{20, []string{"self", "b"}, "", ""},
		{20, []string{"self", "b", "c"}, "c", "build 1.9"},
		{19, []string{"self", "b", "c"}, "", ""},
		{firstCommands + 1, []string{"self", "b", "old"}, "old", "build 1.0"},
		{firstCommands + 1, []string{"self", "b", "new"}, "new", "not heard of yet"},
		{firstCommands, []string{"self", "old", "new"}, "", ""},
	} {
		var members []Member
		for i, id := range v.members {
			members = append(members, Member{ID: id, Voter: i < 2}) // who has no vote yet applies commands too
		}
		err := knownToAll(v.kind, 20, "self", members, func(id string) *v1.Replica { return records[id] })
		switch {
		case v.missing == "" && err != nil:
			t.Errorf("%d for %v: %v", v.kind, v.members, err)
		case v.missing != "" && (!errors.Is(err, ErrOlder) || !strings.Contains(err.Error(), "replica "+v.missing+" ("+v.says)):
			t.Errorf("%d for %v: %v, want ErrOlder naming %s, %s", v.kind, v.members, err, v.missing, v.says)
		}
	}
}

// TestCommandsKnown: a build that has a new kind of command says so by itself; firstCommands stays what it is.
func TestCommandsKnown(t *testing.T) {
	for n, c := range map[uint32]*v1.Command{
		2:  submit(1, "a", "local"),
		14: {Op: &v1.Command_PutReplica{}},
		13: {Op: &v1.Command_Batch{Batch: &v1.Batch{Commands: []*v1.Command{submit(1, "a", "local")}}}},
		16: {Op: &v1.Command_Batch{Batch: &v1.Batch{Commands: []*v1.Command{submit(1, "a", "local"), {Op: &v1.Command_LoseFiles{}}}}}},
		0:  {},
	} {
		if got := kindOf(c); got != n {
			t.Errorf("kind of %v is %d, want %d", c, got, n)
		}
	}
	if Commands < 16 || firstCommands != 16 {
		t.Errorf("this build knows commands up to %d, builds that do not say know %d", Commands, firstCommands)
	}
}
