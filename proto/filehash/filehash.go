// Package filehash knows the names of files: the SHA-256 of what is in them, in lower-case hexadecimal.
package filehash

// Digits is how many a name has.
const Digits = 64

// Valid tells whether name is one, so that it can be used as a file's name on a disk.
func Valid(name string) bool {
	for _, c := range []byte(name) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(name) == Digits
}
