package api

import (
	"errors"

	"connectrpc.com/connect"

	"github.com/espalier-ml/espalier/job"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/filehash"
)

// checkSpec fills in the defaults of a specification, as a job file's, and reports its wrong fields.
func checkSpec(s *v1.JobSpec, known job.Names) error {
	if s == nil {
		return invalid("spec", "", "there")
	}
	job.Defaults(s, known)
	if err := job.Validate(s, known); err != nil {
		return fieldErrors(err)
	}
	if err := checkLabel("name", s.GetName()); err != nil {
		return err
	}
	return checkHash("data.hash", s.GetData().GetHash())
}

// fieldErrors gives the joined errors of package job their code, and a detail for each field.
func fieldErrors(err error) error {
	e := connect.NewError(connect.CodeInvalidArgument, err)
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, one := range all {
		if f := (&job.FieldError{}); errors.As(one, &f) {
			_ = withDetail(e, &v1.ErrorDetail{Field: f.Field, Value: f.Value, Want: f.Want})
		}
	}
	return e
}

// checkLabel checks a name that people give.
func checkLabel(field, name string) error {
	if name == "" || len(name) > 100 {
		return invalid(field, name, "of 1 to 100 bytes")
	}
	for _, r := range name {
		if r < 0x20 || r == 0x7f || r == '/' || r == '\\' {
			return invalid(field, name, "without slashes and control characters")
		}
	}
	return nil
}

func checkHash(field, name string) error {
	if !filehash.Valid(name) {
		return invalid(field, name, "64 lower-case hexadecimal digits")
	}
	return nil
}

func checkBudget(field string, b *v1.Budget) error {
	if err := job.ValidateBudget(field, b); err != nil {
		return fieldErrors(err)
	}
	return nil
}
