//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// insideEnv names the run's folder to the program in the sandbox.
	insideEnv = "ESPALIER_CHAOS_DIR"
	// dirPrefix begins the names of all runs' folders.
	dirPrefix = "espalier-chaos-"
	// lockName is locked while a run uses its folder.
	lockName = "lock"
	// keptName marks a folder that is kept for people to look at.
	keptName = "kept"
)

// outside starts this program again in namespaces of its own for processes, network and mounts. They end with it, and
// with them all that it started, whatever happens to it.
func outside(ctx context.Context, o options, args []string) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "chaos: network namespaces need root: run it as root or with sudo")
		return exitUse
	}
	for _, tool := range []string{"ip", "nft", "tc", "mount", "mkfs.ext4"} {
		if _, err := exec.LookPath(tool); err != nil {
			fmt.Fprintf(os.Stderr, "chaos: %s is missing: install iproute2, nftables, mount and e2fsprogs\n", tool)
			return exitUse
		}
	}
	if _, err := os.Stat(o.Binary); err != nil {
		fmt.Fprintf(os.Stderr, "chaos: --binary: %v: build it with `go build -tags faults -o %s ./cmd/espalier`\n", err, o.Binary)
		return exitUse
	}
	removeLeftovers(o.Dir)
	dir, lock, err := runFolder(o)
	if err != nil {
		return fail(err)
	}
	defer lock.Close()
	code := enter(ctx, dir, args)
	if code == exitBroken || o.Keep {
		_ = os.WriteFile(filepath.Join(dir, keptName), nil, 0o644)
		fmt.Fprintf(os.Stderr, "chaos: seed %d: in %s are logs, evidence.json (what was compared in the end) and each process's disk.img (mount -o loop)\n", o.Seed, dir)
		return code
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
	}
	return code
}

// runFolder makes and locks the run's folder.
func runFolder(o options) (string, *os.File, error) {
	dir, err := os.MkdirTemp(o.Dir, fmt.Sprintf("%sseed-%d-", dirPrefix, o.Seed))
	if err != nil {
		return "", nil, err
	}
	lock, err := os.Create(filepath.Join(dir, lockName))
	if err != nil {
		return "", nil, err
	}
	return dir, lock, unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

// removeLeftovers removes the folders of runs that were killed.
func removeLeftovers(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, dirPrefix+"*"))
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, keptName)); err == nil {
			continue
		}
		lock, err := os.Open(filepath.Join(dir, lockName))
		if err != nil {
			continue
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(dir)
		}
		_ = lock.Close()
	}
}

// enter runs this program in the sandbox and returns its exit code.
func enter(ctx context.Context, dir string, args []string) int {
	// The signal for the parent's death is that of the thread which started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), insideEnv+"="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL, Setpgid: true,
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos: no namespaces here:", err)
		return exitUse
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	err := cmd.Wait()
	var ended *exec.ExitError
	if errors.As(err, &ended) && ended.ExitCode() >= 0 {
		return ended.ExitCode()
	}
	return fail(err)
}

// furnish makes the sandbox habitable: its own /proc, a place for named network namespaces, and the bridge.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run/netns", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /run/netns: %w", err)
	}
	for _, c := range []string{
		"ip link set lo up", "ip link add " + bridge + " type bridge", "ip addr add " + harnessIP + "/24 dev " + bridge, "ip link set " + bridge + " up",
	} {
		if err := command(strings.Fields(c)...); err != nil {
			return err
		}
	}
	return nil
}

// command runs a program to its end.
func command(args ...string) error {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
