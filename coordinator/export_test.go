package coordinator

import "time"

// FastSweeps makes a replica look at its files often.
func FastSweeps(c *Config) { c.sweepPause, c.sweepInterval = 50*time.Millisecond, 200*time.Millisecond }

// CommandsOf is the newest kind of command that a replica knows, as this one has it on record.
func (s *Server) CommandsOf(id string) uint32 { return s.recorded(id).GetCommands() }
