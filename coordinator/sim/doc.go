// Package sim runs the real leader, dispatcher, state machine and samplers against simulated workers and a simulated
// network, in one goroutine under a fake clock: a thousand trials take seconds, and the same seed takes the same course
// to the last step.
//
// Messages are lost, late, duplicated and overtaken; workers die in mid-task and come back, or sleep past the end of
// their lease and report all the same; leaders are replaced; commits succeed without saying so. After every step the
// records must agree with what the simulation knows happened: no acknowledged result is lost, none counts twice, and the
// front is what brute force over all measurements gives.
package sim
