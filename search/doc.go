// Package search holds the values and interfaces of a search over configurations: the space of parameters, a
// configuration in it, a trial's result, and the sampler that proposes what to try next.
//
// Everything here is a plain value: nothing reads a clock, a file or a global random source. The algorithms live in
// the packages below this one, and package sampler lists them by name.
package search
