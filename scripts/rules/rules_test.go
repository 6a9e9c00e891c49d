package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list packages: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestRoomsImportOnlyWhatTheyMay(t *testing.T) {
	for _, p := range list(t) {
		from, ok := room(p.ImportPath)
		if !ok {
			continue
		}
		allowed, known := allowedFor(from)
		if !known {
			t.Errorf("%s is in no room: name it in scripts/rules with its arrows and its reason", from)
			continue
		}
		for _, path := range p.Imports {
			if to, ours := room(path); ours && !sameTree(from, to) && !matchAny(allowed, to) {
				t.Errorf("%s imports %s: not among its arrows %v", from, to, allowed)
			}
			for prefix, only := range Libraries {
				if strings.HasPrefix(path, prefix) && !matchAny(only, from) {
					t.Errorf("%s imports %s: only %v may", from, path, only)
				}
			}
			if to, ours := room(path); ours && strings.HasSuffix(to, "test") {
				t.Errorf("%s imports the test package %s outside tests", from, to)
			}
		}
	}
}

func TestSiblingsDoNotImportEachOther(t *testing.T) {
	for _, p := range list(t) {
		from, _ := room(p.ImportPath)
		for tree, common := range Siblings {
			if !strings.HasPrefix(from, tree+"/") || slices.Contains(Registries, from) || strings.HasSuffix(from, "test") {
				continue
			}
			for _, path := range p.Imports {
				to, ours := room(path)
				if ours && strings.HasPrefix(to, tree) && to != from && !slices.Contains(common, to) {
					t.Errorf("%s imports its sibling %s: want only %v", from, to, common)
				}
			}
		}
	}
}

// TestTheRulesSeeViolations checks the checker.
func TestTheRulesSeeViolations(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"worker/task", "model/train", true},
		{"worker", "coordinator/store", false},
		{"coordinator/leader", "search/nsga2", true},
		{"coordinator/api", "model/train", false},
		{"model/infer", "search", false},
		{"search/tpe", "model", false},
		{"cmd/espalier", "worker", true},
	} {
		allowed, _ := allowedFor(c.from)
		if got := sameTree(c.from, c.to) || matchAny(allowed, c.to); got != c.want {
			t.Errorf("%s may import %s: %v, want %v", c.from, c.to, got, c.want)
		}
	}
}

// room is a package's path within the module.
func room(path string) (string, bool) {
	if path == Module {
		return "", true
	}
	return strings.CutPrefix(path, Module+"/")
}

func allowedFor(from string) ([]string, bool) {
	best, found := "", false
	for r := range Rooms {
		if match(r, from) && len(r) > len(best) {
			best, found = r, true
		}
	}
	return Rooms[best], found
}

// sameTree tells whether two packages are in one room's subtree.
func sameTree(a, b string) bool {
	top := func(s string) string { first, _, _ := strings.Cut(s, "/"); return first }
	return top(a) == top(b)
}

func matchAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, name) })
}

func match(pattern, name string) bool {
	if pattern == "..." {
		return true
	}
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return name == tree || strings.HasPrefix(name, tree+"/")
	}
	return name == pattern
}
