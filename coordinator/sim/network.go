package sim

import (
	"time"
)

// noResponders stands for the broker's answer when nobody is subscribed.
type noResponders struct{}

// request carries a request to the leader and its reply back. handle runs at the leader; got runs at the worker with the
// reply, or with noResponders at once if nobody leads, or never.
func (s *sim) request(handle func() any, got func(any)) {
	s.send(func() {
		if !s.leading {
			got(noResponders{})
			return
		}
		reply := handle()
		s.send(func() { got(reply) })
	})
}

// send carries one message, as the network likes.
func (s *sim) send(deliver func()) {
	s.counts.Messages++
	if s.chance(s.cfg.Lose) {
		s.counts.Lost++
		return
	}
	copies := 1
	if s.chance(s.cfg.Duplicate) {
		s.counts.Duplicated++
		copies = 2
	}
	for range copies {
		delay := s.between(time.Millisecond, 10*time.Millisecond)
		if s.chance(s.cfg.Late) {
			s.counts.Late++
			delay = s.between(time.Second, 20*time.Second)
		}
		s.after(delay, deliver)
	}
}
