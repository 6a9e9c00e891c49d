//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// process is one program on a host, which is started again when it ends although it should run.
type process struct {
	name    string
	host    *host
	disk    *disk // may be nil
	args    []string
	env     []string
	logPath string
	// line sees every line that the process says.
	line func(p *process, line []byte)
	// died is told of an end that nobody asked for.
	died func(p *process, state string)

	mu      sync.Mutex
	wanted  bool
	stopped bool // by SIGSTOP
	cmd     *exec.Cmd
	done    chan struct{} // closed when cmd has ended
	starts  int
	excused bool // the next end is the harness's own doing
	killed  bool // by kill -9
	wg      sync.WaitGroup
}

// restartAfter is how long a process that died stays down.
const restartAfter = time.Second

// start starts the process unless it runs.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = true
	return p.startLocked()
}

func (p *process) startLocked() error {
	if p.runningLocked() {
		return nil
	}
	log, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	p.starts++
	fmt.Fprintf(log, "---- start %d at %s\n", p.starts, time.Now().Format(time.RFC3339Nano))
	cmd := p.host.command(p.args...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, in, err := os.Pipe()
	if err != nil {
		return errors.Join(err, log.Close())
	}
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", p.name, err), log.Close(), in.Close(), out.Close())
	}
	_ = in.Close()
	p.cmd, p.done, p.stopped, p.excused, p.killed = cmd, make(chan struct{}), false, false, false
	p.wg.Go(func() { p.follow(cmd, p.done, out, log) })
	return nil
}

func (p *process) runningLocked() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// follow reads what the process says until it ends, and starts it again if it should run.
func (p *process) follow(cmd *exec.Cmd, done chan struct{}, out *os.File, log io.WriteCloser) {
	r := bufio.NewReaderSize(out, 256<<10)
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			_, _ = log.Write(line)
			p.line(p, line)
		}
		if err != nil {
			break
		}
	}
	_ = cmd.Wait()
	_ = out.Close()
	fmt.Fprintf(log.(*os.File), "---- ended at %s: %s\n", time.Now().Format(time.RFC3339Nano), cmd.ProcessState)
	_ = log.Close()
	p.mu.Lock()
	excused := p.excused
	close(done)
	p.mu.Unlock()
	if excused {
		return
	}
	p.died(p, cmd.ProcessState.String())
	time.Sleep(restartAfter)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wanted {
		_ = p.startLocked() // if not, the next heal tries again
	}
}

func (p *process) signal(s os.Signal) {
	if p.runningLocked() {
		_ = p.cmd.Process.Signal(s)
	}
}

// kill ends the process as kill -9 does.
func (p *process) kill() { _ = p.end(syscall.SIGKILL, time.Minute) }

// terminate asks it to end, and tells whether it did in time and in order.
func (p *process) terminate(within time.Duration) error {
	p.resume()
	return p.end(syscall.SIGTERM, within)
}

func (p *process) end(s syscall.Signal, within time.Duration) error {
	p.mu.Lock()
	if s == syscall.SIGKILL || !p.excused { // asked to end again it would end at once: two restarts may meet in one server
		p.signal(s)
	}
	p.wanted, p.excused, p.killed = false, true, p.killed || s == syscall.SIGKILL
	running, cmd, done := p.runningLocked(), p.cmd, p.done
	p.mu.Unlock()
	if !running {
		return nil
	}
	select {
	case <-done:
	case <-time.After(within):
		_ = cmd.Process.Kill()
		<-done
		return fmt.Errorf("%s did not end within %v of signal %v", p.name, within, s)
	}
	p.mu.Lock()
	killed := p.killed
	p.mu.Unlock()
	if !killed && cmd.ProcessState.ExitCode() != 0 {
		return fmt.Errorf("%s ended with %s on signal %v", p.name, cmd.ProcessState, s)
	}
	return nil
}

// pause stops the process where it is.
func (p *process) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signal(syscall.SIGSTOP)
	p.stopped = true
}

// resume lets it go on.
func (p *process) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		p.signal(syscall.SIGCONT)
		p.stopped = false
	}
}

// pid is the process's number, 0 if it does not run.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.runningLocked() {
		return 0
	}
	return p.cmd.Process.Pid
}
