// Package pareto compares points of several objectives, all of them better when lower: dominance, ranks, crowding,
// exact hypervolume, the front of non-dominated members and the fit for a budget.
//
// Objectives must not be NaN; infinities compare as usual. Membership is decided by comparisons alone; only volumes and
// distances are computed, always summed in the same order.
package pareto
