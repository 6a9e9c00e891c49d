package main

import "syscall"

// childAttr puts a child into a process group of its own, and has it killed when this process dies.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
