// Package check holds what must be true of a cluster, however it was treated: each check compares what clients and workers
// were told with what the cluster says in the end, and returns one line for everything that does not fit.
package check
