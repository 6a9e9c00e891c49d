// Package leader is what only the leading replica does for the jobs themselves: it turns a job's specification and its
// baseline into a search space, asks the job's sampler for the next trials, and stops the job when a rule holds.
//
// It reads snapshots and proposes; dispatch commits the proposal together with the lease, so that a proposal that is not
// committed leaves no trace. Everything kept here is a cache of the store: Reset drops it, and a new leader that reads
// the same records proposes the same trials.
package leader
