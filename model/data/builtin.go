package data

import "fmt"

// Builtins are the names that Builtin takes.
func Builtins() []string { return []string{"shapes"} }

// Builtin generates a built-in data set by name and splits it by o.Split.
func Builtin(name string, o Options) (*Set, error) {
	if name != "shapes" {
		return nil, fmt.Errorf("%w: built-in data set %q: want one of %q", ErrOption, name, Builtins())
	}
	if err := o.noColumns(); err != nil {
		return nil, err
	}
	s, err := Shapes(ShapesOptions{Split: o.Split})
	if err != nil {
		return nil, err
	}
	if o.Name != "" {
		s.Name = o.Name
	}
	return s, nil
}
