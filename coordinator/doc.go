// Package coordinator is one replica as a whole: it opens the store, the files and the broker, answers clients, and, while
// it leads, hands out tasks and searches. Server owns the order in which its parts start and stop.
package coordinator
