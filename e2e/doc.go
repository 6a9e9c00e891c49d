// Package e2e tests the whole path with real processes: a server and workers that
// are killed, stopped and cut off at every step, while a search goes on. After
// each test the search has ended, every trial counts once, and the front is the one
// that all results give.
//
// The processes are this package's test binary, started again as a server or as a
// worker. Between them are proxies, which know where in the conversation a
// process is and can kill it there.
package e2e
