// Command chaos runs a real cluster of processes, each in a network namespace of its own, breaks it in every way that a
// seed decides, and checks what Espalier promises: acknowledged results are all there and counted once, fronts are equal
// on all replicas and to brute force, the history of job operations is linearizable, nothing hangs and nothing leaks.
//
//	scripts/chaos --minutes N --seed S
//
// The same program is the cluster's sandbox (it starts itself in fresh namespaces, which the kernel takes away with it,
// however it ends), the clients, the scheduler of faults, and the simulated workers.
package main
