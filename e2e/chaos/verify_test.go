//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/e2e/chaos/check"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// put stores a file as replicas do.
func put(t *testing.T, data, hash, content string) {
	t.Helper()
	dir := filepath.Join(data, "files", hash[:2], hash[2:4])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, hash), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestWrongFilesAreFound(t *testing.T) {
	data := t.TempDir()
	good, bad := client.HashBytes([]byte("good"), "").GetHash(), client.HashBytes([]byte("bad"), "").GetHash()
	put(t, data, good, "good")
	if found := wrongFiles("s1", filepath.Join(data, "files")); len(found) > 0 {
		t.Errorf("a good file is said to be wrong: %v", found)
	}
	put(t, data, bad, "torn")
	if found := wrongFiles("s1", filepath.Join(data, "files")); len(found) != 1 || !strings.Contains(found[0], bad) {
		t.Errorf("found %v, want file %s", found, bad)
	}
}

func TestMissingFilesAreFound(t *testing.T) {
	dir := t.TempDir()
	data := func(replica string) string { return filepath.Join(dir, replica) }
	baseline, member := client.HashBytes([]byte("a"), "esp"), client.HashBytes([]byte("b"), "esp")
	s := &check.State{
		Jobs:   []*v1.JobStatus{{Job: &v1.Job{Id: "j", Devices: []string{"d"}, Baseline: &v1.Baseline{Checkpoint: baseline}}}},
		Fronts: map[string]map[string]*v1.Front{"j": {"d": {Members: []*v1.FrontMember{{Trial: 1, Artifacts: []*v1.FileRef{member}}}}}},
	}
	for i, f := range []*v1.FileRef{baseline, member} {
		if n := len(missingFiles(s, data)); n != 2-i {
			t.Errorf("%d of two files are on a majority, %d are said to be missing", i, n)
		}
		put(t, data("s1"), f.GetHash(), "")
		if n := len(missingFiles(s, data)); n != 2-i {
			t.Errorf("a file on one of three replicas is said to be safe")
		}
		put(t, data("s3"), f.GetHash(), "")
	}
	if found := missingFiles(s, data); len(found) > 0 {
		t.Errorf("all are there, found %v", found)
	}
}

func TestALeftProcessIsFound(t *testing.T) {
	cmd := exec.Command("sleep", "60.125")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found := strings.Join(leftProcesses(), "\n")
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if !strings.Contains(found, "60.125") {
		t.Errorf("the process is not found: %s", found)
	}
	if strings.Contains(strings.Join(leftProcesses(), "\n"), "60.125") {
		t.Error("a process that has ended is found")
	}
}

func TestALeakIsFound(t *testing.T) {
	before := resources{Goroutines: 80, Files: 30}
	for now, want := range map[resources]bool{
		{Goroutines: 90, Files: 25}:             true,
		{Goroutines: 80 + spare + 1, Files: 30}: false,
		{Goroutines: 80, Files: 30 + spare + 1}: false,
		{Goroutines: 0, Files: 30}:              false, // it does not answer
	} {
		if got := now.within(before); got != want {
			t.Errorf("%+v after %+v: %v, want %v", now, before, got, want)
		}
	}
}

func TestAProcessThatEndsByItselfIsFound(t *testing.T) {
	l := newLedger(func(string) {})
	c := &cluster{ledger: l, filled: map[string]bool{"s2": true}}
	c.died(&process{name: "s2"}, "exit status 1")
	if bad := l.broken(); len(bad) > 0 {
		t.Errorf("its disk was full: %v", bad)
	}
	c.died(&process{name: "s1"}, "exit status 1")
	if bad := l.broken(); len(bad) != 1 || !strings.Contains(bad[0], "s1 ended by itself") {
		t.Errorf("found %v", bad)
	}
}

// TestSmoke runs the whole suite for a moment.
func TestSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: a cluster of processes takes a minute")
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: network namespaces need root")
	}
	out, err := exec.Command("../../scripts/chaos", "--minutes", "0.05", "--seed", "4", "--dir", t.TempDir()).CombinedOutput()
	if ended, ok := errors.AsType[*exec.ExitError](err); ok && ended.ExitCode() == exitUse {
		t.Skipf("SKIPPED: no namespaces here: %s", out)
	}
	if err != nil || !strings.Contains(string(out), "everything held") {
		t.Errorf("%v\n%s", err, out)
	}
}
