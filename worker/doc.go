// Package worker runs tasks: it claims them from the cluster's leader, keeps its
// leases alive with heartbeats, uploads what they make and reports how they ended,
// again and again until the leader has said what became of the report. A worker
// may be killed at any time; it loses its leases and nothing else.
package worker
