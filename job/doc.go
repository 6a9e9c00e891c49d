// Package job reads the job file: strict YAML in, a checked JobSpec out.
//
// It is a room of its own because three doors share it: the command line reads
// files with it, an embedded run checks with it, and the API checks what
// arrives as JSON or protobuf with the same rules.
package job

import (
	"errors"
	"fmt"
)

// Sentinels of this package.
var (
	// ErrSyntax: the file is not YAML, or uses YAML that job files do not allow.
	ErrSyntax = errors.New("invalid yaml")
	// ErrField: a field is unknown, has the wrong type or a value out of range,
	// or contradicts another. The text names the field, its line and its value.
	ErrField = errors.New("invalid job")
)

// Names are what a job may ask for by name: each list is what its registry has.
// A nil list is not checked.
type Names struct {
	Zoo        []string // built-in networks
	Strategies []string // pruning strategies
	Schedules  []string // pruning schedules
	Samplers   []string // search algorithms, `auto` among them
	Optimizers []string // of the training of the baseline
	Builtins   []string // built-in data sets
}

// MaxFileBytes bounds a job file.
const MaxFileBytes = 1 << 20

// FieldError is one wrong field. It is an ErrField.
type FieldError struct {
	Field string // as written in a job file, such as train.batch
	Line  int    // in the file; 0 if there is none
	Value string
	Want  string // what would be right
}

// Error names the line, the field, its value and what would be right.
func (e *FieldError) Error() string {
	s := e.Field
	if e.Line > 0 {
		s = fmt.Sprintf("line %d: %s", e.Line, e.Field)
	}
	if e.Value != "" {
		s += ": " + e.Value
	}
	return fmt.Sprintf("%v: %s: %s", ErrField, s, e.Want)
}

// Is makes every FieldError an ErrField.
func (e *FieldError) Is(target error) bool { return target == ErrField }
