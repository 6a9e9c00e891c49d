//go:build !linux

package e2e

import "errors"

func mountTiny(string, string) error { return errors.ErrUnsupported }

func unmountTiny(string) error { return errors.ErrUnsupported }
