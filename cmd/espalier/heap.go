package main

// heapFloorBytes is what the collector takes a server's heap for, at least. A server lives on few megabytes and makes many
// short-lived records: without a floor the collector would run many times a second under load.
const heapFloorBytes = 64 << 20

// heapFloor raises the heap at which the collector begins by as much. It is never touched, so that it takes no memory but
// what the heap may then grow to before it is collected: about twice as much.
//
//nolint:unused // being referred to is all it is for
var heapFloor []byte

func raiseHeapFloor() { heapFloor = make([]byte, heapFloorBytes) }
