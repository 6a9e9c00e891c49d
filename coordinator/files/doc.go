// Package files keeps immutable files named by their SHA-256 in a folder of each
// replica: uploads that resume, reads by range, verification in the background, and
// the choice of what garbage collection drops.
package files
