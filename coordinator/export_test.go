package coordinator

import "time"

// FastSweeps makes a replica look at its files often.
func FastSweeps(c *Config) { c.sweepPause, c.sweepInterval = 50*time.Millisecond, 200*time.Millisecond }
