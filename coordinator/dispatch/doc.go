// Package dispatch hands tasks to workers and takes their reports, over core NATS requests, while this replica leads.
//
// The store is the only truth. What is kept here — the pending tasks, the leases with their timers, the progress of what
// runs — is a cache: Enable builds it from the store, Disable drops it. See DESIGN.md beside this file.
package dispatch
