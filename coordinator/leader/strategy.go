package leader

import "strings"

// unit is what a strategy removes.
type unit uint8

const (
	// weights: single weights, a fraction per group.
	weights unit = iota
	// overall: single weights, one fraction for the whole network.
	overall
	// channels: whole channels, a fraction per prunable group.
	channels
	// both: channels first, then a fraction of the remaining weights.
	both
)

// unitOf tells what a strategy removes from its name: "channel…" and "filter…" remove channels, "hybrid…" removes
// channels and weights, "…-global" removes weights by one fraction for the whole network, any other name removes weights
// by a fraction per group. The names are those of the pruning registry, which the coordinator must not import.
func unitOf(strategy string) unit {
	switch {
	case strings.HasPrefix(strategy, "channel"), strings.HasPrefix(strategy, "filter"):
		return channels
	case strings.HasPrefix(strategy, "hybrid"):
		return both
	case strings.HasSuffix(strategy, "-global"):
		return overall
	}
	return weights
}

// filter returns the strategies whose unit is one of those given.
func filter(strategies []string, units ...unit) []string {
	var out []string
	for _, s := range strategies {
		for _, u := range units {
			if unitOf(s) == u {
				out = append(out, s)
			}
		}
	}
	return out
}
