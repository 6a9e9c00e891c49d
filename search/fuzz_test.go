package search

import (
	"encoding/json"
	"math"
	"testing"
)

// FuzzSpace reads a space and a configuration from untrusted text. Whatever is accepted must keep the space's laws.
func FuzzSpace(f *testing.F) {
	text, err := json.Marshal(pruning())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text), "[0,0.5,1,10,2,0.001]", uint64(1))
	f.Add(`{"params":[{"name":"a","kind":"int","min":-9007199254740992,"max":9007199254740992}]}`, "[1e300]", uint64(2))
	f.Add(`{"params":[{"name":"a","kind":"float","min":5e-324,"max":1e308,"log":true}]}`, "[null]", uint64(3))
	f.Add(`{"params":[{"name":"a","kind":"int","min":1,"max":9007199254740992,"log":true}]}`, "[-0.0]", uint64(4))
	f.Add(`{"params":[{"name":"a","kind":"float","min":-8e307,"max":8e307}]}`, "[]", uint64(5))
	f.Fuzz(func(t *testing.T, spaceText, configText string, seed uint64) {
		var s Space
		if json.Unmarshal([]byte(spaceText), &s) != nil || s.Validate() != nil || len(s.Params) > 50 {
			return
		}
		if size := s.Size(); !(size >= 1) {
			t.Fatalf("size is %v", size)
		}
		rng := Rand(seed, 0)
		configs := []Config{s.Sample(rng)}
		var read Config
		if json.Unmarshal([]byte(configText), &read) == nil && len(read) == len(s.Params) {
			configs = append(configs, s.Repair(read), s.Complete(read, rng))
		}
		for _, c := range configs {
			checkLaws(t, s, c)
		}
	})
}

func checkLaws(t *testing.T, s Space, c Config) {
	t.Helper()
	if err := s.Check(c); err != nil {
		t.Fatal(err)
	}
	if next := s.next(c); !s.Valid(next) {
		t.Fatalf("after %v comes %v: %v", c, next, s.Check(next))
	}
	values, err := s.Decode(c)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := s.Encode(values); err != nil || !back.Equal(c) {
		t.Fatalf("%v became %v: %v", c, back, err)
	}
	for i, v := range c {
		if math.IsNaN(v) {
			continue
		}
		p := s.Params[i]
		u := p.Unit(v)
		low, high := p.Cell(v)
		if !(u >= 0 && u <= 1 && low <= u && u <= high) {
			t.Fatalf("%s: %v is at %v in the cell [%v, %v]", p.Name, v, u, low, high)
		}
		if w := p.FromUnit(u); math.IsNaN(w) || p.Clip(w) != w {
			t.Fatalf("%s: %v at %v became %v", p.Name, v, u, w)
		}
	}
}
