// Package broker runs the embedded NATS server: the way of requests between workers
// and the leader, over whichever replica a worker is connected to. It stores nothing.
package broker
