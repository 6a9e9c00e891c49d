// Package store is the replicated record of jobs, tasks, trials, fronts, workers,
// devices, data sets and files: Raft, with its log and the state on bbolt.
//
// A change is a command (proto/espalier/v1 Command). Apply commits it on the leader
// and returns what it did; every replica applies the same commands in the same order
// to its own state file. Reads go through View, which sees one consistent state of
// this replica; Barrier and Linearizable say how fresh that state is.
//
// DESIGN.md beside this file explains the files on disk, what happens after a crash,
// and the traps of the libraries underneath.
package store
