package train

import (
	"fmt"

	"gorgonia.org/gorgonia"
)

// machine runs a Gorgonia graph of operators in the goroutine that calls it,
// forward and backward, in an order that Gorgonia's sort gives. Gorgonia's own
// tape machine locks its caller to a thread and runs each time in a new
// goroutine, so on another thread, with cold caches: that cost a quarter of the
// step of a small network.
type machine struct {
	calls []call
}

// call is one operator with its inputs. Operators own their results, so only
// what Let changes has to be fetched again before a run.
type call struct {
	op   *operator
	in   []gorgonia.Value
	from []*gorgonia.Node // by input; nil where the value stays
}

var _ gorgonia.VM = (*machine)(nil)

// newMachine lists the operators of a graph.
func newMachine(g *gorgonia.ExprGraph) (*machine, error) {
	sorted, err := gorgonia.Sort(g)
	if err != nil {
		return nil, fmt.Errorf("sort: %w", err)
	}
	m := &machine{}
	for i := len(sorted) - 1; i >= 0; i-- { // what others need comes last
		op := operatorOf(sorted[i])
		if op == nil {
			continue
		}
		c := call{op: op}
		for inputs := g.From(sorted[i].ID()); inputs.Next(); {
			n := inputs.Node().(*gorgonia.Node)
			if o := operatorOf(n); o != nil {
				c.in, c.from = append(c.in, o.result), append(c.from, nil)
			} else {
				c.in, c.from = append(c.in, n.Value()), append(c.from, n)
			}
		}
		m.calls = append(m.calls, c)
	}
	return m, nil
}

// operatorOf is nil for inputs and constants.
func operatorOf(n *gorgonia.Node) *operator {
	switch o := n.Op().(type) {
	case *operator:
		return o
	case *differentiable:
		return o.operator
	}
	return nil
}

// RunAll runs all operators. It ends at the first error.
func (m *machine) RunAll() error {
	for i := range m.calls {
		c := &m.calls[i]
		for k, n := range c.from {
			if n != nil {
				c.in[k] = n.Value()
			}
		}
		if _, err := c.op.Do(c.in...); err != nil {
			return fmt.Errorf("%s: %w", c.op.name, err)
		}
	}
	return nil
}

// Reset does nothing: no run leaves anything behind.
func (m *machine) Reset() {}

// Close does nothing: there is nothing to give back.
func (m *machine) Close() error { return nil }
